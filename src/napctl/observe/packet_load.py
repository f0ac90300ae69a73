"""See overload as it comes: what packets take of each CPU, how long threads wait there, and where packets are dropped.

Without BPF, and cheap enough for four readings a second: counters of /proc, in files that are held open.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from typing import NamedTuple, Self

from napctl.kernel import machine_stat, schedstat, softnet
from napctl.kernel.late_drops import LateDropCounters
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.packet_threads import NapiThreads
from napctl.kernel.sysfs import DeviceAttributes
from napctl.model.counts import CpuCounts
from napctl.model.errors import NapctlError
from napctl.model.overload import CpuCounters, DropReading, LoadReading, PacketLoad, load_between

__all__ = ["PacketLoadReader"]


LEAST_SECONDS = 0.45
"""Over which load() tells: times of a CPU come in steps of 10 ms, which of less are more than 2 %."""
NO_SCHEDSTAT = "how long threads wait for a CPU: this kernel has no /proc/schedstat (CONFIG_SCHEDSTATS)"
NO_THREADS = "what NAPI threads take: kernel threads cannot be seen in this PID namespace"


class _Place(NamedTuple):
    """One network namespace."""

    netns: int
    late: LateDropCounters
    devices: Collection[str]
    attributes: DeviceAttributes | None


class PacketLoadReader:
    """Reads the machine's CPUs, and drops of the given network namespaces. A context manager, used by one thread."""

    def __init__(self, watched: Iterable[tuple[NetworkNamespace, Collection[str]]]) -> None:
        """With the names of devices whose rings may drop. Holds the namespaces; raises NotPermitted."""
        self._threads = NapiThreads()
        self._readings: deque[LoadReading] = deque()
        with ExitStack() as open_now:
            self._places = [_opened(netns, devices, open_now) for netns, devices in watched]
            self._open = open_now.pop_all()

    def read(self, counted: Iterable[CpuCounts] = ()) -> LoadReading:
        """Now; `counted` by the probe, where the caller has one: the tick tells less of softirqs than there is."""
        now_ns = time.monotonic_ns()
        stat, delays, backlogs = machine_stat.machine_stat(), schedstat.run_delays_ns(), softnet.softnet()
        net_rx_ns = {each.cpu: each.net_rx_softirq_ns for each in counted}
        threads = self._threads.read()
        return LoadReading(
            monotonic_ns=now_ns,
            cpus=tuple(
                CpuCounters(
                    cpu=number,
                    system=cpu.system,
                    idle=cpu.idle,
                    softirq=cpu.softirq,
                    steal=cpu.steal,
                    net_rx_ns=net_rx_ns.get(number),
                    waited_ns=(delays or {}).get(number),
                    packets=backlogs[number].processed if number in backlogs else None,
                    backlog_drops=backlogs[number].dropped if number in backlogs else None,
                )
                for number, cpu in sorted(stat.by_cpu.items())
            ),
            threads=threads,
            drops=tuple(_drops(place) for place in self._places),
            lacks=(NO_SCHEDSTAT,) * (delays is None) + (NO_THREADS,) * (threads is None),
        )

    def load(self) -> PacketLoad | None:
        """Read now: the load since the newest reading that is old enough. None: there is none yet; ask again soon."""
        now = self.read()
        self._readings.append(now)
        while len(self._readings) > 1 and _apart(self._readings[1], now) >= LEAST_SECONDS:
            self._readings.popleft()
        before = self._readings[0]
        return load_between(before, now) if _apart(before, now) >= LEAST_SECONDS else None

    def close(self) -> None:
        """Let the namespaces go."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _opened(netns: NetworkNamespace, devices: Collection[str], open_now: ExitStack) -> _Place:
    late = open_now.enter_context(LateDropCounters(netns))
    try:
        attributes = open_now.enter_context(DeviceAttributes(netns)) if devices else None
    except NapctlError:  # a sysfs of its own needs rights that the rest does not
        attributes = None
    return _Place(netns.inode, late, tuple(devices), attributes)


def _drops(place: _Place) -> DropReading:
    missed = {
        name: int(told)
        for name in place.devices
        if place.attributes and (told := place.attributes.read(name, "statistics/rx_missed_errors")) is not None
    }
    return DropReading(netns=place.netns, late=place.late.read(), ring=missed)


def _apart(before: LoadReading, after: LoadReading) -> float:
    return (after.monotonic_ns - before.monotonic_ns) / 1e9
