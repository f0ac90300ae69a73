"""What a window of traffic adds to a plan: reasons, and no other value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.counts import DeviceCounts, QueueCounts, SentCounts
from napctl.model.histogram import Histogram
from napctl.model.machine import (
    Machine,
)
from napctl.model.plan import GoalName
from napctl.model.window import EmptyPolls, NapiWindow, Window
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose
from tests.strategies import GOALS as GOAL_NAMES
from tests.strategies import machines
from tests.unit.plan.test_propose import NIC, advice, machine, why


def window(rx_packets: int, per_queue: tuple[int, ...] = ()) -> Window:
    counts = tuple(QueueCounts(kind="rx", index=index, packets=packets) for index, packets in enumerate(per_queue))
    device = DeviceCounts(
        device="eth0", ifindex=2, rx_packets=rx_packets, tx_packets=0, rx_dropped=0, tx_dropped=0, rx_missed=0,
        queues=counts or None,
    )  # fmt: skip
    polls = Histogram.of({0: 298525, 1: 233080, 2: 15828, 3: 2180, 4: 750})
    row = NapiWindow(
        napi_id=10, device="eth0", ifindex=2, netns=1, softirq=polls, empty=EmptyPolls(tx_only=polls.empty)
    )  # fmt: skip
    return Window(
        source="bpf", lacks=(), started_unix_ns=0, seconds=2.0, napis=(row,), cpus=(), devices=(device,)
    )  # fmt: skip


def test_a_window_says_whether_the_delay_would_gather_anything() -> None:
    sparse, dense = (advice(NIC, window=window(packets)) for packets in (2_000, 2_000_000))
    assert "at the 1,000 packets/s" in why(sparse, "rx_usecs")
    assert "hardly ever gather a second packet" in why(sparse, "rx_usecs")
    assert "about 51 packets" in why(dense, "rx_usecs")
    assert "its busiest queue" in why(advice(NIC, window=window(2_000_000, (10, 20_000))), "rx_usecs")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (SentCounts(tcp_segments=10, udp_datagrams=11), "one UDP stream sends at most 13,631 Mb/s"),
        (SentCounts(tcp_segments=11, udp_datagrams=11), ""),
        (None, ""),
    ],
)
def test_where_most_is_udp_a_tx_delay_is_told_with_what_it_leaves_to_one_stream(
    sent: SentCounts | None, words: str
) -> None:
    """212992 × 8 / 125 µs = 13631.5 Mb/s, of 25,000; a link of 10,000 is not held."""
    for speed_mbps, held in ((25_000, bool(words)), (10_000, False)):
        here = replace(machine(replace(NIC, speed_mbps=speed_mbps)), udp_send_buffer_bytes=212_992)
        found = propose(here, replace(window(0), sent=sent), GOALS["balanced"], None, {})
        reason = why(found, "tx_usecs")
        assert ("one UDP stream" in reason) == held
        assert not held or words in reason


def test_a_window_tells_the_share_of_polls_that_were_for_tx_completions_only() -> None:
    assert "54.2% of its polls" in why(advice(NIC, window=window(0)), "tx_usecs")


@given(machines(), GOAL_NAMES, st.integers(0, 10**9))
def test_a_window_changes_reasons_and_no_value(found: Machine, goal: GoalName, packets: int) -> None:
    with_window, without = (propose(found, each, GOALS[goal], None, {}).plan for each in (window(packets), None))
    assert with_window == without
