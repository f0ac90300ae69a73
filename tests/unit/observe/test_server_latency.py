"""How many requests the latency probe looks at, and what is made of what it cannot see."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.model.latency import NOTHING, LatencyHistogram, ProcessLatency
from napctl.observe.server_latency import lacks
from napctl.probe.latency import LEAD_SECONDS, MOST_GAP, PERIOD_SECONDS, SAMPLES_PER_SECOND, Losses, next_gap, slices


@given(st.integers(MOST_GAP), st.integers(0, 10**7), st.floats(0.1, 100))
def test_the_same_traffic_gives_the_wanted_number_of_samples(gap: int, samples: int, seconds: float) -> None:
    found = next_gap(gap, samples, seconds)
    assert 1 <= found <= MOST_GAP
    if 1 < found < MOST_GAP:
        requests_per_second = gap * samples / seconds
        assert 0.8 * SAMPLES_PER_SECOND <= requests_per_second / found <= 1.25 * SAMPLES_PER_SECOND


def test_little_traffic_is_looked_at_as_much_as_may_be() -> None:
    assert next_gap(64, 3, 1.0) == 1


@given(st.sampled_from([100, 250, 300, 1000]))
def test_a_slice_and_its_lead_fit_into_a_period_whatever_the_tick_is(hz: int) -> None:
    found = slices(1 / hz)
    period = 2**found.shift
    assert PERIOD_SECONDS / 1.5 < period / hz < PERIOD_SECONDS * 1.5
    assert found.length == period / 4
    assert LEAD_SECONDS * 0.999 <= found.lead / hz < LEAD_SECONDS + 1 / hz
    assert found.lead + found.length < period


SEEN = (ProcessLatency(pid=1, until_read=LatencyHistogram(counts=(100, *NOTHING.counts[1:]))),)
NONE = Losses(0, 0, 0, 0)


def test_what_is_complete_lacks_nothing() -> None:
    assert lacks(SEEN, NONE, Losses(1, 1, 100, 4)) == []


def test_each_loss_has_its_words() -> None:
    assert lacks((), NONE, Losses(0, 9, 0, 0)) == [
        "server-side latency: it reads by other means than recv, such as splice"
    ]
    assert lacks((), NONE, NONE) == ["server-side latency: it read nothing by recv in this window"]
    (unread,) = lacks(SEEN, NONE, Losses(0, 10, 0, 0))
    assert unread == "10 of 110 requests looked at: read by other means than recv"
    (lost,) = lacks(SEEN, Losses(5, 0, 0, 0), Losses(25, 0, 0, 0))
    assert lost == "20 of 120 requests looked at: no room in the probe's table"
    (unseen,) = lacks(SEEN, NONE, Losses(0, 0, 1000, 600))
    assert unseen.startswith("when 600 of 1,000 datagrams came")
    assert unseen.endswith("lower bound")
