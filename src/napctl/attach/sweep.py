"""Choosing the timer: a short measured sweep of gro-flush-timeout under the traffic that is there."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as but

from msgspec.structs import replace

from napctl.attach.attach import Choice, Keeping, attach, detach
from napctl.attach.examine import Examination
from napctl.attach.fitness import waiting_threads
from napctl.attach.report import only, suspended_between
from napctl.change.journal import Journal
from napctl.change.transaction import undisturbed
from napctl.kernel import processes
from napctl.kernel.cputime import idle_seconds
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Guard, Keeper, Transaction
from napctl.model.cpus import parse_cpus
from napctl.model.histogram import total
from napctl.model.suspension import Suspension
from napctl.model.suspensioncounts import SuspensionCounts
from napctl.model.timer import TimerChoice, Trial, chosen, within
from napctl.observe.window import Observer
from napctl.probe import ProbeUnavailable
from napctl.probe.suspension import SuspensionProbe

TRIAL_SECONDS = 0.3
ROUNDS = 2
"""Each timer is tried that often, in turn, so that a load that drifts favours none."""
SETTLE_SECONDS = 0.05
LEAST_PACKETS_PER_SECOND = 500
"""Below it a trial sees too few packets to tell timers apart."""


def choose_timer(
    journal: Journal,
    found: Examination,
    choice: Choice,
    wanted: Suspension,
    *,
    budget_ns: int | None,
    progress: Callable[[str], None],
    guard: Guard | None = None,
) -> TimerChoice:
    """Attach with one timer after the other, look, and let go again; what the choice was made from is in it.

    Nothing is left attached: if this process is killed, recover() (or the guard) puts the trial back. Raises what
    attach() raises.
    """
    choice = but(choice, steered=())  # a program that comes and goes would mix connections for good
    timers = within(budget_ns)
    if len(timers) == 1 or not choice.napis:
        return TimerChoice(
            gro_flush_timeout_ns=timers[-1], why="the latency budget leaves no other" if budget_ns else ""
        )
    try:
        with _Scale(found, choice) as scale:
            if scale.packets_per_second(TRIAL_SECONDS / 2) < LEAST_PACKETS_PER_SECOND:
                return chosen([_untried(timer) for timer in timers], budget_ns)
            progress(f"trying timers for {TRIAL_SECONDS * ROUNDS * len(timers):.1f} s")
            seen: dict[int, list[_Seen]] = {timer: [] for timer in timers}
            for turn in range(ROUNDS):
                for timer in timers[:: 1 if turn % 2 else -1]:
                    with _attached(journal, found, choice, replace(wanted, gro_flush_timeout_ns=timer), guard) as made:
                        time.sleep(SETTLE_SECONDS)
                        seen[timer].append(scale.look(made, TRIAL_SECONDS))
    except ProbeUnavailable:
        return chosen([_untried(timer) for timer in timers], budget_ns)
    return chosen([_trial(timer, seen[timer]) for timer in timers], budget_ns)


@contextmanager
def _attached(
    journal: Journal, found: Examination, choice: Choice, wanted: Suspension, guard: Guard | None
) -> Iterator[Transaction]:
    me = processes.process(os.getpid())
    assert me is not None
    keeper = Keeper(pid=me.pid, started_ticks=me.started_ticks)  # without it nobody would undo it
    made: list[Transaction] = []
    try:
        with undisturbed():  # no signal between the change and `made`
            made.append(attach(journal, found, choice, wanted, Keeping(guard, keeper)))
        yield made[0]
    finally:
        detach(journal, made)


class _Seen:
    """One trial."""

    def __init__(self, seconds: float, busy_seconds: float, packets: int, waits: SuspensionCounts | None):
        self.seconds, self.busy_seconds, self.packets, self.waits = seconds, busy_seconds, packets, waits


class _Scale:
    """Measures CPU time, packets and their waits on the CPUs and NAPI instances of a target. A context manager."""

    def __init__(self, found: Examination, choice: Choice):
        located = found.napis[choice.napis[0]] if choice.napis[0] in found.napis else next(iter(found.napis.values()))
        netns = NetworkNamespace.find(located.netns)
        if netns is None:
            raise ProbeUnavailable("its network namespace has gone")
        self._netns, self._device, self._napis = netns, located.device.name, set(choice.napis)
        self._cpus = _cpus(found, choice)

    def __enter__(self) -> "_Scale":
        self._observer = Observer(self._netns, [self._device])
        self._probe = SuspensionProbe.load()
        return self

    def __exit__(self, *exc: object) -> None:
        self._probe.close()
        self._observer.__exit__()
        self._netns.close()

    def packets_per_second(self, seconds: float) -> float:
        """Of the chosen NAPI instances."""
        self._observer.restart()
        time.sleep(seconds)
        window = self._observer.window(refresh=False)
        return sum(napi.polls.packets for napi in window.napis if napi.napi_id in self._napis) / window.seconds

    def look(self, made: Transaction, seconds: float) -> _Seen:
        """One trial of what is attached."""
        self._observer.restart()
        idle, waits = self._idle(), self._probe.read()
        time.sleep(seconds)
        window, idle = self._observer.window(refresh=False), self._idle() - idle
        found = [each for each in suspended_between(waits, self._probe.read()).values() if each.napi_id in self._napis]
        together = found[0] if found else None
        for each in found[1:]:
            together = together + each if together else each
        packets = total(napi.polls for napi in only(window, made).napis).packets
        return _Seen(window.seconds, max(0.0, len(self._cpus) * window.seconds - idle), packets, together)

    def _idle(self) -> float:
        idle = idle_seconds()
        return sum(idle.get(cpu, 0.0) for cpu in self._cpus)


def _cpus(found: Examination, choice: Choice) -> frozenset[int]:
    """Where the queues' interrupts come and the workers ran last: their idle time tells what all of it costs."""
    cpus: set[int] = set()
    for napi_id in choice.napis:
        located = found.napis.get(napi_id)
        if located is not None and located.napi.cpus:
            queue = parse_cpus(located.napi.cpus)
            cpus |= queue if len(queue) == 1 else frozenset()
    waiting = [(each.process.pid, each.threads) for each in choice.instances]
    waiting += [(each.process.pid, each.threads) for each in choice.sockets]
    for pid, threads in waiting:
        ran = (processes.last_cpu(pid, tid) for tid in waiting_threads(threads) or (pid,))
        cpus |= {cpu for cpu in ran if cpu is not None}
    return frozenset(cpus)


def _untried(timer: int) -> Trial:
    return Trial(gro_flush_timeout_ns=timer, cpu_share=None, packets_per_second=None, wait_p50_us=None)


def _trial(timer: int, seen: list[_Seen]) -> Trial:
    seconds, packets = sum(each.seconds for each in seen), sum(each.packets for each in seen)
    waits = [each.wait_percentile_us(0.5) for one in seen if (each := one.waits) is not None]
    known = sorted(each for each in waits if each is not None)
    return Trial(
        gro_flush_timeout_ns=timer,
        cpu_share=sum(each.busy_seconds for each in seen) / seconds,
        packets_per_second=packets / seconds,
        wait_p50_us=known[len(known) // 2] if known else None,
    )
