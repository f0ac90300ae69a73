"""Choosing the timer: a short measured sweep of gro-flush-timeout under the traffic that is there."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from dataclasses import replace as but
from functools import reduce
from operator import add
from statistics import median
from typing import Self

from msgspec.structs import replace

from napctl.attach.attach import Choice, Keeping, attach, detach
from napctl.attach.examine import Examination
from napctl.attach.report import suspended_between
from napctl.change.journal import Journal
from napctl.change.transaction import undisturbed
from napctl.kernel import processes
from napctl.kernel.cputime import clock_seconds
from napctl.kernel.machinestat import machine_stat
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.system import in_initial_pid_namespace
from napctl.model.change import Guard, Keeper, Transaction
from napctl.model.suspension import Suspension
from napctl.model.timer import TimerChoice, Trial, chosen, untried, within
from napctl.observe.window import Observer
from napctl.probe import ProbeUnavailable
from napctl.probe.softirqtime import SoftirqTimeProbe
from napctl.probe.suspension import SuspensionProbe

WINDOW_SECONDS = 0.15
ROUNDS = 6
"""Each timer is tried that often, in turn, so that traffic that changes favours none, and the noise is seen."""
SETTLE_SECONDS = 0.05
CHANGING_SECONDS = 0.12
"""About what it takes to attach and let go again, and to read the counters."""
LEAST_PACKETS_PER_SECOND = 500
"""Below it a window sees too few packets to tell timers apart."""
TOO_LITTLE = "too little traffic to try timers on"


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
    """Attach with one timer after the other, measure, and let go again; what the choice was made from is in it.

    Nothing is left attached: if this process is killed, recover() (or the guard) puts the trial back. Raises what
    attach() raises.
    """
    choice = but(choice, steered=())  # a program that comes and goes would mix connections for good
    timers = within(budget_ns)
    if len(timers) == 1 or not choice.napis:
        return TimerChoice(
            gro_flush_timeout_ns=timers[-1], why="the latency budget leaves no other" if budget_ns else ""
        )
    if not (choice.instances or choice.sockets):
        return untried(budget_ns, "no timer can be tried before somebody polls")
    try:
        with _Scale(found, choice) as scale:
            if scale.window(WINDOW_SECONDS).packets < LEAST_PACKETS_PER_SECOND * WINDOW_SECONDS:
                return untried(budget_ns, TOO_LITTLE)
            seconds = (WINDOW_SECONDS + SETTLE_SECONDS + CHANGING_SECONDS) * ROUNDS * len(timers)
            progress(f"trying timers for about {seconds:.0f} s")
            windows: dict[int, list[_Window]] = {timer: [] for timer in timers}
            for turn in range(ROUNDS):
                for timer in timers[:: 1 if turn % 2 else -1]:
                    with _attached(journal, found, choice, replace(wanted, gro_flush_timeout_ns=timer), guard):
                        time.sleep(SETTLE_SECONDS)
                        windows[timer].append(scale.window(WINDOW_SECONDS))
    except ProbeUnavailable as error:
        return untried(budget_ns, f"timers could not be tried: {error.reason}")
    if not all(window.packets for each in windows.values() for window in each):
        return untried(budget_ns, TOO_LITTLE)
    return chosen([_trial(timer, windows[timer]) for timer in timers])


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


@dataclass(frozen=True)
class _Window:
    seconds: float
    cpu_seconds: float
    packets: int
    wait_p50_us: float | None


class _Scale:
    """Measures what a target and its packets cost, and how long those wait. A context manager.

    The cost is the run time of its processes and of the NAPI threads, and NET_RX softirqs of all CPUs: wherever they
    run, and whatever else does. Where softirqs are part of the run time of the task below, they count once.
    """

    def __init__(self, found: Examination, choice: Choice):
        if not in_initial_pid_namespace():
            raise ProbeUnavailable("napctl is not in the initial PID namespace")
        located = found.napis[choice.napis[0]] if choice.napis[0] in found.napis else next(iter(found.napis.values()))
        netns = NetworkNamespace.find(located.netns)
        if netns is None:
            raise ProbeUnavailable("its network namespace has gone")
        self._netns, self._device, self._napis = netns, located.device.name, set(choice.napis)
        threads = (found.napis[napi_id].napi.thread_pid for napi_id in choice.napis if napi_id in found.napis)
        servers = (pid for each in choice.instances for pid, _ in each.places)
        self._pids = {*servers, *(each.process.pid for each in choice.sockets), *(pid for pid in threads if pid)}
        self._counted_apart = any(cpu.irq is not None for cpu in machine_stat().by_cpu.values())
        """Whether tasks' run time is without softirqs (update_rq_clock_task() in kernel/sched/core.c)."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._netns)
            self._observer = undo.enter_context(Observer(self._netns, [self._device]))
            self._suspension = undo.enter_context(SuspensionProbe.load())
            self._softirqs = undo.enter_context(SoftirqTimeProbe.load(self._pids))
            self._open = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def window(self, seconds: float) -> _Window:
        """One window of the chosen NAPI instances, from now."""
        self._observer.restart()
        waits, ran, softirqs = self._suspension.read(), self._ran(), self._softirqs.read()
        time.sleep(seconds)
        softirqs_after, ran_after = self._softirqs.read(), self._ran()
        waits_after, window = self._suspension.read(), self._observer.window(refresh=False)
        net_rx_ns = softirqs_after.ns - softirqs.ns
        if not self._counted_apart:
            net_rx_ns -= softirqs_after.on_chosen_ns - softirqs.on_chosen_ns
        mine = [each for each in suspended_between(waits, waits_after).values() if each.napi_id in self._napis]
        return _Window(
            seconds=window.seconds,
            cpu_seconds=sum(now - ran[pid] for pid, now in ran_after.items() if pid in ran) + net_rx_ns / 1e9,
            packets=sum(napi.polls.packets for napi in window.napis if napi.napi_id in self._napis),
            wait_p50_us=reduce(add, mine).wait_percentile_us(0.5) if mine else None,
        )

    def _ran(self) -> dict[int, float]:
        """Run time of each process; one that ends meanwhile is left out."""
        found = {}
        for pid in self._pids:
            with suppress(OSError):
                found[pid] = clock_seconds(pid)
        return found


def _trial(timer: int, windows: list[_Window]) -> Trial:
    seconds = sum(each.seconds for each in windows)
    waits = [each.wait_p50_us for each in windows if each.wait_p50_us is not None]
    return Trial(
        gro_flush_timeout_ns=timer,
        cpu_share=sum(each.cpu_seconds for each in windows) / seconds,
        packets_per_second=sum(each.packets for each in windows) / seconds,
        wait_p50_us=median(waits) if waits else None,
        cpu_us_per_packet=tuple(each.cpu_seconds * 1e6 / each.packets for each in windows),
    )
