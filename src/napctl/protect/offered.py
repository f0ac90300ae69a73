"""What is offered to a device, from counters that some drivers refresh only once a second. Pure."""

from dataclasses import dataclass, replace

from napctl.model.counters import grown

__all__ = ["STILL_SECONDS", "Counted", "Offered", "OfferedRate"]


STILL_SECONDS = 2.0
"""A counter that stands still for longer counts nothing: drivers that refresh it of themselves do so each second."""


@dataclass(frozen=True)
class Counted:
    """Packets of one device since it was made."""

    monotonic: float
    taken: int
    """Also those that its driver dropped afterwards."""
    dropped: int
    """In its ring, as it tells itself: what is counted as missed, and as an overrun, is mostly the same."""
    peer_dropped: int | None = None
    """The same of a veth, as its other end tells; None: that cannot be seen."""


@dataclass(frozen=True)
class Offered:
    """Per second."""

    offered: float = 0.0
    dropped: float = 0.0
    is_known: bool = True
    """False: a gap, as a counter fell or nobody tells it."""


GAP = Offered(is_known=False)


class OfferedRate:
    """Of one device. A rate lasts from one refresh of the counters to another: of a driver that refreshes them as they
    are read, from look to look."""

    def __init__(self) -> None:
        self._base: Counted | None = None
        """From where the rate counts: as it was before it moved last."""
        self._moved: Counted | None = None
        """Since when it is as it is."""

    def add(self, now: Counted | None) -> Offered:
        """One more look, later than those before; None: the device tells nothing."""
        before, self._moved = self._moved, now
        if now is None or before is None or _fell(before, now):
            self._base = None
            return GAP
        if _same(before, now):
            self._moved = before
        else:
            still = now.monotonic - before.monotonic
            self._base = replace(before, monotonic=now.monotonic - STILL_SECONDS) if still > STILL_SECONDS else before
        if self._base is None or now.monotonic - self._moved.monotonic > STILL_SECONDS:
            return Offered()
        return _rate(self._base, now)


def _same(before: Counted, now: Counted) -> bool:
    return (before.taken, before.dropped, before.peer_dropped) == (now.taken, now.dropped, now.peer_dropped)


def _fell(before: Counted, now: Counted) -> bool:
    return grown(before.taken, now.taken) is None or grown(before.dropped, now.dropped) is None


def _rate(base: Counted, now: Counted) -> Offered:
    seconds = now.monotonic - base.monotonic
    dropped = now.dropped - base.dropped + (grown(base.peer_dropped, now.peer_dropped) or 0)
    return Offered((now.taken - base.taken + dropped) / seconds, dropped / seconds)
