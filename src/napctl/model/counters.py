"""How far an ever-growing counter grew between two readings: the one place where that is reckoned.

A counter that is less than it was has been set back in between: some drivers begin at 0 when a link comes up again, and
another process, device or namespace may have come by the same number. Nobody knows then how far it grew: that is None,
a gap, and neither negative nor 0.
"""

from typing import TypeVar

__all__ = ["MOST_PER_SECOND", "U32", "grown", "grown_u32"]


Number = TypeVar("Number", int, float)
U32 = 2**32
MOST_PER_SECOND = 20_000_000
"""More than one CPU counts of interrupts, softirqs or packets a second."""


def grown(before: Number | None, after: Number | None) -> Number | None:
    """None where a reading lacks it, or where it fell."""
    return None if before is None or after is None or after < before else after - before


def grown_u32(before: int | None, after: int | None, seconds: float) -> int | None:
    """The same of an `unsigned int` of one CPU, which begins again at 0 beyond 2^32 - 1.

    Such are each line of /proc/interrupts (struct irqstat), /proc/softirqs (struct kernel_stat) and softnet_stat
    (struct softnet_data). A fall is that, if what came then is no more than a CPU can have counted in so many seconds.
    To be asked before anything is summed: of a sum nobody can tell.
    """
    if before is None or after is None or after >= before:
        return grown(before, after)
    wrapped = (after - before) % U32
    return wrapped if wrapped < MOST_PER_SECOND * seconds else None
