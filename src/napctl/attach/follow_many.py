"""Driving followers: one wait for all of them, and a turn for each that is due."""

import math
import select
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from napctl.attach.follow_devices import Readable
from napctl.kernel.machine_sleep import SleepWatch
from napctl.kernel.own_memory import give_back_what_is_free
from napctl.kernel.priority import in_short_slices
from napctl.model.change import Restored
from napctl.model.errors import NapctlError

__all__ = ["Driven", "follow", "take_turns", "wait_for_any"]


LONGEST_WAIT_SECONDS = 3600.0
MOST_LEFT = 1000
"""Settings that are named in the end as left to somebody else."""


class Driven(Protocol):
    """What there is of a follower (Stay, follow.py) to be driven by."""

    # ruff: noqa: D102
    def turn(self) -> bool: ...
    def seconds_left(self, now: float) -> float: ...
    def sources(self, now: float) -> Sequence[Readable]: ...
    def take_notices(self) -> None: ...
    def look_anew(self) -> None: ...
    def take_restored(self) -> list[Restored]: ...
    def let_go(self) -> list[Restored]: ...


D = TypeVar("D", bound=Driven)


def wait_for_any(
    stays: Collection[Driven], wake: Sequence[Readable | int] = (), seconds: float = LONGEST_WAIT_SECONDS
) -> frozenset[int]:
    """Until one of them is due, something happens to its devices (which it is told), `wake` can be read, or so long.

    Which descriptors of `wake` can be read.
    """
    now = time.monotonic()
    waiting = select.poll()  # select() knows no descriptor above 1023
    owners = {source.fileno(): each for each in stays for source in each.sources(now)}
    awake = {each if isinstance(each, int) else each.fileno() for each in wake}
    for fd in (*owners, *awake):
        waiting.register(fd, select.POLLIN)
    left = min([seconds, LONGEST_WAIT_SECONDS, *(each.seconds_left(now) for each in stays)])
    ready = {fd for fd, _ in waiting.poll(math.ceil(left * 1000))}
    for each in {id(owners[fd]): owners[fd] for fd in ready & owners.keys()}.values():
        each.take_notices()
    return frozenset(ready & awake)


def take_turns(stays: Collection[D]) -> Iterator[tuple[D, bool]]:
    """One turn for each that is due, and whether it has anything left to follow. One that takes long lets the others
    wait for that turn alone: its next comes after theirs."""
    for each in stays:
        if not each.seconds_left(time.monotonic()):
            yield each, each.turn()


def _look_anew_after(sleep: SleepWatch, following: Collection[Driven]) -> None:
    """Of the machine, if there was one."""
    if sleep.slept_ns():
        for each in following:
            each.look_anew()


def _still_to_be_named(restored: Collection[Restored]) -> list[Restored]:
    """Of what was put back before, by targets that may have come and gone for weeks: what somebody else had changed."""
    left = {(row.where, row.setting): row for row in restored if row.outcome == "left"}
    return list(left.values())[-MOST_LEFT:]


def follow(
    stays: Collection[Driven], stopped: Callable[[], bool], wake: Sequence[Readable | int] = ()
) -> list[Restored]:
    """Follow them all until `stopped()`, or until none has anything left to follow; then let go of them.

    `wake`: what can be read when `stopped()` is to be asked. Returns what became of each setting when it was last put
    back; raises what let_go() does, when all others have been let go of.
    """
    give_back_what_is_free()
    restored: list[Restored] = []
    following, sleep = list(stays), SleepWatch()
    errors: list[NapctlError] = []
    try:
        with in_short_slices():
            while following and not stopped():
                _look_anew_after(sleep, following)
                for each, goes_on in take_turns(tuple(following)):
                    if rows := each.take_restored():
                        restored = [*_still_to_be_named(restored), *rows]
                    if not goes_on:
                        following.remove(each)
                    if stopped():
                        break
                else:
                    if following:
                        wait_for_any(following, wake)
    finally:
        for each in stays:
            try:
                restored += each.let_go()
            except NapctlError as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return restored
