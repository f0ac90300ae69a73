"""Everything that is measured in one cell, beside what the load tells: CPU, polls, drops, retransmits, energy."""

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self

from napctl.experiment.cpu_shares import CpuReading, Ran, busy_seconds, counted, cpu_shares
from napctl.kernel import snmp
from napctl.kernel.cpu_time import run_seconds, user_and_system_seconds
from napctl.kernel.machine_stat import machine_stat, mean_frequency_khz
from napctl.kernel.namespaces import NetworkNamespace
from napctl.load.base import Figures
from napctl.model.counters import grown
from napctl.model.energy import Energy
from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.machine import Napi
from napctl.model.window import NapiWindow, Window
from napctl.observe.energy import EnergyMeter, metrics_of
from napctl.observe.window import Observer

__all__ = ["CellMeter"]


STOLEN, FREQUENCY_CHANGED = 0.02, 0.05
"""From these shares on a cell is doubtful: CPU time that the hypervisor took, and a change of the CPUs' frequency."""


@dataclass(frozen=True)
class _Reading:
    cpu: CpuReading
    frequency_khz: float | None
    tcp: snmp.Tcp | None


class CellMeter:
    """Figures of spans of time, one after the other: begin(), then end(). Use as a context manager.

    `pids` are the server's processes, `napi_ids` the NAPI instances that feed it (none: all of the devices), `cpus`
    those whose time counts (none: all): in the lab, where the load is made on the same machine, only the server's.
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
        seconds = after.cpu.at - before.cpu.at
        cpus = counted(before.cpu, after.cpu, self._cpus)
        metrics, sources = cpu_shares(before.cpu, after.cpu, cpus, window)
        switches = grown(before.cpu.stat.context_switches, after.cpu.stat.context_switches)
        if switches is not None:
            metrics["context_switches_per_second"] = switches / seconds
        metrics |= _poll_figures(window, self._napis(window), self._pids)
        metrics |= _trouble(window, before, after)
        watts, meters = metrics_of(self._energy.since(self._joules))
        metrics, sources = metrics | watts, sources | meters
        warnings = tuple(_warnings(before, after))
        every = counted(before.cpu, after.cpu)
        machine = min(1.0, busy_seconds(before.cpu, after.cpu, every) / (len(every) * seconds))
        return Figures(
            seconds=seconds,
            cpus=len(cpus),
            machine_cpu_share=machine,
            elsewhere=self._elsewhere(window),
            metrics=metrics,
            sources=sources,
            polls=self._polls_by_whom(window),
            warnings=warnings,
        )

    def idle(self, seconds: float) -> Energy:
        """Energy while napctl does nothing for that long. Where nothing can be measured: at once, with the reason."""
        return self._energy.idle(0 if self._energy.why else seconds)

    def trouble(self) -> dict[str, float]:
        """Drops and retransmits a second since begin(); the span goes on."""
        return _trouble(self._observer.since_start(read=True), self._before, self._read())

    def _read(self) -> _Reading:
        threads = [napi.thread_pid for napi in self._all_napis() if napi.thread_pid]
        return _Reading(
            cpu=CpuReading(
                at=time.monotonic(), stat=machine_stat(), server=_ran(self._pids) if self._pids else None,
                threads=_run_seconds(threads),
            ),
            frequency_khz=mean_frequency_khz(),
            tcp=snmp.tcp(self._netns),
        )  # fmt: skip

    def _elsewhere(self, window: Window) -> float:
        if not self._napi_ids or window.source != "bpf":
            return 0.0
        packets = {napi.napi_id: napi.polls.packets for napi in window.napis if napi.netns == self._netns.inode}
        others = {napi_id for napi_id, count in packets.items() if count and napi_id not in self._napi_ids}
        return sum(packets[napi_id] for napi_id in others) / (sum(packets.values()) or 1)

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
    drops = [each for device in window.devices for each in (device.rx_dropped, device.rx_missed, device.tx_dropped)]
    drops += [cpu.backlog_drops for cpu in window.cpus]
    found = {} if None in drops else {"drops_per_second": sum(filter(None, drops)) / window.seconds}
    if before.tcp is not None and after.tcp is not None:
        retransmitted = grown(before.tcp.retransmitted, after.tcp.retransmitted)
        if retransmitted is not None:
            found["retransmits_per_second"] = retransmitted / window.seconds
    return found


def _warnings(before: _Reading, after: _Reading) -> list[str]:
    cpus = counted(before.cpu, after.cpu)
    then, now = (sum(each.cpu.stat.by_cpu[cpu].steal or 0.0 for cpu in cpus) for each in (before, after))
    stolen = (now - then) / ((after.cpu.at - before.cpu.at) * len(cpus))
    found = []
    if stolen > STOLEN:
        found.append(f"the hypervisor took {stolen:.0%} of the CPU time")
    if before.frequency_khz and after.frequency_khz:
        change = abs(after.frequency_khz / before.frequency_khz - 1)
        if change > FREQUENCY_CHANGED:
            found.append(f"the frequency of the CPUs changed by {change:.0%}")
    return found


def _ran(pids: Collection[int]) -> dict[int, Ran]:
    found = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            found[pid] = Ran(run_seconds(pid), *user_and_system_seconds(pid))
    return found


def _run_seconds(pids: Collection[int]) -> dict[int, float]:
    found = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            found[pid] = run_seconds(pid)
    return found
