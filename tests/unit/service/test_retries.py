"""When what failed is due again, and when somebody else's wish is left to him."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.service.retries import FIRST_SECONDS, MOST_SECONDS, WITHIN_SECONDS, Backoff, Objections


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


def test_who_puts_it_back_three_times_in_ten_minutes_is_left_alone() -> None:
    objections = Objections()
    assert not objections.heard("eth0 rx-usecs", 0)
    assert not objections.heard("eth0 rx-usecs", 300)
    assert not objections.heard("eth1 rx-usecs", 301)
    assert objections.heard("eth0 rx-usecs", 599)
    assert objections.heard("eth0 rx-usecs", 9_999), "for good"
    assert objections.left == {"eth0 rx-usecs"}
    objections.forget()
    assert objections.left == frozenset()
    assert not objections.heard("eth0 rx-usecs", 10_000)


def test_thrice_in_longer_than_ten_minutes_is_not_insisting() -> None:
    objections = Objections()
    assert not any(objections.heard("x", number * WITHIN_SECONDS / 2) for number in range(20))
    assert any(objections.heard("x", 1e6 + number * WITHIN_SECONDS / 3) for number in range(3))


def test_what_was_left_before_stays_left() -> None:
    objections = Objections()
    objections.leave(frozenset({"x"}))
    assert objections.heard("x", 0)
