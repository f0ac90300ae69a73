"""Staying attached, for `attach --stay` and `run`: follow, log, and put everything back in the end."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow import Stay
from napctl.attach.follow_many import follow
from napctl.attach.target import Target
from napctl.change.guard import watched
from napctl.change.journal import state_directory
from napctl.cli.output_queue import OutputQueue, missing_text, never_waiting
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo, echo_json
from napctl.cli.text.restored import name_left
from napctl.cli.text.settings import counted
from napctl.cli.text.table import wrapped
from napctl.model.change import Restored
from napctl.model.errors import ChangedMeanwhile
from napctl.model.snapshot import Decision
from napctl.model.value import Value

__all__ = ["event_lines", "stay_attached"]


class Event(Value, frozen=True, kw_only=True):
    """One line of `attach --stay --json`."""

    unix_ns: int
    event: str


def stay_attached(
    target: Target,
    options: AttachOptions,
    *,
    child: "subprocess.Popen[bytes] | None" = None,
    as_json: bool = False,
    to_stderr: bool = False,
) -> int:
    """Follow a target until `child` has ended, or until Ctrl-C without it. Exit status 5 if a setting was left alone.

    A guard in a session of its own puts everything back if this process is killed.
    """
    folds = (sys.stderr if to_stderr else sys.stdout).isatty()

    def tell(line: str, _kind: Decision | None = None, /) -> None:
        now = time.time_ns()
        if as_json:
            echo_json(Event(unix_ns=now, event=line), err=to_stderr)
            return
        clock = time.strftime("%H:%M:%S", time.localtime(now / 1e9))
        for each in event_lines(f"{clock}.{now // 10**6 % 1000:03}", line, folds=folds):
            echo(each, err=to_stderr)

    with never_waiting(lambda lines: tell(missing_text(lines))) as queue:
        with watched(None, state_directory()) as guard:
            stay = Stay(target, options, guard, state_directory(), tell)
            restored = _until_asked(stay, queue) if child is None else _until_ended(stay, child, queue)
        return _farewell(restored, tell)


def event_lines(clock: str, event: str, *, folds: bool) -> list[str]:
    """On a terminal in lines of 80 columns; in a log each event is one line, to be searched for."""
    text = f"{clock} {event}"
    return wrapped(text, rest=" " * (len(clock) + 1)) if folds else [text]


def _until_asked(stay: Stay, queue: OutputQueue) -> list[Restored]:
    stop = Stop()
    return follow([stay], queue.catching_up(stop.is_asked), [stop, queue])


def _until_ended(stay: Stay, child: "subprocess.Popen[bytes]", queue: OutputQueue) -> list[Restored]:
    pidfd = os.pidfd_open(child.pid)  # it is ours to wait for, so that its pid is still its own
    try:
        return follow([stay], queue.catching_up(lambda: child.poll() is not None), [pidfd, queue])
    finally:
        os.close(pidfd)


def _farewell(restored: list[Restored], tell: Callable[[str], None]) -> int:
    """What was put back is counted as it was when it was attached."""
    back = counted(row.where for row in restored if row.outcome in ("restored", "unchanged"))
    tell(f"detached: {back} put back" if back else "detached: nothing was left to put back")
    return ChangedMeanwhile.exit_status if name_left(restored) else 0
