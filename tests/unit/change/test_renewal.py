"""What is recorded of a change made once more, or undone in part: what was there first is what comes back."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.change.renewal import Keepable, joined, object_of, part_of, renewed
from napctl.model.change import Change, CoalescingChange, NapiChange, RingsChange, ThreadChange
from napctl.model.machine import Coalescing
from napctl.model.plan import RingSizes, settings
from napctl.model.settings import NapiSettings, ThreadSettings

VALUES = st.integers(0, 3)
FIELDS = ("rx_usecs", "tx_usecs", "rx_max_frames")
BLOCKS = st.fixed_dictionaries(dict.fromkeys(FIELDS, VALUES))
ASKED = st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1)


def block(values: Mapping[str, Any]) -> Coalescing:
    return Coalescing(**values)


def coalescing(before: dict[str, int], after: dict[str, int], found: dict[str, int] | None = None) -> CoalescingChange:
    return CoalescingChange(
        netns=1, device="eth0", ifindex=2, before=block(before), after=block(after),
        found=block(before | after if found is None else found),
    )  # fmt: skip


def napi(before: NapiSettings, after: NapiSettings, napi_id: int = 7) -> NapiChange:
    return NapiChange(netns=1, device="eth0", ifindex=2, napi_id=napi_id, before=before, after=after)


def undone(change: Keepable, now: dict[str, Any]) -> dict[str, Any]:
    """As undo() of one_change.py settles each setting that it looks at."""
    given_ = getattr(change, "found", None) or change.after
    asked = dict(settings(change.after))
    found = getattr(change, "found", None)
    moved = [
        name for name in now
        if found is not None and name not in asked and getattr(found, name) != getattr(change.before, name)
    ]  # fmt: skip
    back = {name: getattr(change.before, name) for name in (*asked, *moved) if now[name] == getattr(given_, name)}
    return now | back


def undone_thread(change: Change, now: ThreadSettings) -> ThreadSettings:
    """As undo() settles it."""
    assert isinstance(change, ThreadChange)
    own = [each for each in (change.after, change.leaving) if each is not None]
    names = [name for name, _ in settings(change.after)]
    mine = [name for name in names if any(getattr(now, name) == getattr(each, name) for each in own)]
    return replace(now, **{name: getattr(change.before, name) for name in mine})


@given(BLOCKS, ASKED, ASKED)
def test_undone_at_once_all_is_as_before_the_first(
    first: dict[str, int], one: dict[str, int], other: dict[str, int]
) -> None:
    """Two changes of one block, as policies change; nobody else has a hand in it."""
    earlier = coalescing(first, one)
    anew = coalescing(first | one, other)
    both = renewed(earlier, anew)
    assert dict(settings(both.after)) == one | other
    assert undone(both, first | one | other) == first


@given(BLOCKS, ASKED, st.dictionaries(st.sampled_from(FIELDS), VALUES), st.data())
def test_what_another_hand_changed_comes_back_if_set_again_and_stays_if_not(
    first: dict[str, int], asked: dict[str, int], theirs: dict[str, int], data: st.DataObject
) -> None:
    earlier = coalescing(first, asked)
    now = first | asked | theirs
    again = {name: asked[name] for name in data.draw(st.sets(st.sampled_from(sorted(asked)), min_size=1))}
    both = renewed(earlier, coalescing(now, again))
    back = undone(both, now | again)
    for name in FIELDS:
        if name in again:
            assert back[name] == first[name]
        elif name in theirs and theirs[name] not in (first[name], asked.get(name)):
            assert back[name] == theirs[name]


def test_what_the_driver_moved_beside_it_is_known_as_moved_and_as_his_who_has_changed_it_since() -> None:
    first = {"rx_usecs": 1, "tx_usecs": 1, "rx_max_frames": 1}
    earlier = coalescing(first, {"rx_usecs": 5}, first | {"rx_usecs": 5, "rx_max_frames": 9})
    reset = first | {"rx_max_frames": 9}
    again = renewed(earlier, coalescing(reset, {"rx_usecs": 5}))
    assert undone(again, reset | {"rx_usecs": 5}) == first
    theirs = first | {"rx_max_frames": 3}
    again = renewed(earlier, coalescing(theirs, {"rx_usecs": 5}))
    assert undone(again, theirs | {"rx_usecs": 5}) == theirs


def test_before_it_is_made_nothing_is_known_of_what_the_driver_makes_of_it() -> None:
    earlier = coalescing({"rx_usecs": 1}, {"rx_usecs": 5})
    anew = replace(coalescing({"rx_usecs": 9}, {"rx_usecs": 5}), found=None)
    both = renewed(earlier, anew)
    assert both.found is None  # type: ignore[union-attr]
    assert both.before.rx_usecs == 1  # type: ignore[union-attr]


def test_a_napi_instance_keeps_its_first_value() -> None:
    earlier = napi(NapiSettings(gro_flush_timeout_ns=0), NapiSettings(gro_flush_timeout_ns=50))
    anew = napi(
        NapiSettings(gro_flush_timeout_ns=9, defer_hard_irqs=1),
        NapiSettings(gro_flush_timeout_ns=50, defer_hard_irqs=2),
    )
    both = renewed(earlier, anew)
    assert both.before == NapiSettings(gro_flush_timeout_ns=0, defer_hard_irqs=1)
    assert both.after == anew.after


def test_a_thread_that_gets_a_nice_value_later_ends_in_what_was_before_the_first() -> None:
    where: dict[str, Any] = {"netns": 1, "device": "eth0", "ifindex": 2, "napi_id": 7}
    begun = ThreadChange(
        **where, before=ThreadSettings(threaded="disabled", nice=0), after=ThreadSettings(threaded="enabled", nice=1)
    )
    nice = ThreadChange(**where, before=ThreadSettings(nice=1, cpus="0-3"), after=ThreadSettings(nice=19, cpus="2"))
    (both,) = joined((begun,), (nice,))
    assert both.before == ThreadSettings(threaded="disabled", nice=0, cpus="0-3")
    assert both.after == ThreadSettings(threaded="enabled", nice=19, cpus="2")
    (amid,) = joined((begun,), (replace(nice, leaving=nice.before),))
    assert undone_thread(amid, ThreadSettings(threaded="enabled", nice=1, cpus="0-3")) == both.before
    part = part_of(nice, ["nice"], moved=False)
    assert (part.before, part.after) == (ThreadSettings(nice=1), ThreadSettings(nice=19))


def test_of_each_object_there_is_one_and_the_order_stays() -> None:
    rings = RingsChange(netns=1, device="eth0", ifindex=2, before=RingSizes(rx=1), after=RingSizes(rx=2))
    one, two = (napi(NapiSettings(defer_hard_irqs=0), NapiSettings(defer_hard_irqs=5), number) for number in (7, 8))
    queue = replace(coalescing({"rx_usecs": 1}, {"rx_usecs": 5}), queue=0)
    again = replace(one, before=NapiSettings(defer_hard_irqs=9))
    assert joined((rings, one, two), (again, queue)) == (rings, one, two, queue)
    assert len({object_of(each) for each in (rings, one, two, queue, replace(queue, queue=1))}) == 5


@given(BLOCKS, st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=2), VALUES, st.data())
def test_a_part_undone_leaves_the_rest_in_force_and_both_lead_back(
    first: dict[str, int], asked: dict[str, int], moved: int, data: st.DataObject
) -> None:
    found = first | {name: moved for name in FIELDS if name not in asked} | asked
    whole = coalescing(first, asked, found)
    names = sorted(data.draw(st.sets(st.sampled_from(sorted(asked)), min_size=1, max_size=len(asked) - 1)))
    part = part_of(whole, names, moved=False)
    rest = part_of(whole, [name for name in asked if name not in names], moved=True)
    after = undone(part, found)
    assert after == found | {name: first[name] for name in names}
    assert undone(rest, after) == first


def test_a_part_of_a_napi_instances_settings() -> None:
    whole = napi(
        NapiSettings(gro_flush_timeout_ns=0, defer_hard_irqs=1),
        NapiSettings(gro_flush_timeout_ns=50, defer_hard_irqs=2),
    )
    part = part_of(whole, ["defer_hard_irqs"], moved=False)
    assert (part.before, part.after) == (NapiSettings(defer_hard_irqs=1), NapiSettings(defer_hard_irqs=2))
