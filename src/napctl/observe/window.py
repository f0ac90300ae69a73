"""Run a Window: read the counters before and after, with the probe where it can be loaded."""

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Self

from msgspec.structs import replace

from napctl.kernel import interrupts, snmp, softnet
from napctl.kernel.links import Link, links, links_at
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.model.counts import CounterReading, CpuCounts, DeviceCounts, QueueCounts
from napctl.model.difference import between
from napctl.model.errors import Unsupported
from napctl.model.machine import Device
from napctl.model.window import Window
from napctl.observe.machine import DISAPPEARED, take_devices, take_devices_again
from napctl.observe.packet_load import PacketLoadReader
from napctl.probe import Probe, ProbeReader, ProbeUnavailable

__all__ = ["Observer", "device_counts", "run_window"]


class Observer:
    """Windows of one network namespace, one after the other. Use as a context manager.

    The probe counts polls of the whole machine; settings, queues and drops are those of the named devices (all but
    loopback by default). Raises BadInput for a device that is not there.
    """

    def __init__(self, netns: NetworkNamespace, names: Collection[str] = (), probe: ProbeReader | None = None):
        """`probe`: one that counts already, instead of one of its own; whoever has it closes it."""
        self._netns = netns
        self._lacks: list[str] = []
        self._devices = take_devices(netns, names, self._lacks)
        self._probe, self._own_probe = probe, probe is None
        try:
            self._probe = probe or Probe.load()
        except ProbeUnavailable as error:
            self._lacks.append(f"packets per poll, who polled, and softirq times: {error.reason}")
        self._named = {device.ifindex: device.name for device in self._devices} if names else {}
        self._load = PacketLoadReader([(netns, [device.name for device in self._devices])])
        self._reading = self._first = self._read()
        self._devices_first = self._devices

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._probe and self._own_probe:
            self._probe.close()
        self._load.close()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The observed devices, as they were when the last window ended."""
        return self._devices

    @property
    def gone(self) -> tuple[str, ...]:
        """Named devices that had gone when the last window ended: removed, or moved to another network namespace."""
        there = {device.ifindex for device in self._devices}
        return tuple(name for ifindex, name in self._named.items() if ifindex not in there)

    def restart(self) -> None:
        """Let the next window, and the whole, begin now."""
        self._devices = self._devices_first = self._taken()
        self._reading = self._first = self._read()

    def window(self, *, refresh: bool = True) -> Window:
        """What happened since the last window ended (or since the start), ending now.

        `refresh` reads the devices' settings again, so that a change of them during the window is seen.
        """
        before, devices_before = self._reading, self._devices
        self._reading = self._read()
        if refresh:
            self._devices = self._taken()
        return self._between(before, devices_before)

    def since_start(self, *, read: bool = False) -> Window:
        """The sum of all windows so far; with `read` until now, without ending the one at hand."""
        if read:
            kept = self._reading
            self._reading = self._read()
            try:
                return self._between(self._first, self._devices_first)
            finally:
                self._reading = kept
        return self._between(self._first, self._devices_first)

    def _taken(self) -> tuple[Device, ...]:
        """As they are now, also under another name than they were asked for by. The counts of one that has gone end."""
        if not self._named:
            return take_devices(self._netns, (), [])
        return take_devices_again(self._netns, self._named)

    def _between(self, before: CounterReading, devices_before: tuple[Device, ...]) -> Window:
        return between(
            before,
            self._reading,
            devices_before=devices_before,
            devices_after=self._devices,
            netns=self._netns.inode,
            lacks=(*self._lacks, *(f"{name}: {DISAPPEARED}" for name in self.gone)),
        )

    def _read(self) -> CounterReading:
        observed = {device.ifindex for device in self._devices}
        there = links_at(self._netns, observed) if self._named else links(self._netns)
        queues = self._queue_counts()
        probe = self._probe.read() if self._probe else None
        return CounterReading(
            probe=probe,
            monotonic_ns=time.monotonic_ns(),
            unix_ns=time.time_ns(),
            cpus=_cpus(),
            interrupts=interrupts.counts(),
            sent=snmp.sent(self._netns),
            load=self._load.read(probe.cpus if probe else ()),
            devices=tuple(
                replace(device_counts(link), queues=queues.get(link.ifindex))
                for link in there
                if link.ifindex in observed
            ),
        )

    def _queue_counts(self) -> dict[int, tuple[QueueCounts, ...]]:
        """By interface index, of the drivers that keep them."""
        found: dict[int, tuple[QueueCounts, ...]] = {}
        try:
            with Netdev(self._netns) as netdev:
                for device in self._devices:
                    with suppress(Refused):  # the device has gone meanwhile
                        counts = netdev.queue_counts(device.ifindex)
                        if counts is not None:
                            found[device.ifindex] = tuple(counts)
        except Unsupported:
            pass  # said once, in the lacks of the devices
        return found


def run_window(netns: NetworkNamespace, seconds: float, names: Collection[str] = ()) -> Window:
    """One window of that length. Raises BadInput."""
    with Observer(netns, names) as observer:
        observer.restart()
        time.sleep(seconds)
        return observer.window()


def _cpus() -> tuple[CpuCounts, ...]:
    stat, softirqs = softnet.softnet(), softnet.net_rx_softirqs()
    return tuple(
        CpuCounts(
            cpu=cpu,
            net_rx_softirqs=softirqs.get(cpu),
            time_squeezes=line.time_squeezes,
            backlog_drops=line.dropped,
        )
        for cpu, line in sorted(stat.items())
    )


def device_counts(link: Link) -> DeviceCounts:
    """Packets and drops of a device, as its driver counts them; without its queues."""
    return DeviceCounts(
        device=link.name,
        ifindex=link.ifindex,
        rx_packets=link.rx_packets,
        tx_packets=link.tx_packets,
        rx_dropped=link.rx_dropped,
        tx_dropped=link.tx_dropped,
        rx_missed=link.rx_missed,
    )
