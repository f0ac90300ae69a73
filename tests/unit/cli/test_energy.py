"""napctl energy: the command runs as if it were alone, and what is said of its energy is true."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from napctl.kernel.energy.sources import Roots
from napctl.observe.energy import EnergyMeter
from tests.unit.energy_trees import INTEL, Tree

pytestmark = pytest.mark.heavy

PROGRAM = Path(sys.executable).with_name("napctl")


def napctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def in_tree(tree: Tree, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same, on a machine with the sources of that tree."""
    code = (
        "import sys; from pathlib import Path; import napctl.cli.energy as energy; import napctl.cli.main as main;"
        "from napctl.kernel.energy.sources import Roots; root = Path(sys.argv.pop(1));"
        "energy.ROOTS = Roots(root / 'sys', root / 'proc', root / 'dev', str(root / 'bin/ipmitool')); main.run()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, tree.root, "energy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.cpu(INTEL)
    return tree


def one_line(stderr: str) -> str:
    return " ".join(stderr.split())


def test_this_machine_is_measured_or_said_to_be_unmeasurable_and_the_exit_status_is_the_commands() -> None:
    with EnergyMeter(Roots()) as meter:
        why, sources = meter.why, meter.sources

    done = napctl("energy", "--json", "--", "sh", "-c", "sleep 0.3; echo its own; exit 7")
    its_own, report = done.stdout.splitlines()
    found = json.loads(report)

    assert (done.returncode, its_own, found["exit_status"]) == (7, "its own", 7)
    assert found["energy"]["why"] == why
    assert {kind["kind"]: kind["source"] for kind in found["energy"]["kinds"]} == sources
    assert bool(why) != bool(sources)
    if why:
        assert why.startswith("not measurable here: ")
        assert len(found["energy"]["lacks"]) >= 4
        assert '"joules"' not in report


def test_where_nothing_can_be_measured_no_joule_is_printed(tree: Tree) -> None:
    done = in_tree(tree, "--idle", 5, "--", "sh", "-c", "echo out; exit 3")

    assert (done.returncode, done.stdout) == (3, "out\n")
    said = one_line(done.stderr)
    assert "energy: not measurable here: no source has an energy counter" in said
    assert "IPMI: no BMC" in said
    assert " J" not in said
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_joules_and_watts_are_printed_for_each_kind_with_its_source(tree: Tree) -> None:
    counters = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    for _ in range(3):
        first, still, last = (tree.zone(zone, name, 1_000_000) for zone, name in counters.items())
        script = "; ".join(
            f"echo {uj} > {file}.new; mv {file}.new {file}" for file, uj in ((first, 6_000_000), (last, 13_500_000))
        )
        done = in_tree(tree, "--", "sh", "-c", f"{script}; echo out")
        if "stood still" not in done.stderr:  # on a busy machine our own counters may move too late
            break

    said = one_line(done.stderr)
    assert (done.returncode, done.stdout, still.read_text()) == (0, "out\n", "1000000\n")
    assert "package (the processors; powercap): no figure: package-1: the counter did not move" in said
    assert "package-0: 5.00 J" in said
    assert "psys (the board, as the processor tells it; powercap): 12.5 J" in said
    assert "CPU time" in said
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_the_idle_baseline_and_the_joules_above_it_are_shown_beside(tree: Tree) -> None:
    tree.hwmon(0, "power_meter", power1_average=50_000_000)
    sensor = tree.root / "sys/class/hwmon/hwmon0/power1_average"
    script = f"echo 150000000 > {sensor}.new; mv {sensor}.new {sensor}; sleep 1.5"

    done = in_tree(tree, "--idle", 0.5, "--json", "--", "sh", "-c", script)
    found = json.loads(done.stdout)

    (platform,) = found["energy"]["kinds"]
    (idle,) = found["idle"]["kinds"]
    assert idle["watts"] == pytest.approx(50)
    assert found["idle"]["seconds"] == pytest.approx(0.5, abs=0.4)
    assert 50 < platform["watts"] < 150
    assert found["above_idle_joules"]["platform"] == pytest.approx(
        platform["joules"] - 50 * platform["zones"][0]["seconds"]
    )
    assert found["estimate"] is None
    tree.hwmon(0, "power_meter", power1_average=50_000_000)
    said = one_line(in_tree(tree, "--idle", 0.5, "--", "sh", "-c", script).stderr)
    assert "platform (the whole machine; hwmon): " in said
    assert "idle: 50.0 W; above that: " in said


def test_an_estimate_appears_only_if_both_figures_are_given_and_says_what_it_is(tree: Tree) -> None:
    without = in_tree(tree, "--", "sleep", 0.3)
    assert "estimate" not in without.stderr

    asked = ["--idle-watts", 40, "--busy-watts", 100]
    with_it = in_tree(tree, *asked, "--", "sleep", 0.3)
    assert "estimate, not measured: " in with_it.stderr
    assert "40 W idle, 100 W busy" in one_line(with_it.stderr)
    report = json.loads(in_tree(tree, *asked, "--json", "--", "sleep", 0.3).stdout)
    figures, share = report["estimate"], report["energy"]["cpu_share"]
    assert figures["watts"] == pytest.approx(40 + 60 * share)
    assert figures["joules"] == pytest.approx(figures["watts"] * report["energy"]["seconds"])
    assert report["energy"]["kinds"] == []
    assert "estimate: none" in in_tree(tree, *asked, "--", "true").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--idle-watts", 40, "--", "true"], "both --idle-watts and --busy-watts"),
        (["--idle-watts", 40, "--busy-watts", 30, "--", "true"], "less than"),
        (["--idle-watts", "nan", "--busy-watts", 30, "--", "true"], "nan"),
        (["--idle", 0, "--", "true"], "0.5"),
        (["--frobnicate", "--", "true"], "--frobnicate"),
        (["--", "/no/such/command"], "/no/such/command: No such file or directory"),
        ([], "COMMAND"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: list[object], words: str) -> None:
    done = napctl("energy", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def started(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [PROGRAM, "energy", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_the_report_is_still_made(number: signal.Signals) -> None:
    script = f"trap 'echo caught; exit 5' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with started("--json", "--", "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        output, _ = running.communicate(timeout=60)
    caught, report = output.splitlines()
    assert (running.returncode, caught, json.loads(report)["exit_status"]) == (5, "caught", 5)


def test_ctrl_c_is_left_to_the_command() -> None:
    with started("--", "sh", "-c", "echo ready; sleep 0.5; exit 4") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)  # to napctl alone; a terminal sends it to the command too
        _, said = running.communicate(timeout=60)
    assert running.returncode == 4
    assert "exit status 4" in one_line(said)


def test_a_command_that_a_signal_ended_is_told_as_the_shell_does() -> None:
    assert napctl("energy", "--", "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_the_cpu_time_is_that_of_the_command_and_its_children() -> None:
    burn = "import os, time\nwhile sum(os.times()[:2]) < 0.3: pass"
    done = napctl("energy", "--json", "--", "sh", "-c", f"{sys.executable} -c '{burn}'; true")
    report: dict[str, Any] = json.loads(done.stdout)
    assert 0.3 <= report["cpu_user_seconds"] + report["cpu_system_seconds"] < 3


def test_options_behind_the_command_are_the_commands() -> None:
    began = time.monotonic()
    done = napctl("energy", "echo", "--json", "--idle", 60)
    assert done.stdout == "--json --idle 60\n"
    assert time.monotonic() - began < 30
