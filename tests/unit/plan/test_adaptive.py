"""Levels for adaptive RX: five, ascending, inside the range, the budget and the ring, each to be told from the next."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.errors import BadInput
from napctl.model.limits import ring_fill_us
from napctl.model.machine import Coalescing, Device, DimProfile, Machine, QueueCoalescing, Rings
from napctl.model.plan import Advice, GoalName
from napctl.plan.adaptive import frames_of, shortest_useful_us, steps_us, takes_profile
from napctl.plan.applied import with_plan
from napctl.plan.bounds import beyond, mismatch
from napctl.plan.export import export
from napctl.plan.file import plan_of, plan_text
from napctl.plan.goals import GOALS
from napctl.plan.proposal import Range
from napctl.plan.propose import propose
from tests.strategies import GOALS as GOAL_NAMES
from tests.strategies import SPEEDS, machines
from tests.unit.plan.test_propose import NIC, machine, napi

KERNELS = tuple(DimProfile(usecs=usecs, pkts=256) for usecs in (1, 8, 64, 128, 256))
VIRTIO = replace(
    NIC,
    driver="virtio_net",
    speed_mbps=10_000,
    coalescing=Coalescing(
        rx_usecs=0, rx_max_frames=0, tx_usecs=0, tx_max_frames=1, use_adaptive_rx=False, rx_profile=KERNELS
    ),
    rings=Rings(rx=1024, rx_max=1024, tx=1024, tx_max=1024),
)
ENDS = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)).map(sorted)


@given(ENDS)
def test_five_levels_ascend_from_one_end_of_the_range_to_the_other(ends: list[int]) -> None:
    shortest, longest = ends
    steps = steps_us(shortest, longest)
    assert (len(steps), steps[0], steps[-1]) == (5, shortest, longest)
    assert all(a <= b for a, b in pairwise(steps))
    if longest - shortest >= 4:
        assert len(set(steps)) == 5


@given(ENDS)
def test_each_level_is_longer_by_the_same_factor(ends: list[int]) -> None:
    shortest, longest = ends
    assume(longest >= 16 * shortest)  # else whole µs are too coarse
    factor = (longest / shortest) ** (1 / 4)
    for level, step in enumerate(steps_us(shortest, longest)):
        assert step == pytest.approx(shortest * factor**level, abs=0.501)


@given(st.integers(1, 10_000), SPEEDS, st.integers(1, 256), st.integers(1, 4096))
def test_packets_end_a_wait_before_its_time_only_for_want_of_room_in_the_ring(
    step: int, speed: int, fewest: int, most: int
) -> None:
    frames = frames_of(step, speed, fewest, most)
    assert frames <= most
    assert frames == most or (frames >= fewest and ring_fill_us(frames, speed) >= step * 0.999)


@pytest.mark.parametrize(("speed", "usecs"), [(None, 1), (100, 14), (1000, 2), (10_000, 1), (400_000, 1)])
def test_no_level_is_so_short_that_no_load_could_fill_it(speed: int | None, usecs: int) -> None:
    assert shortest_useful_us(speed) == usecs


def adapted(
    device: Device = VIRTIO, goal: GoalName = "balanced", budget_ns: int | None = None, between: Range | None = None
) -> Advice:
    return propose(machine(device), None, GOALS[goal], budget_ns, {}, between or Range())


def levels(advice: Advice) -> list[tuple[int | None, int | None]]:
    (planned,) = advice.plan.devices
    assert planned.coalescing is not None
    assert planned.coalescing.rx_profile is not None
    return [(level.usecs, level.pkts) for level in planned.coalescing.rx_profile]


def test_a_plan_gives_levels_and_turns_adaptive_rx_on() -> None:
    found = adapted()
    assert levels(found) == [(1, 64), (3, 64), (7, 64), (19, 64), (50, 64)]
    (planned,) = found.plan.devices
    assert planned.coalescing is not None
    assert (planned.coalescing.use_adaptive_rx, planned.coalescing.rx_usecs) == (True, None)
    (why,) = (each for each in found.proposals if each.setting == "rx_profile")
    assert (why.now, why.bound) == (KERNELS, "the latency budget of 50 µs")
    assert "2.7 times" in why.why


def test_a_fast_link_fills_more_than_the_goals_packets_in_the_longest_level() -> None:
    fast = replace(VIRTIO, speed_mbps=25_000)
    assert levels(adapted(fast))[-1] == (50, 102)
    assert levels(adapted(replace(fast, rings=Rings(rx=256))))[-1] == (31, 64)  # 64 full frames are a quarter of it


@pytest.mark.parametrize(
    ("between", "longest", "by"),
    [
        (Range(shortest_us=5, longest_us=40), 40, "--range ends at 40 µs"),
        (Range(shortest_us=5, longest_us=400), 50, "the latency budget of 50 µs"),
    ],
)
def test_levels_keep_to_the_range_and_to_the_budget(between: Range, longest: int, by: str) -> None:
    found = adapted(between=between)
    assert (levels(found)[0][0], levels(found)[-1][0]) == (5, longest)
    assert [each.bound for each in found.proposals if each.setting == "rx_profile"] == [by]


@pytest.mark.parametrize(("budget_ns", "between"), [(999, Range()), (4_000, Range(shortest_us=5, longest_us=40))])
def test_a_range_without_room_in_the_budget_is_refused(budget_ns: int, between: Range) -> None:
    with pytest.raises(BadInput, match=r"eth0: no room for adaptive RX between \d µs and \d µs \(the latency budget"):
        adapted(budget_ns=budget_ns, between=between)


def test_what_the_driver_lacks_in_its_levels_it_is_not_given_and_what_is_not_known_stays() -> None:
    assert VIRTIO.coalescing is not None
    delays = replace(VIRTIO.coalescing, rx_profile=tuple(DimProfile(usecs=each.usecs) for each in KERNELS))
    assert levels(adapted(replace(VIRTIO, coalescing=delays)))[-1] == (50, None)
    assert levels(adapted(replace(VIRTIO, rings=None)))[-1] == (50, 256)


def test_deferral_is_taken_back_as_the_two_delays_would_add_up() -> None:
    (planned,) = adapted(replace(VIRTIO, napis=(napi(defer=2, flush_ns=50_000),))).plan.devices
    assert planned.deferral is not None
    assert (planned.deferral.defer_hard_irqs, planned.deferral.gro_flush_timeout_ns) == (0, 0)


def test_queues_that_differ_are_not_levelled() -> None:
    assert VIRTIO.coalescing is not None
    queues = tuple(
        QueueCoalescing(queue=number, coalescing=replace(VIRTIO.coalescing, rx_usecs=number)) for number in range(2)
    )
    found = adapted(replace(VIRTIO, queue_coalescing=queues))
    assert not [each for each in found.proposals if each.setting == "rx_profile"]
    assert any("differ in rx-usecs" in sentence for sentence in found.left)


def test_a_driver_without_levels_is_left_alone() -> None:
    assert not takes_profile(NIC)
    found = adapted(NIC)
    assert "rx_usecs" not in {each.setting for each in found.proposals}
    assert found.left == ("eth0: the receiving side: its driver takes no profile for adaptive RX",)


def with_levels(found: Machine) -> Machine:
    devices = (
        replace(device, coalescing=replace(device.coalescing, rx_profile=KERNELS))
        if device.coalescing is not None
        else device
        for device in found.devices
    )
    return replace(found, devices=tuple(devices))


@given(machines().map(with_levels), GOAL_NAMES, st.integers(1_000, 10**7), st.none() | ENDS)
def test_no_plan_goes_beyond_a_bound_and_once_applied_nothing_is_left_to_propose(
    found: Machine, goal: GoalName, budget_ns: int, ends: list[int] | None
) -> None:
    between = Range(shortest_us=ends[0], longest_us=ends[1]) if ends else Range()
    try:
        plan = propose(found, None, GOALS[goal], budget_ns, {}, between).plan
    except BadInput:
        assume(False)
    assert beyond(plan, found) == ()
    assert mismatch(plan, found) == ()
    assert plan_of(plan_text(plan), "plan.toml") == plan
    plans = {device.name: device for device in plan.devices}
    devices = (with_plan(each, plans[each.name]) if each.name in plans else each for each in found.devices)
    again = propose(replace(found, devices=tuple(devices)), None, GOALS[goal], budget_ns, {}, between)
    assert again.proposals == ()


def test_an_export_does_not_turn_on_an_adaptation_whose_levels_it_has_no_words_for() -> None:
    text = export(adapted().plan, "ethtool")
    assert "NOT HERE: rx-profile of eth0" in text
    assert "NOT HERE: use-adaptive-rx of eth0" in text
    assert "adaptive-rx on" not in text


@pytest.mark.parametrize("number", [2, 6])
def test_a_plan_with_another_number_of_levels_does_not_fit(number: int) -> None:
    plan = adapted().plan
    (planned,) = plan.devices
    assert planned.coalescing is not None
    odd = replace(planned, coalescing=replace(planned.coalescing, rx_profile=(KERNELS * 2)[:number]))
    assert mismatch(replace(plan, devices=(odd,)), machine(VIRTIO)) == (
        f"eth0: rx-profile has 5 levels, and the plan {number}",
    )


def test_levels_and_what_is_left_of_deferral_share_one_budget() -> None:
    plan = adapted().plan
    (planned,) = plan.devices
    still = replace(VIRTIO, napis=(napi(defer=2, flush_ns=20_000),))
    assert beyond(replace(plan, devices=(replace(planned, deferral=None),)), machine(still)) == (
        "eth0: an RX delay of 50 µs and gro-flush-timeout 20 µs add up to 70 µs, above the latency budget of 50 µs",
    )
