"""A promise that other work of the machine may keep from being seen is looked at more than once."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_one_of(attempt: Callable[[], T], tries: int = 3) -> T:
    """What the first attempt gives whose asserts hold; if none do, the last one says why.

    For what a moment without a CPU changes: a wait, a rate, what a window holds. One that finds nothing to look at
    (LookupError, ValueError) has failed as well. Each begins anew, so that what is broken fails in all of them.
    """
    for _ in range(tries - 1):
        with suppress(AssertionError, LookupError, ValueError):
            return attempt()
    return attempt()
