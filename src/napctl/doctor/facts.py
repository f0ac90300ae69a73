"""What several rules ask of a Checkup, and why some of them cannot judge."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from shlex import quote

from napctl.model.finding import Checkup, Finding, ProcessUse, ThreadUse
from napctl.model.machine import Device, EpollPoller, Napi, leases
from napctl.model.text import each
from napctl.model.window import NapiWindow

__all__ = [
    "BUSY_PACKETS_PER_SECOND",
    "COALESCING_NOTE",
    "EPOLL",
    "ETHTOOL",
    "LEAST_PACKETS",
    "LINK",
    "MOST_NAMED",
    "NAPI_DOC",
    "NETDEV",
    "PROBE",
    "PROC_STAT",
    "SCHEDSTAT",
    "SOFTNET",
    "SYSFS",
    "Lack",
    "Rule",
    "application_on",
    "busy",
    "cpu_busy",
    "cpu_names",
    "napi_name",
    "no_coalescing",
    "no_deferral",
    "no_hardware",
    "no_irqs",
    "no_napis",
    "no_probe",
    "no_queue_counts",
    "no_speed",
    "no_traffic",
    "plan_commands",
    "pollers_of",
    "rows",
    "rx_packets",
    "single_cpu",
    "some",
]


PROBE, SOFTNET, PROC_STAT, SCHEDSTAT = "probe", "/proc/net/softnet_stat", "/proc/stat", "/proc/PID/schedstat"
NETDEV, ETHTOOL, SYSFS, EPOLL, LINK = "netdev netlink", "ethtool netlink", "sysfs", "EPIOCGPARAMS", "link statistics"

NAPI_DOC = "Documentation/networking/napi.rst"
COALESCING_NOTE = "J. Kicinski, Easy network performance wins with IRQ coalescing (people.kernel.org/kuba)"

BUSY_PACKETS_PER_SECOND = 1000
"""A queue with less leaves its CPU alone for a millisecond between packets: no setting of it matters to others."""
MOST_NAMED = 4
"""Of many instances alike, a few are enough to look at."""
LEAST_PACKETS = 100
"""In a window with less no rate and no share means anything."""


@dataclass(frozen=True)
class Rule:
    """A rule: what finds, and what it needs that a checkup may lack."""

    name: str
    find: Callable[[Checkup], Iterator[Finding]]
    lacks: tuple[Callable[[Checkup], Iterator[tuple[str, str]]], ...] = ()


def rows(seen: Checkup, device: Device) -> list[NapiWindow]:
    """What the window holds of a device's NAPI instances, without those of queues that are leased."""
    ids = {napi.napi_id for napi in device.napis} - {napi_id for napi_id, _ in leases(device)}
    return [row for row in seen.window.napis if row.napi_id in ids]


def busy(seen: Checkup, device: Device) -> list[tuple[Napi, NapiWindow]]:
    """Its NAPI instances that took packets at a rate that matters."""
    least = max(LEAST_PACKETS, BUSY_PACKETS_PER_SECOND * seen.window.seconds)
    napis = {napi.napi_id: napi for napi in device.napis}
    return [(napis[row.napi_id], row) for row in rows(seen, device) if row.polls.packets >= least]


def rx_packets(seen: Checkup, device: Device) -> int:
    """Packets that the device received in the window, as far as is known."""
    return sum(counts.rx_packets or 0 for counts in seen.window.devices if counts.ifindex == device.ifindex)


def cpu_busy(seen: Checkup, cpu: int) -> float | None:
    """How busy a CPU was, 0 … 1; None if it is not online."""
    return next((use.busy_share for use in seen.cpus if use.cpu == cpu), None)


def single_cpu(napi: Napi) -> int | None:
    """The one CPU on which a NAPI instance is polled unless an application polls it; None if that is not one."""
    return int(napi.cpus) if napi.cpus is not None and napi.cpus.isdigit() else None


def application_on(seen: Checkup, napi: Napi, cpu: int, least_share: float) -> Iterator[tuple[ProcessUse, ThreadUse]]:
    """The process fed by this NAPI instance whose thread uses that CPU most, if any uses so much of it."""
    found = [
        (process, thread)
        for process in seen.processes
        if napi.napi_id in process.napi_ids and process.pid != napi.thread_pid
        for thread in process.threads
        if thread.cpus == (cpu,) and thread.cpu_share >= least_share
    ]
    if found:
        yield max(found, key=lambda pair: pair[1].cpu_share)


def pollers_of(seen: Checkup, pid: int) -> list[EpollPoller]:
    """Epoll instances by which a process polls."""
    return [poller for poller in seen.machine.pollers if poller.pid == pid]


def napi_name(device: Device, napi_id: int) -> str:
    """For example "NAPI 12 of eth0 (rx0 tx0)"."""
    queues = " ".join(f"{queue.kind}{queue.index}" for queue in device.queues if queue.napi_id == napi_id)
    return f"NAPI {napi_id} of {device.name}" + (f" ({queues})" if queues else "")


def cpu_names(cpus: Iterable[int]) -> str:
    """0, 2 and 8-15: a machine may have hundreds."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    short = (([f"{run[0]}-{run[-1]}"] if len(run) > 2 else run) for run in runs)
    return each(name for names in short for name in names)


def some(items: Iterable[str]) -> str:
    """All of a few; of many the first, and how many more."""
    named = list(items)
    if len(named) > MOST_NAMED:
        named = [*named[: MOST_NAMED - 1], f"{len(named) - MOST_NAMED + 1} more"]
    return each(named)


def plan_commands(device: str) -> tuple[str, ...]:
    """Compute settings for a device, look at them, set them for a minute, keep them if the machine is still there."""
    return (
        f"napctl plan {quote(device)} --goal balanced --output plan.toml",
        "napctl apply plan.toml --confirm-within 60s",
        "napctl confirm",
    )


# What a checkup may lack: (device, or nothing if it is of all; why). A device that is down has nothing to be judged.

Lack = tuple[str, str]


def no_probe(seen: Checkup) -> Iterator[Lack]:
    """Packets per poll, and who polled, are the probe's alone."""
    if seen.window.source != "bpf":
        yield "", "the BPF probe is not available, so polls are not counted"


def _lacking(why: str, lacks: Callable[[Checkup, Device], bool]) -> Callable[[Checkup], Iterator[Lack]]:
    """Of each device that is up and `lacks` it."""

    def find(seen: Checkup) -> Iterator[Lack]:
        for device in seen.machine.devices:
            if device.up and lacks(seen, device):
                yield device.name, why

    return find


def _counts_queues(seen: Checkup, device: Device) -> bool:
    return any(counts.queues is not None for counts in seen.window.devices if counts.ifindex == device.ifindex)


def _tells_irqs(device: Device) -> bool:
    return not device.napis or any(napi.irq is not None or napi.cpus is not None for napi in device.napis)


def no_traffic(seen: Checkup) -> Iterator[Lack]:
    """No rate and no share without packets."""
    set_back = {counts.ifindex for counts in seen.window.devices if counts.rx_packets is None}
    for device in seen.machine.devices:
        if device.up and rx_packets(seen, device) < LEAST_PACKETS:
            few = f"fewer than {LEAST_PACKETS} packets came"
            yield device.name, "its counters were reset meanwhile" if device.ifindex in set_back else few


no_hardware = _lacking("a software device has no interrupts", lambda _, device: device.bus is None)
no_coalescing = _lacking(
    "the driver reports no coalescing", lambda _, device: device.bus is not None and device.coalescing is None
)
no_speed = _lacking(
    "the driver does not report the link speed", lambda _, device: device.bus is not None and device.speed_mbps is None
)
no_queue_counts = _lacking(
    "the driver counts no drops per queue",
    lambda seen, device: device.bus is not None and not _counts_queues(seen, device),
)
no_deferral = _lacking("device-wide deferral could not be read", lambda _, device: device.deferral is None)
no_napis = _lacking("the driver reports no NAPI instance", lambda _, device: not device.napis)
no_irqs = _lacking(
    "the driver does not report its interrupts", lambda _, device: device.bus is not None and not _tells_irqs(device)
)
