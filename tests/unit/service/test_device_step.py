"""What of the devices' settings is lost, gone or not wanted any more, and how that is said."""

from typing import Any

from msgspec.structs import replace

from napctl.model.change import CoalescingChange, NapiChange, Restored, RingsChange
from napctl.model.machine import Coalescing
from napctl.model.plan import Deferral, RingSizes
from napctl.model.settings import NapiSettings
from napctl.service.device_plan import wanted_changes
from napctl.service.device_step import left_words, lines_of, lines_of_put_back, lost_settings, outdated
from tests.unit.service.test_device_drift import NIC, entry, machine, napi


def coalescing(**after: Any) -> CoalescingChange:
    """In force, upon what NIC has."""
    before = NIC.coalescing
    assert before is not None
    return CoalescingChange(
        netns=1, device="eth0", ifindex=2, before=before, after=Coalescing(**after), found=replace(before, **after)
    )


def flush(napi_id: int, after_ns: int = 40_000, before_ns: int = 0) -> NapiChange:
    return NapiChange(
        netns=1, device="eth0", ifindex=2, napi_id=napi_id, before=NapiSettings(gro_flush_timeout_ns=before_ns),
        after=NapiSettings(gro_flush_timeout_ns=after_ns),
    )  # fmt: skip


def test_lost_is_what_was_set_as_it_is_wanted_and_of_many_instances_it_is_one() -> None:
    mine = (coalescing(rx_usecs=50, tx_usecs=9), flush(10), flush(11))
    asked = (
        replace(coalescing(rx_usecs=50, tx_usecs=10), found=None), replace(flush(10), before=NapiSettings()), flush(11),
        flush(12),
    )  # fmt: skip
    assert lost_settings(asked, mine) == {"eth0 rx-usecs": 2, "eth0 gro-flush-timeout": 2}
    assert lost_settings(asked, ()) == {}


def test_of_what_is_in_force_that_goes_which_is_not_wanted_and_that_is_forgotten_which_is_no_more() -> None:
    device = replace(NIC, napis=(napi(11, flush_ns=40_000),))
    asked = wanted_changes([entry(deferral=Deferral(gro_flush_timeout_ns=40_000))], machine(device))
    mine = (coalescing(rx_usecs=50), flush(10), flush(11))
    past = outdated(mine, machine(device), {2}, asked)
    assert (past.kept, past.put_back, past.gone) == (mine, mine[:1], (flush(10),))
    assert outdated(mine, replace(machine(), devices=()), {3}, asked).gone == mine
    assert outdated(mine, replace(machine(), devices=()), {2}, asked).gone == ()  # it is there, and could not be read


def test_of_one_change_a_part_may_be_unwanted() -> None:
    mine = coalescing(rx_usecs=50, tx_usecs=9)
    asked = wanted_changes([entry(coalescing=Coalescing(tx_usecs=9))], machine())
    past = outdated((mine,), machine(), {2}, asked)
    (part,) = past.put_back
    assert part.after == Coalescing(rx_usecs=50)
    assert [each.after for each in past.kept] == [Coalescing(tx_usecs=9), Coalescing(rx_usecs=50)]


def test_what_cannot_be_decided_or_is_anothers_for_now_waits() -> None:
    nothing = wanted_changes([], machine())
    mine = (coalescing(rx_usecs=50), flush(10))
    down = replace(NIC, up=False, napis=())
    assert outdated(mine, machine(down), {2}, wanted_changes([], machine(down))).put_back == ()
    unsafe = wanted_changes([entry(coalescing=Coalescing(rx_usecs=5000))], machine())
    assert unsafe.problems
    assert outdated(mine, machine(), {2}, unsafe).put_back == ()
    assert outdated(mine, machine(), {2}, nothing, held={10}).put_back == mine[:1]
    assert outdated(mine, machine(), {2}, nothing).put_back == mine


def test_what_rings_have_moved_goes_with_the_rings() -> None:
    rings = RingsChange(netns=1, device="eth0", ifindex=2, before=RingSizes(rx=1024), after=RingSizes(rx=4096))
    mine = (rings, coalescing())
    wanted = wanted_changes([entry(rings=RingSizes(rx=4096))], machine())
    assert outdated(mine, machine(), {2}, wanted).put_back == ()
    assert outdated(mine, machine(), {2}, wanted_changes([], machine())).put_back == mine


def test_a_line_tells_from_what_to_what_and_instances_alike_are_one_line() -> None:
    asked = (coalescing(rx_usecs=50, use_adaptive_rx=True), flush(10), flush(11), flush(12, before_ns=7_000))
    made = replace(asked[0], found=replace(asked[0].found or Coalescing(), rx_usecs=48))
    assert [line for _, line in lines_of(asked, (made, *asked[1:]))] == [
        "eth0: rx-usecs 3 → 50 (the driver made 48 of it), use-adaptive-rx off → on",
        "NAPI 10 and 1 more of eth0: gro-flush-timeout 0 → 40us",
        "NAPI 12 of eth0: gro-flush-timeout 7us → 40us",
    ]
    assert list(lines_of(asked, ())) == []


def test_put_back_is_said_only_of_what_was() -> None:
    device = replace(NIC, coalescing=Coalescing(rx_usecs=50, tx_usecs=77))
    lines = [line for _, line in lines_of_put_back([coalescing(rx_usecs=50, tx_usecs=9)], machine(device))]
    assert lines == [
        "eth0: rx-usecs put back to 3, as the policy no longer names it",
        "eth0: tx-usecs is now 77; somebody else changed it, so napctl leaves it (it was 8)",
    ]


def test_what_is_left_at_the_end_is_named() -> None:
    row = Restored(where="NAPI 7 of eth0", setting="gro_flush_timeout_ns", outcome="left", before=0, found=777_000)
    assert left_words(row) == (
        "NAPI 7 of eth0: gro-flush-timeout is now 777us; somebody else changed it, so napctl leaves it (it was 0)"
    )
