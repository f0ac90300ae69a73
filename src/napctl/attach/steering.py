"""Steering: servers whose workers each listen for themselves can be given the connections of one RX queue each.

Sockets that share a port by SO_REUSEPORT form a group. The kernel spreads connections over its members by a hash,
unless the group has a program that chooses; anybody who holds one of its sockets can set it (socket(7)).

The program knows the RX queue of a packet; a worker is to poll one NAPI instance. So it fits only where the one follows
from the other: one device feeds the group, and the queues that fall to a worker are those of one NAPI instance, which
no other worker has.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from napctl.attach.inspect_process import EpollInstance, Listener
from napctl.attach.inspect_target import Examination
from napctl.kernel.sockets import host_and_port
from napctl.model.fitness import Steering
from napctl.model.machine import Device

__all__ = ["Feed", "Group", "groups", "outgrown", "program_misfit", "queue_misfit", "steering"]


@dataclass(frozen=True)
class Feed:
    """A device that feeds a group, or may feed it."""

    device: str
    napi_of: Mapping[int, int] | None
    """NAPI id by RX queue; None: the driver does not tell."""

    @classmethod
    def of(cls, device: Device) -> "Feed":
        """What its queues and NAPI instances tell.

        Where the driver links none of them, as veth, and has as many instances as queues, each has one; which of them
        is not known, and makes no difference to whether steering fits.
        """
        queues = sorted((each.index, each.napi_id) for each in device.queues if each.kind == "rx")
        told = {index: napi_id for index, napi_id in queues if napi_id}
        if not told and len(queues) == len(device.napis):
            told = {index: napi.napi_id for (index, _), napi in zip(queues, device.napis, strict=True)}
        return cls(device.name, told if told and len(told) == len(queues) else None)


@dataclass(frozen=True)
class Member:
    """One listening socket, and the epoll instance in which its worker waits."""

    listener: Listener
    instance: EpollInstance


@dataclass(frozen=True)
class Group:
    """The members of one SO_REUSEPORT group within a target, in the order in which they were opened."""

    kind: str
    address: str
    members: tuple[Member, ...]
    queues: int
    """RX queues of the devices that feed it; 0: not known, nothing was received yet."""
    napis: tuple[int, ...]
    """NAPI instances that receive for these devices."""
    misfit: str | None
    """Why it cannot be steered, as advice; None: it can."""


def groups(found: Examination) -> tuple[Group, ...]:
    """Every group of the target that has more than one member, in the order of their addresses."""
    return tuple(
        _group(kind, address, members, found)
        for (kind, _, address), members in sorted(_members(found).items())
        if len({member.listener.inode for member in members}) > 1
    )


def _members(found: Examination) -> dict[tuple[str, int, bytes], list[Member]]:
    members: dict[tuple[str, int, bytes], list[Member]] = defaultdict(list)
    for instance in found.instances:
        for listener in instance.listeners:
            if listener.reuseport:
                members[listener.group].append(Member(listener, instance))
    return members


def _group(kind: str, address: bytes, members: list[Member], found: Examination) -> Group:
    devices = _devices(members, found)
    feeds = tuple(map(Feed.of, devices.values()))
    return Group(
        kind,
        address_text(address),
        tuple(sorted(members, key=_opened)),
        queues=sum(queue.kind == "rx" for device in devices.values() for queue in device.queues),
        napis=tuple(sorted({napi for one in devices for napi in found.receiving(one)})),
        misfit=_misfit(members, found) or queue_misfit(len(members), feeds),
    )


def _devices(members: list[Member], found: Examination) -> dict[int, Device]:
    """Those that feed a group, each by one of its NAPI instances; if none does yet, those that may."""
    fed = {napi for member in members for napi in member.instance.sockets_by_napi if napi in found.napis}
    by_place = {(found.napis[napi].netns, found.napis[napi].device.ifindex): napi for napi in fed or found.napis}
    return {napi: found.napis[napi].device for _, napi in sorted(by_place.items())}


def _opened(member: Member) -> int:
    """Inode numbers are given in ascending order, as far as one process opens sockets on one CPU."""
    return member.listener.inode


def _misfit(members: list[Member], found: Examination) -> str | None:
    sockets = {member.listener.inode for member in members}
    workers = {id(member.instance) for member in members}
    shared = [one for member in members for one in member.instance.listeners if not one.reuseport]
    if len(sockets) < len(members) or len(workers) < len(members):
        return "its workers share listening sockets; each needs one of its own"
    if shared:
        return (
            f"its workers also share the listening socket of {address_text(shared[0].group[2])}: `reuseport` there, too"
        )
    strangers = found.strangers(members[0].listener.group, sockets)
    if strangers:
        return f"other processes share its port ({strangers} socket{'s' * (strangers > 1)}); steering would miscount"
    return None


def queue_misfit(workers: int, feeds: Sequence[Feed]) -> str | None:
    """Why giving RX queue q to worker q mod `workers` does not give each a NAPI instance of its own, as advice; None:
    it does, or nothing is known of what feeds them. Pure."""
    if len(feeds) > 1:
        names = " and ".join(sorted(feed.device for feed in feeds))
        return (
            f"{len(feeds)} devices can feed it ({names}), and steering tells RX queues apart, not devices: one "
            "worker would serve queues of each; have one device carry its connections"
        )
    for feed in feeds:
        if feed.napi_of is None:
            return f"the driver of {feed.device} does not report which NAPI instance serves which RX queue"
        return _uneven(workers, feed.device, feed.napi_of)
    return None


def _uneven(workers: int, device: str, napi_of: Mapping[int, int]) -> str | None:
    queues = len(napi_of)
    napis_of = [{napi for queue, napi in napi_of.items() if queue % workers == worker} for worker in range(workers)]
    napis = set(napi_of.values())
    if not all(napis_of):
        trouble = "workers without a queue would get no connections"
    elif len(napis) == queues > workers:
        trouble = "one worker would serve several queues"
    elif any(len(each) > 1 for each in napis_of):
        trouble = "one worker would serve several NAPI instances"
    elif len(napis) < workers:
        trouble = "several workers would poll one NAPI instance"
    else:
        return None
    if len(napis) == queues:
        return f"{workers} workers for {queues} RX queues: {trouble}; have as many workers as queues"
    return (
        f"{workers} workers for {queues} RX queues of {device} on {len(napis)} NAPI instances: {trouble}; have as many "
        f"queues as NAPI instances (`ethtool -L {device}`) and as many workers"
    )


def outgrown(steered: Collection[int], found: Examination) -> str | None:
    """Why the program of a group that is steered to these listening sockets (inodes: SteeringChange.inodes) does not
    fit what is there now, as a clause; None: it still fits, or nothing is seen of them.

    Pure, and cheap beside the examination. Whether they are closed is another question.
    """
    for group, members in _members(found).items():
        inodes = found.sharers.get(group) or frozenset(member.listener.inode for member in members)
        if inodes & set(steered):
            waiting: dict[int, set[Hashable]] = {inode: set() for inode in inodes}
            for member in members:
                waiting.setdefault(member.listener.inode, set()).add(member.instance.places)
            return program_misfit(len(steered), waiting, tuple(map(Feed.of, _devices(members, found).values())))
    return None


def program_misfit(counted: int, waiting: Mapping[int, Collection[Hashable]], feeds: Sequence[Feed]) -> str | None:
    """Why a program that gives RX queue q to listener q mod `counted` does not fit, as a clause; None: it fits. Pure.

    `waiting`: by listening socket that shares the port now, whoever holds it, the workers that wait on it. That there
    are two is no reason, as during a reload; both then serve the same queue.
    """
    now = len(waiting)
    if now > counted:
        return f"{now} listeners share its port now and it is steered to {counted}: the others get no connections"
    if now < counted:
        # run_bpf_filter() in net/core/sock_reuseport.c: who is chosen and not there is replaced by the hash's choice.
        return f"it is steered to {counted} listeners and {now} are left: queues of the others come to any of them"
    each = [worker for workers in waiting.values() for worker in set(workers)]
    if len(set(each)) < len(each):
        return "one of its workers now waits on several of its listeners, so that it serves several queues"
    return queue_misfit(counted, feeds)


def steering(found: Examination) -> Iterator[Steering]:
    """What steering would do, group by group."""
    for group in groups(found):
        if group.misfit is None and len(group.napis) > 1:
            yield Steering(
                kind=group.kind,
                address=group.address,
                members=len(group.members),
                queues=group.queues,
                present=sum(sum(member.instance.sockets_by_napi.values()) for member in group.members),
            )


def address_text(address: bytes) -> str:
    """A struct sockaddr_in or sockaddr_in6 as people write it."""
    host, port = host_and_port(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
