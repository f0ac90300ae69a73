"""Who holds a NAPI instance: two that decide who polls it could not both put back what was before them. Pure."""

from collections.abc import Iterable

from napctl.model.change import Change, InstanceChange, Kind, NapiChange, ThreadChange, Transaction
from napctl.model.errors import BadInput
from napctl.model.settings import BUSY_POLL, NapiSettings

__all__ = ["refuse_second_holder"]


def refuse_second_holder(
    wanted: Iterable[Change], live: Iterable[Transaction], own: int = 0, *, kind: Kind = "apply"
) -> None:
    """Raises BadInput if one of these changes is of an instance that another transaction than `own` holds. `kind`: of
    the one that wants them.

    A thread has one holder, and what is attached gets none: its packets are polled by the task that reads them already.
    Only protection gives it one, or makes that nice, while a flood keeps the task from coming to its polling.
    But who attaches to an instance with a thread is not refused: tasks that busy poll take it from its thread as from
    the softirq (commit cb038357937e), and each of the two puts back what it has set itself. Only a thread that spins
    never lets it go (commit c18d4b190a46).
    """
    instances = (each for each in wanted if isinstance(each, InstanceChange))
    deciding = [each for each in instances if isinstance(each, ThreadChange) or _is_in_use(each)]
    for other in live if deciding else ():
        if other.number == own:
            continue
        for change in deciding:
            for held in other.changes:
                words = _refusal(change, held, other, kind)
                if words:
                    raise BadInput(f"NAPI {change.napi_id} of {change.device}: {words}")


def _refusal(change: InstanceChange, held: Change, other: Transaction, kind: Kind) -> str:
    """Why the one cannot be made beside the other, which is in force; empty if it can."""
    if not isinstance(held, InstanceChange) or (change.netns, change.napi_id) != (held.netns, held.napi_id):
        return ""
    if isinstance(held, ThreadChange):
        if isinstance(change, ThreadChange):
            return f"its thread is held by {other.title}; {_way_out(other)} first"
        return f"its thread spins, by {other.title}, so that no task can poll it; {_way_out(other)} first" * _spins(
            held
        )
    if isinstance(change, ThreadChange) and kind != "protect" and _holds_instance(other, held):
        whose = ", whose tasks poll it" if held.after.irq_suspend_timeout_ns else ""
        return f"it is held by {other.title}{whose}; {_way_out(other)} first"
    return ""


def _holds_instance(transaction: Transaction, change: Change) -> bool:
    """Whether by it an attachment has an instance: suspended or deferred, and not while it is on interrupts."""
    if not isinstance(change, NapiChange):
        return False
    defers = transaction.kind == "attach" and bool(change.after.gro_flush_timeout_ns)
    return defers or bool(change.after.irq_suspend_timeout_ns)


def _is_in_use(change: Change) -> bool:
    """Whether attaching would make it. It says always whether there is suspension, which a plan leaves alone."""
    settings = change.after if isinstance(change, NapiChange) else NapiSettings()
    suspends_ns = settings.irq_suspend_timeout_ns
    return suspends_ns is not None and bool(suspends_ns or settings.gro_flush_timeout_ns)


def _spins(change: ThreadChange) -> bool:
    return BUSY_POLL in (change.after.threaded, change.leaving.threaded if change.leaving else None)


def _way_out(other: Transaction) -> str:
    match other.kind:
        case "attach":
            return f"`napctl detach {other.pid}`"
        case "verify":
            return "wait for its end"
    return f"`napctl rollback {other.number}`"
