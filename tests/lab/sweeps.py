"""What the tests of trials of timers share: an `attach` that has begun to try them."""

import subprocess
from typing import Literal

from napctl.change.journal import Journal
from napctl.lab.servers import Server
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from tests.lab.helpers import Napctl, until


def sweeping(
    napctl: Napctl, server: Server, *options: object, says: Literal["stderr", "stdout"] = "stderr"
) -> "subprocess.Popen[str]":
    """An attach that tries timers, with one of them in force just now. The caller ends it.

    One that let go of the trials, as the machine let the load wait for too long, is followed by another one. `says`:
    where it says that it tries them; that line is read then.
    """

    def begun() -> "subprocess.Popen[str] | None":
        running = napctl.start("attach", server.pid, *options)
        stream = running.stderr if says == "stderr" else running.stdout
        assert stream is not None
        if "trying timers" in stream.readline():
            return running
        running.kill()
        running.communicate()
        until(lambda: not napctl.guards(), "its guard to go home")
        napctl("detach", server.pid)
        return None

    running = until(begun, "an attach that tries timers")
    assert running is not None
    until(lambda: any(each.state == "attached" for each in live_now(napctl)), "a trial")
    return running


def live_now(napctl: Napctl) -> list[Transaction]:
    """What the journal holds, without waiting for its lock."""
    try:
        return [each for each in Journal.read(napctl.state) if each.state != "restored"]
    except NapctlError:
        return []
