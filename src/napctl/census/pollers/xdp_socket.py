"""Programs that take packets by AF_XDP themselves: by their sockets, which sock_diag names, and their mapped rings.

Looks for sockets that sock_diag(7) knows as AF_XDP (family 44) among the process's descriptors and mappings, which are
"socket:[inode]" both. The RX ring counts the packets (Documentation/networking/af_xdp.rst).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect
from napctl.kernel.processes import Handle, Process
from napctl.kernel.xdp_rings import RingCounts, RingLosses, ring_counts, ring_losses

__all__ = ["XdpRings", "detect", "losses_of", "rings_of", "together"]


WRAPS = 1 << 32
SURE_SECONDS = 60.0
"""No queue brings so many packets within that time."""
REMEDY = (
    "Let it wait in poll(2), or busy poll with deferral: `napctl attach` does that to a program that waits; one that "
    "never waits has to be told by its own option."
)


@dataclass
class XdpRings:
    """The account of a process's AF_XDP sockets."""

    process: Process
    sockets: Mapping[int, int]
    """Descriptor by inode number."""
    source: str = "AF_XDP rings"
    _read_at: float | None = None
    _last: dict[int, RingCounts] = field(default_factory=dict)
    _received: int | None = None
    _sent: int | None = None

    def read(self) -> Statement:
        """What all of them have carried since the first reading; None of a kind of ring that none of them has."""
        then, self._read_at = self._read_at, time.monotonic()
        if then is not None and self._read_at - then > SURE_SECONDS:
            return Statement(troubles=(f"packets of its AF_XDP rings: their counts may wrap in {SURE_SECONDS:.0f} s",))
        try:
            with Handle.of(self.process) as handle:
                for inode, fd in self.sockets.items():
                    self._add(inode, ring_counts(handle, fd, inode))
        except OSError as error:
            return Statement(troubles=(f"its AF_XDP rings cannot be read: {error.strerror or error}",))
        return Statement(received=self._received, sent=self._sent)

    def _add(self, inode: int, now: RingCounts) -> None:
        then = self._last.get(inode, now)
        self._received = _more(self._received, then.received, now.received)
        self._sent = _more(self._sent, then.sent, now.sent)
        self._last[inode] = now

    def key(self, thread: Spin, pid: int) -> str | None:
        """It tells packets alone."""
        return None


def _more(sum_before: int | None, then: int | None, now: int | None) -> int | None:
    if then is None or now is None:
        return sum_before
    return (sum_before or 0) + (now - then) % WRAPS


def rings_of(suspect: Suspect) -> XdpRings | None:
    """The account of its AF_XDP sockets; None if it has none, or no descriptor of one of them any more."""
    inodes = {bound.inode for bound in suspect.xdp}
    fds = {inode: fd for fd, inode in suspect.sockets_by_fd.items() if inode in inodes}
    return XdpRings(suspect.process, fds) if fds.keys() == inodes and fds else None


def losses_of(suspect: Suspect) -> RingLosses | None:
    """What its AF_XDP sockets lost, also where the program itself says nothing of that; None: that cannot be read."""
    rings = rings_of(suspect)
    if rings is None:
        return None
    try:
        with Handle.of(suspect.process) as handle:
            found = []
            for fd in rings.sockets.values():
                with handle.copy_of(fd) as copy:
                    found.append(ring_losses(copy))
            return together(found)
    except OSError:
        return None


def together(found: Sequence[RingLosses]) -> RingLosses:
    """Of several sockets. Where the kernel copies, each packet that found no frame is among the lost: an empty fill
    ring says no more."""
    return RingLosses(
        lost=sum(each.lost for each in found),
        starved=sum(each.starved for each in found if each.zero_copy is not False),
        zero_copy=any(each.zero_copy is not False for each in found),
    )


def detect(suspect: Suspect) -> Detected | None:
    """Whoever holds such a socket, and is nothing else that is known."""
    if not suspect.xdp:
        return None
    queues = sorted((suspect.device_name(bound.ifindex), bound.queue, bound.source) for bound in suspect.xdp)
    return Detected(
        kind="AF_XDP",
        evidence=tuple(f"an AF_XDP socket on queue {queue} of {device} [{source}]" for device, queue, source in queues),
        devices=tuple(dict.fromkeys(device for device, *_ in queues)),
        account=rings_of(suspect),
        counts_include_port=True,
        remedy=REMEDY,
    )
