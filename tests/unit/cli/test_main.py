"""The command line: every command explains itself, and every mistake is one line and status 2."""

import os
import shlex
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from napctl import __version__
from napctl.cli import options
from napctl.cli.compare import compare as COMPARE  # noqa: N812 - beside the module of that name
from napctl.cli.main import COMMANDS, cli
from napctl.cli.options import Duration
from napctl.cli.text.table import number, print_table
from napctl.experiment.treatments import is_known
from napctl.load.process import LoadCommand, parse_rates
from napctl.model.units import duration_text

PROGRAM = Path(sys.executable).with_name("napctl")


def napctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"], prog_name="napctl")

    assert shown.exit_code == 0
    assert f"Usage: napctl {command}" in shown.output
    assert "Example" in shown.output
    assert f"  napctl {command}" in shown.output.partition("Example")[2] or f"(napctl {command}" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 80


def test_the_program_lists_every_command_and_every_exit_status() -> None:
    shown = napctl("--help")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(f"  {command} " in shown.stdout for command in COMMANDS)
    assert all(f"  {status}  " in shown.stdout for status in range(7))
    assert shown.stdout == napctl("-h").stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_help_groups_the_commands_by_what_one_wants_to_do() -> None:
    lines = napctl("--help").stdout.splitlines()
    groups = {
        "See": "status watch doctor",
        "Attach": "attach attached run detach",
        "Protect": "protect",
        "Settings": "plan apply confirm rollback history verify export recover",
        "Service": "policy daemon pause why guard",
        "Measure": "demo compare report energy lab",
        "Other": "completion",
    }

    for title, commands in groups.items():
        start = lines.index(f"{title}:") + 1
        section = lines[start : lines.index("", start)]
        assert [line.split()[0] for line in section] == commands.split()
    assert sorted(" ".join(groups.values()).split()) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_begins_with_one_short_sentence(command: str) -> None:
    words = cleandoc(cli.get_command(click.Context(cli), command).help or "")  # type: ignore[union-attr]
    first = words.partition("\n\n")[0]

    assert first[0].isupper()
    assert first.endswith(".")
    assert len(first) < 140


def test_without_a_command_it_shows_its_help() -> None:
    shown = napctl()

    assert "Usage: napctl" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


def test_it_tells_its_version() -> None:
    assert napctl("--version").stdout.strip() == f"napctl, version {__version__}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate", "frobnicate"),
        ("status --frobnicate", "--frobnicate"),
        ("--frobnicate", "--frobnicate"),
        ("attach", "TARGET"),
        ("plan --goal fast", "resilient' (see"),
        ("export -", "from: ethtool, systemd-link, networkmanager, ansible (see"),
        ("attach one two", "two"),
        ("attach x --defer-us", "--defer-us"),
        ("attach x --defer-us soon", "auto"),
        ("attach x --defer-hard-irqs many", "many"),
        ("detach", "TARGET"),
        ("detach x --all", "TARGET"),
        ("watch --seconds -1", "-1"),
        ("watch --seconds nan", "nan"),
        ("watch --interval 0", "0"),
        ("completion tcsh", "tcsh"),
        ("recover now", "now"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(line: str, words: str) -> None:
    done = napctl(*line.split())

    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("napctl: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "--help" in done.stderr


@pytest.mark.parametrize("line", ["attach 1 --busy-poll-usecs 10001", "run --busy-poll-usecs 10001 -- true"])
def test_a_spin_that_cannot_be_killed_for_long_needs_force(line: str) -> None:
    done = napctl(*line.split())

    assert done.returncode == 2
    assert done.stderr == (
        "napctl: --busy-poll-usecs 10001: a task that spins in epoll_wait cannot be killed until it runs out; "
        "more than 10,000 µs needs --force\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--timer-range 20us..50us", "only who stays can adapt; add --stay"),
        ("--prefer latency", "only who stays can adapt; add --stay"),
        ("--stay --timer-range 20us..50us", "adapting needs a --latency-budget"),
        ("--stay --latency-budget 1ms --timer-range 20us..50us --defer-us 20", "--defer-us sets the timer"),
        ("--latency-budget 1ms --defer-us 20", "--latency-budget: --defer-us sets the timer"),
        ("--stay --latency-budget 1ms --irq-suspend-timeout 10s", "waits so long at each change"),
        ("--latency-budget 25ms --irq-suspend-timeout 200us", "must be longer than the timer, here up to 200us"),
        ("--stay --latency-budget 1ms --timer-range 50us..20us", "is empty"),
        ("--stay --latency-budget 1ms --timer-range 0..20us", "a timer is longer than 0"),
        ("--stay --latency-budget 1ms --timer-range 20us..20ms", "the suspend timer (irq-suspend-timeout) is 20ms"),
        ("--stay --latency-budget 1ms --irq-suspend-timeout 100us", "the timer range ends at 200us, but"),
        ("--stay --latency-budget 1ms --timer-range 20us", "is no range of times"),
        ("--stay --latency-budget 1ms --timer-range 20us..50us..70us", "is no range of times"),
    ],
)
def test_what_cannot_be_adapted_is_one_line_and_status_2(options: str, words: str) -> None:
    done = napctl("attach", "1", *options.split())

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@given(st.integers(0, 2**63))
def test_a_duration_is_read_as_it_is_printed(ns: int) -> None:
    assert Duration(most_ns=2**63).convert(duration_text(ns), None, None) == ns


@given(st.integers(10 * 10**9 + 1, 2**70))
def test_a_duration_out_of_bounds_is_refused(ns: int) -> None:
    with pytest.raises(click.BadParameter, match="is not between 0 and 10s"):
        Duration().convert(duration_text(ns), None, None)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0), ("200us", 200_000), ("200µs", 200_000), ("20ms", 20_000_000), ("1.5ms", 1_500_000), ("1s", 10**9),
        ("7ns", 7), ("0.29s", 290_000_000), ("1.001ms", 1_001_000), ("4.35us", 4350),
    ],
)  # fmt: skip
def test_a_duration_is_exact(text: str, ns: int) -> None:
    assert Duration().convert(text, None, None) == ns


@given(st.text(max_size=12) | st.from_regex(r"-?[0-9.e]{1,4}(us|ms|m|h|s)?", fullmatch=True))
def test_other_text_is_refused_as_bad_input_and_never_otherwise(text: str) -> None:
    with suppress(click.BadParameter):
        assert Duration().convert(text, None, None) >= 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    shown = napctl("completion", shell)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "_NAPCTL_COMPLETE" in shown.stdout
    assert f"{shell}_complete" in shown.stdout


@pytest.mark.parametrize(("words", "offered"), [("napctl st", "status"), ("napctl attach --def", "--defer-us")])
def test_completion_offers_commands_and_options(words: str, offered: str) -> None:
    environment = {"_NAPCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert offered in done.stdout


BASH = """
source <(napctl completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=(napctl) COMP_CWORD=1
_napctl_completion napctl
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("napctl att", "attach"),
        ("napctl attach port:", "{port}"),
        ("napctl attach --stay :", "{port}"),
        ("napctl attach port", "port:{port}"),
    ],
)
def test_bash_completes_words_with_a_colon_behind_it(line: str, offered: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", BASH, "bash", line], env={"PATH": path}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    assert done.stderr == ""
    assert offered.format(port=port) in done.stdout.splitlines()


def test_only_what_begins_like_the_word_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Link("ens1"), Link("ens2"), Link("ens\x1b[2J"), Link("wlan0", alternative_names=("uplink",))]
    monkeypatch.setattr(options, "links", lambda: found)
    command = CliRunner()
    words_and_names = {"plan en": ["ens1", "ens2"], "plan --speed wl": ["wlan0="], "status up": ["uplink"]}
    for words, names in ((f"napctl {line}", names) for line, names in words_and_names.items()):
        environment = {"_NAPCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        shown = command.invoke(cli, env=environment, prog_name="napctl").output
        assert shown.splitlines() == [f"plain,{name}" for name in names]


@dataclass
class Link:
    name: str
    loopback: bool = False
    alternative_names: tuple[str, ...] = ()


def test_the_examples_of_compare_are_such_as_compare_takes() -> None:
    shown = napctl("compare", "--help").stdout.partition("Examples:")[2].replace("\\\n", " ")
    examples = [shlex.split(line)[2:] for line in shown.splitlines() if line.strip()]
    assert len(examples) == 7
    for words in examples[:-1]:  # the last one goes on with a run that is not there
        with COMPARE.make_context("compare", list(words)) as context:
            given = context.params
            assert sum(bool(given[name]) for name in ("lab", "live", "load")) == 1
            rates = parse_rates(given["rates"]) if given["rates"] else ()
            if given["load"]:
                LoadCommand.of(given["load"]).check(rates)
            for name in given["treatments"]:
                assert is_known(name)


def test_every_help_text_names_only_options_that_exist() -> None:
    for command in COMMANDS:
        shown = CliRunner().invoke(cli, [command, "--help"]).output
        examples = [line.split() for line in shown.partition("Example")[2].splitlines() if line.startswith("  napctl")]
        for words in examples:
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert options <= set(shown.partition("Options:")[2].replace(",", " ").split()), words


PLAN = """\
[napctl-plan-file]
schema = 1
goal = "balanced"
max-added-latency = "50us"
[eth0]
rx-queues = 1
tx-queues = 1
[eth0.coalescing]
rx-usecs = 50
"""


def test_an_export_says_aloud_that_a_part_of_the_plan_is_not_in_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    for more, warned in (("", False), ('[eth0.deferral]\ngro-flush-timeout = "50us"\n', True)):
        plan.write_text(PLAN + more)
        done = napctl("export", str(plan), "--format", "ethtool")
        assert "rx-usecs 50" in done.stdout
        assert (done.returncode, "NOT HERE" in done.stderr) == (0, warned)


def test_an_export_of_nothing_is_one_line_and_status_3(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.partition("[eth0.coalescing]")[0] + '[eth0.deferral]\ngro-flush-timeout = "50us"\n')
    done = napctl("export", str(plan), "--format", "ethtool", "--output", str(tmp_path / "script"))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert not (tmp_path / "script").exists()


def test_a_table_ends_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("device", "now"), [("eth0", "3"), ("a device", "50")], indent=2)
    assert capsys.readouterr().out == "  device    now\n  eth0        3\n  a device   50\n"


def test_whole_numbers_are_shown_whole() -> None:
    assert [number(each) for each in (7, 7.0, 1234, 12.34, 0, None)] == ["7", "7.00", "1,234", "12.3", "0", "–"]
