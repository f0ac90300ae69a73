"""Examine the processes of a target: what feeds their epoll instances and sockets, and the devices behind."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from napctl.attach.inspect_process import (
    EpollInstance,
    Look,
    PlainSocket,
    Ring,
    joined,
    look_at,
    plain_sockets_of,
    rings_of,
)
from napctl.kernel import open_files
from napctl.kernel.cpu_time import clock_seconds
from napctl.kernel.executable import Program, program
from napctl.kernel.links import addresses
from napctl.kernel.listeners import listeners_of
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.kernel.sockets import host_and_port
from napctl.model.errors import BadInput
from napctl.model.machine import Device, EpollPoller, Napi, Queue, RingPoller
from napctl.model.waits import Call, ThreadWaits, Waits
from napctl.observe.machine import take_napi_devices, who_polls
from napctl.observe.waiting_threads import observe_waits

__all__ = ["Examination", "LocatedNapi", "examine", "receiving"]


EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class LocatedNapi:
    """A NAPI instance, its device, and the network namespace (inode number) in which both are."""

    napi: Napi
    device: Device
    netns: int


@dataclass(frozen=True)
class Examination:
    """What was found."""

    name: str
    """Of the target."""
    processes: tuple[Process, ...]
    instances: tuple[EpollInstance, ...]
    plain_sockets: tuple[PlainSocket, ...] = ()
    rings: tuple[Ring, ...] = ()
    napis: Mapping[int, LocatedNapi] = field(default_factory=dict)
    """All instances of the devices that feed the target, or that it listens at. One that feeds it and is not here
    belongs to no device of its network namespace nor of ours."""
    others: tuple[EpollPoller | RingPoller, ...] = ()
    """Processes outside the target that poll one of these NAPI instances."""
    programs: Mapping[int, Program] = field(default_factory=dict)
    """By process."""
    sharers: Mapping[tuple[str, int, bytes], frozenset[int]] = field(default_factory=dict)
    """By group of listening sockets: inodes of all sockets of the network namespace that share its port and address."""
    namespaces: frozenset[int] = frozenset()
    """Network namespaces (inode numbers) in which its processes live, and ours; 0 among them: not all are known."""
    cpus: float | None = None
    """How many its processes used, of 1.0 each, while they were watched; None: nobody watched."""
    lacks: tuple[str, ...] = ()

    def receiving(self, napi_id: int) -> tuple[int, ...]:
        """NAPI instances that receive for the device of this one."""
        device = self.napis[napi_id].device
        return receiving(device.napis, device.queues)

    @property
    def feeding(self) -> frozenset[tuple[int, int]]:
        """Network namespace and id of the NAPI instances that feed the target's epoll instances and other sockets."""
        ids = {napi_id for each in self.instances for napi_id in each.sockets_by_napi}
        ids |= {each.napi_id for each in self.plain_sockets if each.napi_id is not None}
        ids |= {napi_id for each in self.rings for napi_id in each.napis}
        return frozenset((self.napis[napi_id].netns, napi_id) for napi_id in ids if napi_id in self.napis)

    def without_former_napis(self) -> "Examination":
        """As if sockets whose NAPI instance is no more had received nothing yet."""

        def present(counts: Mapping[int, int]) -> dict[int, int]:
            return {napi_id: count for napi_id, count in counts.items() if napi_id in self.napis}

        return replace(
            self,
            instances=tuple(replace(each, sockets_by_napi=present(each.sockets_by_napi)) for each in self.instances),
            plain_sockets=tuple(one for one in self.plain_sockets if one.napi_id in self.napis or one.kind == "xdp"),
            rings=tuple(replace(each, napis=each.napis & self.napis.keys()) for each in self.rings),
        )

    def strangers(self, group: tuple[str, int, bytes], members: Collection[int]) -> int:
        """Sockets that share a group's port and are none of these."""
        return len(self.sharers.get(group, frozenset()) - set(members))


def receiving(napis: Iterable[Napi], queues: Iterable[Queue]) -> tuple[int, ...]:
    """Which of a device's NAPI instances serve RX queues; all of them if the driver does not tell."""
    told = sorted({queue.napi_id for queue in queues if queue.kind == "rx" and queue.napi_id})
    return tuple(told) or tuple(napi.napi_id for napi in napis)


def examine(
    name: str, found: Sequence[Process], watch_seconds: float = 0, most_sockets: int | None = None
) -> Examination:
    """Look at processes from outside, changing and stopping nothing; for `watch_seconds` at how their threads wait.

    0 is a glance, which also leaves out who else polls: that takes a look at every process of the machine.
    `most_sockets`: of each epoll instance, so many of its sockets and all its listeners (None: all it watches).

    Raises BadInput if all of them have gone, NotPermitted without ptrace rights over one, Unsupported on kernels
    without EPIOCGPARAMS (before Linux 6.9) or without the netdev family.
    """
    looks = [look for process in found if (look := look_at(process, most_sockets)) is not None]
    if not looks:
        raise BadInput(
            f"{found[0].name} ({found[0].pid}): it ended meanwhile" if found else f"{name}: it ended meanwhile"
        )
    # Each instance once: processes share those that they inherited, and each sees only the sockets that it holds.
    views = {(view.process.pid, view.fd): view for look in looks for view in look.instances}
    instances = tuple(joined([views[place] for place in places]) for places in open_files.distinct(list(views)))
    in_epoll = {inode for look in looks for inode in look.watched}
    plain_sockets = tuple(
        each
        for look in looks
        for each in plain_sockets_of(look, in_epoll, most_sockets)
        if each.napi_id or each.kind == "xdp"
    )
    ids = {napi for each in instances for napi in each.sockets_by_napi}
    ids |= {each.napi_id for each in plain_sockets if each.napi_id}
    by_process = {look.process.pid: tuple(rings_of(look)) for look in looks}
    napis = _locate(ids, looks)
    registered = {look.process.pid: _registered_napis(look, by_process[look.process.pid]) for look in looks}
    for each in registered.values():
        napis = each | napis
    rings = tuple(_joined_rings(by_process, plain_sockets, registered))
    lacks: list[str] = []
    cpus = None
    others = () if not watch_seconds else tuple(_others(napis, ids, {look.process.pid for look in looks}, lacks))
    if watch_seconds:
        began, before = time.monotonic(), _ran(looks)
        waits = observe_waits([look.process.pid for look in looks], watch_seconds)
        cpus = (_ran(looks) - before) / (time.monotonic() - began)
        instances = _in_epolls(waits, instances)
        plain_sockets = _on_sockets(waits, plain_sockets)
        rings = _in_rings(waits, rings)
        lacks += waits.lacks
    return Examination(
        name=name,
        processes=tuple(look.process for look in looks),
        instances=instances,
        plain_sockets=plain_sockets,
        rings=rings,
        napis=napis,
        others=others,
        programs={look.process.pid: program(look.process.pid) for look in looks if look.instances},
        sharers=_sharers(looks),
        namespaces=frozenset({look.netns or 0 for look in looks} | {_our_namespace()}),
        cpus=cpus,
        lacks=tuple(lacks),
    )


def _sharers(looks: Sequence[Look]) -> dict[tuple[str, int, bytes], frozenset[int]]:
    found: dict[tuple[str, int, bytes], frozenset[int]] = {}
    for look in looks:
        for group in {one.group for each in look.instances for one in each.listeners if one.reuseport} - found.keys():
            kind, netns, address = group
            host, port = host_and_port(address)
            sharing = listeners_of(netns, look.process.pid, port)
            found[group] = frozenset(one.inode for one in sharing if (one.protocol, one.address) == (kind, host))
    return found


def _locate(ids: set[int], looks: Sequence[Look]) -> dict[int, LocatedNapi]:
    """All NAPI instances of the devices that feed the target; if none does yet, of those at whose addresses it listens.

    Looked for in the namespaces of its processes, and then in ours, where a bridge or router passes a container's
    packets on.
    """
    located: dict[int, LocatedNapi] = {}
    expected: dict[int, LocatedNapi] = {}
    done: set[int] = set()
    for netns in _namespaces(looks):
        with netns:
            if netns.inode not in done and not (done and ids <= located.keys()):
                done.add(netns.inode)
                devices = take_napi_devices(netns)
                hosts = _listening(looks, netns.inode)
                at = addresses(netns) if hosts and not ids else {}
                for device in devices:
                    there = {napi.napi_id: LocatedNapi(napi, device, netns.inode) for napi in device.napis}
                    if ids & there.keys():
                        located |= there
                    elif hosts & (at.get(device.ifindex, frozenset()) | EVERYWHERE):
                        expected |= there
    return located or expected


def _namespaces(looks: Sequence[Look]) -> Iterator[NetworkNamespace]:
    """Those of the processes, and ours; the caller closes them."""
    seen: set[int] = set()
    for look in looks:
        if look.netns and look.netns not in seen:
            seen.add(look.netns)
            with suppress(BadInput):  # that process has gone
                yield NetworkNamespace.of_process(look.process.pid)
    yield NetworkNamespace.current()


def _our_namespace() -> int:
    with NetworkNamespace.current() as ours:
        return ours.inode


def _listening(looks: Sequence[Look], netns: int) -> frozenset[str]:
    """Addresses on which workers with listening sockets of their own wait."""
    return frozenset(
        host_and_port(one.group[2])[0]
        for look in looks
        for each in look.instances
        for one in each.listeners
        if one.reuseport and look.netns == netns
    )


def _others(
    napis: Mapping[int, LocatedNapi], ids: set[int], ours: set[int], lacks: list[str]
) -> Iterator[EpollPoller | RingPoller]:
    devices = {(each.netns, each.device.ifindex): each.device for each in napis.values()}
    for poller in who_polls(tuple(devices.values()), lacks) if devices else ():
        if poller.pid not in ours and ids & set(poller.napi_ids):
            yield poller


def _by_place(waits: Waits, call: Call) -> Mapping[tuple[int, int], Sequence[ThreadWaits]]:
    """Those that wait in it, by process and descriptor."""
    found = defaultdict(list)
    for each in waits.threads:
        if each.call == call:
            found[each.pid, each.fd].append(each)
    return found


def _in_epolls(waits: Waits, instances: Iterable[EpollInstance]) -> tuple[EpollInstance, ...]:
    by_place = _by_place(waits, "epoll")
    return tuple(
        replace(each, threads=tuple(thread for place in each.places for thread in by_place.get(place, ())))
        for each in instances
    )


def _registered_napis(look: Look, rings: Iterable[Ring]) -> dict[int, LocatedNapi]:
    """Of the device over which sockets are fed that are registered with a ring and have no descriptor: nobody can ask
    them. It is the one at whose addresses the process listens; none, if they are several."""
    own = frozenset(look.files.sockets.values())
    theirs = frozenset[int]().union(*(each.facts.sockets for each in rings if each.facts))
    if theirs <= own:
        return {}
    with NetworkNamespace.of_process(look.process.pid) as netns:
        hosts = {one.address for one in listeners_of(netns.inode, look.process.pid) if one.inode in own | theirs}
        at = addresses(netns)
        devices = [
            each
            for each in take_napi_devices(netns)
            if each.napis and (there := at.get(each.ifindex)) and hosts & (there | EVERYWHERE)
        ]
        if len(devices) != 1:
            return {}
        (device,) = devices
        return {napi.napi_id: LocatedNapi(napi, device, netns.inode) for napi in device.napis}


def _joined_rings(
    by_process: Mapping[int, Sequence[Ring]],
    plain_sockets: Iterable[PlainSocket],
    registered: Mapping[int, Mapping[int, LocatedNapi]],
) -> Iterator[Ring]:
    """Each once, and what may feed it."""
    fed: dict[int, set[int]] = defaultdict(set)
    for one in plain_sockets:
        if one.napi_id is not None:
            fed[one.process.pid].add(one.napi_id)
    for pid, located in registered.items():
        for napi_id, place in located.items():
            if napi_id in receiving(place.device.napis, place.device.queues):
                fed[pid].add(napi_id)
    by_inode: dict[int, list[Ring]] = {}
    for ring in (ring for rings in by_process.values() for ring in rings):
        by_inode.setdefault(ring.inode, []).append(ring)
    for first, *others in by_inode.values():
        pids = {each.process.pid for each in (first, *others)}
        napis = frozenset(napi_id for pid in pids for napi_id in fed[pid])
        yield replace(first, napis=napis, also=tuple((each.process.pid, each.fd) for each in others))


def _ran(looks: Iterable[Look]) -> float:
    """CPU time of these processes, s."""
    seconds = 0.0
    for look in looks:
        with suppress(OSError):  # it has gone
            seconds += clock_seconds(look.process.pid)
    return seconds


def _in_rings(waits: Waits, rings: Iterable[Ring]) -> tuple[Ring, ...]:
    """A ring that is named by an index may be any of its process."""
    by_place = _by_place(waits, "io_uring")
    return tuple(
        replace(
            ring,
            threads=tuple(
                one for pid, fd in ring.places for place in ((pid, fd), (pid, -1)) for one in by_place.get(place, ())
            ),
        )
        for ring in rings
    )


def _on_sockets(waits: Waits, found: Iterable[PlainSocket]) -> tuple[PlainSocket, ...]:
    """poll and select name no descriptor: all of its process's may mean this socket."""
    by_socket = defaultdict(list)
    for each in waits.threads:
        by_socket[each.pid, -1 if each.call in ("poll", "select") else each.fd].append(each)
    return tuple(
        replace(
            each,
            threads=(*by_socket.get((each.process.pid, each.fd), ()), *by_socket.get((each.process.pid, -1), ())),
        )
        for each in found
    )
