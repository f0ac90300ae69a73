"""When what failed is due again."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.service.retries import FIRST_SECONDS, MOST_SECONDS, Backoff


def test_pauses_double_from_one_second_to_five_minutes_and_begin_anew_after_a_success() -> None:
    backoff = Backoff()
    assert [backoff.failed("eth0", 100.0) for _ in range(12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert not backoff.is_due("eth0", 100.0 + MOST_SECONDS - 1)
    assert backoff.is_due("eth1", 100.0)
    assert backoff.seconds_left(100.0 + MOST_SECONDS - 1) == 1
    backoff.succeeded("eth0")
    assert backoff.is_due("eth0", 100.0)
    assert backoff.seconds_left(100.0) == float("inf")
    assert backoff.failed("eth0", 100.0) == FIRST_SECONDS


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e4)), max_size=60))
def test_a_pause_is_never_longer_nor_shorter_than_promised(failures: list[tuple[str, float]]) -> None:
    backoff = Backoff()
    for key, now in sorted(failures, key=lambda each: each[1]):
        pause = backoff.failed(key, now)
        assert FIRST_SECONDS <= pause <= MOST_SECONDS
        assert backoff.is_due(key, now + pause)
        assert not backoff.is_due(key, now + pause / 2)
