"""Plans: never beyond a bound, never tighter for more budget, nothing left to propose once applied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.machine import (
    Coalescing,
    Device,
    DimProfile,
    EpollPoller,
    Machine,
    Napi,
    Queue,
    QueueCoalescing,
    QueueUse,
    Rings,
)
from napctl.model.plan import Advice, GoalName, Plan, settings
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.window import Window
from napctl.plan.applied import software_delay_ns, with_plan
from napctl.plan.bounds import beyond, mismatch
from napctl.plan.file import plan_of, plan_text
from napctl.plan.goals import GOALS
from napctl.plan.propose import ANY_DEVICE, propose, worth_planning
from tests.strategies import GOALS as GOAL_NAMES
from tests.strategies import SPEEDS, machines

BUDGETS_NS = st.sampled_from((0, 999, 1_000, 3_000, 10_000, 50_000, 200_000, 10_000_000)) | st.integers(0, 2**32 - 1)
GIVEN_SPEEDS = st.dictionaries(st.sampled_from(("eth0", "eth1.7", ANY_DEVICE)), SPEEDS, max_size=2)

MLX5 = Coalescing(
    rx_usecs=8, rx_max_frames=128, tx_usecs=8, tx_max_frames=128, use_adaptive_rx=True, use_adaptive_tx=True,
    use_cqe_mode_rx=True,
)  # fmt: skip


def queues(number: int = 1) -> tuple[Queue, ...]:
    return tuple(
        Queue(ifindex=2, kind=kind, index=index, napi_id=10 + index) for kind in ("rx", "tx") for index in range(number)
    )


def napi(napi_id: int = 10, defer: int | None = 0, flush_ns: int | None = 0, suspend_ns: int | None = 0) -> Napi:
    found = NapiSettings(defer_hard_irqs=defer, gro_flush_timeout_ns=flush_ns, irq_suspend_timeout_ns=suspend_ns)
    return Napi(napi_id=napi_id, ifindex=2, irq=40, settings=found)


NIC = Device(
    name="eth0",
    ifindex=2,
    up=True,
    driver="mlx5_core",
    bus="0000:03:00.0",
    speed_mbps=25_000,
    coalescing=MLX5,
    rings=Rings(rx=1024, rx_max=8192, tx=1024, tx_max=8192),
    queues=queues(),
    napis=(napi(),),
)
VETH = replace(NIC, driver="veth", bus=None, coalescing=None, rings=None)


def machine(*devices: Device, limit: int | None = 4 << 20, pollers: tuple[EpollPoller, ...] = ()) -> Machine:
    return Machine(kernel="6.18", netns=1, devices=devices, pollers=pollers, tcp_limit_output_bytes=limit)


def advice(
    device: Device, goal: GoalName = "balanced", *, budget_ns: int | None = None, window: Window | None = None,
    limit: int | None = 4 << 20, **speeds: int,
) -> Advice:  # fmt: skip
    return propose(machine(device, limit=limit), window, GOALS[goal], budget_ns, speeds)


def proposed(found: Advice) -> dict[str, int | bool | str | tuple[DimProfile, ...]]:
    return {proposal.setting: proposal.proposed for proposal in found.proposals}


def unsupported(found: Advice) -> dict[str, int | bool | str | tuple[DimProfile, ...]]:
    return {proposal.setting: proposal.proposed for proposal in found.unsupported}


def why(found: Advice, setting: str) -> str:
    return next(proposal.why for proposal in found.proposals if proposal.setting == setting)


# Properties, for any machine, goal, budget and speed.


@given(machines(), GOAL_NAMES, st.none() | BUDGETS_NS, GIVEN_SPEEDS)
def test_no_plan_goes_beyond_a_safety_bound_or_misses_its_machine(
    found: Machine, goal: GoalName, budget_ns: int | None, speeds: dict[str, int]
) -> None:
    plan = propose(found, None, GOALS[goal], budget_ns, speeds).plan
    assert beyond(plan, found) == ()
    assert mismatch(plan, found) == ()


def applied(plan: Plan, machine: Machine) -> Machine:
    plans = {device.name: device for device in plan.devices}
    devices = (with_plan(each, plans[each.name]) if each.name in plans else each for each in machine.devices)
    return replace(machine, devices=tuple(devices))


@given(machines(), GOAL_NAMES, st.none() | BUDGETS_NS, GIVEN_SPEEDS)
def test_once_applied_there_is_nothing_left_to_propose(
    found: Machine, goal: GoalName, budget_ns: int | None, speeds: dict[str, int]
) -> None:
    plan = propose(found, None, GOALS[goal], budget_ns, speeds).plan
    again = propose(applied(plan, found), None, GOALS[goal], budget_ns, speeds)
    assert again.proposals == ()
    assert again.plan.devices == ()


@given(machines(), GOAL_NAMES, BUDGETS_NS, BUDGETS_NS, GIVEN_SPEEDS)
def test_more_budget_never_yields_a_tighter_setting(
    found: Machine, goal: GoalName, one_ns: int, other_ns: int, speeds: dict[str, int]
) -> None:
    less_ns, more_ns = sorted((one_ns, other_ns))
    less, more = (
        applied(propose(found, None, GOALS[goal], budget_ns, speeds).plan, found) for budget_ns in (less_ns, more_ns)
    )
    for tight, loose in zip(less.devices, more.devices, strict=True):
        assert all(a <= b for a, b in zip(delays(tight), delays(loose), strict=True)), (delays(tight), delays(loose))


def delays(device: Device) -> tuple[float, ...]:
    """Everything that may delay a packet or its completion."""
    found = device.coalescing or Coalescing()
    rx, tx = frames(found.rx_usecs, found.rx_max_frames), frames(found.tx_usecs, found.tx_max_frames)
    return (found.rx_usecs or 0, found.tx_usecs or 0, rx, tx, software_delay_ns(device))


def frames(usecs: int | None, number: int | None) -> float:
    """Frames that may wait for an interrupt: 0 is no such number beside a delay, and without one means "at once"."""
    return number or (float("inf") if usecs else 1)


@given(machines(), GOAL_NAMES, st.none() | BUDGETS_NS, GIVEN_SPEEDS)
def test_hardware_and_software_together_keep_to_the_budget_wherever_a_plan_touches_one(
    found: Machine, goal: GoalName, budget_ns: int | None, speeds: dict[str, int]
) -> None:
    plan = propose(found, None, GOALS[goal], budget_ns, speeds).plan
    after = {device.name: device for device in applied(plan, found).devices}
    for planned in plan.devices:
        rx_usecs = planned.coalescing.rx_usecs if planned.coalescing else None
        timer_ns = planned.deferral.gro_flush_timeout_ns if planned.deferral else None
        device = after[planned.name]
        if rx_usecs or timer_ns:
            hardware_ns = (device.coalescing.rx_usecs or 0) * 1000 if device.coalescing else 0
            assert hardware_ns + software_delay_ns(device) <= plan.max_added_latency_ns


@given(machines(), GOAL_NAMES, st.none() | BUDGETS_NS, GIVEN_SPEEDS)
def test_a_plan_holds_exactly_what_is_explained_and_changed(
    found: Machine, goal: GoalName, budget_ns: int | None, speeds: dict[str, int]
) -> None:
    said = propose(found, None, GOALS[goal], budget_ns, speeds)
    held = {
        (device.name, name): value
        for device in said.plan.devices
        for block in (device.coalescing, device.deferral)
        for name, value in settings(block)
    }
    assert held == {(each.device, each.setting): each.proposed for each in said.proposals}
    assert all(each.now != each.proposed and each.why and each.bound and each.sources for each in said.proposals)
    assert plan_of(plan_text(said.plan, said.proposals), "plan.toml") == said.plan


@given(machines(), GOAL_NAMES, st.none() | BUDGETS_NS, GIVEN_SPEEDS)
def test_the_receiving_side_of_attached_or_polled_instances_is_left_alone(
    found: Machine, goal: GoalName, budget_ns: int | None, speeds: dict[str, int]
) -> None:
    polled = {napi_id for poller in found.pollers for napi_id in poller.napi_ids}
    held = {
        device.name
        for device in found.devices
        for each in device.napis
        if each.settings.irq_suspend_timeout_ns or each.napi_id in polled
    }
    for proposal in propose(found, None, GOALS[goal], budget_ns, speeds).proposals:
        assert proposal.device not in held or proposal.setting in ("tx_usecs", "tx_max_frames", "use_adaptive_tx")


# Examples.


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("latency", {"rx_usecs": None, "rx_max_frames": 16, "tx_usecs": 50, "tx_max_frames": 64}),
        ("balanced", {"rx_usecs": 50, "rx_max_frames": 64, "tx_usecs": 125, "tx_max_frames": None}),
        ("efficiency", {"rx_usecs": 125, "rx_max_frames": None, "tx_usecs": 125, "tx_max_frames": 256}),
    ],
)
def test_a_goal_is_a_budget_and_a_tx_delay_and_the_ring_bounds_both(
    goal: GoalName, expected: dict[str, int | None]
) -> None:
    """A quarter of 1,024 full frames fills in 125 µs at 25 Gb/s. The adaptive delay of 8 µs is no fixed one."""
    found = proposed(advice(replace(NIC, coalescing=replace(MLX5, use_adaptive_rx=False)), goal))
    assert {name: found.get(name) for name in expected} == expected
    assert found["use_adaptive_tx"] is False
    assert "use_cqe_mode_rx" not in found


def test_adaptive_rx_goes_off_where_a_delay_is_promised() -> None:
    found = advice(NIC, "latency")
    assert proposed(found)["use_adaptive_rx"] is False
    assert proposed(found)["rx_usecs"] == 10, "what adaptive RX happens to have now is no delay to keep"


def test_the_goal_throughput_keeps_adaptive_rx_and_says_why_unless_a_budget_is_given() -> None:
    kept = advice(NIC, "throughput")
    assert "rx_usecs" not in proposed(kept)
    assert any("adaptive RX stays on" in sentence for sentence in kept.left)
    assert proposed(advice(NIC, "throughput", budget_ns=30_000))["rx_usecs"] == 30


def test_the_goal_latency_raises_no_delay() -> None:
    low = replace(NIC, coalescing=Coalescing(rx_usecs=3, rx_max_frames=8))
    assert advice(low, "latency").proposals == ()
    assert proposed(advice(low, "balanced")) == {"rx_usecs": 50, "rx_max_frames": 64}


@pytest.mark.parametrize(("limit", "expected"), [(1 << 18, 10), (1 << 20, 41), (4 << 20, 50)])
def test_the_tx_delay_keeps_to_what_stalls_tcp(limit: int, expected: int) -> None:
    """Half of 21, 83.9 and 336 µs at 100 Gb/s; this goal wants 50."""
    fast = replace(NIC, speed_mbps=100_000, rings=Rings(rx=8192, tx=8192))
    assert proposed(advice(fast, "latency", limit=limit))["tx_usecs"] == expected


def test_a_speed_that_is_not_told_is_asked_for_and_nothing_is_invented() -> None:
    virtio = replace(NIC, driver="virtio_net", speed_mbps=None)
    found = advice(virtio)
    assert found.missing == ("eth0: link speed is not known (virtio_net does not report it): give --speed eth0=10000",)
    assert not {"tx_usecs", "tx_max_frames"} & proposed(found).keys()
    given_it = advice(virtio, eth0=10_000)
    assert given_it.missing == ()
    assert proposed(given_it)["tx_usecs"] == 150
    assert given_it.plan.devices[0].speed_mbps == 10_000
    assert any("--speed" in source for each in given_it.proposals for source in each.sources)


def test_a_speed_for_all_is_for_those_that_tell_none_and_the_faster_counts() -> None:
    assert propose(machine(NIC), None, GOALS["balanced"], None, {ANY_DEVICE: 10}).plan.devices[0].speed_mbps == 25_000
    assert advice(NIC, eth0=100_000).plan.devices[0].speed_mbps == 100_000
    assert advice(NIC, eth0=10).plan.devices[0].speed_mbps == 25_000


@pytest.mark.parametrize(
    ("device", "limit", "words"),
    [
        (NIC, None, "tcp_limit_output_bytes could not be read"),
        (replace(NIC, rings=None), 4 << 20, "TX ring is not known (mlx5_core does not report it)"),
        (replace(NIC, up=False), 4 << 20, "it is down"),
    ],
)
def test_other_inputs_that_are_not_known_are_named(device: Device, limit: int | None, words: str) -> None:
    found = advice(device, limit=limit)
    assert any(words in sentence for sentence in found.missing), found.missing
    assert "tx_usecs" not in proposed(found)


def test_a_device_without_rx_coalescing_has_the_budget_in_its_timer() -> None:
    found = advice(VETH)
    assert proposed(found) == {"gro_flush_timeout_ns": 50_000, "defer_hard_irqs": 2}
    assert unsupported(found) == {"rx_usecs": 50, "tx_usecs": 150}
    assert found.missing == ()
    assert "tx_usecs" not in unsupported(advice(replace(VETH, speed_mbps=None)))


def test_without_a_napi_instance_or_per_instance_settings_there_is_no_deferral() -> None:
    for device in (replace(VETH, napis=()), replace(VETH, napis=(napi(defer=None, flush_ns=None),))):
        found = advice(device)
        assert found.proposals == ()
        assert {"gro_flush_timeout_ns", "defer_hard_irqs"} <= unsupported(found).keys()


def test_where_the_hardware_gathers_the_timer_is_turned_off() -> None:
    found = proposed(advice(replace(NIC, napis=(napi(defer=100, flush_ns=20_000),))))
    assert (found["defer_hard_irqs"], found["gro_flush_timeout_ns"], found["rx_usecs"]) == (0, 0, 50)


def test_instances_that_differ_have_no_value_now() -> None:
    mixed = replace(VETH, napis=(napi(10, 2, 50_000), napi(11, 2, 20_000)))
    (proposal,) = advice(mixed).proposals
    assert (proposal.setting, proposal.now, proposal.proposed) == ("gro_flush_timeout_ns", None, 50_000)


def test_an_attached_or_polled_instance_keeps_its_receiving_side() -> None:
    poller = EpollPoller(
        pid=1, name="memcached", epoll_fd=3, napi_ids=(10,),
        params=EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True),
    )  # fmt: skip
    for found in (
        propose(machine(replace(NIC, napis=(napi(suspend_ns=20_000_000),))), None, GOALS["balanced"], None, {}),
        propose(machine(NIC, pollers=(poller,)), None, GOALS["balanced"], None, {}),
    ):
        assert set(proposed(found)) == {"tx_usecs", "use_adaptive_tx"}
        assert any("NAPI 10 belongs to an application" in sentence for sentence in found.left)


def test_queues_that_differ_are_not_levelled() -> None:
    own = tuple(QueueCoalescing(queue=number, coalescing=replace(MLX5, rx_usecs=number)) for number in range(2))
    found = advice(replace(NIC, queue_coalescing=own))
    assert "rx_usecs" not in proposed(found)
    assert "tx_usecs" in proposed(found)
    assert any("queues differ in rx-usecs" in sentence for sentence in found.left)


# Drivers whose settings mean something else.


def test_virtio_net_without_notification_coalescing_is_asked_for_nothing_that_it_refuses() -> None:
    bare = Coalescing(rx_usecs=0, rx_max_frames=1, tx_usecs=0, tx_max_frames=1, use_adaptive_rx=False)
    found = advice(replace(NIC, driver="virtio_net", coalescing=bare, speed_mbps=None))
    assert proposed(found) == {"gro_flush_timeout_ns": 50_000, "defer_hard_irqs": 2}
    assert any("VIRTIO_NET_F_NOTF_COAL" in sentence for sentence in found.left)
    assert found.missing == ()
    able = advice(replace(NIC, driver="virtio_net", coalescing=replace(bare, rx_max_frames=0)))
    assert proposed(able)["rx_usecs"] == 50


def test_a_mode_of_igb_is_no_delay_and_no_delay_is_proposed_that_it_takes_for_a_mode() -> None:
    """igb: 1 and 3 are moderation of its own choosing, 2 and 4 to 9 are refused."""
    igb = replace(NIC, driver="igb", coalescing=Coalescing(rx_usecs=3, tx_usecs=0), speed_mbps=1000)
    assert proposed(advice(igb, "latency")) == {"rx_usecs": 10}
    assert "3 stands for a moderation of igb's own, not for 3 µs" in why(advice(igb, "latency"), "rx_usecs")
    assert proposed(advice(igb, "latency", budget_ns=5_000)) == {"rx_usecs": 0}
    assert why(advice(igb, "latency", budget_ns=5_000), "rx_usecs").startswith("no packet waits")
    assert any("share interrupts" in sentence for sentence in advice(igb).left)


def test_e1000e_has_only_one_setting_and_what_it_lacks_is_listed() -> None:
    e1000e = replace(
        NIC, driver="e1000e", coalescing=Coalescing(rx_usecs=3), speed_mbps=1000, rings=Rings(rx=256, tx=256)
    )
    found = advice(e1000e)
    assert proposed(found) == {"rx_usecs": 50}
    assert unsupported(found) == {"rx_max_frames": 64, "tx_usecs": 150, "tx_max_frames": 64}


def test_by_default_hardware_that_is_up_and_has_something_to_set_is_planned_for() -> None:
    others = (
        VETH,
        replace(NIC, up=False),
        replace(NIC, bus=None),
        replace(NIC, coalescing=None, napis=()),
    )
    assert worth_planning((NIC, *others)) == (NIC,)


def test_a_device_with_a_queue_that_another_has_is_left_as_it_is() -> None:
    lease = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0)
    rx, tx = NIC.queues
    found = advice(replace(NIC, queues=(replace(rx, uses=(lease,)), tx)))
    assert proposed(advice(NIC))
    assert (found.proposals, found.missing) == ((), ())
    (sentence,) = found.left
    assert sentence.startswith("rx0 of eth0 is leased to queue 1 of interface 8 of network namespace 0")
    assert advice(replace(NIC, queues=(replace(rx, uses=(replace(lease, kind="AF_XDP"),)), tx))).proposals
