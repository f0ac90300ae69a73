"""The difference of two readings: what a Window holds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from napctl.model.counters import grown, grown_u32
from napctl.model.counts import (
    CounterReading,
    CpuCounts,
    DeviceCounts,
    NapiCounts,
    PollerCounts,
    ProbeCounts,
    QueueCounts,
    SentCounts,
)
from napctl.model.machine import Device, Napi, Queue
from napctl.model.overload import load_between
from napctl.model.settings import NapiSettings
from napctl.model.window import EmptyPolls, NapiWindow, Window

__all__ = ["between"]


CPU_FIELDS = tuple(name for name in CpuCounts.__struct_fields__ if name != "cpu")
DEVICE_FIELDS = ("rx_packets", "tx_packets", "rx_dropped", "tx_dropped", "rx_missed")
QUEUE_FIELDS = ("packets", "bytes", "alloc_fail", "hw_drops")


class _Place(NamedTuple):
    """A NAPI instance of an observed device, as it was when the window ended."""

    device: Device
    napi: Napi
    queues: Sequence[Queue]
    """That it serves."""
    told: bool
    """Whether the driver tells which instance serves which queue."""


def between(
    before: CounterReading, after: CounterReading, *, devices_before: Iterable[Device], devices_after: Iterable[Device],
    netns: int, lacks: tuple[str, ...] = (),
) -> Window:  # fmt: skip
    """The window between two readings.

    `devices_before` and `devices_after` are the observed devices of the network namespace `netns` (inode number) with
    their queues, NAPI instances and settings. Polls of other namespaces are kept too, without settings.
    """
    settings_before = {napi.napi_id: napi.settings for device in devices_before for napi in device.napis}
    places = {place.napi.napi_id: place for device in devices_after for place in _places(device)}
    polled = [counts for counts in _polls(before.probe, after.probe) if counts.all.polls]
    quiet = places.keys() - {counts.napi_id for counts in polled}
    polled += [_no_polls(places[napi_id], netns) for napi_id in quiet]
    rows = [
        _row(counts, places.get(counts.napi_id), settings_before.get(counts.napi_id), before, after)
        for counts in polled
    ]
    lacks += tuple(_losses(before.probe, after.probe))
    counted = _devices(before.devices, after.devices)
    lacks += tuple(
        f"counts of {device.device}: they were set back in this window" for device in counted if _gap(device)
    )
    return Window(
        source="bpf" if after.probe else "proc",
        lacks=lacks,
        started_unix_ns=before.unix_ns,
        seconds=_seconds(before, after),
        napis=tuple(sorted(rows, key=lambda napi: (napi.netns != netns, napi.ifindex, napi.napi_id))),
        cpus=_cpus(before, after),
        devices=counted,
        sent=_sent(before.sent, after.sent),
        packet_load=load_between(before.load, after.load) if before.load and after.load else None,
    )


def _places(device: Device) -> Iterator[_Place]:
    queues: dict[int | None, list[Queue]] = {}
    for queue in device.queues:
        queues.setdefault(queue.napi_id, []).append(queue)
    told = bool(queues.keys() - {None})
    for napi in device.napis:
        yield _Place(device, napi, queues.get(napi.napi_id, ()), told)


def _losses(before: ProbeCounts | None, after: ProbeCounts | None) -> Iterator[str]:
    """What the probe's tables had no place for."""
    if before is None or after is None:
        return
    if polls := after.lost_polls - before.lost_polls:
        yield f"{polls:,} polls of NAPI instances that found no place in the probe's table"
    if pollers := after.lost_pollers - before.lost_pollers:
        yield f"who made {pollers:,} busy polls: the processes found no place in the probe's table"


def _seconds(before: CounterReading, after: CounterReading) -> float:
    return (after.monotonic_ns - before.monotonic_ns) / 1e9


def _row(
    counts: NapiCounts, place: _Place | None, was: NapiSettings | None, before: CounterReading, after: CounterReading
) -> NapiWindow:
    """One NAPI instance. Without a probe nobody counted its polls: None, where the probe would say zero."""
    place = place if counts.napi_id else None
    device, napi = (place.device, place.napi) if place else (None, None)
    settings = napi.settings if napi else None
    probe = after.probe is not None
    return NapiWindow(
        napi_id=counts.napi_id,
        device=device.name if device else counts.device,
        ifindex=counts.ifindex,
        netns=counts.netns,
        queues=tuple(f"{queue.kind}{queue.index}" for queue in (place.queues if place else ())),
        settings=settings,
        settings_changed=was is not None and was != settings,
        irq=napi.irq if napi else None,
        interrupts=_interrupts(before, after, napi.irq if napi else None),
        softirq=counts.softirq if probe else None,
        thread=counts.thread if probe else None,
        busy_poll=counts.busy_poll if probe else None,
        netpoll=counts.netpoll if probe else None,
        pollers=counts.pollers,
        empty=_empty_polls(counts, was or settings, settings, may_be_tx=_sends(place)) if probe else None,
    )


def _empty_polls(
    counts: NapiCounts, before: NapiSettings | None, after: NapiSettings | None, *, may_be_tx: bool
) -> EmptyPolls:
    """What may be claimed of the polls that found nothing: see EmptyPolls."""
    empty = counts.all.empty
    if counts.busy_poll.polls or any(settings and settings.defers for settings in (before, after)):
        return EmptyPolls(while_polling=empty)
    known = before is not None and after is not None and None not in (before.defer_hard_irqs, after.defer_hard_irqs)
    if known and may_be_tx:
        return EmptyPolls(tx_only=counts.softirq.empty, unattributed=empty - counts.softirq.empty)
    return EmptyPolls(unattributed=empty)


def _sends(place: _Place | None) -> bool:
    """Whether a NAPI instance may be polled for TX completions: if it serves a NIC's TX queue.

    Where a driver does not tell which instance serves which queue, any may.
    """
    if place is None or place.device.bus is None:
        return False
    return not place.told or any(queue.kind == "tx" for queue in place.queues)


def _polls(before: ProbeCounts | None, after: ProbeCounts | None) -> list[NapiCounts]:
    """What came between, for each NAPI instance that the probe knows; nothing without a probe."""
    if before is None or after is None:
        return []
    earlier = {napi.instance: napi for napi in before.napis}
    return [_polls_since(earlier[napi.instance], napi) if napi.instance in earlier else napi for napi in after.napis]


def _polls_since(before: NapiCounts, after: NapiCounts) -> NapiCounts:
    then = {poller.pid: poller for poller in before.pollers}
    pollers = [_poller_since(then.get(poller.pid), poller) for poller in after.pollers]
    return NapiCounts(
        napi_id=after.napi_id,
        device=after.device,
        ifindex=after.ifindex,
        netns=after.netns,
        instance=after.instance,
        softirq=after.softirq - before.softirq,
        thread=after.thread - before.thread,
        busy_poll=after.busy_poll - before.busy_poll,
        netpoll=after.netpoll - before.netpoll,
        pollers=tuple(poller for poller in pollers if poller.polls),
    )


def _poller_since(before: PollerCounts | None, after: PollerCounts) -> PollerCounts:
    if before is None:
        return after
    return PollerCounts(
        pid=after.pid,
        name=after.name,
        polls=after.polls - before.polls,
        empty=after.empty - before.empty,
        packets=after.packets - before.packets,
    )


def _no_polls(place: _Place, netns: int) -> NapiCounts:
    """An instance that made no poll: the probe knows only those that made one."""
    device = place.device
    return NapiCounts(napi_id=place.napi.napi_id, device=device.name, ifindex=device.ifindex, netns=netns, instance=-1)


def _interrupts(before: CounterReading, after: CounterReading, irq: int | None) -> int | None:
    """Of one line, all CPUs together; None where one of them has a gap, or came or went."""
    then, now = (reading.interrupts.get(irq) if irq is not None else None for reading in (before, after))
    if then is None or now is None or then.keys() != now.keys():
        return None
    return _sum(grown_u32(then[cpu], now[cpu], _seconds(before, after)) for cpu in now)


def _interrupts_of_cpu(before: CounterReading, after: CounterReading, cpu: int) -> int | None:
    """Of one CPU, all lines that were there from beginning to end."""
    pairs = [(line.get(cpu), after.interrupts.get(irq, {}).get(cpu)) for irq, line in before.interrupts.items()]
    there = [(then, now) for then, now in pairs if then is not None and now is not None]
    return _sum(grown_u32(then, now, _seconds(before, after)) for then, now in there) if there else None


def _cpus(before: CounterReading, after: CounterReading) -> tuple[CpuCounts, ...]:
    """/proc's columns, and the probe's where it has them: it counts what /proc cannot time."""
    seconds = _seconds(before, after)
    proc = {cpu.cpu: cpu for cpu in before.cpus}
    probe_before = {cpu.cpu: cpu for cpu in before.probe.cpus} if before.probe else {}
    probe_after = {cpu.cpu: cpu for cpu in after.probe.cpus} if after.probe else {}
    rows = []
    for cpu in after.cpus:
        then, now = _fields(proc.get(cpu.cpu)), _fields(cpu)
        row: dict[str, int | None] = {name: grown_u32(then[name], now[name], seconds) for name in CPU_FIELDS}
        row["interrupts"] = _interrupts_of_cpu(before, after, cpu.cpu)
        then, now = _fields(probe_before.get(cpu.cpu)), _fields(probe_after.get(cpu.cpu))
        counted = {name: grown(then[name], now[name]) for name in CPU_FIELDS}
        row |= {name: value for name, value in counted.items() if value is not None}
        rows.append(CpuCounts(cpu=cpu.cpu, **row))
    return tuple(rows)


def _fields(cpu: CpuCounts | None) -> dict[str, int | None]:
    return {name: getattr(cpu, name, None) for name in CPU_FIELDS}


def _devices(before: Iterable[DeviceCounts], after: Iterable[DeviceCounts]) -> tuple[DeviceCounts, ...]:
    then: Mapping[int, DeviceCounts] = {device.ifindex: device for device in before}
    return tuple(
        DeviceCounts(
            device=now.device,
            ifindex=now.ifindex,
            queues=_queues(then[now.ifindex].queues, now.queues),
            **{name: grown(getattr(then[now.ifindex], name), getattr(now, name)) for name in DEVICE_FIELDS},
        )
        for now in after
        if now.ifindex in then
    )


def _gap(device: DeviceCounts) -> bool:
    return any(getattr(device, name) is None for name in DEVICE_FIELDS)


def _sent(before: SentCounts | None, after: SentCounts | None) -> SentCounts | None:
    """None where the counters fell: the namespace is another."""
    if before is None or after is None:
        return None
    segments = grown(before.tcp_segments, after.tcp_segments)
    datagrams = grown(before.udp_datagrams, after.udp_datagrams)
    return None if segments is None or datagrams is None else SentCounts(tcp_segments=segments, udp_datagrams=datagrams)


def _queues(
    before: tuple[QueueCounts, ...] | None, after: tuple[QueueCounts, ...] | None
) -> tuple[QueueCounts, ...] | None:
    if before is None or after is None:
        return None
    then = {(queue.kind, queue.index): queue for queue in before}
    return tuple(
        QueueCounts(
            kind=now.kind,
            index=now.index,
            **{
                name: grown(getattr(then.get((now.kind, now.index)), name, None), getattr(now, name))
                for name in QUEUE_FIELDS
            },
        )
        for now in after
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """None if one of them is."""
    found = list(counts)
    return None if None in found else sum(filter(None, found))
