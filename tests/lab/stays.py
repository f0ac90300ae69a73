"""A process that follows several targets, as the service does: killed or executed anew, a later one takes over what it
has left. `python -m tests.lab.stays follow STATE …`; and the guard of the service, `… guard STATE`."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import ways_between
from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow import Stay
from napctl.attach.follow_many import take_turns, wait_for_any
from napctl.attach.target import parse
from napctl.change.guard import watched
from napctl.change.guard_lock import service_guard
from napctl.change.journal import STATE_VARIABLE, Journal
from napctl.change.keeper_watch import watch_keepers
from napctl.cli.stop_signals import Stop
from napctl.model.snapshot import Decision
from napctl.model.suspension import Suspension
from tests.forked import forked
from tests.lab.following import Following, ended_by

ROOT = Path(__file__).parents[2]


def tell(target: str, line: str, _kind: Decision | None = None, /) -> None:
    print(json.dumps({"unix_ns": time.time_ns(), "event": f"{target}: {line}"}), flush=True)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("follow", "guard"))
    parser.add_argument("state", type=Path)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--wait", type=float, default=60.0)
    parser.add_argument("--anew", action="store_true", help="adopt nothing")
    parser.add_argument("--timer-us", type=int, default=200)
    parser.add_argument("--budget-us", type=int, help="adapt within it, instead of one timer")
    parser.add_argument("--steer", action="store_true")
    parser.add_argument("--by-service", action="store_true", help="no guard of its own")
    parser.add_argument("--keep", action="store_true", help="leave all in force at the end")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    asked = arguments(words)
    Path("/proc/self/comm").write_text("napctl")
    stop = Stop()
    if asked.command == "guard":
        watch_keepers(asked.state, stop.is_asked, partial(tell, "guard"), [stop.fileno()])
        return
    again: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: again.append(number))
    options = AttachOptions(suspension=Suspension(), timer_ns=asked.timer_us * 1000, steer=asked.steer)
    if asked.budget_us:
        goal = LatencyGoal(ways=ways_between(20_000, 200_000), budget_ns=asked.budget_us * 1000, prefer="cpu")
        options = AttachOptions(suspension=Suspension(), goal=goal, steer=asked.steer)
    wait_ns = int(asked.wait * 1e9)
    guarding = nullcontext(service_guard(wait_ns)) if asked.by_service else watched(None, asked.state, wait_ns)
    with guarding as guard:
        stays = [Stay(parse(each), options, guard, asked.state, partial(tell, each)) for each in asked.targets]
        if not asked.anew:
            adopt_all(stays, asked.state)
        while not (stop.asked or again):
            list(take_turns(stays))
            wait_for_any(stays, [stop], 0.2)
        for each in stays:
            each.leave(kept=bool(again)) if asked.keep or again else each.let_go()
    if again:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.lab.stays", *words])


def adopt_all(stays: Sequence[Stay], state: Path) -> None:
    for left in Journal.read(state, live=True):
        for each in stays:
            if each.members.claims(left):
                each.adopt(left)


@contextmanager
def staying(*words: object, under: Sequence[str] = ()) -> Iterator[Following]:
    """One such process; killed at the end if it still runs."""
    said = [str(each) for each in words]
    command = [sys.executable, "-m", "tests.lab.stays", *said]
    environment = os.environ | {STATE_VARIABLE: str(words[1])}
    if under:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*under, *command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )
    else:
        process = forked(partial(main, said), ["stays", *said], command, environment)
    with ended_by(signal.SIGKILL, Following(process, traced=bool(under))) as it:
        yield it


if __name__ == "__main__":
    main(sys.argv[1:])
