"""Promises of the rules about deferral and polling: each finds what it is for, and nothing that is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.doctor.rules import diagnose, diagnosis
from napctl.model.counts import PollerCounts
from napctl.model.driver_quirks import PERSISTENT
from napctl.model.finding import Follower
from napctl.model.machine import DeviceDeferral
from napctl.model.settings import NapiSettings
from tests.unit.doctor.checkups import (
    OFF,
    SPINNING,
    SUSPENDED,
    checkup,
    device,
    napi,
    only,
    poller,
    process,
    row,
    rules,
    told,
)


@pytest.mark.parametrize(
    ("defer", "flush", "found"), [(0, 0, False), (2, 0, False), (0, 200_000, False), (2, 20_000, True)]
)
def test_device_wide_deferral_needs_both_halves(defer: int, flush: int, found: bool) -> None:
    on = device(deferral=DeviceDeferral(defer_hard_irqs=defer, gro_flush_timeout_ns=flush))
    assert rules(checkup(row(), on=on)) == ["device-wide-deferral"] * found


def test_device_wide_deferral_is_taken_back_by_ready_commands() -> None:
    on = device(deferral=DeviceDeferral(defer_hard_irqs=2, gro_flush_timeout_ns=20_000))
    found = only(
        checkup(row(), on=on, processes=(process(11, share=0.1, feeds=napi()), process(12, share=0.2, feeds=napi())))
    )
    assert found.commands == (
        "echo 0 > /sys/class/net/eth0/napi_defer_hard_irqs",
        "echo 0 > /sys/class/net/eth0/gro_flush_timeout",
        "napctl attach 12",
    )


def test_an_epoll_instance_over_several_queues_starves_some() -> None:
    pair = (napi(settings=SUSPENDED), napi(1, settings=SUSPENDED))
    found = only(checkup(row(), on=device(*pair), pollers=(poller(8193, 8194),)))
    assert (found.rule, found.severity) == ("epoll-over-several-queues", "danger")
    assert "waits up to 20ms" in found.consequence
    calm = (napi(), napi(1))
    assert only(checkup(row(), on=device(*calm), pollers=(poller(8193, 8194),))).severity == "cost"


def test_one_queue_or_no_preference_starves_nobody() -> None:
    pair = (napi(), napi(1))
    assert rules(checkup(row(), on=device(*pair), pollers=(poller(8193), poller(8194, pid=8)))) == []
    assert rules(checkup(row(), on=device(*pair), pollers=(poller(8193, 8194, params=SPINNING),))) == []


@pytest.mark.parametrize(
    ("busy", "share", "found"),
    [
        ({0: 900_000, 1: 1000}, 0.25, True),
        ({0: 900_000, 1: 1000}, 0.24, False),  # little CPU
        ({0: 900_000, 1: 100_001}, 1.0, False),  # not idle
        ({0: 900_000, 1: 100_000}, 1.0, True),
        ({0: 49_999}, 1.0, False),  # so few: it does other things
        ({0: 50_000}, 1.0, True),
    ],
)
def test_busy_polling_while_idle_needs_cpu_time_and_empty_polls(
    busy: dict[int, int], share: float, found: bool
) -> None:
    counts = PollerCounts(pid=7, name="memcached", polls=sum(busy.values()), empty=busy[0], packets=busy.get(1, 0))
    seen = checkup(
        row(busy=busy, poller=counts), pollers=(poller(8193, params=SPINNING),), processes=(process(share=share),)
    )
    assert rules(seen) == ["busy-polling-while-idle"] * found


def test_busy_polling_is_told_by_process_with_the_cpu_it_burns() -> None:
    counts = PollerCounts(pid=7, name="memcached", polls=1_000_000, empty=999_000, packets=1000)
    busy = row(busy={0: 999_000, 1: 1000}, poller=counts)
    found = only(checkup(busy, pollers=(poller(8193, params=SPINNING),), processes=(process(share=0.98),)))
    assert found.title == "memcached (7) burns 98.0 % of a CPU: 99.9 % of its polls find nothing"
    assert found.commands == ("napctl attach 7",)
    assert "busy_poll_usecs 1,000,000 [EPIOCGPARAMS]" in told(found)
    unknown = only(checkup(busy))
    assert unknown.title == "memcached (7) spins: 99.9 % of its polls find nothing"
    assert "SO_BUSY_POLL" in unknown.remedy


def test_a_process_that_attach_would_refuse_is_not_offered_to_it() -> None:
    """An epoll instance of it watches two queues."""
    pair = (napi(), napi(1))
    counts = PollerCounts(pid=7, name="memcached", polls=1_000_000, empty=999_000, packets=1000)
    seen = checkup(
        row(busy={0: 999_000, 1: 1000}, poller=counts),
        on=device(*pair, deferral=DeviceDeferral(defer_hard_irqs=2, gro_flush_timeout_ns=20_000)),
        pollers=(poller(8193, 8194, params=SPINNING),),
        processes=(process(share=0.98),),
    )
    assert rules(seen) == ["busy-polling-while-idle", "device-wide-deferral"]
    assert not any("attach" in command for finding in diagnose(seen) for command in finding.commands)


@pytest.mark.parametrize(
    ("threaded", "thread", "found"),
    [
        ("busy-poll", {0: 900_000, 1: 100_000}, True),
        ("busy-poll", {0: 899_999, 1: 100_001}, False),
        ("busy-poll", {0: 999}, False),
        ("enabled", {0: 900_000, 1: 100}, False),
    ],
)
def test_a_napi_thread_that_spins_for_nothing(threaded: str, thread: dict[int, int], found: bool) -> None:
    own = napi(settings=replace(OFF, threaded=threaded), thread_pid=99)
    seen = checkup(row(own, thread=thread), on=device(own, bus=None))
    assert rules(seen) == ["napi-thread-polling-while-idle"] * found


OWN = replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=20_000)


@pytest.mark.parametrize(
    ("driver", "settings", "found"),
    [
        ("igc", OWN, True),
        ("igc", SUSPENDED, True),
        ("igc", OFF, False),
        ("igc", NapiSettings(), False),
        ("ice", OWN, False),
        (None, OWN, False),
    ],
)
def test_settings_of_single_instances_are_lost_by_drivers_that_do_not_keep_them(
    driver: str | None, settings: NapiSettings, found: bool
) -> None:
    assert (
        rules(checkup(row(), on=device(napi(settings=settings), driver=driver))) == ["settings-lost-at-reset"] * found
    )


FOLLOWER = Follower(pid=500, server="memcached (7)", napi_ids=(8193, 9000))


def test_settings_that_a_follower_sets_again_are_nothing_to_act_on() -> None:
    seen = checkup(row(), on=device(napi(settings=SUSPENDED), driver="igc"))
    found = diagnosis(replace(seen, followers=(FOLLOWER,)))
    assert found.findings == ()
    (mended,) = found.mended
    assert (mended.rule, mended.mended_by, mended.commands) == ("settings-lost-at-reset", (500,), ())
    assert mended.remedy == "napctl (500), which follows memcached (7), sets them again: nothing is to be done."


def test_what_a_follower_has_not_set_is_still_to_act_on() -> None:
    own = (napi(settings=SUSPENDED), napi(1, settings=OWN), napi(2, settings=OWN))
    found = diagnosis(replace(checkup(row(), on=device(*own, driver="igc")), followers=(FOLLOWER,)))
    (left,) = found.findings
    assert left.title.startswith("settings of 2 NAPI instances of eth0 ")
    assert len(found.mended) == 1


def test_settings_that_are_the_devices_own_come_back_after_a_reset() -> None:
    wide = DeviceDeferral(defer_hard_irqs=100, gro_flush_timeout_ns=20_000)
    assert rules(checkup(row(), on=device(napi(settings=OWN), driver="igc", deferral=wide))) == ["device-wide-deferral"]


@given(st.sampled_from(sorted(PERSISTENT)))
def test_no_persistent_driver_is_accused(driver: str) -> None:
    assert rules(checkup(row(), on=device(napi(settings=OWN), driver=driver))) == []
