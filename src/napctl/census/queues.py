"""Each device, and each of its queues: who takes its packets, with the share of each and what shows it. Pure."""

from collections.abc import Collection, Iterator

from msgspec.structs import replace

from napctl.census.handed import Facts, handed_by_device, handed_by_queue, handed_out
from napctl.census.polled import polled
from napctl.model.census import CensusDevice, QueueWay, TakenWay
from napctl.model.counts import DeviceCounts
from napctl.model.machine import Device, LowerDevice, Queue
from napctl.model.text import each
from napctl.model.window import NapiWindow, Window

__all__ = ["census_devices"]


PAIRS = ("veth",)
"""Kinds that hand packets to the backlog of the CPU where they have no NAPI instance (veth_forward_skb() in
drivers/net/veth.c)."""


def census_devices(netns: int, devices: Collection[Device], window: Window, facts: Facts) -> tuple[CensusDevice, ...]:
    """These devices of a network namespace (its inode number), and the NICs that are handed out."""
    return (
        *(_device(netns, device, window, facts) for device in devices),
        *(
            CensusDevice(
                name=nic.bus, ifindex=None, driver=nic.driver, bus=nic.bus, up=None, rx_packets=None,
                handed=(handed_out(nic, facts.pollers),),
            )
            for nic in facts.user_space
        ),
    )  # fmt: skip


def _device(netns: int, device: Device, window: Window, facts: Facts) -> CensusDevice:
    counts = next((counts for counts in window.devices if counts.ifindex == device.ifindex), None)
    device = _with_queue(device)
    rows = [row for row in window.napis if row.netns == netns and row.ifindex == device.ifindex]
    instances = [_of_instance(device, row, counts, facts) for row in rows if row.napi_id or row.polls.packets]
    queues = (*instances, *_without_instance(device, counts, facts))
    packets = counts.rx_packets if counts else None
    return CensusDevice(
        name=device.name,
        ifindex=device.ifindex,
        driver=device.driver,
        bus=device.bus,
        up=device.up,
        rx_packets=packets,
        queues=queues,
        polled=() if queues else tuple(_as_a_whole(device, packets)),
        handed=tuple(handed_by_device(device, packets, facts)),
    )


def _with_queue(device: Device) -> Device:
    """Of one RX queue and one NAPI instance, that serves this, also where the driver does not say so (veth)."""
    rx = [queue for queue in device.queues if queue.kind == "rx"]
    if len(device.napis) != 1 or len(rx) != 1 or rx[0].napi_id is not None:
        return device
    served = replace(rx[0], napi_id=device.napis[0].napi_id)
    return replace(device, queues=tuple(served if queue is rx[0] else queue for queue in device.queues))


def _of_instance(device: Device, row: NapiWindow, counts: DeviceCounts | None, facts: Facts) -> QueueWay:
    """One without an id serves nothing that is known of."""
    queues = [queue for queue in device.queues if row.napi_id and queue.napi_id == row.napi_id]
    packets = row.polls.packets if row.softirq is not None else _counted(counts, queues)
    return _row(device, row.napi_id or None, queues, packets, polled(row, facts.epolls), facts)


def _without_instance(device: Device, counts: DeviceCounts | None, facts: Facts) -> Iterator[QueueWay]:
    """RX queues of which the driver does not tell who serves them: those of which there is nothing to say together. The
    queues of a software device that has no instances are a number, and nothing else."""
    silent = [queue for queue in device.queues if queue.napi_id is None and queue.kind == "rx"]
    plain = [queue for queue in silent if not queue.uses and device.bus is not None]
    for queues in ([plain] if plain else []) + [[queue] for queue in silent if queue.uses]:
        yield _row(device, None, queues, _counted(counts, queues), (), facts)


def _row(
    device: Device,
    napi_id: int | None,
    queues: Collection[Queue],
    packets: int | None,
    ways: tuple[TakenWay, ...],
    facts: Facts,
) -> QueueWay:
    rx = [queue for queue in queues if queue.kind == "rx"]
    return QueueWay(
        device=device.name,
        ifindex=device.ifindex,
        queues=tuple(f"{queue.kind}{queue.index}" for queue in queues),
        napi_id=napi_id,
        packets=packets,
        polled=ways,
        handed=tuple(handed_by_queue(device, rx, packets, facts)),
    )


def _counted(counts: DeviceCounts | None, queues: Collection[Queue]) -> int | None:
    """Packets of RX queues, by the driver; None where it does not count all of them."""
    told = {(count.kind, count.index): count.packets for count in (counts.queues if counts else None) or ()}
    found = [told.get((queue.kind, queue.index)) for queue in queues if queue.kind == "rx"]
    return sum(filter(None, found)) if found and None not in found else None


def _as_a_whole(device: Device, packets: int | None) -> Iterator[TakenWay]:
    """Of one that has neither queues nor NAPI instances that are known."""
    if not device.up:
        return
    if device.lower:
        by = each(_name(lower) for lower in device.lower)
        yield TakenWay(kind="lower device", by=by, packets=packets, evidence=("where it stands [rtnetlink]",))
    elif device.kind in PAIRS:
        yield TakenWay(
            kind="backlog",
            packets=packets,
            share=1.0 if packets else None,
            evidence=("no NAPI instance [netdev netlink]",),
        )


def _name(lower: LowerDevice) -> str:
    return lower.name or f"interface {lower.ifindex} of another network namespace"
