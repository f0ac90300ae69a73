"""Changing an attachment that stands from one way of taking packets to another, without a stall."""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from msgspec.structs import replace

from napctl.attach.attachment import ring_polling, socket_polling
from napctl.attach.parts import Part
from napctl.change.exchange import Block, Exchanged, Stage, exchange
from napctl.change.journal import Journal
from napctl.change.one_change import may_have_either
from napctl.change.undoing_order import SUSPENSION, resumed_seconds
from napctl.model.change import Change, EpollChange, IoUringChange, NapiChange, SocketChange, Switch, Transaction
from napctl.model.settings import EpollParams, NapiSettings, RingPolling, SocketPolling
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text

__all__ = ["has_one_way", "in_force", "in_way", "switch_way", "wanted_of", "way_words"]


B = TypeVar("B", NapiSettings, EpollParams)
P = TypeVar("P", EpollParams, SocketPolling, RingPolling)
DEFERRAL = ("defer_hard_irqs", "gro_flush_timeout_ns")
POLLING = ("busy_poll_usecs", "busy_poll_budget", "prefer_busy_poll", "tracking")


def in_way(wanted: Suspension, gro_flush_timeout_ns: int | None) -> Suspension:
    """What is set under a way: this timer; or None: plain interrupts, with neither deferral nor anybody who polls."""
    if gro_flush_timeout_ns is not None:
        return replace(wanted, gro_flush_timeout_ns=gro_flush_timeout_ns)
    return replace(
        wanted,
        defer_hard_irqs=0,
        gro_flush_timeout_ns=0,
        irq_suspend_timeout_ns=0,
        busy_poll_usecs=0,
        prefer_busy_poll=False,  # alone it still polls once in each epoll_wait
    )


def in_force(transaction: Transaction, otherwise: Suspension) -> Suspension:
    """What an attachment was given: by most of its objects, where some may still have what was before. `otherwise`: for
    what it does not have."""
    settled = [each for each in transaction.changes if not may_have_either(each)] or transaction.changes
    found: dict[str, int | bool] = {}
    napis = Counter(each.after for each in settled if isinstance(each, NapiChange))
    epolls = Counter(_of_the_group([each.after for each in settled if isinstance(each, EpollChange)], napis))
    for block in (*_most(napis), *_most(epolls)):
        found |= {name: value for name in block.__struct_fields__ if (value := getattr(block, name)) is not None}
    polls = _of_the_group([each.after for each in settled if isinstance(each, SocketChange)], napis)
    rings = _of_the_group([each.after for each in settled if isinstance(each, IoUringChange)], napis)
    if (polls or rings) and not epolls:
        own = polls[0].prefer_busy_poll if polls else rings[0].prefer_busy_poll
        found |= {"prefer_busy_poll": True} if own else {"prefer_busy_poll": False, "busy_poll_usecs": 0}
    if found.get("gro_flush_timeout_ns") and wanted_of(transaction.changes, otherwise) != otherwise:
        found.pop("irq_suspend_timeout_ns", None)
    return replace(otherwise, **found)


def _of_the_group(polling: list[P], napis: Counter[NapiSettings]) -> list[P]:
    """Of several groups in ways of their own: that which goes with what most NAPI instances have."""
    defers = any(each.gro_flush_timeout_ns for each in _most(napis))
    return [each for each in polling if napis and each.prefer_busy_poll == defers] or polling


def has_one_way(transaction: Transaction) -> bool:
    """Whether all that is attached was given the same."""
    kinds = (NapiChange, EpollChange, SocketChange, IoUringChange)
    return all(len({each.after for each in transaction.changes if isinstance(each, kind)}) <= 1 for kind in kinds)


def _most(blocks: Counter[B]) -> list[B]:
    return [block for block, _ in blocks.most_common(1)]


def way_words(gro_flush_timeout_ns: int | None) -> str:
    """A way's name, for messages."""
    return "interrupts" if gro_flush_timeout_ns is None else f"gro-flush-timeout {duration_text(gro_flush_timeout_ns)}"


def switch_way(
    journal: Journal, transaction: Transaction, wanted: Suspension, switch: Switch | None, part: Part | None = None
) -> Exchanged:
    """Bring all that is attached, or a part, into the way in which `wanted` is; raises what exchange() does.

    From one timer to another only that is written. Polling and suspension come upon deferral, and go before it:
    suspension first, as when it is undone (suspension_first()).
    """
    wanted = wanted_of(transaction.changes, wanted)
    up = (Stage(DEFERRAL), Stage(POLLING), Stage(SUSPENSION))
    down = (Stage(SUSPENSION, resumed_seconds(transaction.changes)), Stage(POLLING), Stage(DEFERRAL))

    def block(change: Change) -> Block | None:
        return _block(change, wanted) if part is None or part.has(change) else None

    return exchange(journal, transaction, block, up if wanted.prefer_busy_poll else down, switch)


def _block(change: Change, wanted: Suspension) -> Block | None:
    match change:
        case NapiChange():
            return wanted.napi
        case EpollChange():
            return wanted.epoll
        case SocketChange():
            return socket_polling(wanted)
        case IoUringChange():
            return ring_polling(wanted)
    return None


def wanted_of(changes: Iterable[Change], wanted: Suspension) -> Suspension:
    """What an attachment is given: without suspension, where its rings alone poll, which cannot."""
    kinds = {type(each) for each in changes}
    by_rings = IoUringChange in kinds and EpollChange not in kinds
    return replace(wanted, irq_suspend_timeout_ns=0) if by_rings else wanted
