"""Exchanging what a transaction in force has set for other values, which lead back to the same former ones."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.one_change import found_own, make, may_have_either, refuse_changed, touched
from napctl.change.transaction import undisturbed
from napctl.model.change import Change, InstanceChange, PollerChange, Switch, Transaction
from napctl.model.errors import Away, BadInput, ChangedMeanwhile, NapctlError, RolledBack
from napctl.model.settings import EpollParams, NapiSettings, RingPolling, SocketPolling, ThreadSettings

__all__ = ["Block", "Exchanged", "Stage", "exchange"]


MOST_SWITCHES = 100
"""Of one transaction that are kept: the newest."""

Block = NapiSettings | ThreadSettings | EpollParams | SocketPolling | RingPolling


@dataclass(frozen=True)
class Stage:
    """Settings that are written together, of every object that has them."""

    names: tuple[str, ...]
    then_seconds: float = 0.0
    """How long to wait before the next stage, if anything was written."""


@dataclass(frozen=True)
class Exchanged:
    """What came of it."""

    transaction: Transaction
    left: tuple[str, ...]
    """What was left alone, as somebody else has changed it or the kernel refuses it: one line each."""


def exchange(
    journal: Journal,
    transaction: Transaction,
    wanted: Callable[[Change], Block | None],
    stages: Sequence[Stage],
    switch: Switch | None,
) -> Exchanged:
    """Give objects of a transaction in force other values: those that are `wanted` of a change (None: as it is).

    Before anything is written the journal has both values, so that after a kill between any two instructions either is
    known to be napctl's, and what was before napctl is put back. An object that somebody else has changed, or that the
    kernel refuses to set, does not keep the others from being exchanged. One that is gone may come back, as with a
    device that is down, and may then have either: so it is recorded, like one that the kernel refused half-way.
    `switch` is what is recorded of it; None: it is the last one, tried again for such objects. Raises RolledBack, with
    nothing written, if the journal cannot be.
    """
    with undisturbed(), Places() as places:
        new = {place: block for place, each in enumerate(transaction.changes) if (block := _other(each, wanted))}
        transaction, gone, errors = _as_found(transaction, new, places)
        sure = [place for place in gone if not may_have_either(transaction.changes[place])]
        new = {
            place: block for place, block in new.items() if place not in errors and (place not in gone or place in sure)
        }
        journal.update(_exchanged(transaction, new, unsure=new), transaction.state)
        unsure = set(gone)
        for stage in stages:
            steps = {place: _step(transaction.changes[place], block, stage.names) for place, block in new.items()}
            steps = {place: step for place, step in steps.items() if touched(step) and place not in unsure}
            for place, step in steps.items():
                try:
                    make(step, places)
                except (BadInput, Away):
                    unsure.add(place)  # it is gone, or hidden as its device is down
                except NapctlError as error:
                    unsure.add(place)
                    errors[place] = error
            if steps:
                time.sleep(stage.then_seconds)
        made = _exchanged(transaction, new, unsure)
        if switch is not None:
            made = replace(made, switches=(*made.switches, switch)[-MOST_SWITCHES:])
        with suppress(RolledBack):  # the disk has become full; what the journal has leads back as well
            made = journal.update(made, made.state)
    return Exchanged(made, tuple(_words(error) for error in errors.values()))


def _other(change: Change, wanted: Callable[[Change], Block | None]) -> Block | None:
    """What it is to have, if that is not what it has for sure."""
    block = wanted(change)
    return None if block == change.after and not may_have_either(change) else block


def _as_found(
    transaction: Transaction, new: dict[int, Block], places: Places
) -> tuple[Transaction, set[int], dict[int, NapctlError]]:
    """With what those objects have by now where that was not known for sure; which are gone; which cannot be exchanged,
    and why."""
    changes, gone = list(transaction.changes), set[int]()
    errors: dict[int, NapctlError] = {}
    for place, block in new.items():
        try:
            changes[place] = found_own(changes[place], places)
            refuse_changed(_step(changes[place], block), places)
        except (BadInput, Away):
            gone.add(place)
        except NapctlError as error:
            errors[place] = error
    return replace(transaction, changes=tuple(changes)), gone, errors


def _step(change: Change, block: Block, names: Collection[str] = ()) -> Change:
    """From what is in force to what is to be, of these settings alone (none: of all)."""
    assert isinstance(change, InstanceChange | PollerChange)
    before = change.after
    kept: Block = before
    if isinstance(before, NapiSettings | ThreadSettings):
        kept = type(before)()  # there None stands for: not touched
    other = {
        name: value
        for name in block.__struct_fields__
        if (value := getattr(block, name)) != getattr(before, name) and (not names or name in names)
    }
    return replace(change, before=before, after=replace(kept, **other), leaving=None)


def _exchanged(transaction: Transaction, new: dict[int, Block], unsure: Collection[int]) -> Transaction:
    """As it is recorded. `unsure`: places of those that may have either value."""
    changes = list(transaction.changes)
    for place, block in new.items():
        before = changes[place]
        leaving = before.after if place in unsure else None
        changes[place] = replace(before, after=block, leaving=leaving)
    return replace(transaction, changes=tuple(changes))


def _words(error: NapctlError) -> str:
    """As it is told to who does not look again."""
    told = str(error).removesuffix(": look again")
    return f"{told}; napctl leaves it" if isinstance(error, ChangedMeanwhile) else told
