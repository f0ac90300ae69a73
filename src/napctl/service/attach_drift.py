"""What of one target differs from its `[[attach]]`. Pure: over what was examined, recorded and read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from napctl.adapt.ways import Way
from napctl.attach.attach_options import AttachOptions
from napctl.attach.attachment import ring_polling, socket_polling
from napctl.attach.judge_target import JudgedTarget, unfit_words, who
from napctl.attach.switch_way import in_way
from napctl.model.change import (
    Change,
    EpollChange,
    InstanceChange,
    NapiChange,
    PollerChange,
    RingChange,
    SocketChange,
    SteeringChange,
    Transaction,
)
from napctl.model.drift import Drift, Drifted, drifted
from napctl.model.modes import OF_INSTANCES, mode_of, satisfies
from napctl.model.plan import settings
from napctl.model.policy import AttachEntry
from napctl.model.units import duration_text
from napctl.model.value import Value

__all__ = ["coverage_drift", "settings_drift"]


TIMER = "gro_flush_timeout_ns"


def coverage_drift(entry: AttachEntry, target: JudgedTarget, mine: Sequence[Transaction]) -> Drift:
    """What runs and would be attached, and is not. `mine`: what is attached of the target.

    A server that has no connection yet has nothing that could be attached: it is waited for.
    """
    if mine:
        left = list(_left_out(target, mine))
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        return Drift(differences=(_unattached(entry, f"not attached: {left[0]}{more}"),) if left else ())
    if not target.choice.empty:
        return Drift(differences=(_unattached(entry, f"not attached, and {who(target.found)} runs"),))
    why = f"{who(target.found)}: {unfit_words(target)}"
    if entry.mode == "auto" and target.found.feeding:  # nothing may be better than what is there
        return Drift(waiting=(f"{entry.target}: in no mode yet: {why} ({entry.origin})",))
    if all(each.judgement == "nothing to poll" for each in target.verdicts):
        return Drift(waiting=(f"{entry.target}: {why} ({entry.origin})",))
    return Drift(differences=(_unattached(entry, f"cannot be attached: {why}"),))


def _left_out(target: JudgedTarget, mine: Iterable[Transaction]) -> Iterator[str]:
    """One that prefers busy polling already needs no change, and has none."""
    if target.choice.mode in OF_INSTANCES:
        yield from _instances_left_out(target, mine)
        return
    held = {place for transaction in mine for change in transaction.changes for place in _places(change)}
    for each in target.choice.instances:
        if not (held & set(each.places) or each.params.prefer_busy_poll):
            yield each.where
    for one in target.choice.sockets:
        if (one.process.pid, one.fd) not in held and not one.polling.prefer_busy_poll:
            yield one.where
    for ring in target.choice.rings:
        if not (held & set(ring.places) or (ring.polling is not None and ring.polling.prefer_busy_poll)):
            yield ring.where


def _instances_left_out(target: JudgedTarget, mine: Iterable[Transaction]) -> Iterator[str]:
    held = {(each.netns, each.napi_id) for one in mine for each in one.changes if isinstance(each, InstanceChange)}
    for napi_id in target.choice.napis:
        located = target.found.napis[napi_id]
        if (located.netns, napi_id) not in held:
            yield f"NAPI {napi_id} of {located.device.name}"


def _places(change: Change) -> list[tuple[int, int]]:
    return [(each.pid, each.fd) for each in change.holders] if isinstance(change, PollerChange) else []


def _unattached(entry: AttachEntry, words: str) -> Drifted:
    return Drifted(where=entry.target, words=f"{entry.target}: {words}", origin=entry.origin)


def settings_drift(
    entry: AttachEntry, options: AttachOptions, transaction: Transaction, found: Mapping[Change, Value | None]
) -> Drift:
    """Settings that somebody has changed since they were attached, or that were attached with others than the entry
    wants. `found`: what each change's object has now, None if it has gone; what could not be read is missing."""
    mode = mode_of(transaction.changes)
    if not satisfies(mode, options.mode):  # then no setting is as it is to be
        return Drift(differences=(drifted(entry.target, "mode", mode, options.mode, entry.origin),))
    differences = [each for change, now in found.items() for each in _of_change(entry, options, change, now)]
    steered = any(isinstance(change, SteeringChange) for change in transaction.changes)
    if steered and not entry.steer:
        differences.append(drifted(entry.target, "steer", True, False, entry.origin))
    return Drift(differences=tuple(differences))


def _of_change(entry: AttachEntry, options: AttachOptions, change: Change, now: Value | None) -> Iterator[Drifted]:
    if now is None:
        if isinstance(change, NapiChange):  # an epoll instance that is gone was its server's to close
            gone = f"{change.where}: it disappeared (device reset), and what has come instead is not attached"
            yield Drifted(where=change.where, words=gone, origin=entry.origin)
        return
    wanted = _wanted(options, change)
    for name, made in settings(change.after):
        value = getattr(now, name)
        if name == TIMER and name not in wanted:
            yield from _of_chosen_timer(entry, options, change, value, made)
        elif value != (expected := wanted.get(name, made)):
            yield drifted(change.where, name, value, expected, entry.origin)


def _of_chosen_timer(
    entry: AttachEntry, options: AttachOptions, change: Change, value: Any, chosen_ns: int
) -> Iterator[Drifted]:
    """The entry leaves the timer to napctl, within its range."""
    if value != chosen_ns:
        yield drifted(change.where, TIMER, value, chosen_ns, entry.origin, "napctl chose")
    elif chosen_ns and options.goal is not None and Way(gro_flush_timeout_ns=chosen_ns) not in options.goal.ways:
        timers = [each.gro_flush_timeout_ns for each in options.goal.ways if each.gro_flush_timeout_ns]
        between = f"{duration_text(timers[0])}..{duration_text(timers[-1])}"
        yield drifted(change.where, TIMER, value, between, entry.origin)


def _is_on_interrupts(change: Change) -> bool:
    match change:
        case NapiChange():
            return not change.after.gro_flush_timeout_ns
        case EpollChange() | SocketChange() | RingChange():
            return not (change.after.prefer_busy_poll or change.after.busy_poll_usecs)
    return False


def _wanted(options: AttachOptions, change: Change) -> Mapping[str, Any]:
    """What the entry says of a change's settings; without what it leaves to napctl."""
    adapted = options.goal is not None and _is_on_interrupts(change)
    if adapted or options.mode == "auto":
        return {}  # as adapting has decided, for now, or as it was chosen
    wanted = in_way(options.suspension, options.timer_ns or options.suspension.gro_flush_timeout_ns)
    match change:
        case NapiChange():
            values = dict(settings(wanted.napi))
            if change.after.gro_flush_timeout_ns and not change.after.irq_suspend_timeout_ns:
                values["irq_suspend_timeout_ns"] = 0  # only rings poll it, which cannot suspend
            return values if options.timer_ns else {name: each for name, each in values.items() if name != TIMER}
        case EpollChange():
            return dict(settings(wanted.epoll))
        case SocketChange():
            return dict(settings(socket_polling(wanted)))
        case RingChange():
            return dict(settings(ring_polling(wanted)))
    return {}
