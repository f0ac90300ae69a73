"""Which timer is chosen from trials, and why: every rule, without a kernel."""

from math import exp, log, sqrt
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.timer_choice import (
    ALPHA,
    TIMERS_NS,
    chosen,
    untried,
    within,
)
from napctl.model.timer_choice import WORTH, TimerChoice, Trial
from napctl.model.value import from_json, to_json

BUDGETS = st.none() | st.integers(1, 10**10)
ROUNDS = 6


def trial(timer_ns: int, *cpu_us_per_packet: float, wait_us: float | None = None) -> Trial:
    return Trial(
        gro_flush_timeout_ns=timer_ns, cpu_share=0.5, packets_per_second=10_000, wait_p50_us=wait_us,
        cpu_us_per_packet=cpu_us_per_packet,
    )  # fmt: skip


def around(timer_ns: int, cost: float, noise: float = 0.01, wait_us: float | None = None) -> Trial:
    """Windows that differ by that share to either side."""
    costs = (cost * (1 + noise * sign) for sign in (1, -1, 0, 1, -1, 0))
    return trial(timer_ns, *costs, wait_us=wait_us)


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    costs = st.lists(st.floats(0, 1e4, allow_nan=False), min_size=ROUNDS, max_size=ROUNDS)
    return [trial(each, *draw(costs)) for each in within(draw(BUDGETS))]


@given(BUDGETS)
def test_no_timer_beyond_the_latency_budget_is_ever_tried(budget_ns: int | None) -> None:
    timers = within(budget_ns)

    assert timers
    assert list(timers) == sorted(set(timers))
    assert budget_ns is None or max(timers) <= budget_ns
    assert set(timers) <= set(TIMERS_NS) or timers == (budget_ns,)


def test_without_a_budget_all_are_tried_and_a_budget_below_all_is_the_timer() -> None:
    assert within(None) == TIMERS_NS == (20_000, 50_000, 200_000)
    assert within(60_000) == (20_000, 50_000)
    assert within(50_000) == (20_000, 50_000)
    assert within(5_000) == (5_000,)


@given(trials())
def test_the_choice_is_one_of_the_trials_and_says_why(seen: list[Trial]) -> None:
    choice = chosen(seen)

    assert choice.gro_flush_timeout_ns in {each.gro_flush_timeout_ns for each in seen}
    assert choice.trials == tuple(seen)
    assert choice.why
    assert choice.why.isprintable()
    assert from_json(to_json(choice), TimerChoice) == choice


@given(trials())
def test_a_longer_timer_is_chosen_only_for_a_saving_that_is_enough_and_beyond_the_noise(seen: list[Trial]) -> None:
    choice = chosen(seen)
    best = seen[0].gro_flush_timeout_ns
    for saving in choice.savings:
        assert saving.against_ns == best
        assert saving.least <= saving.share <= saving.most <= 1
        best = saving.gro_flush_timeout_ns if saving.share >= WORTH and saving.least > 0 else best

    assert choice.gro_flush_timeout_ns == best


@pytest.mark.heavy
@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=12))
def test_the_noise_is_that_of_pairs_of_windows(pairs: list[tuple[float, float]]) -> None:
    (saving,) = chosen(
        [trial(20_000, *(one for one, _ in pairs)), trial(50_000, *(other for _, other in pairs))]
    ).savings
    changes = [log(other / one) for one, other in pairs]
    half = (log(1 - saving.least) - log(1 - saving.most)) / 2

    assert log(1 - saving.share) == pytest.approx(fmean(changes), abs=1e-9)
    # Student's t for 95 % lies between the normal's 1.96 and 4.31 of three windows.
    assert 1.96 <= half / (stdev(changes) / sqrt(len(pairs)) or half / 2 or 1) <= 4.31 or half < 1e-9


def test_traffic_that_changes_from_round_to_round_hides_no_saving() -> None:
    loads = (1, 3, 2, 7, 5, 4)
    choice = chosen([trial(20_000, *(10.0 * load for load in loads)), trial(50_000, *(7.0 * load for load in loads))])

    assert choice.gro_flush_timeout_ns == 50_000
    assert choice.savings[0].share == pytest.approx(0.3)


@pytest.mark.heavy
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 1.0])
def test_noise_is_seldom_taken_for_a_saving(noise: float) -> None:
    """However large it is: timers that cost the same."""
    random, wrong, runs = Random(1), 0, 1000
    for _ in range(runs):
        seen = [trial(each, *(exp(random.gauss(3, noise)) for _ in range(ROUNDS))) for each in TIMERS_NS]
        wrong += chosen(seen).gro_flush_timeout_ns != TIMERS_NS[0]

    assert wrong <= runs * ALPHA


@pytest.mark.heavy
def test_a_saving_beyond_the_noise_is_seldom_missed() -> None:
    random, found, runs = Random(2), 0, 300
    for _ in range(runs):
        seen = [
            trial(timer, *(exp(random.gauss(log(cost), 0.08)) for _ in range(ROUNDS)))
            for timer, cost in zip(TIMERS_NS, (30, 24, 17), strict=True)
        ]
        found += chosen(seen).gro_flush_timeout_ns == TIMERS_NS[-1]

    assert found >= 0.9 * runs


@given(BUDGETS)
def test_what_cannot_be_tried_is_the_longest_timer_within_the_budget(budget_ns: int | None) -> None:
    choice = untried(budget_ns, "too little traffic to try timers on")

    assert choice.gro_flush_timeout_ns == within(budget_ns)[-1]
    assert [each.gro_flush_timeout_ns for each in choice.trials] == list(within(budget_ns))
    assert all(each.cpu_share is None for each in choice.trials)
    assert budget_ns is not None or choice.gro_flush_timeout_ns == TIMERS_NS[-1]


def test_cpu_time_too_short_to_be_measured_favours_no_longer_timer() -> None:
    choice = chosen([around(20_000, 0), around(50_000, 0), around(200_000, 0)])

    assert (choice.gro_flush_timeout_ns, choice.savings) == (20_000, ())
    assert "too short" in choice.why


def test_the_words_tell_what_decided_and_the_noise() -> None:
    even = chosen([around(20_000, 50), around(50_000, 48), around(200_000, 46)])
    assert even.gro_flush_timeout_ns == 20_000
    assert even.why.startswith("no longer one saves 10 % of the CPU per packet beyond the noise: 50us saves 4 % (")

    noisy = chosen([around(20_000, 50, -0.5), around(50_000, 40, 0.5), around(200_000, 30, 0.5)])
    assert noisy.gro_flush_timeout_ns == 20_000
    assert "200us saves" in noisy.why

    saving = chosen([around(20_000, 50, wait_us=16.4), around(50_000, 47), around(200_000, 30, wait_us=49)])
    assert saving.gro_flush_timeout_ns == 200_000
    assert saving.why.startswith("40 % less CPU per packet than 20us (")
    assert saving.why.endswith("within the noise), p50 wait 49 instead of 16 µs")

    # 50 µs is worth it, and 200 µs is not worth it beyond that.
    assert chosen([around(20_000, 50), around(50_000, 40), around(200_000, 38)]).gro_flush_timeout_ns == 50_000
