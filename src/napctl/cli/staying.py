"""Staying attached, for `attach --stay` and `run`: follow, log, and put everything back in the end."""

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
    until: Callable[[], bool] | None = None,
    as_json: bool = False,
    to_stderr: bool = False,
) -> int:
    """Follow a target until `until()`, or until Ctrl-C without it. Exit status 5 if a setting was left alone.

    A guard in a session of its own puts everything back if this process is killed.
    """
    stopped = until or Stop().is_asked

    def tell(line: str) -> None:
        now = time.time_ns()
        if as_json:
            echo_json(Event(unix_ns=now, event=line), err=to_stderr)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(now / 1e9))
            echo(f"{clock}.{now // 10**6 % 1000:03} {line}", err=to_stderr)

    with watched(None, state_directory()) as guard:
        restored = Stay(target, wish, guard, state_directory(), tell).run(stopped)
    return _farewell(restored, tell)


def _farewell(restored: list[Restored], tell: Callable[[str], None]) -> int:
    count = sum(row.outcome == "restored" for row in restored)
    tell(f"detached: {count} settings put back" if restored else "detached: nothing had been changed")
    return ChangedMeanwhile.exit_status if name_left(restored) else 0
