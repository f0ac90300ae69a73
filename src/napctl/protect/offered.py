"""What is offered to a device, from counters that some drivers refresh only once a second. Pure."""

from dataclasses import dataclass, replace

from napctl.model.counters import grown

__all__ = ["STILL_SECONDS", "Offered", "OfferedRate", "PacketsCounted"]


STILL_SECONDS = 2.0
"""A counter that stands still for longer counts nothing: drivers that refresh it of themselves do so each second."""
COMPARED_SECONDS = 3.0
"""Over which it is found out whether a driver counts what storm control drops: shorter than it takes to be calm."""
LEAST_COMPARED = 1000
SURELY_LESS = 0.6
"""Of what storm control dropped: fewer are told only by a driver that does not count it."""


@dataclass(frozen=True)
class PacketsCounted:
    """Packets of one device since it was made."""

    monotonic: float
    taken: int
    """Also those that its driver dropped afterwards."""
    dropped: int
    """In its ring, as it tells itself: what is counted as missed, and as an overrun, is mostly the same."""
    peer_dropped: int | None = None
    """The same of a veth, as its other end tells; None: that cannot be seen."""
    limited: int = 0
    """What storm control has dropped, by its own counters."""


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
        self._base: PacketsCounted | None = None
        """From where the rate counts: as it was before it moved last."""
        self._moved: PacketsCounted | None = None
        """Since when it is as it is."""
        self._uncounted = _Uncounted()

    def add(self, now: PacketsCounted | None) -> Offered:
        """One more look, later than those before; None: the device tells nothing."""
        before, self._moved = self._moved, now
        if now is None or before is None or _fell(before, now):
            self._base = None
            self._uncounted.forget()
            return GAP
        if _same(before, now):
            self._moved = before
        else:
            still = now.monotonic - before.monotonic
            self._base = replace(before, monotonic=now.monotonic - STILL_SECONDS) if still > STILL_SECONDS else before
        told, at_move, moved = Offered(), 0.0, self._moved or now
        if self._base is not None and now.monotonic - moved.monotonic <= STILL_SECONDS:
            told, at_move = _rate(self._base, now), _rate(self._base, moved).offered
        return replace(told, offered=told.offered + self._uncounted.per_second(now, at_move))


class _Uncounted:
    """What storm control drops before a driver has counted it: some count a packet when its program has passed it
    (mlx5), others when it comes. Found out when limits are set: what is told falls by what is dropped, or it does not.
    """

    def __init__(self) -> None:
        self._look: PacketsCounted | None = None
        self._mark: PacketsCounted | None = None
        """Since when it is compared."""
        self._before = 0.0
        """What was told before."""
        self._counts_all: bool | None = None

    def forget(self) -> None:
        """A counter fell: nothing is known of the time until the next look."""
        self._look = self._mark = None

    def per_second(self, now: PacketsCounted, told_per_second: float) -> float:
        """To be added to what is told; also where nobody saw limits being set, so that no storm is taken to be over."""
        look, self._look = self._look, now
        if look is None:
            return 0.0
        rate = (now.limited - look.limited) / (now.monotonic - look.monotonic)
        if self._mark is None:
            if not rate:
                self._before = told_per_second
                return 0.0
            self._mark = look
        if now.monotonic - self._mark.monotonic >= COMPARED_SECONDS:
            self._compare(self._mark, now)
        is_comparing = self._counts_all is None and self._before
        return 0.0 if self._counts_all or is_comparing else rate

    def _compare(self, mark: PacketsCounted, now: PacketsCounted) -> None:
        limited = now.limited - mark.limited
        if limited < LEAST_COMPARED:
            self._mark = None
            return
        told = _total(now) - _total(mark)
        if told < SURELY_LESS * limited:
            self._counts_all = False
        elif self._counts_all is None and self._before:
            self._counts_all = told + limited / 2 > self._before * (now.monotonic - mark.monotonic)
        self._mark, self._before = now, 0.0


def _total(counted: PacketsCounted) -> int:
    return counted.taken + counted.dropped + (counted.peer_dropped or 0)


def _same(before: PacketsCounted, now: PacketsCounted) -> bool:
    return (before.taken, before.dropped, before.peer_dropped) == (now.taken, now.dropped, now.peer_dropped)


def _fell(before: PacketsCounted, now: PacketsCounted) -> bool:
    return grown(before.taken, now.taken) is None or grown(before.dropped, now.dropped) is None


def _rate(base: PacketsCounted, now: PacketsCounted) -> Offered:
    seconds = now.monotonic - base.monotonic
    dropped = now.dropped - base.dropped + (grown(base.peer_dropped, now.peer_dropped) or 0)
    return Offered((now.taken - base.taken + dropped) / seconds, dropped / seconds)
