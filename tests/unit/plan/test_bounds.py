"""What keeps a plan from being applied, for plans that people have edited or brought from elsewhere."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import Unsupported
from napctl.model.machine import (
    Coalescing,
    Device,
    DimProfile,
    Machine,
    Napi,
    Queue,
    QueueCoalescing,
    QueueUse,
    Rings,
    UserSpaceDevice,
)
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes
from napctl.model.settings import NapiSettings
from napctl.plan import apply
from napctl.plan.bounds import beyond, driven_by_programs, leased, mismatch
from tests.strategies import PLANS, machines

SETTINGS = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
NAPI = Napi(napi_id=10, ifindex=2, irq=40, settings=SETTINGS)
NIC = Device(
    name="eth0",
    ifindex=2,
    up=True,
    driver="mlx5_core",
    bus="0000:03:00.0",
    speed_mbps=25_000,
    coalescing=Coalescing(
        rx_usecs=8, rx_max_frames=64, tx_usecs=8, tx_max_frames=64, use_adaptive_rx=False, tx_usecs_irq=0,
        rx_profile=(), rx_cqe_nsecs=0,
    ),
    queue_coalescing=(QueueCoalescing(queue=0, coalescing=Coalescing(rx_usecs=8, rx_max_frames=64)),),
    rings=Rings(rx=1024, rx_max=8192, tx=1024, tx_max=8192),
    queues=tuple(Queue(ifindex=2, kind=kind, index=0, napi_id=10) for kind in ("rx", "tx")),
    napis=(NAPI,),
)  # fmt: skip
PLANNED = DevicePlan(name="eth0", driver="mlx5_core", rx_queues=1, tx_queues=1, speed_mbps=25_000)


def machine(device: Device, limit: int | None = 1 << 20) -> Machine:
    return Machine(kernel="6.18", netns=1, devices=(device,), pollers=(), tcp_limit_output_bytes=limit)


def plan(planned: DevicePlan) -> Plan:
    return Plan(goal="balanced", max_added_latency_ns=50_000, devices=(planned,))


def coalescing(**values: object) -> DevicePlan:
    return replace(PLANNED, coalescing=Coalescing(**values))  # type: ignore[arg-type]


def sentences(planned: DevicePlan, device: Device = NIC, limit: int | None = 1 << 20) -> tuple[str, ...]:
    return beyond(plan(planned), machine(device, limit))


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (coalescing(tx_usecs=126), ("eth0: tx-usecs 126 is above 125", "TX ring of 1,024")),
        (coalescing(tx_usecs_irq=1000), ("tx-usecs-irq 1000 is above 125",)),
        (coalescing(tx_max_frames=257), ("tx-max-frames 257 is above 256", "25% of the TX ring of 1,024")),
        (coalescing(rx_usecs=51), ("rx-usecs 51 is above 50", "latency budget of 50 µs")),
        (coalescing(rx_max_frames=300), ("rx-max-frames 300 is above 256", "RX ring")),
        (coalescing(rx_cqe_nsecs=50_001), ("rx-cqe-nsecs 50001 is above 50000",)),
        (
            coalescing(rx_profile=(DimProfile(usecs=1, pkts=8), DimProfile(usecs=256, pkts=64))),
            ("rx-profile 1 usecs 256 is above 50",),
        ),
        (coalescing(rx_usecs=0), ("rx-usecs 0 with rx-max-frames 64", "wait for ever")),
        (coalescing(tx_usecs=0, tx_max_frames=0), ("tx-usecs 0 with tx-max-frames 0", "no interrupt would ever come")),
        (
            replace(PLANNED, queues=(QueueCoalescing(queue=0, coalescing=Coalescing(rx_usecs=51)),)),
            ("queue 0 of eth0: rx-usecs 51 is above 50",),
        ),
        (
            replace(PLANNED, deferral=Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=42_001)),
            ("an RX delay of 8 µs and gro-flush-timeout 42.001 µs add up to 50.001 µs", "budget of 50 µs"),
        ),
        (
            replace(PLANNED, rings=RingSizes(tx=128)),
            ("tx-max-frames, which stays 64, is then above 32", "TX ring of 128"),
        ),
        (replace(coalescing(tx_usecs=40), speed_mbps=100_000), ("tx-usecs 40 is above 31",)),
    ],
)
def test_each_setting_beyond_a_bound_is_one_sentence_with_both_numbers(
    planned: DevicePlan, words: tuple[str, ...]
) -> None:
    (sentence,) = sentences(planned)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "planned",
    [
        PLANNED,
        coalescing(tx_usecs=125, tx_max_frames=256, rx_usecs=50, rx_max_frames=256),
        coalescing(rx_usecs=0, rx_max_frames=1),
        coalescing(use_adaptive_rx=True),
        replace(PLANNED, deferral=Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=42_000)),
        replace(PLANNED, deferral=Deferral(defer_hard_irqs=0, gro_flush_timeout_ns=0)),
        replace(PLANNED, rings=RingSizes(rx=8192, tx=8192)),
    ],
)
def test_what_keeps_to_the_bounds_is_not_named(planned: DevicePlan) -> None:
    assert sentences(planned) == ()


def test_a_larger_ring_in_the_same_plan_widens_its_bounds() -> None:
    wide = coalescing(tx_usecs=150, tx_max_frames=1024)
    assert len(sentences(wide)) == 2
    assert sentences(replace(wide, rings=RingSizes(tx=8192))) == ()


def test_a_tx_delay_whose_bound_cannot_be_computed_is_named() -> None:
    unknown = replace(NIC, speed_mbps=None)
    (sentence,) = sentences(replace(coalescing(tx_usecs=50), speed_mbps=None), unknown)
    assert "link speed is not known: set speed-mbps of [eth0]" in sentence
    assert sentences(coalescing(tx_usecs=50), unknown) == (), "the plan's own speed counts where the driver tells none"
    (sentence,) = sentences(coalescing(tx_usecs=50), NIC, None)
    assert "tcp_limit_output_bytes could not be read" in sentence
    assert sentences(replace(coalescing(tx_usecs=0, tx_max_frames=1), speed_mbps=None), unknown) == ()


def test_the_limit_of_tcp_bounds_the_tx_delay() -> None:
    roomy = replace(NIC, rings=Rings(rx=8192, tx=8192))
    (sentence,) = sentences(coalescing(tx_usecs=50), roomy, 1 << 18)
    assert "tx-usecs 50 is above 41: 50% of the 84 µs" in sentence


@given(PLANS, machines())
def test_any_plan_is_judged_on_any_machine(found: Plan, here: Machine) -> None:
    assume(not any("None" in device.name for device in found.devices))
    for sentence in (*beyond(found, here), *mismatch(found, here)):
        assert sentence
        assert "None" not in sentence or "driver None" in sentence


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (replace(PLANNED, name="eth7"), "eth7: there is no such device here"),
        (replace(PLANNED, driver="ixgbe"), "the plan is for the driver ixgbe, and here it is mlx5_core"),
        (replace(PLANNED, rx_queues=8), "the plan is for 8 RX and 1 TX queues, and here are 1 RX and 1 TX queues"),
        (coalescing(tx_aggr_max_bytes=1), "the driver mlx5_core has no tx-aggr-max-bytes"),
        (
            replace(PLANNED, queues=(QueueCoalescing(queue=3, coalescing=Coalescing()),)),
            "no coalescing of its own for queue 3",
        ),
        (
            replace(PLANNED, queues=(QueueCoalescing(queue=0, coalescing=Coalescing(tx_usecs=1)),)),
            "queue 0 of eth0: the driver mlx5_core has no tx-usecs",
        ),
        (replace(PLANNED, rings=RingSizes(rx=8193)), "the RX ring of 8193 is larger than the 8192"),
    ],
)
def test_each_thing_that_does_not_fit_the_machine_is_one_sentence(planned: DevicePlan, words: str) -> None:
    (sentence,) = mismatch(plan(planned), machine(NIC))
    assert words in sentence


DEFERRED = replace(PLANNED, deferral=Deferral(gro_flush_timeout_ns=50_000))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (replace(NIC, napis=()), "eth0: it has no NAPI instance for gro-flush-timeout"),
        (replace(NIC, up=False, napis=()), "while it is down"),
        (
            replace(NIC, napis=(replace(NAPI, settings=NapiSettings()),)),
            "no gro-flush-timeout per NAPI instance",
        ),
        (
            replace(NIC, napis=(replace(NAPI, settings=replace(SETTINGS, irq_suspend_timeout_ns=1)),)),
            "NAPI 10 has IRQ suspension",
        ),
    ],
)
def test_deferral_needs_instances_that_have_it_and_are_not_attached(device: Device, words: str) -> None:
    assert mismatch(plan(PLANNED), machine(device)) == ()
    (sentence,) = mismatch(plan(DEFERRED), machine(device))
    assert words in sentence


def test_a_plan_of_this_very_machine_fits() -> None:
    assert mismatch(plan(replace(coalescing(rx_usecs=1), bus="elsewhere")), machine(NIC)) == ()


LEASE = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0)


def with_use(use: QueueUse) -> Device:
    return replace(NIC, queues=(replace(NIC.queues[0], uses=(use,)), NIC.queues[1]))


def test_a_device_of_which_another_has_a_queue_is_not_ours_to_set() -> None:
    (sentence,) = leased(with_use(LEASE))
    assert sentence.startswith("rx0 of eth0 is leased to queue 1 of interface 8 of network namespace 0")
    assert leased(with_use(replace(LEASE, kind="AF_XDP"))) == leased(NIC) == ()


def test_a_device_that_a_program_drives_by_now_is_told_by_where_it_sits() -> None:
    nics = (UserSpaceDevice(bus="0000:03:00.0", driver="vfio-pci"), UserSpaceDevice(bus="0000:04:00.0", driver="uio"))
    (sentence,) = driven_by_programs(plan(replace(PLANNED, bus="0000:03:00.0")), nics)
    assert sentence.startswith("eth0 (0000:03:00.0): it is driven from user space (vfio-pci)")
    assert driven_by_programs(plan(replace(PLANNED, bus="0000:05:00.0")), nics) == ()
    assert driven_by_programs(plan(PLANNED), nics) == ()


@pytest.fixture
def as_if(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """The machine is another one: no device here can have its queues leased."""

    def taken(found: Machine) -> None:
        monkeypatch.setattr(apply, "take_machine", lambda *_: found)

    return taken


def test_a_plan_for_it_is_refused_whoever_forces_it_and_one_in_force_is_none(as_if: Callable[[Machine], None]) -> None:
    wanted = plan(coalescing(rx_usecs=20))
    with NetworkNamespace.current() as here:
        as_if(machine(NIC))
        assert len(apply.admitted(wanted, here, force=False)[0]) == 1
        as_if(machine(with_use(LEASE)))
        for force in (False, True):
            with pytest.raises(Unsupported, match=r"rx0 of eth0 is leased to .*; nothing was changed"):
                apply.admitted(wanted, here, force=force)
        assert apply.admitted(plan(coalescing(rx_usecs=8)), here, force=False) == ((), ())
