"""Steering: servers whose workers each listen for themselves can be given the connections of one RX queue each.

Sockets that share a port by SO_REUSEPORT form a group. The kernel spreads connections over its members by a hash,
unless the group has a program that chooses; anybody who holds one of its sockets can set it (socket(7)).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from napctl.attach.examine import Examination
from napctl.attach.look import EpollInstance, Listener
from napctl.kernel.sockets import host_and_port
from napctl.model.fitness import Steering


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
    """RX queues of the device that feeds them; 0: not known, nothing was received yet."""
    misfit: str | None
    """Why it cannot be steered, as advice; None: it can."""


def groups(found: Examination) -> tuple[Group, ...]:
    """Every group of the target that has more than one member, in the order of their addresses."""
    members: dict[tuple[str, int, bytes], list[Member]] = defaultdict(list)
    for instance in found.instances:
        for listener in instance.listeners:
            if listener.reuseport:
                members[listener.group].append(Member(listener, instance))
    queues = found.queues
    return tuple(
        Group(kind, address_text(address), tuple(sorted(each, key=_opened)), queues, _misfit(each, queues, found))
        for (kind, _, address), each in sorted(members.items())
        if len({member.listener.inode for member in each}) > 1
    )


def _opened(member: Member) -> int:
    """Inode numbers are given in ascending order, as far as one process opens sockets on one CPU."""
    return member.listener.inode


def _misfit(members: list[Member], queues: int, found: Examination) -> str | None:
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
        return f"other processes share its port ({strangers} sockets); steering would miscount"
    if queues and len(members) != queues:
        fewer = len(members) < queues
        trouble = (
            "one worker would serve several queues" if fewer else "workers without a queue would get no connections"
        )
        return f"{len(members)} workers for {queues} RX queues: {trouble}; have as many workers as queues"
    return None


def steering(found: Examination) -> Iterator[Steering]:
    """What steering would do, group by group."""
    for group in groups(found):
        if group.misfit is None and group.queues > 1:
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
