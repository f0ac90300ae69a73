"""A promise that other work of the machine may keep from being seen is looked at more than once."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_one_of(attempt: Callable[[], T], tries: int = 3) -> T:
    """What the first attempt gives whose asserts hold, and that finds what it asserts of; the last one tells why none
    did.

    For what a moment without a CPU changes: a wait, a rate, what a window holds. Each attempt begins anew, so that what
    is broken fails in all of them.
    """
    for _ in range(tries - 1):
        with suppress(AssertionError, LookupError, ValueError):
            return attempt()
    return attempt()
