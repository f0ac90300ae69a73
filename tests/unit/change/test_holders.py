"""One NAPI instance has one holder of its thread, and none that keeps the task from polling that it is attached for."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.change.holders import refuse_second_holder
from napctl.model.change import Change, IoUringChange, Kind, NapiChange, ThreadChange, Transaction
from napctl.model.errors import BadInput
from napctl.model.settings import NapiSettings, RingPolling, ThreadSettings

ENABLED = ThreadSettings(threaded="enabled", nice=19)
SPINS = ThreadSettings(threaded="busy-poll")


def thread(napi_id: int = 7, after: ThreadSettings = ENABLED, **more: Any) -> ThreadChange:
    before = ThreadSettings(threaded="disabled", nice=0)
    return ThreadChange(netns=1, device="eth0", ifindex=2, napi_id=napi_id, before=before, after=after, **more)


def suspension(napi_id: int = 7, suspend_ns: int = 20_000_000) -> NapiChange:
    after = NapiSettings(irq_suspend_timeout_ns=suspend_ns)
    return NapiChange(netns=1, device="eth0", ifindex=2, napi_id=napi_id, before=NapiSettings(), after=after)


def ring() -> IoUringChange:
    off = RingPolling(tracking="inactive", busy_poll_usecs=0, prefer_busy_poll=False)
    on = RingPolling(tracking="dynamic", busy_poll_usecs=50, prefer_busy_poll=True)
    return IoUringChange(pid=42, name="server", started_ticks=42, fd=5, inode=9, before=off, after=on)


def deferral(napi_id: int = 7) -> NapiChange:
    """As attaching makes it, without suspension."""
    after = NapiSettings(gro_flush_timeout_ns=50_000, irq_suspend_timeout_ns=0)
    return NapiChange(netns=1, device="eth0", ifindex=2, napi_id=napi_id, before=NapiSettings(), after=after)


def holding(*changes: Change, kind: Kind = "apply") -> Transaction:
    return Transaction(
        number=3, kind=kind, boot_id="b", made_unix_ns=1, name="nginx", pid=42, state="applied", changes=changes
    )


def refusal(wanted: Sequence[Change], live: Sequence[Transaction], own: int = 0, kind: Kind = "apply") -> str:
    try:
        refuse_second_holder(wanted, live, own, kind=kind)
    except BadInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("wanted", "held", "words"),
    [
        (thread(), holding(thread()), "its thread is held by apply 3 on nginx; `napctl rollback 3` first"),
        (thread(), holding(thread(), kind="verify"), "its thread is held by verify 3 on nginx; wait for its end first"),
        (thread(), holding(suspension(), kind="attach"), "whose tasks poll it; `napctl detach 42` first"),
        (suspension(), holding(thread(after=SPINS)), "its thread spins"),
        (suspension(), holding(thread(leaving=SPINS)), "its thread spins"),
        (suspension(), holding(thread()), ""),
        (thread(), holding(suspension(suspend_ns=0)), ""),
        (thread(), holding(deferral(), kind="attach"), "it is held by nginx (42); `napctl detach 42` first"),
        (deferral(), holding(thread(after=SPINS)), "its thread spins"),
        (deferral(), holding(thread()), ""),
        (thread(napi_id=8), holding(thread()), ""),
        (suspension(), holding(suspension(), kind="attach"), ""),
    ],
)
def test_who_is_refused_beside_whom(wanted: Change, held: Transaction, words: str) -> None:
    said = refusal([wanted], [held])
    assert bool(said) == bool(words)
    assert words in said
    assert said.startswith("NAPI 7 of eth0: ") or not said
    assert "\n" not in said


@given(st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)))
def test_threads_of_other_instances_are_nobodys_business(mine: set[int], theirs: set[int]) -> None:
    held = [holding(*(thread(each) for each in theirs))]
    wanted = [thread(each) for each in mine]
    assert bool(refusal(wanted, held)) == bool(mine & theirs)
    assert refusal(wanted, held, own=3) == ""


def test_tasks_that_poll_by_their_rings_hold_an_instance_without_suspension() -> None:
    by_ring = holding(deferral(), ring(), kind="attach")

    assert "`napctl detach 42` first" in refusal([thread()], [by_ring])
    assert "its thread spins" in refusal([deferral(), ring()], [holding(thread(after=SPINS))])


MAKES = st.sampled_from((thread, suspension, deferral))


@given(st.lists(st.tuples(MAKES, st.integers(1, 4))), st.sampled_from((ENABLED, ThreadSettings(nice=19))))
def test_protection_is_refused_a_thread_that_another_holds_and_no_other(
    held: list[tuple[Callable[[int], Change], int]], after: ThreadSettings
) -> None:
    attached = holding(*(make(napi_id) for make, napi_id in held), kind="attach")
    taken = {napi_id for make, napi_id in held if make is thread}
    for napi_id in range(1, 5):
        said = refusal([thread(napi_id, after)], [attached], kind="protect")
        assert bool(said) == (napi_id in taken)
        assert "its thread is held by nginx (42)" in said or not said


@given(st.sampled_from((ENABLED, ThreadSettings(nice=19))), st.booleans())
def test_upon_what_protection_has_made_a_server_is_attached_but_to_no_thread_of_its_own(
    after: ThreadSettings, suspends: bool
) -> None:
    protected = holding(thread(after=after), kind="protect")
    assert refusal([suspension() if suspends else deferral()], [protected], kind="attach") == ""
    assert "its thread is held by protect 3 on nginx" in refusal([thread()], [protected], kind="attach")
