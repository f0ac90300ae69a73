"""Parts of an attachment that can be decided upon for themselves: NAPI instances, and all the processes they feed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from napctl.attach.follow_step import NapiKey
from napctl.attach.judge_target import Choice
from napctl.model.change import Change, NapiChange, PollerChange, Transaction

__all__ = ["Feeds", "Part", "feeds_of", "joined_parts", "parts_of", "whole"]


FORGET_LOOKS = 5
"""Looks, one after the other, that see a process fed by others and not by this NAPI instance, until it is not its."""
LISTED = 4
"""NAPI instances that are named in a line."""


@dataclass(frozen=True)
class Part:
    """What is decided upon together."""

    napis: frozenset[NapiKey]
    servers: frozenset[int]
    """Pids of the processes that hold an epoll instance, socket or ring of it."""

    def has(self, change: Change) -> bool:
        """Whether it is a setting of this part."""
        if isinstance(change, NapiChange):
            return (change.netns, change.napi_id) in self.napis
        return isinstance(change, PollerChange) and any(each.pid in self.servers for each in change.holders)

    def without(self, other: "Part") -> "Part":
        """What of it is not the other's."""
        return Part(self.napis - other.napis, self.servers - other.servers)

    def __str__(self) -> str:
        ids = [str(napi_id) for _, napi_id in sorted(self.napis)]
        more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED + 1 else ""
        return f"NAPI {', '.join(ids[:LISTED] if more else ids)}{more}"


def whole(transaction: Transaction) -> Part:
    """All that is attached."""
    polled = (each for each in transaction.changes if isinstance(each, PollerChange))
    return Part(
        napis=frozenset((each.netns, each.napi_id) for each in transaction.changes if isinstance(each, NapiChange)),
        servers=frozenset(holder.pid for each in polled for holder in each.holders),
    )


class Feeds:
    """Which NAPI instances feed which process, by the last looks: each sees a sample of its sockets."""

    def __init__(self) -> None:
        self._missed: dict[int, dict[int, int]] = {}
        """By process and NAPI id: looks that did not see it, one after the other."""

    def told(self, seen: Mapping[int, frozenset[int]], attached: Part) -> None:
        """By a look just now. Who is fed by none just now keeps what he had."""
        there = {napi_id for _, napi_id in attached.napis}
        for pid, ids in seen.items():
            missed = {napi_id: looks + 1 for napi_id, looks in self._missed.get(pid, {}).items() if napi_id in there}
            kept = {napi_id: looks for napi_id, looks in missed.items() if looks < FORGET_LOOKS}
            self._missed[pid] = kept | dict.fromkeys(ids, 0)
        self._missed = {pid: looks for pid, looks in self._missed.items() if pid in attached.servers}

    @property
    def by_process(self) -> dict[int, frozenset[int]]:
        """Of those of which it is known."""
        return {pid: frozenset(looks) for pid, looks in self._missed.items()}


def feeds_of(choice: Choice) -> dict[int, frozenset[int]]:
    """By process: the NAPI instances that feed what of it is attached, as far as they have fed any."""
    found: dict[int, frozenset[int]] = {}
    for instance in choice.instances:
        for pid, _ in instance.places:
            found[pid] = found.get(pid, frozenset()) | frozenset(instance.sockets_by_napi)
    for one in choice.sockets:
        if one.napi_id is not None:
            found[one.process.pid] = found.get(one.process.pid, frozenset()) | {one.napi_id}
    for ring in choice.rings:
        for pid, _ in ring.places:
            found[pid] = found.get(pid, frozenset()) | ring.napis
    return {pid: napis for pid, napis in found.items() if napis}


def parts_of(transaction: Transaction, feeds: Mapping[int, frozenset[int]]) -> tuple[Part, ...]:
    """The smallest: no process has to do with two of them, since its CPU time and latency are told as one, and neither
    has a NAPI instance. All is one part, where it is not known of all who feeds whom."""
    everything = whole(transaction)
    by_id = {napi_id: (netns, napi_id) for netns, napi_id in everything.napis}
    parts: list[Part] = []
    for pid in sorted(everything.servers):
        ids = feeds.get(pid, frozenset())
        if not ids or not ids <= by_id.keys():
            return (everything,)
        parts = _with(parts, Part(frozenset(by_id[each] for each in ids), frozenset({pid})))
    for change in transaction.changes:  # a process that another has forked holds the same epoll instance
        if isinstance(change, PollerChange):
            parts = _with(parts, Part(frozenset(), frozenset(each.pid for each in change.holders)))
    fed = frozenset[NapiKey]().union(*(each.napis for each in parts))
    return tuple(sorted(parts, key=lambda each: sorted(each.napis))) if fed == everything.napis else (everything,)


def joined_parts(parts: Iterable[Part]) -> Part:
    """Several as one."""
    some = tuple(parts)
    return Part(
        napis=frozenset[NapiKey]().union(*(each.napis for each in some)),
        servers=frozenset[int]().union(*(each.servers for each in some)),
    )


def _with(parts: Sequence[Part], one: Part) -> list[Part]:
    """And one more, which joins those that it has to do with."""
    touched = [each for each in parts if each.napis & one.napis or each.servers & one.servers]
    return [*(each for each in parts if each not in touched), joined_parts([*touched, one])]
