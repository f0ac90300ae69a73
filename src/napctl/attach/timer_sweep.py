"""Choosing the timer: a short measured sweep of gro-flush-timeout under the traffic that is there."""

import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace as but
from typing import TypeVar

from msgspec.structs import replace

from napctl.attach.attachment import attachment, detach
from napctl.attach.follow_step import NapiKey
from napctl.attach.inspect_target import LocatedNapi
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.packet_cost import CostProbe, cost_between
from napctl.attach.timer_choice import chosen, untried, whole_rounds, within
from napctl.change.alternating import PATIENCE_SECONDS, refuse_left
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.transaction import apply, undisturbed
from napctl.model.change import Guard, Transaction
from napctl.model.errors import ChangedMeanwhile
from napctl.model.modes import OF_INSTANCES
from napctl.model.suspension import Suspension
from napctl.model.timer_choice import TimerChoice, Trial, TrialWindow
from napctl.probe import ProbeUnavailable

__all__ = [
    "CHANGING_SECONDS",
    "SETTLE_SECONDS",
    "Detached",
    "Locked",
    "Sweep",
    "choose_timer",
    "has_traffic",
    "on_trial",
    "swept_at_once",
    "timer_sweep",
]


WINDOW_SECONDS = 0.15
ROUNDS = 6
"""Each timer is tried that often, in turn, so that traffic that changes favours none, and the noise is seen."""
SETTLE_SECONDS = 0.05
CHANGING_SECONDS = 0.12
"""About what it takes to attach and let go again, and to read the counters."""
LEAST_PACKETS_PER_SECOND = 500
"""Below it a window sees too few packets to tell timers apart."""
LOOKS = 3
"""Windows, of which one with enough will do: a server, or who asks it, may get no CPU for one of them."""
TOO_LITTLE = "too little traffic to try timers on"
Locked = Callable[[], AbstractContextManager[Journal]]
"""The journal, for as long as a change takes."""
T = TypeVar("T")
Sweep = Generator[float, None, TimerChoice]
"""Yields the seconds until it is to be resumed, and returns the choice. One that is closed before puts back what it
tries."""


class Detached(ChangedMeanwhile):
    """Somebody else has detached what was only tried."""


def choose_timer(
    journal: Journal,
    target: JudgedTarget,
    wanted: Suspension,
    *,
    budget_ns: int | None,
    progress: Callable[[str], None],
) -> TimerChoice:
    """A whole sweep at once. While it measures, the journal is free for others. Raises what timer_sweep() does."""
    return swept_at_once(
        journal, lambda locked: timer_sweep(locked, target, wanted, budget_ns=budget_ns, progress=progress)
    )


def swept_at_once(journal: Journal, begin: Callable[[Locked], Generator[float, None, T]]) -> T:
    """What comes of a sweep, whose waits are waited here, without the journal's lock."""

    @contextmanager
    def locked() -> Iterator[Journal]:
        journal.take_again(patience_seconds=PATIENCE_SECONDS)
        try:
            yield journal
        finally:
            journal.let_go()

    steps = begin(locked)
    journal.let_go()
    try:
        while True:
            time.sleep(next(steps))
    except StopIteration as over:
        found: T = over.value
        return found
    finally:
        with undisturbed():
            try:
                steps.close()
            finally:
                journal.take_again(patience_seconds=PATIENCE_SECONDS)


def timer_sweep(
    locked: Locked,
    target: JudgedTarget,
    wanted: Suspension,
    *,
    budget_ns: int | None,
    progress: Callable[[str], None],
    guard: Callable[[], Guard | None] = lambda: None,
) -> Sweep:
    """Attach with one timer after the other, measure, and let go again; what the choice was made from is in it.

    Nothing is left attached: if this process is killed, recover() (or the guard) puts the trial back. Raises what
    attachment() and apply() raise, and ChangedMeanwhile if somebody has put the trial back, or set what it had set.
    """
    choice = but(target.choice, steered=())  # a program that comes and goes would mix connections for good
    target = but(target, choice=choice)
    timers = within(budget_ns)
    if len(timers) == 1 or not choice.napis:
        return TimerChoice(
            gro_flush_timeout_ns=timers[-1], why="the latency budget leaves no other" if budget_ns else ""
        )
    if choice.empty:
        return untried(budget_ns, "no timer can be tried before somebody polls")
    try:
        with CostProbe(_pids(target)) as probe:
            napis = {(each.netns, each.napi.napi_id) for each in _napis(target)}
            if not (yield from has_traffic(probe, napis)):
                return untried(budget_ns, TOO_LITTLE)
            seconds = (WINDOW_SECONDS + SETTLE_SECONDS + CHANGING_SECONDS) * ROUNDS * len(timers)
            progress(f"trying timers for about {seconds:.0f} s")
            windows: dict[int, list[TrialWindow]] = {timer: [] for timer in timers}
            for turn in range(ROUNDS):
                for timer in timers[:: 1 if turn % 2 else -1]:
                    with on_trial(locked, target, replace(wanted, gro_flush_timeout_ns=timer), guard()):
                        yield SETTLE_SECONDS
                        window = yield from _window(probe, napis)
                        windows[timer].append(window)
    except ProbeUnavailable as error:
        return untried(budget_ns, f"timers could not be tried: {error.reason}")
    whole = whole_rounds(windows)
    if whole is None:
        return untried(budget_ns, TOO_LITTLE)
    return chosen([Trial.of(timer, whole[timer]) for timer in timers])


@contextmanager
def on_trial(locked: Locked, target: JudgedTarget, wanted: Suspension, guard: Guard | None) -> Iterator[None]:
    """It is attached so until the block is left. The journal is free for others meanwhile."""
    made: Transaction | None = None
    try:
        with undisturbed(), locked() as journal:  # no signal between the change and `made`
            at_once = guard and replace(guard, wait_ns=0)  # nobody takes over a trial
            planned = attachment(journal, target, wanted, guard=at_once, keeper=myself())  # nobody else would undo it
            made = apply(journal, planned, then="attached")
        yield
    finally:
        if made is not None:
            with undisturbed(), locked() as journal:
                _put_back(journal, made)


def _put_back(journal: Journal, made: Transaction) -> None:
    still = [each for each in journal.live() if each.number == made.number]
    rows = detach(journal, still)
    if not still:
        raise Detached(f"{made.title}: somebody else has detached it while it was tried")
    refuse_left(rows)


def _napis(target: JudgedTarget) -> list[LocatedNapi]:
    return [target.found.napis[napi_id] for napi_id in target.choice.napis if napi_id in target.found.napis]


def _pids(target: JudgedTarget) -> set[int]:
    """Of the servers and of the NAPI threads."""
    servers = {pid for each in target.choice.instances for pid, _ in each.places}
    if target.choice.mode in OF_INSTANCES:
        servers = {each.pid for each in target.found.processes}
    threads = {each.napi.thread_pid for each in _napis(target) if each.napi.thread_pid}
    servers |= {pid for each in target.choice.rings for pid, _ in each.places}
    return servers | threads | {each.process.pid for each in target.choice.sockets}


def has_traffic(
    probe: CostProbe, napis: Collection[NapiKey], window_seconds: float = WINDOW_SECONDS
) -> Generator[float, None, bool]:
    """Whether these NAPI instances get enough to tell one way of taking packets from another."""
    for _ in range(LOOKS):
        before = probe.packets(napis)
        yield window_seconds
        if probe.packets(napis) - before >= LEAST_PACKETS_PER_SECOND * window_seconds:
            return True
    return False


def _window(probe: CostProbe, napis: Collection[NapiKey]) -> Generator[float, None, TrialWindow]:
    """One window of these NAPI instances, from now."""
    before = probe.read(napis)
    yield WINDOW_SECONDS
    cost = cost_between(before, probe.read(napis))
    return TrialWindow(
        seconds=cost.seconds,
        cpu_seconds=cost.cpu_seconds,
        packets=cost.packets,
        wait_p50_us=cost.waits.wait_percentile_us(0.5) if cost.waits else None,
    )
