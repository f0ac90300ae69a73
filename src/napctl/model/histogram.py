"""Packets per poll: how much each call of a driver's poll function found."""

from collections.abc import Iterable, Mapping
from operator import add, mul, sub

from napctl.model.value import Value

__all__ = ["BUCKETS", "EMPTY", "Histogram", "total"]


TOP = 64
"""The largest value with a bucket of its own: NAPI_POLL_WEIGHT in include/linux/netdevice.h."""
BUCKETS = TOP + 2
"""0 … 64, and one for everything above."""


class Histogram(Value, frozen=True, kw_only=True):
    """Polls by the number of packets they found.

    `counts[n]` is the number of polls that found n packets for n in 0 … 64; `counts[65]` those that found more,
    and `packets_above` the packets of those together, so that `packets` stays exact.
    """

    counts: tuple[int, ...] = (0,) * BUCKETS
    packets_above: int = 0

    def __post_init__(self) -> None:
        if len(self.counts) != BUCKETS:
            raise ValueError(f"a histogram has {BUCKETS} buckets, not {len(self.counts)}")

    @classmethod
    def of(cls, polls: Mapping[int, int]) -> "Histogram":
        """From {packets found: polls}, for example {0: 298525, 1: 233080}."""
        counts = [0] * BUCKETS
        above = 0
        for packets, times in polls.items():
            counts[min(packets, TOP + 1)] += times
            above += packets * times if packets > TOP else 0
        return cls(counts=tuple(counts), packets_above=above)

    @property
    def polls(self) -> int:
        """All polls."""
        return sum(self.counts)

    @property
    def empty(self) -> int:
        """Polls that found nothing."""
        return self.counts[0]

    @property
    def packets(self) -> int:
        """All packets found."""
        counted: int = sum(map(mul, range(TOP + 1), self.counts))
        return counted + self.packets_above

    @property
    def empty_share(self) -> float | None:
        """Share of polls that found nothing, 0 … 1; None without any poll."""
        return self.empty / self.polls if self.polls else None

    def __add__(self, other: "Histogram") -> "Histogram":
        if self is EMPTY or other is EMPTY:
            return other if self is EMPTY else self
        return Histogram(
            counts=tuple(map(add, self.counts, other.counts)),
            packets_above=self.packets_above + other.packets_above,
        )

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """What came since `earlier`, both read from the same ever-growing counters."""
        if earlier is EMPTY:
            return self
        if earlier.counts == self.counts and earlier.packets_above == self.packets_above:
            return EMPTY
        return Histogram(
            counts=tuple(map(sub, self.counts, earlier.counts)),
            packets_above=self.packets_above - earlier.packets_above,
        )


EMPTY = Histogram()
"""Most are: nobody polls in all four ways."""


def total(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of any number of histograms."""
    return sum(histograms, EMPTY)
