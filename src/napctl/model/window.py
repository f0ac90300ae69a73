"""A Window: what happened between two readings. All claims of napctl stand on one."""

from collections.abc import Iterable, Mapping

from napctl.model.counts import CpuCounts, DeviceCounts, NapiCounts, PollerCounts, QueueCounts, Reading
from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.machine import SCHEMA, Device
from napctl.model.settings import NapiSettings
from napctl.model.value import Value


class EmptyPolls(Value, frozen=True, kw_only=True):
    """Polls that found no packet, split by what may be claimed of them.

    An empty poll in softirq context, on a NAPI instance of a hardware device that has neither deferral nor busy
    polling, is nearly always an interrupt for TX completions alone (J. Kicinski's note on IRQ coalescing). Under
    deferral or busy polling it only means that a poll found nothing. What is neither is unattributed.
    """

    tx_only: int = 0
    while_polling: int = 0
    unattributed: int = 0


class NapiWindow(Value, frozen=True, kw_only=True):
    """One NAPI instance during a window. Histograms are None where no probe could count them."""

    napi_id: int
    """0: the instance has no id (TX-only instances, and each CPU's backlog)."""
    device: str
    ifindex: int
    netns: int
    queues: tuple[str, ...] = ()
    """The queues it serves: "rx0", "tx0"; empty where the driver does not tell."""
    settings: NapiSettings | None = None
    """At the end of the window; None if it belongs to no observed device."""
    settings_changed: bool = False
    """They were others at the beginning."""
    irq: int | None = None
    interrupts: int | None = None
    """Interrupts of its own interrupt line, from /proc/interrupts."""
    softirq: Histogram | None = None
    thread: Histogram | None = None
    busy_poll: Histogram | None = None
    netpoll: Histogram | None = None
    pollers: tuple[PollerCounts, ...] = ()
    empty: EmptyPolls | None = None

    @property
    def polls(self) -> Histogram:
        """Polls by anybody."""
        return total(part for part in (self.softirq, self.thread, self.busy_poll, self.netpoll) if part)


class Window(Value, frozen=True, kw_only=True):
    """Counts over a span of time."""

    schema: int = SCHEMA
    source: str
    """"bpf": from the probe, per poll; "proc": from /proc alone."""
    lacks: tuple[str, ...]
    """What this window cannot tell, and why: one sentence each."""
    started_unix_ns: int
    seconds: float
    napis: tuple[NapiWindow, ...]
    cpus: tuple[CpuCounts, ...]
    devices: tuple[DeviceCounts, ...]

    def total_per_second(self, field: str) -> float | None:
        """Sum over CPUs of a CpuCounts field, per second; None where the source does not tell."""
        values = [getattr(cpu, field) for cpu in self.cpus]
        return None if None in values or not values else sum(values) / self.seconds


def own_polls(napis: Iterable[NapiWindow], pid: int) -> PollerCounts:
    """Busy polls of these NAPI instances by one process, summed; its name is that of its last poll."""
    mine = [poller for napi in napis for poller in napi.pollers if poller.pid == pid]
    return PollerCounts(
        pid=pid,
        name=mine[-1].name if mine else "",
        polls=sum(poller.polls for poller in mine),
        empty=sum(poller.empty for poller in mine),
        packets=sum(poller.packets for poller in mine),
    )


def between(
    before: Reading, after: Reading, *, devices_before: Iterable[Device], devices_after: Iterable[Device],
    netns: int, lacks: tuple[str, ...] = (),
) -> Window:  # fmt: skip
    """The window between two readings.

    `devices_before` and `devices_after` are the observed devices of the network namespace `netns` (inode number) with
    their queues, NAPI instances and settings. Polls of other namespaces are kept too, without settings.
    """
    settings_before = {napi.napi_id: napi.settings for device in devices_before for napi in device.napis}
    earlier = {napi.instance: napi for napi in before.probe.napis} if before.probe else {}
    devices = tuple(devices_after)
    known = {napi.napi_id: (device, napi) for device in devices for napi in device.napis}
    lost = (after.probe.lost_polls - before.probe.lost_polls) if after.probe and before.probe else 0
    if lost:
        lacks += (f"{lost} polls are of NAPI instances that found no place in the probe's table",)

    windows = []
    counted = set()
    for counts in after.probe.napis if after.probe else ():
        since = _since(counts, earlier.get(counts.instance))
        if not since.all.polls and counts.napi_id not in known:
            continue
        if counts.napi_id:
            counted.add(counts.napi_id)
        device, napi = known.get(counts.napi_id, (None, None)) if counts.napi_id else (None, None)
        settings = napi.settings if napi else None
        was = settings_before.get(counts.napi_id, settings)
        irq = napi.irq if napi else None
        windows.append(
            NapiWindow(
                napi_id=counts.napi_id,
                device=device.name if device else counts.device,
                ifindex=counts.ifindex,
                netns=counts.netns,
                queues=_queues(device, counts.napi_id),
                settings=settings,
                settings_changed=was != settings,
                irq=irq,
                interrupts=_interrupts(before, after, irq),
                softirq=since.softirq,
                thread=since.thread,
                busy_poll=since.busy_poll,
                netpoll=since.netpoll,
                pollers=since.pollers,
                empty=_split_empty(since, was, settings, hardware=device is not None and device.bus is not None),
            )
        )
    unseen = EMPTY if after.probe else None  # the probe saw no poll; without it nobody looked
    windows += [
        NapiWindow(
            napi_id=napi_id,
            device=device.name,
            ifindex=device.ifindex,
            netns=netns,
            queues=_queues(device, napi_id),
            settings=napi.settings,
            settings_changed=settings_before.get(napi_id, napi.settings) != napi.settings,
            irq=napi.irq,
            interrupts=_interrupts(before, after, napi.irq),
            softirq=unseen,
            thread=unseen,
            busy_poll=unseen,
            netpoll=unseen,
            empty=EmptyPolls() if after.probe else None,
        )
        for napi_id, (device, napi) in known.items()
        if napi_id not in counted
    ]
    return Window(
        source="bpf" if after.probe else "proc",
        lacks=lacks,
        started_unix_ns=before.unix_ns,
        seconds=(after.monotonic_ns - before.monotonic_ns) / 1e9,
        napis=tuple(sorted(windows, key=lambda napi: (napi.netns != netns, napi.ifindex, napi.napi_id))),
        cpus=_cpus(before, after),
        devices=_device_counts(before.devices, after.devices),
    )


def _since(counts: NapiCounts, earlier: NapiCounts | None) -> NapiCounts:
    if earlier is None:
        return counts
    pollers = {poller.pid: poller for poller in earlier.pollers}
    return NapiCounts(
        napi_id=counts.napi_id,
        device=counts.device,
        ifindex=counts.ifindex,
        netns=counts.netns,
        instance=counts.instance,
        softirq=counts.softirq - earlier.softirq,
        thread=counts.thread - earlier.thread,
        busy_poll=counts.busy_poll - earlier.busy_poll,
        netpoll=counts.netpoll - earlier.netpoll,
        pollers=tuple(
            since for poller in counts.pollers if (since := _poller_since(poller, pollers.get(poller.pid))).polls
        ),
    )


def _poller_since(poller: PollerCounts, earlier: PollerCounts | None) -> PollerCounts:
    if earlier is None:
        return poller
    return PollerCounts(
        pid=poller.pid,
        name=poller.name,
        polls=poller.polls - earlier.polls,
        empty=poller.empty - earlier.empty,
        packets=poller.packets - earlier.packets,
    )


def _split_empty(
    since: NapiCounts, before: NapiSettings | None, after: NapiSettings | None, *, hardware: bool
) -> EmptyPolls:
    empty = since.all.empty
    if since.busy_poll.polls or any(settings and settings.defers for settings in (before, after)):
        return EmptyPolls(while_polling=empty)
    known = before is not None and after is not None and None not in (before.defer_hard_irqs, after.defer_hard_irqs)
    if known and hardware:
        return EmptyPolls(tx_only=since.softirq.empty, unattributed=empty - since.softirq.empty)
    return EmptyPolls(unattributed=empty)


def _queues(device: Device | None, napi_id: int) -> tuple[str, ...]:
    queues = device.queues if device else ()
    return tuple(f"{queue.kind}{queue.index}" for queue in queues if queue.napi_id == napi_id)


def _interrupts(before: Reading, after: Reading, irq: int | None) -> int | None:
    if irq is None or irq not in before.interrupts or irq not in after.interrupts:
        return None
    return after.interrupts[irq] - before.interrupts[irq]


def _cpus(before: Reading, after: Reading) -> tuple[CpuCounts, ...]:
    """/proc's columns, and the probe's where it has them: it counts what /proc cannot time."""
    rows = []
    proc = {cpu.cpu: cpu for cpu in before.cpus}
    probe_before = {cpu.cpu: cpu for cpu in before.probe.cpus} if before.probe else {}
    probe_after = {cpu.cpu: cpu for cpu in after.probe.cpus} if after.probe else {}
    for cpu in after.cpus:
        row = _difference(proc.get(cpu.cpu), cpu)
        if cpu.cpu in probe_before and cpu.cpu in probe_after:
            row |= {
                name: value
                for name, value in _difference(probe_before[cpu.cpu], probe_after[cpu.cpu]).items()
                if value is not None
            }
        rows.append(CpuCounts(cpu=cpu.cpu, **row))
    return tuple(rows)


CPU_FIELDS = tuple(name for name in CpuCounts.__struct_fields__ if name != "cpu")


def _difference(before: CpuCounts | None, after: CpuCounts) -> dict[str, int | None]:
    return {name: _since_field(before, after, name) for name in CPU_FIELDS}


def _device_counts(before: Iterable[DeviceCounts], after: Iterable[DeviceCounts]) -> tuple[DeviceCounts, ...]:
    then: Mapping[int, DeviceCounts] = {device.ifindex: device for device in before}
    numbers = ("rx_packets", "tx_packets", "rx_dropped", "tx_dropped", "rx_missed")
    return tuple(
        DeviceCounts(
            device=now.device,
            ifindex=now.ifindex,
            queues=_queue_counts(then[now.ifindex].queues, now.queues),
            **{name: getattr(now, name) - getattr(then[now.ifindex], name) for name in numbers},
        )
        for now in after
        if now.ifindex in then
    )


QUEUE_FIELDS = ("packets", "bytes", "alloc_fail", "hw_drops")


def _queue_counts(
    before: tuple[QueueCounts, ...] | None, after: tuple[QueueCounts, ...] | None
) -> tuple[QueueCounts, ...] | None:
    if before is None or after is None:
        return None
    then = {(queue.kind, queue.index): queue for queue in before}
    pairs = [(then.get((queue.kind, queue.index)), queue) for queue in after]
    return tuple(
        QueueCounts(kind=now.kind, index=now.index, **{name: _since_field(was, now, name) for name in QUEUE_FIELDS})
        for was, now in pairs
    )


def _since_field(before: object, after: object, name: str) -> int | None:
    """Difference of one counter; None where one reading lacks it."""
    then, now = getattr(before, name, None), getattr(after, name)
    return None if then is None or now is None else now - then
