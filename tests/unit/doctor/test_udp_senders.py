"""The rule about UDP streams that late completions hold up."""

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import diagnose
from napctl.model.counts import SentCounts
from napctl.model.finding import Checkup
from napctl.model.machine import Coalescing, Device
from tests.unit.doctor.checkups import OFF, checkup, device, napi, row, rules, told

RULE = "udp-held-by-tx-delay"
WMEM = 212_992


def sending(on: Device, *, udp: int = 100_000, tcp: int = 1000, packets: int = 100_000) -> Checkup:
    """A second in which that many were sent."""
    seen = checkup(row(), on=on, rx_packets=packets)
    sent = SentCounts(tcp_segments=tcp, udp_datagrams=udp)
    return replace(
        seen, machine=replace(seen.machine, udp_send_buffer_bytes=WMEM), window=replace(seen.window, sent=sent)
    )


def delaying(tx_usecs: int, speed_mbps: int | None = 6000, frames: int | None = None) -> Device:
    return device(coalescing=Coalescing(tx_usecs=tx_usecs, tx_max_frames=frames), rings=None, speed_mbps=speed_mbps)


@pytest.mark.parametrize(("tx_usecs", "found"), [(283, False), (284, True), (510, True)])
def test_a_udp_stream_is_held_from_the_delay_on_in_which_its_buffer_passes_the_link(tx_usecs: int, found: bool) -> None:
    """212992 × 8 / 6000 = 284.0 µs (283.99)."""
    assert rules(sending(delaying(tx_usecs))) == [RULE] * found


def test_the_rate_that_is_left_is_told_with_what_it_stands_on() -> None:
    """510 µs, as in commit 417a3ae4: 212992 × 8 / 510 = 3341 Mb/s at most."""
    (finding,) = diagnose(sending(delaying(510)))
    assert finding.title == "one UDP stream sends at most 3,341 of 6,000 Mb/s"
    for words in ("510 µs (tx-usecs)", "212,992 bytes", "100,000 UDP datagrams and 1,000 TCP segments"):
        assert words in told(finding)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (sending(delaying(510), udp=1000, tcp=1000), False),
        (sending(delaying(510), udp=1001, tcp=1000), True),
        (sending(delaying(510), packets=9_999), False),
        (sending(delaying(510, speed_mbps=None)), False),
        (sending(delaying(510, frames=92)), False),  # 92 full frames fit into the buffer
        (sending(delaying(510, frames=93)), True),
        (sending(device(coalescing=None, rings=None, speed_mbps=6000)), False),
    ],
)
def test_only_where_udp_is_most_of_a_load_and_nothing_else_ends_the_wait(seen: Checkup, found: bool) -> None:
    assert (RULE in rules(seen)) == found


def test_deferral_holds_a_stream_as_a_delay_of_the_nic_does() -> None:
    deferring = napi(settings=replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=510_000))
    on = device(deferring, coalescing=Coalescing(tx_usecs=1, tx_max_frames=8), rings=None, speed_mbps=6000)
    assert RULE in rules(sending(on))


def test_without_the_counters_or_the_buffer_nothing_is_claimed() -> None:
    seen = sending(delaying(510))
    assert rules(replace(seen, window=replace(seen.window, sent=None))) == []
    assert rules(replace(seen, machine=replace(seen.machine, udp_send_buffer_bytes=None))) == []
