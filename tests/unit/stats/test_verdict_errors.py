"""How often verdicts are wrong, and what they find. docs/statistics.md has the rates of 2,000 runs each."""

import math
import random
from collections.abc import Callable
from functools import partial
from statistics import fmean, stdev

import pytest

from napctl.stats.paired import Paired, paired, trim
from napctl.stats.verdicts import ALPHA, _holm, _Test
from tests.unit.stats.simulated import (
    JUMPY,
    LARGE,
    QUIET,
    QUIET_BUT_WILD,
    ROUGH,
    SMALL,
    Machine,
    Shape,
    any_found,
    cells,
    judged,
    slower,
    worse,
)

Trials = Callable[[int, int], int]


def most(share: float, runs: int) -> float:
    """As many as chance makes of `share` at most (two standard deviations)."""
    return share * runs + 2 * math.sqrt(share * (1 - share) * runs)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.trials
@pytest.mark.parametrize("machine", [ROUGH, QUIET], ids=["rough", "quiet"])
@pytest.mark.parametrize("rounds", [4, 6, 8, 12, 30])
def test_where_nothing_differs_19_of_20_runs_find_no_difference_in_any_metric(
    rounds: int, machine: Machine, trials: Trials
) -> None:
    chance, runs = random.Random(rounds), trials(20, 500)
    wrong = sum(any_found(judged(cells(chance, machine, rounds, *LARGE))) for _ in range(runs))
    assert wrong <= most(0.05, runs)


@pytest.mark.trials
@pytest.mark.parametrize("rounds", [5, 6, 8])
def test_a_machine_that_jumps_between_two_states_passes_for_no_difference_from_5_rounds_on(
    rounds: int, trials: Trials
) -> None:
    chance, runs = random.Random(rounds), trials(20, 500)
    wrong = sum(any_found(judged(cells(chance, JUMPY, rounds, *LARGE))) for _ in range(runs))
    assert wrong <= most(0.05, runs)


@pytest.mark.trials
def test_a_slowdown_by_a_tenth_is_found_in_19_of_20_runs_of_8_rounds_under_noise_of_3_percent(trials: Trials) -> None:
    chance, runs = random.Random(8), trials(100, 2000)
    found = [judged(cells(chance, QUIET, 8, *SMALL, partial(slower, 1.1))) for _ in range(runs)]
    assert sum(bool(worse(each)) for each in found) >= 0.95 * runs


@pytest.mark.heavy
@pytest.mark.trials
def test_a_slowdown_by_30_percent_is_found_by_5_rounds_and_in_a_run_of_nine_pairs_by_8(trials: Trials) -> None:
    chance, runs = random.Random(5), trials(50, 500)
    for rounds, shape in ((5, SMALL), (8, LARGE)):
        found = [judged(cells(chance, QUIET, rounds, *shape, partial(slower, 1.3))) for _ in range(runs)]
        assert sum("latency_p99_us" in worse(each) for each in found) >= 0.95 * runs


@pytest.mark.trials
def test_a_planted_difference_makes_no_other_metric_differ(trials: Trials) -> None:
    chance, runs = random.Random(3), trials(20, 500)
    found = [judged(cells(chance, ROUGH, 8, *LARGE, partial(slower, 2))) for _ in range(runs)]
    assert sum(any_found(each, beside=2) for each in found) <= most(0.05, runs)


@pytest.mark.trials
@pytest.mark.parametrize("rounds", [4, 8, 16])
def test_in_19_of_20_runs_all_intervals_hold_the_truth(rounds: int, trials: Trials) -> None:
    chance, runs = random.Random(rounds), trials(20, 500)
    shape = Shape(("20,000/s", "60,000/s"), ("base", "suspend:20us", "suspend:200us"))
    wrong = 0
    for _ in range(runs):
        truth = {(t, load): chance.choice((0.5, 0.8, 0.95, 1.0, 1.1, 1.6)) for load in shape[0] for t in shape[1][1:]}

        def factor(treatment: str, load: str, metric: str, truth: dict[tuple[str, str], float] = truth) -> float:
            return truth.get((treatment, load), 1.0) if metric.startswith("latency") else 1.0

        found = judged(cells(chance, QUIET, rounds, *shape, factor))
        wrong += any(
            not each.low <= truth[each.treatment, each.load] <= each.high
            for each in found
            if each.metric.startswith("latency") and each.metric != "latency_p50_us"  # that one is rounded
        )
    assert wrong <= most(0.05, runs)


@pytest.mark.heavy
@pytest.mark.trials
def test_all_intervals_hold_at_once_beside_differences_that_are_large(trials: Trials) -> None:
    """With the share of those that are left, as the verdicts have it, 7.4 % of these runs miss."""
    chance, runs, rounds, spread = random.Random(7), trials(500, 2500), 8, 0.03
    truth, wrong = [0.5] * 18 + [0.02] * 2, 0
    for _ in range(runs):
        tests = []
        for by in truth:
            logs = [chance.gauss(by, spread) for _ in range(rounds)]
            mean, error = fmean(logs), stdev(logs) / math.sqrt(rounds)
            found = Paired(
                ratio=math.exp(mean),
                mean=mean,
                error=error,
                freedom=rounds - 1,
                blocks=rounds,
                robust=True,
                stand_in=None,
            )
            tests.append(_Test(treatment="t", reference="base", load="l", metric="latency_p99_us", found=found))
        wrong += any(
            not each.low <= math.exp(by) <= each.high for each, by in zip(_holm(tests, ALPHA), truth, strict=True)
        )
    assert wrong <= most(0.05, runs)


@pytest.mark.trials
def test_trimming_finds_a_slowdown_behind_wild_rounds(trials: Trials) -> None:
    chance, runs = random.Random(20), trials(20, 500)
    found = [judged(cells(chance, QUIET_BUT_WILD, 20, *SMALL, partial(slower, 1.1))) for _ in range(runs)]
    assert sum(bool(worse(each)) for each in found) >= 0.8 * runs
    assert [trim(blocks) for blocks in (4, 8, 11, 12, 16, 20, 30)] == [0, 0, 0, 1, 2, 3, 5]


@pytest.mark.heavy
@pytest.mark.trials
@pytest.mark.parametrize("rounds", [4, 8, 14])
def test_the_smallest_difference_is_found_four_times_in_five(rounds: int, trials: Trials) -> None:
    chance, runs, alpha = random.Random(rounds), trials(1000, 10_000), 0.002
    g = trim(rounds)

    def blocks(by: float) -> list[tuple[float, float]]:
        return [(100 * math.exp(chance.gauss(by, 0.05)), 100.0) for _ in range(rounds)]

    errors = [drawn.error**2 for _ in range(2000) if (drawn := paired(blocks(0.0)))]
    freedom = rounds - 2 * g - 1 - math.ceil(g / 2)
    error = math.sqrt(sum(errors) / len(errors))
    typical = Paired(ratio=1, mean=0, error=error, freedom=freedom, blocks=rounds, robust=True, stand_in=None)
    by = math.log(1 + typical.smallest(alpha))
    hits = sum(drawn.p <= alpha and drawn.mean > 0 for _ in range(runs) if (drawn := paired(blocks(by))))
    assert 0.75 <= hits / runs <= 0.85


@pytest.mark.heavy
@pytest.mark.trials
@pytest.mark.parametrize("width", [0.002, 0.008, 0.02])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
@pytest.mark.parametrize("rounds", [6, 8, 12])
def test_figures_in_steps_make_no_more_errors_than_others(
    rounds: int, noise: float, width: float, trials: Trials
) -> None:
    chance, runs = random.Random(rounds), trials(200, 10_000)
    wrong = 0
    for _ in range(runs):
        step = width * math.exp(chance.uniform(0, 1))
        one_round = [[round(chance.lognormvariate(0, noise) / step) * step for _ in range(2)] for _ in range(rounds)]
        found = paired([(ours, theirs) for ours, theirs in one_round])
        wrong += found is not None and found.p < 0.01
    assert wrong <= most(0.01, runs)
