"""How far interrupts may be delayed: the arithmetic, against the published note's inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.limits import (
    FRAME_BITS,
    PACED_US,
    RING_SHARE,
    TSQ_SAFETY,
    TX_USECS_CEILING,
    frames_bound,
    ring_fill_us,
    rx_usecs_bound,
    tx_stalls,
    tx_usecs_bound,
    udp_stream_mbps,
)

KIB = 1024
STALLS_US = {
    10_000: (210, 839, 3355),
    25_000: (84, 336, 1342),
    50_000: (42, 168, 671),
    100_000: (21, 84, 336),
}
"""By link speed in Mb/s, for 256 KiB, 1 MiB and 4 MiB of tcp_limit_output_bytes: when it would stall a flow."""


@pytest.mark.parametrize("speed_mbps", STALLS_US)
def test_a_tcp_flow_stalls_when_its_limit_has_passed_the_link_but_never_later_than_a_millisecond(
    speed_mbps: int,
) -> None:
    for limit, us in zip((256 * KIB, 1024 * KIB, 4096 * KIB), STALLS_US[speed_mbps], strict=True):
        binding, other = tx_stalls(limit, speed_mbps)
        assert round(binding.after_us) == min(us, 977)
        assert ("tcp_limit_output_bytes" in binding.by) == (us < 977), "which of the two binds"
        assert {round(binding.after_us), round(other.after_us)} == {us, 977}


@pytest.mark.parametrize(("speed_mbps", "us"), [(10, 2461), (25, 984), (26, 977), (100_000, 977), (None, 977)])
def test_two_skbs_are_more_than_a_millisecond_only_on_slow_links(speed_mbps: int | None, us: int) -> None:
    """Two full frames: 2 × 1538 × 8 / 10 = 2460.8 µs; 2^20 / 1024 / 1024 s = 976.6 µs."""
    (stall,) = tx_stalls(None, speed_mbps)
    assert round(stall.after_us) == us


@given(st.none() | st.integers(0, 1 << 26), st.integers(1, 2_000_000))
def test_the_soonest_stall_comes_first_and_no_sysctl_puts_it_off(limit: int | None, speed_mbps: int) -> None:
    stalls = tx_stalls(limit, speed_mbps)
    assert [each.after_us for each in stalls] == sorted(each.after_us for each in stalls)
    assert stalls[0].after_us <= max(PACED_US, 2 * FRAME_BITS / speed_mbps)
    if limit is not None:
        assert stalls[0].after_us <= limit * 8 / speed_mbps


def test_a_udp_stream_sends_one_buffer_in_each_delay() -> None:
    """The usual 212,992 bytes in 510 µs: 3,341 Mb/s at most, of 6,000 that were possible (commit 417a3ae4)."""
    assert round(udp_stream_mbps(212_992, 510)) == 3341
    assert udp_stream_mbps(2 * 212_992, 510) == 2 * udp_stream_mbps(212_992, 510) == udp_stream_mbps(212_992, 255)


def test_a_ring_of_full_frames_fills_at_link_rate() -> None:
    """1,538 bytes on the wire are 1.23 µs at 10 Gb/s: the well-known 812,744 full frames a second."""
    assert 1e6 / ring_fill_us(1, 10_000) == pytest.approx(812_744, rel=1e-5)


@pytest.mark.parametrize(
    ("limit", "speed_mbps", "ring", "value", "words"),
    [
        (4096 * KIB, 10_000, 4096, 200, "little is gained above 200 µs"),
        (256 * KIB, 25_000, 8192, 41, "50% of the 84 µs after which tcp_limit_output_bytes (262,144)"),
        (4096 * KIB, 100_000, 1024, 31, "25% of the TX ring of 1,024"),
        (4096 * KIB, 10_000, None, 200, "little is gained"),
    ],
)
def test_the_tightest_bound_counts_and_names_itself(
    limit: int, speed_mbps: int, ring: int | None, value: int, words: str
) -> None:
    bound = tx_usecs_bound(limit, speed_mbps, ring)
    assert bound.value == value
    assert words in bound.by


@given(st.integers(0, 1 << 26), st.integers(1, 2_000_000), st.none() | st.integers(1, 1 << 16))
def test_no_tx_delay_comes_near_the_stall_the_ring_or_the_ceiling(
    limit: int, speed_mbps: int, ring: int | None
) -> None:
    delay_us = tx_usecs_bound(limit, speed_mbps, ring).value
    assert 0 <= delay_us <= min(TX_USECS_CEILING, TSQ_SAFETY * tx_stalls(limit, speed_mbps)[0].after_us)
    if ring is not None:
        assert delay_us <= ring_fill_us(max(1, int(RING_SHARE * ring)), speed_mbps)


def test_the_rx_delay_is_the_budget_or_what_the_ring_can_take() -> None:
    assert rx_usecs_bound(50_000, None, None).value == 50
    assert rx_usecs_bound(50_000, 100_000, None).value == 50
    small = rx_usecs_bound(50_000, 100_000, 256)
    assert (small.value, "RX ring of 256" in small.by) == (7, True)


@given(st.integers(0, 1 << 20))
def test_at_least_one_frame_may_wait(ring: int) -> None:
    assert 1 <= frames_bound(ring, "TX").value <= max(1, ring * RING_SHARE)
