"""Where packets go past the kernel's stack: by queue, and for a device as a whole. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from napctl.census.xdp_counts import XdpCounts
from napctl.model.census import HandedTo, Poller, TakenWay, XdpSocket
from napctl.model.machine import Device, EpollPoller, Queue, QueueUse, UserSpaceDevice, lessee
from napctl.model.text import each

__all__ = ["Facts", "handed_by_device", "handed_by_queue", "handed_out"]


QUEUE_GET = "[netdev netlink, queue-get]"
MOST_ABOVE = 1.1
MODE = "its mode [rtnetlink]"


@dataclass(frozen=True)
class Facts:
    """What neither a Machine nor a Window tells."""

    program_names: Mapping[int, str] = field(default_factory=dict)
    """Of XDP programs, by id."""
    xdp_counts: Mapping[str, Mapping[int | None, XdpCounts]] = field(default_factory=dict)
    """By device: as xdp_counts()."""
    xdp_sockets: Sequence[XdpSocket] = ()
    filters_in_hardware: Mapping[str, int] = field(default_factory=dict)
    """By device."""
    pollers: Sequence[Poller] = ()
    epolls: Sequence[EpollPoller] = ()
    """Epoll instances whose tasks poll."""
    user_space: Sequence[UserSpaceDevice] = ()


def handed_by_queue(device: Device, queues: Collection[Queue], packets: int | None, facts: Facts) -> Iterator[TakenWay]:
    """Of RX queues, to which so many packets came."""
    for queue in queues:
        counts = facts.xdp_counts.get(device.name, {}).get(queue.index)
        for use in queue.uses:
            redirected = counts.redirected if counts is not None and use.kind == "AF_XDP" else None
            bound = [
                each
                for each in facts.xdp_sockets
                if use.kind == "AF_XDP" and (each.device, each.queue) == (device.name, queue.index)
            ]
            evidence = (*_of_use(use), *_zero_copy(bound))
            yield _way(_kind(use), redirected, packets, by=_user(use, bound), evidence=evidence)
        if counts is not None and device.xdp is not None and device.xdp.native is not None:
            to_socket = counts.redirected if any(use.kind == "AF_XDP" for use in queue.uses) else 0
            if taken := counts.taken - to_socket:
                yield _way(
                    "XDP native", taken, packets, by=_program(device.xdp.native, facts), evidence=(_verdicts(counts),)
                )


def handed_by_device(device: Device, packets: int | None, facts: Facts) -> Iterator[TakenWay]:
    """What holds for all of its queues."""
    programs = device.xdp
    counts = facts.xdp_counts.get(device.name)
    if programs is not None and programs.native is not None:
        taken = sum(count.taken for count in counts.values()) if counts else None
        evidence = tuple(map(_verdicts, counts.values())) if counts and len(counts) == 1 else ()
        yield _way("XDP native", taken, packets, by=_program(programs.native, facts), evidence=(MODE, *evidence))
    if programs is not None and programs.generic is not None:
        yield _way("XDP generic", None, packets, by=_program(programs.generic, facts), evidence=(MODE,))
    if programs is not None and programs.offloaded is not None:
        yield _way("XDP offload", None, packets, by=_program(programs.offloaded, facts), evidence=(MODE,))
    if filters := facts.filters_in_hardware.get(device.name):
        many = f"{filters} filter{'s' * (filters > 1)}"
        yield _way("hardware offload", None, packets, by=many, evidence=("in_hw [tc]",))


def handed_out(nic: UserSpaceDevice, pollers: Sequence[Poller]) -> TakenWay:
    """A NIC that a program drives itself."""
    drivers = [f"{poller.name} ({poller.pid})" for poller in pollers if nic.bus in poller.devices]
    by = each(drivers) if drivers else None
    return _way("user-space driver", None, None, by=by, evidence=(f"driver {nic.driver} [sysfs]",))


def _way(
    kind: HandedTo, taken: int | None, packets: int | None, *, by: str | None = None, evidence: tuple[str, ...]
) -> TakenWay:
    """`packets`: of which those taken are a share; a few more where the two were not read at once. Where far more were
    taken, the driver does not count among its packets what its program takes: then nothing is told."""
    share = None if taken is None or not packets or taken > MOST_ABOVE * packets else min(1.0, taken / packets)
    return TakenWay(kind=kind, by=by, packets=taken, share=share, evidence=evidence)


def _kind(use: QueueUse) -> HandedTo:
    kinds: dict[str, HandedTo] = {
        "AF_XDP": "AF_XDP",
        "io_uring": "io_uring zero copy",
        "device memory": "device memory",
        "lease": "leased",
    }
    return kinds[use.kind]


def _user(use: QueueUse, bound: Sequence[XdpSocket]) -> str | None:
    if use.kind == "lease":
        return lessee(use)
    holders = [f"{name} ({pid})" for socket in bound for pid, name in socket.holders]
    return each(dict.fromkeys(holders)) if holders else None


def _zero_copy(bound: Sequence[XdpSocket]) -> Iterator[str]:
    told = {socket.zero_copy for socket in bound}
    if len(told) == 1 and None not in told:
        yield f"{'zero copy' if told == {True} else 'its packets are copied'} [sock_diag, or XDP_OPTIONS]"


def _of_use(use: QueueUse) -> tuple[str, ...]:
    attributes = {"AF_XDP": "xsk", "io_uring": "io-uring", "device memory": "dmabuf", "lease": "lease"}
    return (f"{attributes[use.kind]} {QUEUE_GET}",)


def _program(number: int, facts: Facts) -> str:
    name = facts.program_names.get(number)
    return f"program {number} ({name})" if name else f"program {number}"


def _verdicts(counts: XdpCounts) -> str:
    told = {"dropped": counts.dropped, "sent back": counts.sent, "redirected": counts.redirected}
    return f"{', '.join(f'{count:,} {what}' for what, count in told.items())} [ethtool -S]"
