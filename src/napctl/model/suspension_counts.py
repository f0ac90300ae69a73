"""How often a NAPI instance's interrupts were suspended and resumed, and how long packets may have waited."""

import math
from collections.abc import Callable, Sequence
from operator import add, sub

from napctl.model.value import Value

__all__ = ["WAIT_BOUNDS_US", "WAIT_BUCKETS", "SuspensionCounts", "suspended_between"]


FIRST_POWER, LAST_POWER = 10, 26
"""Waits from 2^10 ns (1 µs) to 2^26 ns (67 ms) have four buckets for each power of two, of equal width within it."""
WAIT_BOUNDS_US: tuple[float, ...] = (
    0.0,
    2**FIRST_POWER / 1000,
    *(
        2**power * (4 + quarter) / 4 / 1000
        for power in range(FIRST_POWER, LAST_POWER)
        for quarter in range(1, 5)
    ),
    math.inf,
)  # fmt: skip
"""Upper bound of each bucket, µs; a wait in it is shorter. The first is for packets whose interrupt was enabled, so
that it came at once; the last for all waits of 67 ms and more. Mirrored by bucket_of() in probe/suspension.bpf.c."""
WAIT_BUCKETS = len(WAIT_BOUNDS_US)


class SuspensionCounts(Value, frozen=True, kw_only=True):
    """Suspension of one NAPI instance, from ever-growing counters; the difference of two readings is a window."""

    napi_id: int
    netns: int
    """Inode number of the device's network namespace."""
    arms: int = 0
    """epoll_wait returned events, and so started the suspend timer."""
    suspensions: int = 0
    """From not suspended to suspended."""
    resumes: int = 0
    """Back: the first poll by a softirq or a NAPI thread while suspended, whether or not the timer was the reason."""
    timeouts: int = 0
    """Those of `resumes` for which the suspend timer was the reason: the application had not come back in time."""
    without_cpu: int = 0
    """Those of `timeouts` at which the application's task was ready to run and had no CPU: it is not suspension that
    made its packets wait."""
    suspended_ns: int = 0
    """Time spent suspended, ns, with the suspension that was still open at the reading."""
    waits: tuple[int, ...] = (0,) * WAIT_BUCKETS
    """Packets by the upper bound of their wait for a poll (WAIT_BOUNDS_US): the time since the poll before.

    Those of the first poll that the probe saw are not among them."""

    def __post_init__(self) -> None:
        if len(self.waits) != WAIT_BUCKETS:
            raise ValueError(f"waits have {WAIT_BUCKETS} buckets, not {len(self.waits)}")

    @property
    def packets(self) -> int:
        """All packets in `waits`."""
        return sum(self.waits)

    def wait_percentile_us(self, share: float) -> float | None:
        """The wait that `share` (0 … 1) of the packets did not exceed, µs; None without any packet.

        It is the upper bound of a bucket, and of each packet's wait an upper bound: up to a quarter too long for
        the one reason, more for the other. 0: an interrupt came at once. Infinite: 67 ms or more.
        """
        packets = self.packets
        if not packets:
            return None
        wanted, seen = share * packets, 0
        for bound_us, count in zip(WAIT_BOUNDS_US, self.waits, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound_us
        return max(bound_us for bound_us, count in zip(WAIT_BOUNDS_US, self.waits, strict=True) if count)

    def __add__(self, other: "SuspensionCounts") -> "SuspensionCounts":
        """Both together, as one instance: `napi_id` and `netns` are this one's."""
        return self._combined(other, add)

    def __sub__(self, earlier: "SuspensionCounts") -> "SuspensionCounts":
        """What came since `earlier`, both read from the same instance by the same probe.

        Raises ValueError if they are of two instances.
        """
        if (self.napi_id, self.netns) != (earlier.napi_id, earlier.netns):
            raise ValueError(f"NAPI {self.napi_id} and {earlier.napi_id} are two instances")
        return self._combined(earlier, sub)

    def _combined(self, other: "SuspensionCounts", operation: Callable[[int, int], int]) -> "SuspensionCounts":
        return SuspensionCounts(
            napi_id=self.napi_id,
            netns=self.netns,
            arms=operation(self.arms, other.arms),
            suspensions=operation(self.suspensions, other.suspensions),
            resumes=operation(self.resumes, other.resumes),
            timeouts=operation(self.timeouts, other.timeouts),
            without_cpu=operation(self.without_cpu, other.without_cpu),
            suspended_ns=operation(self.suspended_ns, other.suspended_ns),
            waits=tuple(map(operation, self.waits, other.waits)),
        )


def suspended_between(
    before: Sequence[SuspensionCounts], after: Sequence[SuspensionCounts]
) -> dict[tuple[int, int], SuspensionCounts]:
    """What came between two readings of one suspension probe, by network namespace and NAPI id."""
    earlier = {(each.netns, each.napi_id): each for each in before}
    found = {(each.netns, each.napi_id): each for each in after}
    return {key: each - earlier[key] if key in earlier else each for key, each in found.items()}
