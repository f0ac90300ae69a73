"""Attach and detach: the one transaction that gives a running server IRQ suspension, and the way back."""

from collections.abc import Iterator

from napctl.attach.examine import Examination, examine
from napctl.attach.fitness import misfit
from napctl.change.journal import Journal
from napctl.change.transaction import apply, begun, restore
from napctl.kernel.processes import Process
from napctl.model.change import Change, EpollChange, NapiChange, Restored, Transaction
from napctl.model.errors import BadInput, Unsupported
from napctl.model.settings import NapiSettings
from napctl.model.suspension import Suspension


def attach(journal: Journal, process: Process, wanted: Suspension) -> Transaction:
    """Set suspension on exactly the NAPI and epoll instances of a process. Returns what was recorded and made.

    To be called after recover(): else the leavings of a dead server would be recorded as former values.
    Raises Unsupported if suspension does not fit, BadInput if the process or one of its NAPI instances is attached
    already, and what examine() and apply() raise.
    """
    live = journal.live()
    _refuse_second(process, live)
    found = examine(process)
    reason = misfit(found)
    if reason is not None:
        raise Unsupported(f"{process.name} ({process.pid}): {reason}; nothing was changed")
    transaction = plan(found, wanted)
    _refuse_shared(transaction, live)
    return apply(journal, transaction, then="attached")


def plan(found: Examination, wanted: Suspension) -> Transaction:
    """The changes that attach a process which fits: the device's half first, so that the deferral is there before
    the first task polls. An epoll instance without NAPI sockets, or already as wanted, is not touched."""
    changes: list[Change] = [
        NapiChange(
            netns=located.netns,
            device=located.device,
            ifindex=located.napi.ifindex,
            napi_id=napi_id,
            before=_touched(located.napi.settings),
            after=wanted.napi,
        )
        for napi_id, located in sorted(found.napis.items())
    ]
    changes += [
        EpollChange(
            pid=found.process.pid,
            name=found.process.name,
            started_ticks=found.process.started_ticks,
            epoll_fd=instance.fd,
            before=instance.params,
            after=wanted.epoll,
        )
        for instance in found.instances
        if instance.sockets_by_napi and instance.params != wanted.epoll
    ]
    process = found.process
    return begun("attach", process.name, tuple(changes), pid=process.pid, started_ticks=process.started_ticks)


def detach(journal: Journal, attachments: list[Transaction], *, force: bool = False) -> list[Restored]:
    """Restore every former value, also when the server has gone; the newest attachment first."""
    return [row for each in reversed(attachments) for row in restore(journal, each, force=force)]


def attachments(journal: Journal) -> list[Transaction]:
    """What is attached, oldest first; plans in force are none."""
    return [each for each in journal.live() if each.kind == "attach"]


def _touched(settings: NapiSettings) -> NapiSettings:
    """Those settings that attaching changes."""
    return NapiSettings(
        defer_hard_irqs=settings.defer_hard_irqs,
        gro_flush_timeout_ns=settings.gro_flush_timeout_ns,
        irq_suspend_timeout_ns=settings.irq_suspend_timeout_ns,
    )


def _refuse_second(process: Process, live: list[Transaction]) -> None:
    if any(each.pid == process.pid and each.started_ticks == process.started_ticks for each in live):
        raise BadInput(f"{process.name} ({process.pid}): already attached; `napctl detach {process.pid}` first")


def _refuse_shared(transaction: Transaction, live: list[Transaction]) -> None:
    """Two attachments of one NAPI instance could not both restore its former values.

    Upon an applied plan one may be made: its former values are the plan's. One that nobody has confirmed yet may go.
    """
    held = {napi: each for each in live if each.state != "applied" for napi in _napis(each)}
    for napi in _napis(transaction):
        if napi in held:
            other = held[napi]
            if other.kind == "attach":
                raise BadInput(f"NAPI {napi[1]} is already attached for {other.title}; detach that first")
            raise BadInput(f"NAPI {napi[1]}: {other.title} waits for `napctl confirm {other.number}`")


def _napis(transaction: Transaction) -> Iterator[tuple[int, int]]:
    return ((change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange))
