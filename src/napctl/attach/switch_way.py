"""Changing an attachment that stands from one way of taking packets to another, without a stall."""

from msgspec.structs import replace

from napctl.attach.attachment import socket_polling
from napctl.change.exchange import Block, Exchanged, Stage, exchange
from napctl.change.journal import Journal
from napctl.model.change import Change, EpollChange, NapiChange, SocketChange, Switch, Transaction
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text

__all__ = ["in_way", "switch_way", "way_words"]


SLACK_SECONDS = 0.002
"""What a timer, and the task that starts it just before it would have been told otherwise, may be late."""
DEFERRAL = ("defer_hard_irqs", "gro_flush_timeout_ns")
SUSPENSION = ("irq_suspend_timeout_ns",)
POLLING = ("busy_poll_usecs", "busy_poll_budget", "prefer_busy_poll")


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


def way_words(gro_flush_timeout_ns: int | None) -> str:
    """A way's name, for messages."""
    return "interrupts" if gro_flush_timeout_ns is None else f"gro-flush-timeout {duration_text(gro_flush_timeout_ns)}"


def switch_way(journal: Journal, transaction: Transaction, wanted: Suspension, switch: Switch) -> Exchanged:
    """Bring all that is attached into the way in which `wanted` is; raises what exchange() does.

    From one timer to another only that is written. Polling and suspension come upon deferral, and go before it. Who
    stops polling while interrupts are suspended leaves the queue to the suspend timer: ep_resume_napi_irqs() in
    fs/eventpoll.c does nothing without prefer_busy_poll. So suspension goes first. What is suspended by then is either
    resumed by the next busy poll, at whose end the timer is that of deferral (busy_poll_stop() in net/core/dev.c), or
    by the suspend timer, which nobody arms any more (napi_suspend_irqs()): after that time polling may go.
    """
    longest_ns = max((_suspend_ns(each) for each in transaction.changes), default=0)
    up = (Stage(DEFERRAL), Stage(POLLING), Stage(SUSPENSION))
    down = (Stage(SUSPENSION, longest_ns / 1e9 + SLACK_SECONDS), Stage(POLLING), Stage(DEFERRAL))
    return exchange(
        journal, transaction, lambda change: _block(change, wanted), up if wanted.prefer_busy_poll else down, switch
    )


def _block(change: Change, wanted: Suspension) -> Block | None:
    match change:
        case NapiChange():
            return wanted.napi
        case EpollChange():
            return wanted.epoll
        case SocketChange():
            return socket_polling(wanted)
    return None


def _suspend_ns(change: Change) -> int:
    return change.after.irq_suspend_timeout_ns or 0 if isinstance(change, NapiChange) else 0
