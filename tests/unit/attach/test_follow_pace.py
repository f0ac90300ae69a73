"""How often a followed target is looked at, and by how much of a CPU: over any course of events."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.follow_pace import (
    APART_SECONDS,
    ATTACHED_SECONDS,
    KEPT_FOR_OTHERS,
    LOOK_SECONDS,
    LOOK_SHARE,
    MINUTE,
    MOST_A_MINUTE,
    PULSE_SECONDS,
    PULSE_SHARE,
    SETTLE_SECONDS,
    Pace,
)
from napctl.model.backoff import AT_A_TERMINAL, UNATTENDED, Pauses

TIMELY = 2
"""Looks in any minute for which there is no cause but the time."""


def looks_over(
    seconds: float, changes: Callable[[float], bool], *, churn: bool = False, look: float = 0.01, pulse: float = 0.0
) -> list[float]:
    """When deep looks are made, s; each takes `look` of CPU time, each cheap check `pulse`."""
    pace, now, looks = Pace(), 0.0, []
    while now < seconds:
        if changes(now):
            pace.want(now, churn=churn)
        now += pulse
        pace.pulsed(now, pulse)
        if pace.due(now):
            looks.append(now)
            now += look
            pace.looked(now, look)
        assert pace.seconds_left(now) > 0 or pulse == 0
        now += max(pace.seconds_left(now), 1e-3)
    return looks


def in_any_minute(looks: list[float]) -> int:
    return max(sum(began <= each < began + MINUTE for each in looks) for began in looks)


def test_a_settled_target_is_looked_at_every_30_s() -> None:
    assert len(looks_over(300, lambda _now: False)) == 10


@given(st.floats(0.001, 1000))
def test_without_changes_looks_take_their_share_of_a_cpu_however_long_one_is(took: float) -> None:
    pace = Pace()
    pace.looked(0, took)
    pace.pulsed(0, 1e9)
    left = pace.seconds_left(0)
    assert left >= LOOK_SECONDS
    assert took <= LOOK_SHARE * left + 1e-9


@given(st.floats(0, 1))
def test_checks_take_their_share_of_a_cpu_and_are_made_once_a_second_at_most(took: float) -> None:
    pace = Pace()
    pace.looked(0, 0)
    pace.pulsed(0, took)
    assert pace.seconds_left(0) == min(max(PULSE_SECONDS, took / PULSE_SHARE), LOOK_SECONDS)


def test_a_change_is_looked_at_soon_and_not_put_off_for_what_a_look_takes() -> None:
    pace = Pace()
    pace.looked(0, 60)
    pace.want(10)
    pace.want(10.1)
    assert not pace.due(10.1)
    assert pace.due(10 + SETTLE_SECONDS)


@given(st.lists(st.floats(0, 300), max_size=90))
def test_of_changes_at_most_two_a_second_and_six_a_minute_are_looked_at(moments: list[float]) -> None:
    """Six a minute on average: after a quiet minute six may come at once."""
    pending = sorted(moments)

    def changes(now: float) -> bool:
        came = False
        while pending and pending[0] <= now:
            pending.pop(0)
            came = True
        return came

    looks = looks_over(300, changes)
    assert all(after - before >= APART_SECONDS for before, after in pairwise(looks))
    for minutes in range(1, 6):
        assert sum(each < minutes * MINUTE for each in looks) <= (1 + minutes) * MOST_A_MINUTE + TIMELY * minutes


def test_what_changes_all_the_time_is_looked_at_six_times_a_minute_and_connections_leave_some_for_others() -> None:
    always = looks_over(600, lambda _now: True)
    assert in_any_minute([each for each in always if each > 60]) <= MOST_A_MINUTE + TIMELY

    pace = Pace()
    looked = 0
    for second in range(5):
        pace.want(second, churn=True)
        if pace.due(second + SETTLE_SECONDS):
            pace.looked(second + SETTLE_SECONDS, 0.01)
            looked += 1
    assert looked == MOST_A_MINUTE - KEPT_FOR_OTHERS
    assert not pace.due(5)
    pace.want(5)
    assert pace.due(5 + SETTLE_SECONDS)


def test_what_is_put_off_is_done_later_and_what_was_wanted_still_is() -> None:
    pace = Pace()
    pace.looked(0, 0)
    pace.pulsed(0, 1e9)
    pace.want(1)
    assert pace.due(2)
    pace.put_off(10)
    assert (pace.is_put_off(2), pace.seconds_left(2)) == (True, 8)
    assert (pace.is_put_off(10), pace.due(10), pace.urgent) == (False, True, True)


def waits_after_errors(pace: Pace, times: int, *, attached: bool = False) -> list[float]:
    """One upon the other, each as soon as it is tried again, s; the first at 1000."""
    now, waits = 1000.0, []
    for _ in range(times):
        pace.failed(now, attached=attached)
        pace.pulsed(now, 1e9)
        waits.append(pace.seconds_left(now))
        now += waits[-1]
        assert not pace.is_put_off(now)
    return waits


@pytest.mark.parametrize("pauses", [AT_A_TERMINAL, UNATTENDED])
def test_after_one_error_upon_the_other_it_waits_twice_as_long_and_no_longer_than_that(pauses: Pauses) -> None:
    found = waits_after_errors(Pace(pauses), 11)
    assert found == [min(2**number, pauses.most_seconds) for number in range(11)]


def test_while_something_is_attached_errors_keep_nobody_from_minding_it_for_more_than_half_a_minute() -> None:
    waits = waits_after_errors(Pace(UNATTENDED), 11, attached=True)
    assert waits == [min(2**number, ATTACHED_SECONDS) for number in range(11)]


def test_the_cheap_checks_go_on_meanwhile() -> None:
    pace = Pace()
    waits_after_errors(pace, 5)
    pace.failed(2000)
    pace.pulsed(2000, 0)
    assert (pace.seconds_left(2000), pace.is_put_off(2001)) == (PULSE_SECONDS, True)
    assert pace.is_pulse_due(2000 + PULSE_SECONDS)


def test_what_may_have_mended_it_lets_it_be_tried_at_once_and_the_next_error_is_the_first_again() -> None:
    pace = Pace()
    waits_after_errors(pace, 8)
    pace.failed(2000)
    assert pace.is_put_off(2001)
    pace.go_on(2001)
    assert not pace.is_put_off(2001)
    assert pace.due(2001 + SETTLE_SECONDS)
    assert waits_after_errors(pace, 1) == [1]


def test_an_error_is_over_when_what_was_wanted_is_done_and_not_before() -> None:
    pace = Pace()
    pace.want(1000)
    waits_after_errors(pace, 3)
    pace.went_well()  # a cheap check, while the look is still to come
    assert waits_after_errors(pace, 1) == [8]
    pace.looked(1010, 0)
    pace.went_well()
    assert waits_after_errors(pace, 1) == [1]


def test_what_happens_all_the_time_makes_no_more_attempts_than_looks() -> None:
    """Processes that come and go, of a target that cannot be attached."""
    pace, tried = Pace(), []
    for tenth in range(10, 3000):
        now = 1000 + tenth / 10
        pace.go_on(now)
        pace.want(now)
        if pace.due(now):
            tried.append(now)
            pace.failed(now)
    assert MOST_A_MINUTE <= in_any_minute(tried) <= 2 * MOST_A_MINUTE


def test_after_a_sleep_of_the_machine_it_is_looked_at_at_once_whatever_was_put_off() -> None:
    pace, now = Pace(), 1000.0
    for _ in range(MOST_A_MINUTE):  # so often of late that the next has to wait
        pace.want(now)
        pace.looked(now, 60.0)
        pace.pulsed(now, 60.0)
    pace.want(now)
    pace.put_off(now + 30)
    assert pace.seconds_left(now) > 10

    pace.look_anew(now)

    assert pace.seconds_left(now) == 0
    assert pace.due(now)
    assert pace.urgent
