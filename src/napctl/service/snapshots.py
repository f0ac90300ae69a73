"""Takes Snapshots: keeps the probes open for the life of the service, reads them when asked, and adds up."""

import os
import resource
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from napctl.kernel import interrupts, softnet
from napctl.kernel.cpu_time import clock_seconds
from napctl.kernel.links import Link, links_named
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.running_kernel import in_initial_pid_namespace, kernel_release
from napctl.model.activity import judge
from napctl.model.change import InstanceChange, NapiChange, Transaction
from napctl.model.counts import CounterReading, CpuCounts, ProbeCounts
from napctl.model.difference import between
from napctl.model.finding import Finding
from napctl.model.machine import Device
from napctl.model.modes import mode_of
from napctl.model.other_manager import OtherManager
from napctl.model.overload import LoadReading
from napctl.model.snapshot import DeviceTotals, NapiTotals, OwnUse, PolicyState, ProbeName, Snapshot, TargetTotals
from napctl.model.window import Window, own_polls
from napctl.observe.machine import take_devices_again
from napctl.observe.window import device_counts
from napctl.service.open_probes import OpenPacketLoad, OpenProbes, Suspended
from napctl.service.totals import DeviceSums, NapiSums, OverloadSums, TargetSums, found_rules, grown_by, kept

__all__ = ["DeviceState", "ServiceState", "SnapshotTaker", "Watched", "WatchedTarget"]


SETTINGS_NS = 30 * 10**9
"""How long settings that were read are taken for those in force: a question to a driver may take its locks."""
OF_CPUS = ("net_rx_softirq_ns", "interrupts", "time_squeezes", "backlog_drops")
"""Fields of CpuCounts of which a snapshot has the sum."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

DeviceKey = tuple[int, str]
"""Inode number of the network namespace, and name: what a series is known by."""
NapiKey = tuple[int, int]


@dataclass(frozen=True)
class Watched:
    """All devices of one network namespace that are to be seen. One that is not there is no error: it may come."""

    netns: NetworkNamespace
    names: Collection[str]
    """Or alternative names."""


@dataclass(frozen=True)
class WatchedTarget:
    """One target of the policy, as the service knows it."""

    target: str
    pids: Collection[int]
    """In the initial PID namespace; empty while it does not run."""
    transaction: Transaction | None
    """What attached it; None: it is not attached."""
    drift: int = 0
    conflicts: int = 0


@dataclass(frozen=True)
class DeviceState:
    """What the service knows of a device: see DeviceTotals."""

    drift: int = 0
    conflicts: int = 0
    changed_unix_ns: int | None = None
    protection_step: int | None = None


@dataclass(frozen=True)
class ServiceState:
    """What a snapshot holds besides what is counted."""

    policy: PolicyState = field(default_factory=PolicyState)
    devices: Mapping[DeviceKey, DeviceState] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    findings_monotonic_ns: int | None = None
    managers: Sequence[OtherManager] = ()


@dataclass(frozen=True)
class _Namespace:
    """What was read of one network namespace last."""

    links: Mapping[int, Link]
    """By interface index, the watched ones."""
    devices: tuple[Device, ...]
    devices_read_ns: int
    reading: CounterReading


class SnapshotTaker:
    """A context manager. What it counts begins with it, from zero."""

    def __init__(self, version: str, *, per_napi: bool = False) -> None:
        """`per_napi`: keep totals of each NAPI instance too."""
        self._version, self._per_napi = version, per_napi
        self._started_unix_ns = time.time_ns()
        self._own_netns = Path("/proc/thread-self/ns/net").stat().st_ino
        self._probes = OpenProbes()
        self._load = OpenPacketLoad()
        self._visible = in_initial_pid_namespace()
        """Whether the processes that the probes name are known by the same pids here."""
        self._namespaces: dict[int, _Namespace] = {}
        self._settings_ns = SETTINGS_NS
        self._devices: dict[DeviceKey, DeviceSums] = {}
        self._napis: dict[NapiKey, NapiSums] = {}
        self._targets: dict[str, TargetSums] = {}
        self._threads = TargetSums()
        self._machine: dict[str, int | None] = dict.fromkeys(OF_CPUS)
        self._overload = OverloadSums()

    def __enter__(self) -> Self:
        self._probes.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._probes.__exit__(*exc)
        self._load.close()

    @property
    def unavailable(self) -> Mapping[ProbeName, str]:
        """Why a probe could not be loaded."""
        return self._probes.unavailable

    def reread(self) -> None:
        """Ask for all settings anew at the next snapshot: the service, or an event, says that some have changed."""
        self._settings_ns = 0

    def take(
        self, watched: Sequence[Watched], targets: Sequence[WatchedTarget] = (), told: ServiceState | None = None
    ) -> Snapshot:
        """Now. What a device or a target did before it was first asked for is not counted."""
        began_ns, told = time.monotonic_ns(), told or ServiceState()
        windows = self._windows(watched)
        suspended = self._probes.suspended()
        for window, netns in windows:
            self._add(window, netns, suspended)
        self._add_machine(windows)
        found_targets = self._take_targets(targets, {netns: window for window, netns in windows}, suspended)
        devices = tuple(
            self._device(device, netns, told) for _, netns in windows for device in self._namespaces[netns].devices
        )
        self._forget({each.target for each in targets})
        if self._probes.renew():
            fresh = self._probes.polls()
            self._namespaces = {inode: _with_probe(each, fresh) for inode, each in self._namespaces.items()}
        names = [each.device for each in devices]
        return Snapshot(
            monotonic_ns=began_ns,
            seconds_to_take=(time.monotonic_ns() - began_ns) / 1e9,
            started_unix_ns=self._started_unix_ns,
            version=self._version,
            kernel=kernel_release(),
            devices=devices,
            targets=found_targets,
            probes=self._probes.up(),
            lost_polls=self._probes.lost_polls,
            softirq_ns=self._machine["net_rx_softirq_ns"],
            thread_seconds=self._threads.cpu_seconds,
            interrupts=self._machine["interrupts"] if self._probes.up()["napi"] else None,
            time_squeezes=self._machine["time_squeezes"],
            backlog_drops=self._machine["backlog_drops"],
            overload=self._overload.totals(),
            findings=found_rules(told.findings, names),
            findings_monotonic_ns=told.findings_monotonic_ns,
            policy=told.policy,
            managers=tuple(told.managers),
            own=_own_use(),
        )

    def _windows(self, watched: Sequence[Watched]) -> list[tuple[Window, int]]:
        """What came since the last snapshot, by network namespace; nothing of one that is new."""
        probe, cpus, now_ns = self._probes.polls(), _cpus(), time.monotonic_ns()
        load = self._load.read([(each.netns, each.names) for each in watched], probe)
        found, namespaces = [], {}
        for each in watched:
            inode = each.netns.inode
            before = self._namespaces.get(inode)
            now = namespaces[inode] = self._namespace(each, before, probe, cpus, load, now_ns)
            then = before or now
            window = between(
                then.reading, now.reading, devices_before=then.devices, devices_after=now.devices, netns=inode
            )
            found.append((window, inode))
        self._namespaces, self._settings_ns = namespaces, SETTINGS_NS
        return found

    def _namespace(
        self, watched: Watched, before: _Namespace | None, probe: ProbeCounts | None, cpus: tuple[CpuCounts, ...],
        load: LoadReading | None,
        now_ns: int,
    ) -> _Namespace:  # fmt: skip
        """As it is now. Settings that were read of late are taken for those in force."""
        there = {link.ifindex: link for link in links_named(watched.netns, watched.names)}
        if (
            before is not None
            and now_ns - before.devices_read_ns < self._settings_ns
            and _same(before.links, there)
            and not _unknown(probe, before, watched.netns.inode)
        ):
            devices, read_ns = before.devices, before.devices_read_ns
        else:
            devices, read_ns = take_devices_again(watched.netns, there), now_ns
        return _Namespace(there, devices, read_ns, _reading(probe, cpus, load, now_ns, there.values(), devices))

    def _add(self, window: Window, netns: int, suspended: Suspended | None) -> None:
        names = {ifindex: link.name for ifindex, link in self._namespaces[netns].links.items()}
        for counts in window.devices:
            self._devices.setdefault((netns, counts.device), DeviceSums()).add_interface(counts)
        for napi in window.napis:
            if napi.netns != netns or napi.ifindex not in names:
                continue
            key = netns, napi.napi_id
            of_napi = (suspended or {}).get(key)
            self._devices.setdefault((netns, names[napi.ifindex]), DeviceSums()).add(napi, of_napi)
            if self._per_napi and napi.napi_id:
                self._napis.setdefault(key, NapiSums()).add(napi, of_napi)

    def _add_machine(self, windows: Sequence[tuple[Window, int]]) -> None:
        """Each window tells the same of the whole machine."""
        for name in self._machine if windows else ():
            if (more := grown_by(windows[0][0].cpus, name)) is not None:
                self._machine[name] = (self._machine[name] or 0) + more
        if windows and (load := windows[0][0].packet_load):
            self._overload.add(load)
        devices = [device for each in self._namespaces.values() for device in each.devices]
        pids = [napi.thread_pid for device in devices for napi in device.napis if napi.thread_pid is not None]
        self._threads.add_ran(_ran(pids))

    def _device(self, device: Device, netns: int, told: ServiceState) -> DeviceTotals:
        sums = self._devices.setdefault((netns, device.name), DeviceSums())
        up = self._probes.up()
        state = told.devices.get((netns, device.name), DeviceState())
        return DeviceTotals(
            device=device.name,
            netns=None if netns == self._own_netns else netns,
            up=self._namespaces[netns].links[device.ifindex].up,
            interface=sums.interface,
            polls=sums.polls if up["napi"] else None,
            suspension=sums.suspension if up["suspension"] else None,
            interrupts=sums.interrupts,
            coalescing=device.coalescing,
            napis=tuple(
                NapiTotals(
                    napi_id=napi.napi_id,
                    polls=of_napi.polls if of_napi and up["napi"] else None,
                    suspension=of_napi.suspension if of_napi and up["suspension"] else None,
                    interrupts=of_napi.interrupts if of_napi else None,
                    settings=napi.settings,
                )
                for napi in device.napis
                for of_napi in [self._napis.get((netns, napi.napi_id))]
            ),
            drift=state.drift,
            conflicts=state.conflicts,
            changed_unix_ns=state.changed_unix_ns,
            protection_step=state.protection_step,
        )

    def _take_targets(
        self, targets: Sequence[WatchedTarget], windows: Mapping[int, Window], suspended: Suspended | None
    ) -> tuple[TargetTotals, ...]:
        before, after = self._probes.latencies({pid for each in targets for pid in each.pids})
        anywhere = next(iter(windows.values()), None)  # each has the polls of the whole machine
        found = []
        for each in targets:
            sums = self._targets.setdefault(each.target, TargetSums())
            sums.add_ran(_ran(each.pids))
            sums.add_latency(before, after, each.pids)
            for pid in each.pids if self._visible else ():
                own = own_polls(anywhere.napis if anywhere else (), pid)
                sums.polls, sums.packets = sums.polls + own.polls, sums.packets + own.packets
            found.append(self._target(each, sums, windows if self._visible else {}, suspended))
        return tuple(found)

    def _target(
        self, target: WatchedTarget, sums: TargetSums, windows: Mapping[int, Window], suspended: Suspended | None
    ) -> TargetTotals:
        transaction, up = target.transaction, self._probes.up()
        changes = [each for each in (transaction.changes if transaction else ()) if isinstance(each, InstanceChange)]
        window = next((windows[each.netns] for each in changes if each.netns in windows), None)
        if window is not None and not window.seconds:
            window = None  # the first one, which has only begun
        napis = [each for each in changes if isinstance(each, NapiChange)]
        timers = [each.after.gro_flush_timeout_ns for each in napis if each.after.gro_flush_timeout_ns is not None]
        return TargetTotals(
            target=target.target,
            attached=transaction is not None,
            verdict=judge(transaction, window, suspended).verdict if transaction else "",
            processes=len(target.pids),
            cpu_seconds=sums.cpu_seconds,
            polls=sums.polls if up["napi"] else None,
            packets=sums.packets if up["napi"] else None,
            until_read=sums.until_read if up.get("latency") else None,
            until_reply=sums.until_reply if up.get("latency") else None,
            timer_ns=max(timers, default=None),
            mode=mode_of(transaction.changes) if transaction else "",
            drift=target.drift,
            conflicts=target.conflicts,
        )

    def _forget(self, targets: Collection[str]) -> None:
        """Totals of what has not been there for long."""
        there = {(inode, link.name) for inode, each in self._namespaces.items() for link in each.links.values()}
        self._devices = kept(self._devices, there)
        self._targets = kept(self._targets, targets)
        napis = {
            (inode, napi.napi_id)
            for inode, each in self._namespaces.items()
            for device in each.devices
            for napi in device.napis
        }
        self._napis = {key: sums for key, sums in self._napis.items() if key in napis}


def _same(before: Mapping[int, Link], now: Mapping[int, Link]) -> bool:
    """Whether the same devices are there, under the same names, and up as before."""
    return before.keys() == now.keys() and all(
        (before[ifindex].name, before[ifindex].up) == (link.name, link.up) for ifindex, link in now.items()
    )


def _unknown(probe: ProbeCounts | None, before: _Namespace, netns: int) -> bool:
    """Whether a NAPI instance of these devices polls that was not there when they were read."""
    known = {napi.napi_id for device in before.devices for napi in device.napis}
    known |= {napi.napi_id for napi in (before.reading.probe.napis if before.reading.probe else ())}
    napis = probe.napis if probe else ()
    return any(napi.netns == netns and napi.ifindex in before.links and napi.napi_id not in known for napi in napis)


def _reading(
    probe: ProbeCounts | None, cpus: tuple[CpuCounts, ...], load: LoadReading | None, now_ns: int,
    there: Collection[Link], devices: Collection[Device],
) -> CounterReading:  # fmt: skip
    irqs = {napi.irq for device in devices for napi in device.napis if napi.irq is not None}
    lines = interrupts.counts() if irqs else {}
    return CounterReading(
        monotonic_ns=now_ns,
        unix_ns=time.time_ns(),
        probe=probe,
        cpus=cpus,
        interrupts={irq: lines[irq] for irq in irqs & lines.keys()},
        devices=tuple(map(device_counts, there)),
        load=load,
    )


def _with_probe(namespace: _Namespace, probe: ProbeCounts | None) -> _Namespace:
    fields = {name: getattr(namespace.reading, name) for name in CounterReading.__struct_fields__}
    reading = CounterReading(**fields | {"probe": probe})
    return _Namespace(namespace.links, namespace.devices, namespace.devices_read_ns, reading)


def _cpus() -> tuple[CpuCounts, ...]:
    return tuple(
        CpuCounts(cpu=cpu, time_squeezes=line.time_squeezes, backlog_drops=line.dropped)
        for cpu, line in sorted(softnet.softnet().items())
    )


def _ran(pids: Collection[int]) -> dict[int, float]:
    """CPU time of each process that is there, s."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = clock_seconds(pid)
    return found


def _own_use() -> OwnUse:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return OwnUse(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        resident_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES,
        open_files=sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1,
    )
