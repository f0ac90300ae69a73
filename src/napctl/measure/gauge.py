"""Everything that is measured in one cell, beside what the load tells: CPU, polls, drops, retransmits, energy."""

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self

from napctl.kernel import snmp
from napctl.kernel.cputime import idle_seconds, run_seconds
from napctl.kernel.machinestat import MachineStat, machine_stat, mean_frequency_khz
from napctl.kernel.namespaces import NetworkNamespace
from napctl.measure.energy import EnergyMeter, metrics_of
from napctl.model.cpus import cpus_text
from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.machine import Napi
from napctl.model.window import NapiWindow, Window
from napctl.observe.window import Observer

STOLEN, FREQUENCY_CHANGED = 0.02, 0.05
"""From these shares on a cell is doubtful: CPU time that the hypervisor took, and a change of the CPUs' frequency."""
IDLE_CLOCK = "idle clock (/proc/stat)"
SCHEDULER = "scheduler (schedstat)"
PROBE = "probe (BPF)"


@dataclass(frozen=True)
class Figures:
    """What a cell came to."""

    seconds: float
    cpus: int
    metrics: dict[str, float]
    sources: dict[str, str]
    polls: dict[str, tuple[int, ...]]
    warnings: tuple[str, ...]

    def per_request(self, requests_per_second: float | None) -> dict[str, float]:
        """CPU time and energy for each request at that rate; what was not measured is missing."""
        if not requests_per_second:
            return {}
        found = {"cpu_us_per_request": self.metrics["cpu_share"] * self.cpus * 1e6 / requests_per_second}
        if "server_cpu_share" in self.metrics:
            found["server_cpu_us_per_request"] = self.metrics["server_cpu_share"] * 1e6 / requests_per_second
        if "package_watts" in self.metrics:  # the memory is not part of the package; what a board's meter tells is
            watts = self.metrics["package_watts"] + self.metrics.get("dram_watts", 0.0)
            found["joules_per_request"] = watts / requests_per_second
        return found


@dataclass(frozen=True)
class _Reading:
    at: float
    idle: dict[int, float]
    """By CPU that counts, s."""
    stat: MachineStat
    frequency_khz: float | None
    server_seconds: float | None
    thread_seconds: float | None
    tcp: snmp.Tcp | None


class Gauge:
    """Figures of spans of time, one after the other: begin(), then end(). Use as a context manager.

    `pids` are the server's processes, `napi_ids` the NAPI instances that feed it (none: all of the devices), `cpus`
    those whose time counts (none: all): where the load is made on the same machine, only the server's.
    """

    def __init__(
        self,
        netns: NetworkNamespace,
        devices: Collection[str],
        pids: Sequence[int] = (),
        napi_ids: Collection[int] = (),
        cpus: Collection[int] = (),
    ):
        self._netns, self._devices, self._pids, self._napi_ids = netns, devices, tuple(pids), frozenset(napi_ids)
        self._cpus = frozenset(cpus)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._observer = undo.enter_context(Observer(self._netns, self._devices))
            self._energy = undo.enter_context(EnergyMeter())
            self._open = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @property
    def why_no_energy(self) -> str:
        """Why energy cannot be measured here; empty: it can."""
        return self._energy.why

    def begin(self) -> None:
        """Let a span begin."""
        self._observer.restart()
        self._joules = self._energy.begin()
        self._before = self._read()

    def end(self) -> Figures:
        """What happened since begin()."""
        after, before = self._read(), self._before
        window = self._observer.window(refresh=False)
        seconds = after.at - before.at
        metrics, sources = _cpu_figures(before, after, window)
        metrics |= _poll_figures(window, self._napis(window), self._pids)
        metrics |= _trouble(window, before, after)
        watts, meters = metrics_of(self._energy.since(self._joules))
        metrics, sources = metrics | watts, sources | meters
        warnings = tuple(_warnings(before, after))
        return Figures(seconds, len(before.idle), metrics, sources, self._polls_by_whom(window), warnings)

    def trouble(self) -> dict[str, float]:
        """Drops and retransmits a second since begin(); the span goes on."""
        return _trouble(self._observer.since_start(read=True), self._before, self._read())

    def _read(self) -> _Reading:
        threads = [napi.thread_pid for napi in self._all_napis() if napi.thread_pid]
        return _Reading(
            at=time.monotonic(),
            idle={cpu: idle for cpu, idle in idle_seconds().items() if not self._cpus or cpu in self._cpus},
            stat=machine_stat(),
            frequency_khz=mean_frequency_khz(),
            server_seconds=_run_seconds(self._pids) if self._pids else None,
            thread_seconds=_run_seconds(threads) if threads else 0.0,
            tcp=snmp.tcp(self._netns),
        )

    def _all_napis(self) -> list[Napi]:
        return [napi for device in self._observer.devices for napi in device.napis]

    def _napis(self, window: Window) -> list[NapiWindow]:
        ids = self._napi_ids or {napi.napi_id for napi in self._all_napis()}
        return [napi for napi in window.napis if napi.napi_id in ids and napi.netns == self._netns.inode]

    def _polls_by_whom(self, window: Window) -> dict[str, tuple[int, ...]]:
        if window.source != "bpf":
            return {}
        napis = self._napis(window)
        parts = {
            "softirq": total(each.softirq or EMPTY for each in napis),
            "NAPI thread": total(each.thread or EMPTY for each in napis),
            "busy polling": total(each.busy_poll or EMPTY for each in napis),
        }
        return {who: part.counts for who, part in parts.items() if part.polls}


def _cpu_figures(before: _Reading, after: _Reading, window: Window) -> tuple[dict[str, float], dict[str, str]]:
    """`cpu_share` is of the CPUs that count: what is not idle is busy, whatever runs between two ticks."""
    seconds, cpus = after.at - before.at, len(before.idle)
    idle = sum(after.idle.get(cpu, then) - then for cpu, then in before.idle.items())
    busy = max(0.0, cpus * seconds - idle)
    metrics = {
        "cpu_share": min(1.0, busy / (cpus * seconds)),
        "context_switches_per_second": (after.stat.context_switches - before.stat.context_switches) / seconds,
    }
    counted = "all CPUs" if cpus == after.stat.cpus else f"CPU {cpus_text(before.idle)}"
    sources = {"cpu_share": f"{IDLE_CLOCK}, {counted}"}
    if before.server_seconds is not None and after.server_seconds is not None:
        metrics["server_cpu_share"] = max(0.0, after.server_seconds - before.server_seconds) / seconds
        sources["server_cpu_share"] = SCHEDULER
    softirq_ns = window.total_per_second("net_rx_softirq_ns")
    threads = (after.thread_seconds or 0.0) - (before.thread_seconds or 0.0)
    if softirq_ns is not None:
        softirq = softirq_ns / 1e9
        metrics["softirq_share"] = softirq / after.stat.cpus
        sources["softirq_share"] = PROBE
        if busy:
            metrics["network_cpu_share"] = min(1.0, (softirq * seconds + threads) / busy)
            sources["network_cpu_share"] = f"NET_RX softirqs: {PROBE}; NAPI threads: {SCHEDULER}"
    return metrics, sources


def _poll_figures(window: Window, napis: Sequence[NapiWindow], pids: Sequence[int]) -> dict[str, float]:
    found = {}
    for name, field in (("interrupts_per_second", "interrupts"), ("net_rx_softirqs_per_second", "net_rx_softirqs")):
        value = window.total_per_second(field)
        if value is not None:
            found[name] = value
    if window.source != "bpf":
        return found
    polls: Histogram = total(napi.polls for napi in napis)
    found["polls_per_second"] = polls.polls / window.seconds
    if polls.polls:
        own = sum(poller.polls for napi in napis for poller in napi.pollers if poller.pid in pids)
        found["packets_per_poll"] = polls.packets / polls.polls
        found["empty_poll_share"] = polls.empty / polls.polls
        if pids:
            found["server_poll_share"] = own / polls.polls
    return found


def _trouble(window: Window, before: _Reading, after: _Reading) -> dict[str, float]:
    drops = sum(each.rx_dropped + each.rx_missed + each.tx_dropped for each in window.devices)
    drops += sum(cpu.backlog_drops or 0 for cpu in window.cpus)
    found = {"drops_per_second": drops / window.seconds}
    if before.tcp is not None and after.tcp is not None:
        found["retransmits_per_second"] = (after.tcp.retransmitted - before.tcp.retransmitted) / window.seconds
    return found


def _warnings(before: _Reading, after: _Reading) -> list[str]:
    seconds = after.at - before.at
    stolen = (after.stat.steal_seconds - before.stat.steal_seconds) / (seconds * after.stat.cpus)
    found = []
    if stolen > STOLEN:
        found.append(f"the hypervisor took {stolen:.0%} of the CPU time")
    if before.frequency_khz and after.frequency_khz:
        change = abs(after.frequency_khz / before.frequency_khz - 1)
        if change > FREQUENCY_CHANGED:
            found.append(f"the frequency of the CPUs changed by {change:.0%}")
    return found


def _run_seconds(pids: Collection[int]) -> float:
    seconds = 0.0
    for pid in pids:
        with suppress(OSError):  # it has ended
            seconds += run_seconds(pid)
    return seconds
