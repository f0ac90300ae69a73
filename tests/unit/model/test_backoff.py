"""When what failed is tried again, and what is remembered of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.backoff import AT_A_TERMINAL, UNATTENDED, Backoff, Pauses


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [
        (AT_A_TERMINAL, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]),
        (UNATTENDED, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]),
        (Pauses(0.2, 0.2), [0.2] * 10),
    ],
)
def test_pauses_double_from_the_first_to_the_most(pauses: Pauses, expected: list[float]) -> None:
    backoff, now, found = Backoff[str](pauses), 0.0, []
    for _ in range(10):
        found.append(backoff.failed("eth0", now))
        now = backoff.next_at(now)
    assert found == expected
    assert now == pytest.approx(sum(expected))


def test_what_failed_is_due_when_its_time_has_come_and_what_did_not_fail_always_is() -> None:
    backoff = Backoff[str](UNATTENDED)
    backoff.failed("epoll 5", 100.0, "it spins")
    assert not backoff.is_due("epoll 5", 100.9)
    assert backoff.is_due("epoll 6", 100.9)
    assert dict(backoff.standing(100.9)) == {"epoll 5": "it spins"}
    assert backoff.is_due("epoll 5", 101.0)
    assert dict(backoff.standing(101.0)) == {}


def test_what_fails_twice_at_once_waits_no_longer_for_it() -> None:
    backoff = Backoff[str](UNATTENDED)
    assert [backoff.failed("epoll 5", now) for now in (0.0, 0.0, 0.5, 1.0)] == [1.0, 1.0, 0.5, 2.0]


def test_the_next_is_the_first_of_those_that_are_still_to_come_and_the_first_of_all_may_be_past() -> None:
    backoff = Backoff[str](UNATTENDED)
    assert backoff.next_at() == math.inf
    backoff.failed("eth0", 0.0)
    backoff.failed("eth1", 5.0)
    assert (backoff.next_at(0.0), backoff.next_at(1.0), backoff.next_at(6.0)) == (1.0, 6.0, math.inf)
    assert backoff.next_at() == 1.0


def test_what_succeeded_or_is_no_more_fails_for_the_first_time_again() -> None:
    backoff = Backoff[str](UNATTENDED)
    for now in (0.0, 1.0):
        for key in ("succeeded", "gone", "there"):
            backoff.failed(key, now)
    backoff.forget("succeeded")
    backoff.keep_only({"succeeded", "there", "other"})
    assert [backoff.failed(key, 3.0) for key in ("succeeded", "gone", "there")] == [1.0, 1.0, 4.0]
    assert backoff.forget_all()
    assert not backoff.forget_all()
    assert backoff.failed("there", 3.0) == 1.0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e4)), max_size=60))
def test_it_is_never_due_later_than_promised_nor_sooner_than_told(failures: list[tuple[str, float]]) -> None:
    backoff = Backoff[str](UNATTENDED)
    for key, now in sorted(failures, key=lambda each: each[1]):
        left = backoff.failed(key, now)
        assert 0 < left <= UNATTENDED.most_seconds
        assert backoff.is_due(key, now + left + 1e-6)
        assert not backoff.is_due(key, now + left / 2)
