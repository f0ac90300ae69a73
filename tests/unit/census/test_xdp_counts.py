"""What drivers call the packets that their XDP programs took. The names: from the drivers' sources, where not said."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.census.xdp_counts import XdpCounts, xdp_counts

VETH = {
    "peer_ifindex": 2, "rx_queue_0_xdp_packets": 900, "rx_queue_0_xdp_bytes": 9000, "rx_queue_0_drops": 5,
    "rx_queue_0_xdp_redirect": 30, "rx_queue_0_xdp_redirect_errors": 1, "rx_queue_0_xdp_drops": 7,
    "rx_queue_0_xdp_tx": 2, "rx_queue_0_xdp_tx_errors": 3, "tx_queue_0_xdp_xmit": 77, "tx_queue_0_xdp_xmit_errors": 78,
}  # fmt: skip
"""As Linux 6.18 has them."""
VIRTIO = {"rx3_xdp_packets": 50, "rx3_xdp_tx": 1, "rx3_xdp_redirects": 2, "rx3_xdp_drops": 3, "tx3_xdp_tx": 9,
          "tx3_xdp_tx_drops": 8}  # fmt: skip
MLX5 = {"rx_xdp_drop": 30, "rx_xdp_redirect": 20, "rx_xdp_tx_xmit": 5, "rx0_xdp_drop": 10, "rx0_xdp_redirect": 20,
        "rx1_xdp_drop": 20, "tx_xdp_xmit": 99}  # fmt: skip
ENA = {"queue_1_rx_xdp_aborted": 1, "queue_1_rx_xdp_drop": 2, "queue_1_rx_xdp_pass": 3, "queue_1_rx_xdp_tx": 4,
       "queue_1_rx_xdp_invalid": 5, "queue_1_rx_xdp_redirect": 6}  # fmt: skip


def since_nothing(names: dict[str, int]) -> dict[int | None, XdpCounts]:
    return xdp_counts(dict.fromkeys(names, 0), names)


def test_the_names_of_several_drivers_mean_the_same() -> None:
    assert since_nothing(VETH) == {0: XdpCounts(dropped=7, sent=2, redirected=30)}
    assert since_nothing(VIRTIO) == {3: XdpCounts(dropped=3, sent=1, redirected=2)}
    assert since_nothing(ENA) == {1: XdpCounts(dropped=3, sent=4, redirected=6)}


def test_a_sum_over_queues_is_not_counted_beside_them() -> None:
    assert since_nothing(MLX5) == {0: XdpCounts(dropped=10, redirected=20), 1: XdpCounts(dropped=20)}


def test_counts_are_of_the_window_and_one_that_was_set_back_is_none() -> None:
    assert xdp_counts(VETH, VETH | {"rx_queue_0_xdp_drops": 17}) == {0: XdpCounts(dropped=10)}
    assert xdp_counts(VETH, VETH | {"rx_queue_0_xdp_drops": 1}) == {0: XdpCounts()}
    assert xdp_counts({}, {"rx_packets": 5}) == {}


@given(st.dictionaries(st.text(max_size=30), st.integers(0, 2**64 - 1), max_size=20))
def test_whatever_a_driver_calls_its_counters_nothing_is_negative(names: dict[str, int]) -> None:
    assert all(min(each.dropped, each.sent, each.redirected) >= 0 for each in since_nothing(names).values())
