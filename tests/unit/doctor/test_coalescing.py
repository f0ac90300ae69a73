"""Promises of the rules about interrupts: each finds what it is for, from its threshold on and not below."""

import pytest
from msgspec.structs import replace

from napctl.doctor.coalescing import tx_only_share
from napctl.doctor.rules import diagnose, unjudged
from napctl.model.finding import Checkup
from napctl.model.machine import Coalescing, DimProfile, QueueCoalescing
from napctl.model.settings import EpollParams
from tests.unit.doctor.checkups import (
    OFF,
    PREFERS,
    SUSPENDED,
    by,
    checkup,
    device,
    napi,
    only,
    poller,
    row,
    rules,
    told,
)

BEFORE = {0: 298525, 1: 233080, 2: 15828, 3: 2180, 4: 750}
AFTER = {0: 177186, 1: 228985, 2: 16056, 3: 2066, 4: 831}
"""Packets per poll before and after TX coalescing, as J. Kicinski published them."""
COALESCED = Coalescing(rx_usecs=8, tx_usecs=150, tx_max_frames=128)
"""What he set."""


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


@pytest.mark.parametrize(
    ("limit", "tx_usecs", "words"),
    [
        (1 << 20, 335, []),
        (1 << 20, 336, ["tcp_limit_output_bytes"]),  # 1048576 × 8 / 25000 = 335.5 µs
        (1 << 20, 977, ["tcp_limit_output_bytes", "pacing rate"]),
        (4 << 20, 976, []),
        (4 << 20, 977, ["pacing rate"]),  # 1/1024 s, long before the 1342.2 µs of 4 MiB
        (4 << 20, 1343, ["pacing rate", "tcp_limit_output_bytes"]),
        (None, 976, []),
        (None, 977, ["pacing rate"]),
    ],
)
def test_a_tx_delay_beyond_tcp_small_queues_is_a_danger(limit: int | None, tx_usecs: int, words: list[str]) -> None:
    on = device(coalescing=Coalescing(tx_usecs=tx_usecs), rings=None)
    findings = diagnose(checkup(row(), on=on, tcp_limit=limit))
    assert [each.rule for each in findings] == ["tx-completions-too-late"] * bool(words)
    texts = [evidence.text for each in findings for evidence in each.evidence]
    assert len(texts) == len(words)
    assert all(word in text for word, text in zip(words, texts, strict=True)), "the one that binds comes first"


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
    assert found.commands == ("napctl detach 7 && napctl attach 7 --defer-us 125us",)
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
        " --defer-us 125us --defer-hard-irqs 7 --irq-suspend-timeout 5ms --busy-poll-usecs 50 --busy-poll-budget 32"
    )


def test_an_attachment_that_nobody_is_known_to_poll_delays_tx_completions_as_any_deferral() -> None:
    found = only(replace(attached_at(400), machine=replace(attached_at(400).machine, pollers=())))
    assert (found.severity, found.certainty) == ("danger", "possible")
    assert found.commands == ("napctl recover", "napctl history")
    assert "--defer-us 125us" in found.remedy


def test_many_attached_workers_are_one_finding_with_a_command_for_each() -> None:
    own = [napi(number, settings=replace(SUSPENDED, gro_flush_timeout_ns=400_000)) for number in range(8)]
    workers = tuple(poller(8193 + number, pid=100 + number) for number in range(8))
    found = only(checkup(row(), on=device(*own), tcp_limit=1 << 20, pollers=workers))
    assert found.where == "eth0"
    assert len(found.commands) == 8
    assert "(100), memcached (101), memcached (102) and 5 more" in found.consequence


def test_without_a_speed_a_tx_delay_is_judged_by_the_millisecond_alone() -> None:
    for tx_usecs, found in ((900, False), (10_000, True)):
        seen = checkup(row(), on=device(coalescing=Coalescing(tx_usecs=tx_usecs), speed_mbps=None))
        assert rules(seen) == ["tx-completions-too-late"] * found
        assert ("the driver does not report the link speed", ("eth0",)) in [
            (each.why, each.devices) for each in unjudged(seen)
        ]


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
