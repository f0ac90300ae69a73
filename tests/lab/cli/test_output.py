"""What is printed survives pipes, narrow terminals and NO_COLOR."""

import re
import subprocess

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PROGRAM, Napctl, at_server, on_a_terminal

pytestmark = pytest.mark.lab

COLOUR = re.compile(r"\x1b\[[0-9;]*?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


@pytest.mark.parametrize("command", ["status", "watch --json --interval 0.05", "status --help", "watch --help"])
def test_a_pipe_that_closes_early_is_no_error(command: str, lab: Lab, napctl: Napctl) -> None:
    where = "" if "help" in command else " ".join(at_server(lab))
    line = f"{PROGRAM} {command} {where} | head -1"
    done = subprocess.run(
        ["bash", "-c", line], env=napctl.environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_in_a_pipe_nothing_is_coloured_or_wider_than_80_columns(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000)
    netns = at_server(lab)
    outputs = {
        "status": napctl("status", *netns),
        "attach": napctl("attach", server.pid, "--window", "0.3s", "--defer-us", 200),  # else: attach/test_timers.py
        "status, attached": napctl("status", *netns),
        "watch": napctl("watch", "--seconds", 0.3, *netns),
        "detach": napctl("detach", server.pid),
        "recover": napctl("recover"),
    }

    wide = [f"{name}: {line}" for name, done in outputs.items() for line in done.stdout.splitlines() if len(line) > 80]
    assert "\x1b" not in "".join(done.stdout for done in outputs.values())
    assert wide == []


@pytest.mark.parametrize("command", ["status", "watch --seconds 0.4 --interval 0.2"])
def test_no_color_is_respected_on_a_terminal(
    command: str, lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5000)
    words = [str(PROGRAM), *command.split(), *at_server(lab)]
    done = on_a_terminal(words, napctl.environment | {"NO_COLOR": "1", "TERM": "xterm-256color"})

    assert done.status == 0
    assert "server0" in done.stdout
    assert not COLOUR.search(done.stdout)
