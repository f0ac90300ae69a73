"""The steps of the ladder as changes of settings: NAPI threads, and their nice value."""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from napctl.change.objects import Places, opened
from napctl.change.one_change import explain
from napctl.kernel.netlink import Refused
from napctl.model.change import Change, ThreadChange, Transaction
from napctl.model.errors import Unsupported
from napctl.model.limits import MOST_NICE
from napctl.model.machine import Napi
from napctl.model.plan import settings
from napctl.model.settings import DISABLED, ENABLED, ThreadSettings
from napctl.model.storm_change import StormLimitsChange
from napctl.protect.ladder import StepKind

__all__ = ["changes_of_step", "has_thread", "of_step", "step_words", "threads_held_elsewhere"]


NapiKey = tuple[int, int]
"""Network namespace and id."""


def has_thread(napi: Napi) -> bool:
    """Whether a thread polls it, and no softirq. Its pid alone does not tell: before Linux 6.17 it outlives its use."""
    threaded = napi.settings.threaded or (napi.thread.threaded if napi.thread is not None else None)
    return napi.thread_pid is not None if threaded is None else threaded != DISABLED


def changes_of_step(
    kind: StepKind, netns: int, device: str, napis: Collection[Napi], held: Collection[NapiKey]
) -> tuple[ThreadChange, ...]:
    """What a step changes of these instances, without those that others hold and those that have it already.

    Raises Unsupported if the kernel would give a thread to one that others hold, too, and what explain() makes of a
    refusal.
    """
    others = [each.napi_id for each in napis if (netns, each.napi_id) in held]
    if kind == "threads" and others and any(each.settings.threaded is None for each in napis):
        raise Unsupported(f"{device}: NAPI {others[0]} is set by others, and this kernel has threads for all NAPI "
                          "instances of a device or for none (Linux 6.17 has them for one)")  # fmt: skip
    found = []
    with Places() as places:
        for napi in napis:
            if napi.napi_id in others:
                continue
            change = _asked(kind, netns, device, napi)
            now = _now(change, places)
            if now is not None and (kind == "threads" or now.threaded != DISABLED) and _differs(change, now):
                found.append(_upon(change, now))
    return tuple(found)


def _asked(kind: StepKind, netns: int, device: str, napi: Napi) -> ThreadChange:
    after = ThreadSettings(threaded=ENABLED) if kind == "threads" else ThreadSettings(nice=MOST_NICE)
    return ThreadChange(
        netns=netns,
        device=device,
        ifindex=napi.ifindex,
        napi_id=napi.napi_id,
        whole_device=napi.settings.threaded is None,
        before=ThreadSettings(),
        after=after,
    )


def _now(change: ThreadChange, places: Places) -> ThreadSettings | None:
    """None if it is gone."""
    try:
        with opened(change, places) as block:
            found = block.read() if block is not None else None
    except (OSError, Refused) as error:
        raise explain(change, error) from None
    assert found is None or isinstance(found, ThreadSettings)
    return found


def _differs(change: ThreadChange, now: ThreadSettings) -> bool:
    """A thread that spins is left to who made it so; one that is nice already stays as it is."""
    if change.after.threaded is not None:
        return now.threaded == DISABLED
    return now.nice is not None and now.nice < MOST_NICE


def _upon(change: ThreadChange, now: ThreadSettings) -> ThreadChange:
    asked = {field: getattr(now, field) for field, _ in settings(change.after)}
    return replace(change, before=ThreadSettings(**asked))


def threads_held_elsewhere(live: Sequence[Transaction], own: int) -> frozenset[NapiKey]:
    """Instances of which others hold the thread: a plan, or who is attached by it. Suspension and deferral of who is
    attached otherwise are other settings, which a thread leaves as they are."""
    return frozenset(
        (change.netns, change.napi_id)
        for each in live
        if each.number != own
        for change in each.changes
        if isinstance(change, ThreadChange)
    )


def of_step(change: Change) -> StepKind | None:
    """By which step a change was made."""
    if isinstance(change, StormLimitsChange):
        return "storm control"
    if not isinstance(change, ThreadChange):
        return None
    return "threads" if change.after.threaded is not None else "nice"


def step_words(kind: StepKind, changes: Sequence[Change]) -> str:
    """What was done, and to which instances."""
    first = changes[0]
    if isinstance(first, StormLimitsChange):
        return f"storm control beyond {first.after.packets_per_second:,} packets/s of each kind"
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    which = f"NAPI {getattr(first, 'napi_id', 0)}{more}"
    return f"NAPI threads for {which}" if kind == "threads" else f"nice {MOST_NICE} for the thread of {which}"
