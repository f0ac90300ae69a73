"""Staying attached, for `attach --stay` and `run`: follow, log, and put everything back in the end."""

import os
import subprocess
import time
from collections.abc import Callable

from napctl.attach.operate import Wish
from napctl.attach.stay import Stay
from napctl.attach.target import Target
from napctl.change.guard import watched
from napctl.change.journal import state_directory
from napctl.cli.restored import name_left
from napctl.cli.stop import Stop
from napctl.cli.terminal import echo, echo_json
from napctl.model.change import Restored
from napctl.model.errors import ChangedMeanwhile
from napctl.model.value import Value


class Event(Value, frozen=True, kw_only=True):
    """One line of `attach --stay --json`."""

    unix_ns: int
    event: str


def stay_attached(
    target: Target,
    wish: Wish,
    *,
    child: "subprocess.Popen[bytes] | None" = None,
    as_json: bool = False,
    to_stderr: bool = False,
) -> int:
    """Follow a target until `child` has ended, or until Ctrl-C without it. Exit status 5 if a setting was left alone.

    A guard in a session of its own puts everything back if this process is killed.
    """

    def tell(line: str) -> None:
        now = time.time_ns()
        if as_json:
            echo_json(Event(unix_ns=now, event=line), err=to_stderr)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(now / 1e9))
            echo(f"{clock}.{now // 10**6 % 1000:03} {line}", err=to_stderr)

    with watched(None, state_directory()) as guard:
        stay = Stay(target, wish, guard, state_directory(), tell)
        restored = _until_asked(stay) if child is None else _until_ended(stay, child)
    return _farewell(restored, tell)


def _until_asked(stay: Stay) -> list[Restored]:
    stop = Stop()
    return stay.run(stop.is_asked, [stop])


def _until_ended(stay: Stay, child: "subprocess.Popen[bytes]") -> list[Restored]:
    pidfd = os.pidfd_open(child.pid)  # it is ours to wait for, so that its pid is still its own
    try:
        return stay.run(lambda: child.poll() is not None, [pidfd])
    finally:
        os.close(pidfd)


def _farewell(restored: list[Restored], tell: Callable[[str], None]) -> int:
    count = sum(row.outcome == "restored" for row in restored)
    tell(f"detached: {count} settings put back" if restored else "detached: nothing was left to put back")
    return ChangedMeanwhile.exit_status if name_left(restored) else 0
