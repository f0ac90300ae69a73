"""Names that others chose: none speaks to the terminal, or forges a line; alternative ones mean the same device."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from napctl.cli.terminal import CLEAR
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.helpers import PROGRAM, Napctl, another_memcached, ask, at_server, in_namespace, on_a_terminal
from tests.lab.plans import HEAD, TUN, frames_of, set_frames, two_devices, write_plan

pytestmark = pytest.mark.lab

DEVICE = "\x1b[2J\u202e\x9b31mx"
"""Whatever a container's root likes, but for "/" and whitespace (dev_valid_name() in net/core/dev.c)."""
PROCESS = "m\x1b[31m\nforged"
"""Whatever its user likes."""
PORT = 8199


@pytest.fixture
def wild(lab: Lab, tmp_path: Path) -> Iterator[Server]:
    """A server with such a name, fed by a device with such a name."""
    program = tmp_path / PROCESS
    shutil.copy(str(shutil.which("memcached")), program)
    in_namespace(lab.server.namespace, "ip", "link", "set", "server0", "name", DEVICE)
    with another_memcached(lab, PORT, program=str(program)) as server, ask(lab, server):
        yield server


def both_ways(napctl: Napctl, *arguments: object) -> Iterator[tuple[str, str]]:
    """(all that it writes into pipes, all that it writes to a terminal)."""
    done = napctl(*arguments)
    yield "in a pipe", done.stdout + done.stderr
    yield "on a terminal", written_to_a_terminal([str(PROGRAM), *map(str, arguments)], napctl.environment)


def written_to_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command writes to a terminal of its own, without what napctl and rich themselves move the cursor by."""
    text = on_a_terminal(command, environment | {"TERM": "xterm"}).stdout.replace("\r\n", "\n").replace(CLEAR, "")
    for own in ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\x1b[1m", "\x1b[0m", "\r"):
        text = text.replace(own, "")
    return text


READING = ("status", "watch --seconds 0.3 --interval 0.1", "doctor --seconds 0.3", "plan DEVICE --window 0s",
           "verify DEVICE --pairs 2 --seconds 0.1", "status nosuch", "export nosuch --format ethtool")  # fmt: skip


@pytest.mark.parametrize("command", READING)
def test_no_name_speaks_to_the_terminal(command: str, lab: Lab, wild: Server, napctl: Napctl) -> None:
    words = [DEVICE if word == "DEVICE" else word for word in command.split()]
    where = () if command.startswith("export") else at_server(lab)
    for how, text in both_ways(napctl, *words, *where):
        assert all(letter.isprintable() or letter == "\n" for letter in text), (how, text)
        assert not any(line.startswith("forged") for line in text.splitlines()), (how, text)
        assert command.startswith(("export", "verify")) or "\\x1b[2J\\u202e\\x9b31mx" in text, (how, text)


def test_no_name_speaks_while_something_is_attached(lab: Lab, wild: Server, napctl: Napctl) -> None:
    commands = (
        ["attach", wild.pid, "--dry-run"],
        ["attach", wild.pid, "--window", "0.2s", "--defer-us", 50],
        ["attached", "--interval", 0.2],
        ["status", *at_server(lab)],
        ["history"],
        ["history", 1],
        ["detach", "nobody"],
        ["detach", wild.pid],
    )
    for arguments in commands:
        for how, text in (
            both_ways(napctl, *arguments) if arguments[0] != "detach" else [("", output(napctl, arguments))]
        ):
            assert all(letter.isprintable() or letter == "\n" for letter in text), (arguments, how, text)
            assert not any(line.startswith("forged") for line in text.splitlines()), (arguments, how, text)


def output(napctl: Napctl, arguments: Sequence[object]) -> str:
    done = napctl(*arguments)
    return done.stdout + done.stderr


def test_json_is_printable_and_has_the_true_names(lab: Lab, wild: Server, napctl: Napctl) -> None:
    attached = napctl("attach", wild.pid, "--window", 0, "--json", "--defer-us", 50)
    assert attached.stdout.removesuffix("\n").isprintable()
    assert attached.json["transaction"]["name"] == PROCESS
    done = napctl("status", "--json", *at_server(lab))
    assert done.stdout.removesuffix("\n").isprintable()
    (device,) = done.json["devices"]
    (poller,) = done.json["pollers"]
    assert (device["name"], poller["name"]) == (DEVICE, PROCESS)
    assert napctl("detach", wild.pid, "--json").status == 0


# Alternative names

UPLINK = "a-name-that-is-longer-than-the-15-letters-of-others"


@pytest.fixture
def two() -> Iterator[Lab]:
    """Both devices of two_devices() have another name as well."""
    with two_devices() as lab:
        for device, other in (("tun0", UPLINK), ("server0", "front")):
            in_namespace(lab.server.namespace, "ip", "link", "property", "add", "dev", device, "altname", other)
        yield lab


def test_an_alternative_name_means_its_device_everywhere(two: Lab, napctl: Napctl, tmp_path: Path) -> None:
    here = at_server(two)
    shown = napctl("status", UPLINK, "tun0", *here)
    assert shown.stdout.count(f"tun0 (also {UPLINK}): tun, up") == 1, shown
    (device,) = napctl("status", UPLINK, "--json", *here).json["devices"]
    assert (device["name"], device["alternative_names"]) == ("tun0", [UPLINK])

    watched = napctl("watch", "front", "--seconds", 0.2, "--json", *here).json
    assert {napi["device"] for napi in watched["napis"]} == {"server0"}
    looked = napctl("doctor", "front", "--seconds", 0.2, "--json", *here).json
    assert [each["name"] for each in looked["checkup"]["machine"]["devices"]] == ["server0"]

    plan = tmp_path / "plan.toml"
    set_frames(two.server.namespace, 32)
    napctl("plan", UPLINK, "--goal", "latency", "--speed", f"{UPLINK}=10G", "--window", 0, "--output", plan, *here)
    assert "[tun0]" in plan.read_text()
    assert napctl("plan", UPLINK, "--speed", "front=10G", *here).failed_with(
        2, "no plan is made for front, but for tun0"
    )

    write_plan(plan)
    plan.write_text(plan.read_text().replace("tun0", UPLINK))
    done = napctl("apply", plan, *here)
    assert done.status == 0, done
    assert frames_of(two.server.namespace) == 16
    assert napctl("apply", plan, *here).stdout == "nothing to change: the plan is in force already\n"
    verified = napctl("verify", UPLINK, "--seconds", 0.1, "--pairs", 2, "--json", *here).json
    assert {each["device"] for each in verified["verdicts"]} == {"tun0"}
    assert napctl("rollback").status == 0
    verified = napctl("verify", plan, "--seconds", 0.1, "--pairs", 2, "--json", *here).json
    assert {each["device"] for each in verified["verdicts"]} == {"tun0", "server0"}


def test_a_plan_that_has_a_device_twice_is_refused(two: Lab, napctl: Napctl, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.toml", extra=TUN.format(frames=8).replace("tun0", UPLINK))
    assert napctl("apply", plan, *at_server(two)).failed_with(2, UPLINK, "twice, also as tun0")


def test_compare_takes_alternative_names(two: Lab, napctl: Napctl, tmp_path: Path) -> None:
    plan = tmp_path / "sixteen.toml"
    plan.write_text(HEAD + TUN.format(frames=16).replace("tun0", UPLINK))
    done = napctl(
        "compare", "base", f"plan:{plan}", "--device", UPLINK, "--load", "sh -c 'sleep 0.2; echo rate 5'",
        "--adapter", r"regex:requests_per_second=rate (\d+)", "--rounds", 2, "--seconds", 0.5,
        "--output", tmp_path / "run", *at_server(two), timeout_s=60,
    )  # fmt: skip
    assert done.status in (0, 1), done


def test_export_takes_another_name_of_a_device_of_this_machine(two: Lab, napctl: Napctl, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + TUN.format(frames=16))
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{two.server.namespace.fd}"]
    done = napctl("export", plan, "--format", "ethtool", "--device", UPLINK, under=inside)
    assert (done.status, "ethtool -C tun0 rx-frames 16" in done.stdout) == (0, True), done
    assert napctl("export", plan, "--format", "ethtool", "--device", UPLINK).failed_with(2, UPLINK, "not in the plan")
