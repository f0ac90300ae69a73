"""Promises of plans in print: what cannot be had takes one line."""

from napctl.cli.plan import not_supported
from napctl.model.plan import Advice, Plan, Proposal
from tests.unit.doctor.checkups import device, napi


def lacking(**values: int) -> Advice:
    plan = Plan(goal="balanced", max_added_latency_ns=50_000, devices=())
    found = tuple(
        Proposal(device="eth0", setting=name, now=None, proposed=value, why="", bound="", sources=())
        for name, value in values.items()
    )
    return Advice(plan=plan, proposals=(), unsupported=found, missing=())


def test_what_a_driver_does_not_have_is_one_line() -> None:
    advice = lacking(rx_max_frames=64, tx_usecs=150, tx_max_frames=64)
    assert list(not_supported(advice, device())) == [
        "not supported by this driver: rx-max-frames, tx-usecs, tx-max-frames"
    ]


def test_deferral_is_not_blamed_on_the_driver() -> None:
    advice = lacking(rx_usecs=50, gro_flush_timeout_ns=50_000, defer_hard_irqs=2)
    told = [
        "not supported by this driver: rx-usecs",
        "not supported here (no NAPI instance): gro-flush-timeout, defer-hard-irqs",
    ]
    assert list(not_supported(advice, device(napis=()))) == told
    assert "Linux 6.13" in list(not_supported(advice, device(napi())))[1]


def test_another_devices_lacks_are_not_shown() -> None:
    assert list(not_supported(lacking(rx_usecs=50), device(name="eth1"))) == []
