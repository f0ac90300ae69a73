"""Promises of the rules: each finds what it is for, from its threshold on and not below, and cites what it saw."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.checkups import (
    OFF,
    PREFERS,
    SPINNING,
    SUSPENDED,
    checkup,
    device,
    idle_cpus,
    napi,
    poller,
    process,
    row,
)

from napctl.advise.rules import RULES, diagnose, diagnosis, unjudged
from napctl.advise.rules_coalescing import tx_only_share
from napctl.advise.rules_polling import PERSISTENT
from napctl.model.counts import CpuCounts, PollerCounts, QueueCounts
from napctl.model.finding import Checkup, Diagnosis, Finding
from napctl.model.machine import Coalescing, DeviceDeferral, DimProfile, QueueCoalescing, Rings
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.value import from_json, to_json

BEFORE = {0: 298525, 1: 233080, 2: 15828, 3: 2180, 4: 750}
AFTER = {0: 177186, 1: 228985, 2: 16056, 3: 2066, 4: 831}
"""Packets per poll before and after TX coalescing, as J. Kicinski published them."""
COALESCED = Coalescing(rx_usecs=8, tx_usecs=150, tx_max_frames=128)
"""What he set."""


def rules(seen: Checkup) -> list[str]:
    return [finding.rule for finding in diagnose(seen)]


def only(seen: Checkup) -> Finding:
    (finding,) = diagnose(seen)
    return finding


def by(rule: str, seen: Checkup) -> Finding:
    (finding,) = (finding for finding in diagnose(seen) if finding.rule == rule)
    return finding


def told(finding: Finding) -> str:
    return " | ".join(f"{evidence.text} [{evidence.source}]" for evidence in finding.evidence)


# Healthy machines.


def test_a_quiet_machine_has_no_finding() -> None:
    assert diagnose(checkup(row())) == ()


def test_ordinary_traffic_is_no_finding() -> None:
    assert diagnose(checkup(row(softirq={0: 900, 1: 2000, 2: 2000, 8: 1000}), seconds=1)) == ()


def test_suspension_at_work_is_no_finding() -> None:
    own = napi(settings=SUSPENDED)
    counts = PollerCounts(pid=7, name="memcached", polls=26_000, empty=12_000, packets=30_000)
    seen = checkup(
        row(own, softirq={0: 3000, 4: 4000}, busy={0: 12_000, 2: 14_000}, poller=counts),
        on=device(own),
        pollers=(poller(own.napi_id),),
        processes=(process(share=0.95, feeds=own),),
        cpus=idle_cpus(cpu0=0.99),
    )
    assert diagnose(seen) == ()


polls = st.dictionaries(st.integers(0, 100), st.integers(0, 10**6), max_size=6)


@given(polls, polls, st.floats(0.05, 60), st.sampled_from(["bpf", "proc"]), st.booleans())
def test_every_checkup_gets_a_diagnosis_that_survives_json(
    softirq: dict[int, int], busy: dict[int, int], seconds: float, source: str, known: bool
) -> None:
    on = (
        device()
        if known
        else device(bus=None, driver=None, speed_mbps=None, coalescing=None, rings=None, deferral=None)
    )
    found = diagnosis(checkup(row(softirq=softirq, busy=busy), on=on, seconds=seconds, source=source, tcp_limit=None))
    assert from_json(to_json(found), Diagnosis) == found


# Interrupts.


def test_the_published_histogram_gives_the_published_figure_and_a_remedy() -> None:
    found = by("tx-only-interrupts", checkup(row(softirq=BEFORE), seconds=10))
    assert (found.rule, found.where, found.title) == ("tx-only-interrupts", "eth0", "54.2 % of polls are TX-only")
    assert "298,525 of 550,363 polls" in told(found)
    assert "29,852 a second" in told(found)
    assert "tx-usecs 16" in told(found)
    assert "at most these 54.2 %" in found.consequence
    assert "napctl plan eth0 --goal balanced --output plan.toml" in found.commands


def test_after_the_published_remedy_41_7_percent_are_left_and_no_finding() -> None:
    after = row(softirq=AFTER)
    tx_only, polls = tx_only_share([after])
    assert f"{tx_only / polls:.1%}" == "41.7%"
    remedied = checkup(after, on=device(coalescing=COALESCED), seconds=10, tcp_limit=1 << 20)
    assert "tx-only-interrupts" not in rules(remedied)
    assert by("tx-only-interrupts", checkup(after, seconds=10)).title == "41.7 % of polls are TX-only", (
        "16 µs is little"
    )


@pytest.mark.parametrize(
    ("softirq", "seconds", "found"),
    [
        ({0: 2000, 1: 8000}, 1, True),
        ({0: 1999, 1: 8001}, 1, False),  # a smaller share
        ({0: 1000, 1: 3000}, 1, True),
        ({0: 999, 1: 3000}, 1, False),  # a lower rate
        ({0: 500, 1: 499}, 0.1, False),  # too few to tell
        ({0: 500, 1: 500}, 0.1, True),
    ],
)
def test_tx_only_interrupts_need_a_share_a_rate_and_a_number(
    softirq: dict[int, int], seconds: float, found: bool
) -> None:
    assert rules(checkup(row(softirq=softirq), seconds=seconds)) == ["tx-only-interrupts"] * found


def test_empty_polls_under_deferral_or_busy_polling_are_never_tx_only() -> None:
    own = napi(settings=replace(OFF, defer_hard_irqs=2, gro_flush_timeout_ns=20_000))
    assert "tx-only-interrupts" not in rules(checkup(row(own, softirq=BEFORE), on=device(own), seconds=10))
    assert "tx-only-interrupts" not in rules(checkup(row(softirq=BEFORE, busy={0: 1}), seconds=10))


def test_a_driver_without_tx_coalescing_is_offered_deferral() -> None:
    seen = checkup(row(softirq=BEFORE), on=device(coalescing=Coalescing(rx_usecs=3)), seconds=10)
    found = by("tx-only-interrupts", seen)
    assert "deferral" in found.remedy
    assert "tx-usecs not supported" in told(found)


@pytest.mark.parametrize(
    ("driver", "coalescing", "remedy"),
    [
        ("mlx5_core", Coalescing(rx_usecs=8, tx_usecs=0), "Delay TX"),
        ("ixgbe", Coalescing(rx_usecs=1, tx_usecs=0), "No TX delay of its own"),
        ("e1000e", Coalescing(rx_usecs=3), "No TX delay of its own"),
        ("virtio_net", Coalescing(rx_usecs=0, tx_usecs=0, rx_max_frames=1, tx_max_frames=1), "No TX coalescing"),
    ],
)
def test_the_remedy_for_tx_only_interrupts_is_what_plan_can_propose(
    driver: str, coalescing: Coalescing, remedy: str
) -> None:
    seen = checkup(row(softirq=BEFORE), on=device(driver=driver, coalescing=coalescing), seconds=10)
    assert by("tx-only-interrupts", seen).remedy.startswith(remedy)


@pytest.mark.parametrize(("tx_usecs", "found"), [(1342, False), (1343, True)])
def test_a_tx_delay_beyond_tcp_small_queues_is_a_danger(tx_usecs: int, found: bool) -> None:
    """25 Gb/s and 4 MiB: 4194304 × 8 / 25000 = 1342.2 µs."""
    on = device(coalescing=Coalescing(tx_usecs=tx_usecs), rings=None)
    assert rules(checkup(row(), on=on)) == ["tx-completions-too-late"] * found


@pytest.mark.parametrize(
    ("tx_usecs", "tx_frames", "found"), [(503, 0, False), (504, 0, True), (504, None, True), (504, 128, False)]
)
def test_a_tx_delay_in_which_the_ring_fills_is_a_danger(tx_usecs: int, tx_frames: int | None, found: bool) -> None:
    """1024 full frames of 1538 bytes at 25 Gb/s: 504.0 µs, unless the frames raise the interrupt sooner."""
    on = device(coalescing=Coalescing(tx_usecs=tx_usecs, tx_max_frames=tx_frames))
    assert rules(checkup(row(), on=on)) == ["tx-completions-too-late"] * found


def test_deferral_and_the_slowest_queue_delay_tx_completions_too() -> None:
    deferring = napi(settings=replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=5_000_000))
    found = only(checkup(row(), on=device(deferring)))
    assert (found.rule, found.severity) == ("tx-completions-too-late", "danger")
    assert found.title == "TX completions may wait 5,000 µs (gro-flush-timeout): sending stalls before"
    per_queue = (QueueCoalescing(queue=0, coalescing=Coalescing(tx_usecs=4000)),)
    assert "4,000 µs (tx-usecs)" in only(checkup(row(), on=device(queue_coalescing=per_queue))).title


def test_no_number_of_frames_ends_a_deferral_as_the_interrupt_is_masked() -> None:
    deferring = napi(settings=replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=600_000))
    on = device(deferring, coalescing=Coalescing(tx_usecs=16, tx_max_frames=128))
    assert "fill the TX ring of 1,024 in 504 µs" in told(only(checkup(row(), on=on)))


def attached_at(timer_us: int, *, limit: int = 1 << 20, params: EpollParams = PREFERS, **own: int) -> Checkup:
    """1 MiB at 25 Gb/s: a flow stalls after 336 µs, and a quarter of the ring fills in 125 µs."""
    settings = replace(SUSPENDED, gro_flush_timeout_ns=timer_us * 1000, **own)
    each = napi(settings=settings)
    return checkup(row(each), on=device(each), tcp_limit=limit, pollers=(poller(8193, params=params),))


def test_an_attached_server_with_too_long_a_timer_is_attached_anew_and_not_planned() -> None:
    """`plan` leaves attached instances alone. While the server polls, nothing waits: it is a risk, and possible."""
    found = only(attached_at(400))
    assert (found.rule, found.severity, found.certainty) == ("tx-completions-too-late", "risk", "possible")
    assert found.where == "NAPI 8193 of eth0 (rx0 tx0)"
    assert found.title == "TX completions may wait 400 µs (gro-flush-timeout) when nobody polls: sending stalls before"
    assert found.consequence.startswith("The polls of memcached (7) free what was sent")
    assert found.commands == ("napctl detach 7 && napctl attach 7 --gro-flush-timeout 125us",)
    assert "timer of 125us at most" in found.remedy
    assert "25% of the TX ring" in found.remedy


@pytest.mark.parametrize(("timer_us", "found"), [(335, False), (336, True)])
def test_the_timer_of_an_attached_server_is_judged_from_the_stall_on(timer_us: int, found: bool) -> None:
    assert rules(attached_at(timer_us)) == ["tx-completions-too-late"] * found


def test_attaching_anew_keeps_what_was_chosen_at_the_first_time() -> None:
    params = EpollParams(busy_poll_usecs=50, busy_poll_budget=32, prefer_busy_poll=True)
    found = only(attached_at(400, params=params, defer_hard_irqs=7, irq_suspend_timeout_ns=5_000_000))
    (command,) = found.commands
    assert command.endswith(
        " --gro-flush-timeout 125us --defer-hard-irqs 7 --irq-suspend-timeout 5ms --busy-poll-usecs 50 "
        "--busy-poll-budget 32"
    )


def test_an_attachment_that_nobody_is_known_to_poll_delays_tx_completions_as_any_deferral() -> None:
    found = only(replace(attached_at(400), machine=replace(attached_at(400).machine, pollers=())))
    assert (found.severity, found.certainty) == ("danger", "possible")
    assert found.commands == ("napctl recover", "napctl history")
    assert "--gro-flush-timeout 125us" in found.remedy


def test_many_attached_workers_are_one_finding_with_a_command_for_each() -> None:
    own = [napi(number, settings=replace(SUSPENDED, gro_flush_timeout_ns=400_000)) for number in range(8)]
    workers = tuple(poller(8193 + number, pid=100 + number) for number in range(8))
    found = only(checkup(row(), on=device(*own), tcp_limit=1 << 20, pollers=workers))
    assert found.where == "eth0"
    assert len(found.commands) == 8
    assert "(100), memcached (101), memcached (102) and 5 more" in found.consequence


def test_without_speed_or_limit_the_tx_delay_is_not_judged() -> None:
    late = Coalescing(tx_usecs=10_000)
    seen = checkup(row(), on=device(coalescing=late, speed_mbps=None))
    assert diagnose(seen) == ()
    assert ("the link speed is not told", ("eth0",)) in [(each.why, each.devices) for each in unjudged(seen)]
    assert diagnose(checkup(row(), on=device(coalescing=late, rings=None), tcp_limit=None)) == ()


@pytest.mark.parametrize(
    ("softirq", "found"),
    [
        ({1: 8000, 2: 1999}, True),
        ({1: 8000, 2: 2000}, False),  # 1.2 packets
        ({1: 9999}, False),  # no load
        ({1: 10_000}, True),
        ({0: 1000, 1: 10_000}, True),
    ],
)
def test_single_packet_interrupts_need_load_and_single_packets(softirq: dict[int, int], found: bool) -> None:
    assert rules(checkup(row(softirq=softirq))) == ["single-packet-interrupts"] * found


def test_single_packets_are_counted_where_a_poll_is_an_interrupt_only() -> None:
    own = napi(settings=replace(OFF, defer_hard_irqs=2, gro_flush_timeout_ns=20_000))
    assert rules(checkup(row(softirq={1: 50_000}), on=device(bus=None))) == []
    assert "single-packet-interrupts" not in rules(checkup(row(own, softirq={1: 50_000}), on=device(own)))
    assert rules(checkup(row(softirq={1: 50_000}, busy={1: 100}))) == []


LEVELS = [
    (Coalescing(rx_usecs=256, use_adaptive_rx=True, use_cqe_mode_rx=False), "most"),
    (Coalescing(rx_usecs=1, rx_max_frames=256, use_adaptive_rx=True, use_cqe_mode_rx=False), "least"),
    (Coalescing(rx_usecs=64, rx_max_frames=64, use_adaptive_rx=True, use_cqe_mode_rx=True), "most"),
    (Coalescing(rx_usecs=2, use_adaptive_rx=True, use_cqe_mode_rx=True), "least"),
    (Coalescing(rx_usecs=64, rx_max_frames=64, use_adaptive_rx=True), "most"),
    (Coalescing(rx_usecs=64, use_adaptive_rx=True), None),  # may be the middle of the other profile
    (Coalescing(rx_usecs=64, use_adaptive_rx=True, use_cqe_mode_rx=False), None),
    (Coalescing(rx_usecs=8, use_adaptive_rx=True, use_cqe_mode_rx=False), None),
    (Coalescing(rx_usecs=256, use_adaptive_rx=False, use_cqe_mode_rx=False), None),
    (Coalescing(rx_usecs=30, use_adaptive_rx=True, rx_profile=(DimProfile(usecs=2), DimProfile(usecs=30))), "most"),
    (Coalescing(rx_usecs=256, use_adaptive_rx=True, rx_profile=(DimProfile(usecs=2), DimProfile(usecs=30))), None),
]


@pytest.mark.parametrize(("coalescing", "end"), LEVELS)
def test_adaptive_coalescing_at_an_end_of_its_profile(coalescing: Coalescing, end: str | None) -> None:
    on = device(coalescing=coalescing)
    found = diagnose(checkup(row(softirq={8: 2000}), on=on))
    assert [finding.rule for finding in found] == ["adaptive-coalescing-stuck"] * (end is not None)
    assert all(f"stays at its {end}, {coalescing.rx_usecs} µs" in finding.title for finding in found)


def test_adaptive_coalescing_that_moves_or_has_no_load_is_not_stuck() -> None:
    at_end = device(coalescing=LEVELS[0][0])
    moving = device(coalescing=Coalescing(rx_usecs=128, use_adaptive_rx=True, use_cqe_mode_rx=False))
    assert rules(checkup(row(softirq={8: 2000}), on=at_end, was=moving)) == []
    assert rules(checkup(row(softirq={8: 2000}), on=moving, was=at_end)) == []
    assert rules(checkup(row(softirq={8: 1249}), on=at_end)) == [], "9,992 packets/s"


def test_a_queue_of_its_own_coalescing_may_be_stuck() -> None:
    wide = Coalescing(rx_usecs=8, use_adaptive_rx=True, use_cqe_mode_rx=False)
    queues = (QueueCoalescing(queue=0, coalescing=wide), QueueCoalescing(queue=1, coalescing=LEVELS[0][0]))
    on = device(coalescing=wide, queue_coalescing=queues)
    assert rules(checkup(row(softirq={8: 2000}), on=on)) == ["adaptive-coalescing-stuck"]


# Deferral and polling.


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


def test_settings_that_are_the_devices_own_come_back_after_a_reset() -> None:
    wide = DeviceDeferral(defer_hard_irqs=100, gro_flush_timeout_ns=20_000)
    assert rules(checkup(row(), on=device(napi(settings=OWN), driver="igc", deferral=wide))) == ["device-wide-deferral"]


@given(st.sampled_from(sorted(PERSISTENT)))
def test_no_persistent_driver_is_accused(driver: str) -> None:
    assert rules(checkup(row(), on=device(napi(settings=OWN), driver=driver))) == []


# CPUs.


def two_on_cpu_0(**changes: object) -> tuple[Checkup, Checkup]:
    """(both busy queues on CPU 0, one on each CPU), CPU 0 three quarters busy."""
    apart, together = (napi(), napi(1)), (napi(), napi(1, cpus="0"))
    found = []
    for pair in (together, apart):
        rows = [row(each, softirq={2: 500}) for each in pair]
        found.append(checkup(*rows, on=device(*pair), cpus=idle_cpus(cpu0=0.75)))
    return found[0], found[1]


def test_two_busy_queues_on_a_crowded_cpu_are_found_and_parted() -> None:
    together, apart = two_on_cpu_0()
    found = only(together)
    assert (found.rule, found.where) == ("several-queues-on-one-cpu", "CPU 0")
    assert found.title == "2 busy queues share CPU 0, which is 75.0 % busy"
    assert found.commands == ("echo 1 > /proc/irq/25/smp_affinity_list",)
    assert diagnose(apart) == ()


def test_sharing_a_cpu_harms_only_if_it_is_crowded_and_another_is_free() -> None:
    together, _ = two_on_cpu_0()
    assert diagnose(replace(together, cpus=idle_cpus(cpu0=0.74))) == ()
    assert diagnose(replace(together, cpus=idle_cpus(1, cpu0=0.75))) == ()
    assert diagnose(replace(together, cpus=idle_cpus(cpu0=0.75, cpu1=0.51))) == (), "there is no room elsewhere"


def test_quiet_queues_and_queues_that_an_application_polls_may_share_a_cpu() -> None:
    pair = (napi(), napi(1, cpus="0"))
    on, cpus = device(*pair), idle_cpus(cpu0=0.9)
    assert diagnose(checkup(row(pair[0], softirq={2: 500}), row(pair[1], softirq={1: 999}), on=on, cpus=cpus)) == ()
    polled = [row(each, softirq={2: 450}, busy={1: 50}) for each in pair]
    assert diagnose(checkup(*polled, on=on, cpus=cpus)) == ()


def on_application_cpu(
    *, cpu0: float = 0.95, cpu1: float = 0.5, share: float = 0.3, cpu: int = 0, **polls: object
) -> Checkup:
    own = napi()
    counts = {"softirq": {2: 500}} | polls
    return checkup(
        row(own, **counts),  # type: ignore[arg-type]
        on=device(own),
        cpus=idle_cpus(cpu0=cpu0, cpu1=cpu1),
        processes=(process(share=share, cpu=cpu, feeds=own),),
    )


def test_an_interrupt_on_the_full_cpu_of_its_application() -> None:
    found = only(on_application_cpu())
    assert (found.rule, found.where) == ("interrupt-on-application-cpu", "NAPI 8193 of eth0 (rx0 tx0)")
    assert found.title == "packets for memcached (7) are taken on its own full CPU 0, while CPU 1 is idle"
    assert found.commands == ("napctl attach 7", "echo 1 > /proc/irq/24/smp_affinity_list")


@pytest.mark.parametrize(
    "seen",
    [
        on_application_cpu(cpu0=0.94),
        on_application_cpu(cpu1=0.51),
        on_application_cpu(share=0.29),
        on_application_cpu(cpu=1),
        on_application_cpu(softirq={1: 999}),
        on_application_cpu(softirq={2: 450}, busy={2: 50}),
    ],
    ids=["room left", "no idle CPU", "not the application", "another CPU", "no load", "polls itself"],
)
def test_an_interrupt_on_its_applications_cpu_is_right(seen: Checkup) -> None:
    assert diagnose(seen) == ()


def test_interrupts_that_shall_move_are_spread_over_the_idle_cpus_of_a_large_machine() -> None:
    own = [napi(number) for number in range(3)]
    full = {f"cpu{number}": 1.0 for number in range(3)}
    seen = checkup(
        *(row(each, softirq={2: 500}) for each in own),
        on=device(*own),
        cpus=idle_cpus(64, **full),
        processes=tuple(process(7 + n, share=0.9, cpu=n, feeds=each) for n, each in enumerate(own)),
    )
    found = diagnose(seen)

    assert [each.commands[1] for each in found] == [
        f"echo {3 + number} > /proc/irq/{24 + number}/smp_affinity_list" for number in range(3)
    ]
    assert found[0].title.endswith("while CPU 3-63 are idle")


@pytest.mark.parametrize(("queues", "busy", "found"), [(3, 0.95, True), (2, 0.95, False), (3, 0.94, False)])
def test_more_busy_queues_than_full_cpus(queues: int, busy: float, found: bool) -> None:
    own = [napi(number, cpus=str(number % 2)) for number in range(queues)]
    rows = [row(each, softirq={2: 500}) for each in own]
    seen = checkup(*rows, on=device(*own), cpus=idle_cpus(cpu0=busy, cpu1=busy))
    assert rules(seen) == ["more-busy-queues-than-cpus"] * found
    assert all(finding.commands == ("ethtool -L eth0 rx 2",) for finding in diagnose(seen))


def test_irqbalance_is_named_only_if_an_interrupt_moved_while_it_runs() -> None:
    was, now = device(napi(cpus="0")), device(napi(cpus="1"))
    balancing, busy = (process(70, "irqbalance"),), row(softirq={2: 500})
    found = only(checkup(busy, was=was, on=now, processes=balancing))
    assert (found.rule, found.certainty) == ("irqbalance-moves-interrupts", "possible")
    assert "interrupt 24 (NAPI 8193 of eth0 (rx0 tx0)) from CPU 0 to 1" in told(found)
    assert diagnose(checkup(busy, was=was, on=was, processes=balancing)) == ()
    assert diagnose(checkup(busy, was=was, on=now)) == ()
    thread = [device(napi(cpus=cpu, thread_pid=99)) for cpu in "01"]
    assert diagnose(checkup(busy, was=thread[0], on=thread[1], processes=balancing)) == (), "a thread has moved"


@pytest.mark.parametrize(
    ("packets", "certainty"), [((1000, 1000), "likely"), ((1000, 999), "possible"), ((9, 9), None)]
)
def test_only_moves_of_busy_interrupts_count_and_one_alone_proves_little(
    packets: tuple[int, int], certainty: str | None
) -> None:
    was, now = ((napi(cpus=cpus[0]), napi(1, cpus=cpus[1])) for cpus in ("01", "10"))
    rows = [row(each, softirq={1: count}) for each, count in zip(now, packets, strict=True)]
    seen = checkup(*rows, was=device(*was), on=device(*now), processes=(process(70, "irqbalance"),))
    assert [each.certainty for each in diagnose(seen)] == [certainty] * (certainty is not None)


# Losses.


@pytest.mark.parametrize(("squeezes", "softirqs", "found"), [(10, 1000, True), (9, 10, False), (10, 1001, False)])
def test_time_squeezes_need_a_number_and_a_share(squeezes: int, softirqs: int, found: bool) -> None:
    counted = (CpuCounts(cpu=0, net_rx_softirqs=softirqs, time_squeezes=squeezes), CpuCounts(cpu=1, time_squeezes=0))
    seen = checkup(row(), counted=counted)
    assert rules(seen) == ["time-squeezes"] * found
    assert all("on CPU 0 ran out" in finding.title for finding in diagnose(seen))


def test_a_limit_that_was_raised_already_is_not_lowered_by_the_remedy() -> None:
    counted = (CpuCounts(cpu=0, net_rx_softirqs=100, time_squeezes=50, backlog_drops=50),)
    commands = [command for finding in diagnose(checkup(row(), counted=counted)) for command in finding.commands]
    doubled = [command for command in commands if "-w" in command]
    assert doubled == [
        f"sysctl -w net.core.{name}=$((2 * $(sysctl -n net.core.{name})))"
        for name in ("netdev_max_backlog", "netdev_budget", "netdev_budget_usecs")
    ]


def test_a_machine_with_many_cpus_fills_no_screen() -> None:
    counted = tuple(CpuCounts(cpu=cpu, net_rx_softirqs=100, time_squeezes=10 + cpu) for cpu in (0, *range(8, 64)))
    found = only(checkup(row(), counted=counted))
    assert "softirqs on CPU 0 and 8-63 ran out" in found.title
    assert found.evidence[0].text == "73 time squeezes on CPU 63"
    assert found.evidence[-1].text.endswith("on 53 other CPUs")
    assert len(found.evidence) == 5


@pytest.mark.parametrize(("drops", "found"), [(0, False), (9, False), (10, True)])
def test_backlog_drops(drops: int, found: bool) -> None:
    assert rules(checkup(row(), counted=(CpuCounts(cpu=0, backlog_drops=drops),))) == ["backlog-drops"] * found


@pytest.mark.parametrize("counter", ["rx_missed", "hw_drops", "alloc_fail"])
@pytest.mark.parametrize(("drops", "found"), [(0, False), (9, False), (10, True)])
def test_ring_drops_are_found_in_every_counter(counter: str, drops: int, found: bool) -> None:
    queue = QueueCounts(kind="rx", index=0, **({counter: drops} if counter != "rx_missed" else {}))
    seen = checkup(row(), rx_missed=drops if counter == "rx_missed" else 0, queues=(queue,))
    assert rules(seen) == ["ring-drops"] * found


def test_a_longer_ring_is_offered_only_if_there_is_one() -> None:
    assert only(checkup(row(), rx_missed=50)).commands == ("ethtool -G eth0 rx 2048",)
    assert only(checkup(row(), on=device(rings=Rings(rx=8192, rx_max=8192)), rx_missed=50)).commands == ()
    assert only(checkup(row(), on=device(rings=None), rx_missed=50)).commands == ()


# All of them.


def test_the_most_serious_comes_first() -> None:
    wide = DeviceDeferral(defer_hard_irqs=2, gro_flush_timeout_ns=20_000)
    own = napi(settings=SUSPENDED)
    seen = checkup(row(own), on=device(own, driver="igc", deferral=wide), rx_missed=1000)
    assert [(each.rule, each.severity) for each in diagnose(seen)] == [
        ("ring-drops", "danger"),
        ("device-wide-deferral", "cost"),
        ("settings-lost-at-reset", "risk"),
    ]


def test_what_could_not_be_judged_is_said_with_the_reason() -> None:
    seen = checkup(row(), on=device(bus=None, coalescing=None), source="proc", queues=None)
    told = {each.why: each for each in unjudged(seen)}
    assert told["no probe here, so nothing counts polls"].devices == ()
    assert "busy-polling-while-idle" in told["no probe here, so nothing counts polls"].rules
    assert told["a software device has no interrupts"].devices == ("eth0",)
    assert "tx-only-interrupts" in told["fewer than 100 packets came"].rules
    assert unjudged(checkup(row(), on=device(up=False), source="bpf")) == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: checkup(row(softirq={0: 5000, 4: 4000})),
        lambda: checkup(row(), on=device(coalescing=Coalescing(tx_usecs=9000))),
        lambda: two_on_cpu_0()[0],
        on_application_cpu,
        lambda: checkup(row(), rx_missed=1000),
    ],
)
def test_every_finding_cites_evidence_and_basis_and_belongs_to_its_rule(make: Callable[[], Checkup]) -> None:
    found = only(make())
    assert found.rule in {rule.name for rule in RULES}
    assert all(evidence.text and evidence.source for evidence in found.evidence)
    assert found.evidence
    assert all((found.title, found.consequence, found.remedy, found.basis, found.where))
