"""Promises of an experiment's verdicts: how often they are wrong, what they find, what changes nothing about them."""

import math
import random
from collections.abc import Callable
from functools import partial
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.experiment import Cell, Comparison, Summary
from napctl.model.metrics import BY_NAME
from napctl.model.value import from_json, to_json
from napctl.stats.paired import FINEST, Paired, paired, trim
from napctl.stats.student import critical, two_sided
from napctl.stats.verdicts import ALPHA, _holm, _Test, compare, summarise
from tests.strategies import examples
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
NOTHING = "no difference found"


def cell(treatment: str, number: int, load: str = "20,000/s", **changes: Any) -> Cell:
    metrics = {name: float(value) for name, value in changes.items() if name not in Cell.__struct_fields__}
    known = {name: value for name, value in changes.items() if name in Cell.__struct_fields__}
    asked: dict[str, Any] = {
        "treatment": treatment, "load": load, "asked_per_second": {"20,000/s": 20_000.0}.get(load), "round": number,
        "position": 10 * number + len(treatment), "started_unix_ns": 0, "seconds": 10.0, "metrics": metrics,
    }  # fmt: skip
    return Cell(**(asked | known))


def figures(metric: str, ours: list[float], theirs: list[float], load: str = "20,000/s") -> list[Cell]:
    """A metric of "new" and of "base", by round."""
    named = {"base": theirs, "new": ours}
    return [cell(who, n, load, **{metric: each}) for who, those in named.items() for n, each in enumerate(those)]


def one(metric: str, ours: list[float], theirs: list[float]) -> Comparison:
    (found,) = compare(figures(metric, ours, theirs), ["new"], "base")
    return found


# How often verdicts are wrong, and what they find. docs/statistics.md has the rates of 2,000 runs each.


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


# Student's distribution.


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 12.0, 300.0])
def test_students_tails_are_those_of_the_closed_forms(t: float) -> None:
    assert two_sided(t, 1) == pytest.approx(2 / math.pi * math.atan2(1, t), rel=1e-9)
    assert two_sided(t, 2) == pytest.approx(2 / (2 + t * t + t * math.sqrt(2 + t * t)), rel=1e-9)
    assert two_sided(-t, 4) == two_sided(t, 4)


@pytest.mark.parametrize("freedom", range(1, 30))
def test_students_quantile_leaves_that_share_beyond_it(freedom: int) -> None:
    for alpha in (0.5, 0.05, 0.01, 1e-3, 1e-4, 1e-6):
        assert two_sided(critical(alpha, freedom), freedom) == pytest.approx(alpha, rel=1e-6)


# Zeros, gaps, steps.


def test_zero_in_both_is_no_difference() -> None:
    found = one("drops_per_second", [0] * 6, [0] * 6)
    assert (found.judgement, found.ratio, found.low, found.high, found.stand_in) == (NOTHING, 1, 1, 1, 0.0)


def test_steady_drops_where_there_were_none_are_worse_and_have_a_finite_ratio() -> None:
    found = one("drops_per_second", [4800, 5100, 5000, 4900, 5200, 5150], [0] * 6)
    assert found.judgement == "worse"
    assert found.stand_in == pytest.approx(2400)
    assert 1 < found.low <= found.ratio <= found.high < 10


def test_drops_in_one_round_only_are_no_difference() -> None:
    assert one("drops_per_second", [0, 0, 5000, 0, 0, 0, 0, 0], [0] * 8).judgement == NOTHING


def test_a_block_without_a_figure_is_left_out_for_that_metric_alone() -> None:
    run = figures("latency_p99_us", [150, 151, 152, 150, 151, 152], [100, 101, 102, 100, 101, 102])
    run = [replace(each, metrics=each.metrics | ({"joules_per_request": 1.0} if each.round else {})) for each in run]
    run += [cell("new", 6, latency_p99_us=900, failed="the load did not start")]
    assert {each.metric: each.blocks for each in compare(run, ["new"], "base")} == {
        "latency_p99_us": 6,
        "joules_per_request": 5,
    }


def test_with_fewer_than_3_blocks_there_is_no_verdict() -> None:
    run = figures("latency_p99_us", [1, 1], [9, 9])
    found = summarise(run, "base", 1)
    assert found.comparisons == ()
    assert [each.rounds for each in found.estimates] == [2, 2]


def test_figures_that_are_equal_by_rounding_are_no_proof_of_steadiness() -> None:
    assert one("latency_p50_us", [11, 11, 11, 11], [10, 10, 10, 10]).judgement == NOTHING
    assert one("latency_p50_us", [21, 21, 21, 21], [10, 10, 10, 11]).judgement == "worse"


def test_figures_that_are_the_same_in_every_round_differ_if_they_lie_further_apart_than_their_last_digit() -> None:
    """From the buckets of a histogram, on a quiet machine; nothing within a treatment tells how wide they are."""
    assert one("latency_p50_us", [582] * 8, [532] * 8).judgement == "worse"
    assert one("latency_p50_us", [532] * 8, [5320] * 8).judgement == "better"
    assert one("latency_p50_us", [0.12] * 4, [0.11] * 4).judgement == NOTHING
    found = one("latency_p50_us", [582] * 8, [532, 536, 532, 532, 532, 532, 536, 532])
    assert found.judgement == "worse"
    assert found.low < 582 / 532 - 536 / 532 + 1 < found.ratio, "a bucket's width is in the interval"


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


def test_a_machine_is_not_believed_to_repeat_itself_better_than_by_half_a_percent() -> None:
    by_chance = [100.1 + n * 1e-4 for n in range(4)]
    assert one("latency_p50_us", by_chance, [100.0 + n * 2e-4 for n in range(4)]).judgement == NOTHING
    found = paired([(100.1, 100.0), (100.2, 100.3), (100.4, 100.5)])
    assert found is not None
    assert found.error == pytest.approx(FINEST / math.sqrt(3))


def test_of_a_cell_measured_twice_the_later_counts() -> None:
    run = figures("latency_p99_us", [200, 210, 190, 205], [100, 101, 99, 102])
    again = [
        replace(each, position=each.position + 1000, metrics={"latency_p99_us": 100.0 + each.round}) for each in run
    ]
    assert compare(run, ["new"], "base")[0].judgement == "worse"
    assert compare([*again, *run], ["new"], "base")[0].judgement == NOTHING


def test_a_treatment_that_was_never_measured_is_refused() -> None:
    run = figures("latency_p99_us", [1], [1])
    with pytest.raises(ValueError, match="no cell of old"):
        summarise(run, "old", 1)
    with pytest.raises(ValueError, match="no cell of newer"):
        compare(run, "newer", "base")


def test_better_and_worse_are_the_metrics_own() -> None:
    high, low = [200.0, 204, 196, 202, 199, 203], [100.0, 101, 99, 102, 98, 103]
    expected = {"requests_per_second": "better", "latency_p99_us": "worse", "interrupts_per_second": "different"}
    assert {metric: one(metric, high, low).judgement for metric in expected} == expected
    assert one("of_another_version", high, low).judgement == "different"


# What changes nothing.

VALUE = st.integers(0, 400).map(lambda n: n / 100) | st.sampled_from((0.0, 1.0, 1.0, 1e6))
METRICS = (
    "latency_p99_us",
    "requests_per_second",
    "drops_per_second",
    "packets_per_poll",
    "cpu_share",
    "network_cpu_share",
)


@st.composite
def runs(draw: st.DrawFn, treatments: tuple[str, ...] = ("base", "defer:20us", "suspend:200us")) -> list[Cell]:
    """Any run: with gaps, failures, zeros, and treatments that differ much, a little, or not."""
    loads = draw(st.sampled_from((("20,000/s",), ("20,000/s", "max"))))
    rounds = draw(st.integers(1, 9))
    factors = {
        (who, metric): draw(st.sampled_from((1.0, 1.0, 1.1, 3.0, 0.2))) for who in treatments for metric in METRICS
    }
    found: list[Cell] = []
    noise = random.Random(draw(st.integers(0, 1000)))
    steady = draw(st.booleans())
    for n in range(rounds):
        for load in loads:
            for who in treatments:
                metrics = {
                    metric: (100 * factors[who, metric] * noise.gauss(1, 0.03) if steady else draw(VALUE))
                    for metric in METRICS
                    if steady or draw(st.integers(0, 9))
                }
                failed = "refused" if noise.random() < 0.05 else ""
                found.append(cell(who, n, load, position=len(found), failed=failed, metrics={} if failed else metrics))
    return found


def key(each: Comparison) -> tuple[str, str, str]:
    return each.treatment, each.load, each.metric


@settings(max_examples=examples(15, 60))
@given(runs(), st.sampled_from(METRICS), st.sampled_from((1e-9, 0.37, 12.0, 1e6)))
def test_the_unit_of_a_metric_changes_no_verdict(run: list[Cell], metric: str, factor: float) -> None:
    scaled = [
        replace(each, metrics={name: value * (factor if name == metric else 1) for name, value in each.metrics.items()})
        for each in run
    ]
    before, after = (compare(each, ["defer:20us", "suspend:200us"], "base") for each in (run, scaled))
    assert [(key(each), each.judgement, each.blocks) for each in before] == [
        (key(each), each.judgement, each.blocks) for each in after
    ]
    for a, b in zip(before, after, strict=True):
        assert (a.ratio, a.low, a.high, a.smallest) == pytest.approx((b.ratio, b.low, b.high, b.smallest), rel=1e-6)


@settings(max_examples=examples(15, 60))
@given(runs())
def test_swapping_treatment_and_reference_inverts_ratio_and_judgement(run: list[Cell]) -> None:
    swapped = {"better": "worse", "worse": "better"}
    there, back = compare(run, ["suspend:200us"], "base"), compare(run, ["base"], "suspend:200us")
    turned = {(each.load, each.metric): each for each in back}
    assert len(there) == len(back)
    for each in there:
        other = turned[each.load, each.metric]
        assert other.judgement == swapped.get(each.judgement, each.judgement)
        assert (other.ratio, other.low, other.high) == pytest.approx((1 / each.ratio, 1 / each.high, 1 / each.low))
        assert (other.smallest, other.blocks) == (each.smallest, each.blocks)


@settings(max_examples=examples(15, 60))
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_rounds_and_of_cells_changes_nothing(run: list[Cell], chance: random.Random) -> None:
    numbers = list(range(10))
    chance.shuffle(numbers)
    permuted = [replace(each, round=numbers[each.round]) for each in run]
    chance.shuffle(permuted)
    assert summarise(run, "base", 3) == summarise(permuted, "base", 3)


@settings(max_examples=examples(15, 60))
@given(runs())
def test_adding_a_treatment_makes_no_difference_of_none(run: list[Cell]) -> None:
    few = {key(each): each.judgement for each in compare(run, ["suspend:200us"], "base")}
    many = {key(each): each.judgement for each in compare(run, ["defer:20us", "suspend:200us"], "base")}
    assert few.keys() <= many.keys()
    assert all(many[each] == NOTHING for each, judgement in few.items() if judgement == NOTHING)


@settings(max_examples=examples(15, 60))
@given(runs())
@example(figures("drops_per_second", [1e-320, 5e-324, 0, 1], [1e308, 1e300, 0, 0]))
@example(figures("latency_p99_us", [math.nan, 1, 1, 1], [math.inf, -1, 1, 1]))
def test_verdict_and_interval_agree_and_everything_goes_through_json(run: list[Cell]) -> None:
    try:
        found = summarise(run, "base", 1)
    except ValueError:
        assert not run
        return
    for each in found.comparisons:
        assert 0 < each.low <= each.ratio <= each.high < math.inf
        assert 0 <= each.smallest < math.inf
        if each.judgement == NOTHING:
            assert each.low <= 1 <= each.high
        else:
            assert (each.low >= 1) != (each.high <= 1)
            assert (each.judgement == "different") == (not BY_NAME[each.metric].better)
    assert from_json(to_json(found), Summary) == found


ANY = st.floats(allow_nan=True, allow_infinity=True) | st.integers(0, 2**64).map(float) | st.just(0.0)


@settings(max_examples=examples(50, 500))
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=9), st.sampled_from(METRICS))
@example([(math.inf, -1.7e308), (1.7e308, -1.7e308), (5e-324, 1.7e308), (1e-300, 1e300)], METRICS[0])
def test_no_figures_whatever_make_it_raise(rounds: list[tuple[float, float]], metric: str) -> None:
    run = figures(metric, *map(list, zip(*rounds, strict=True)))  # type: ignore[arg-type]
    found = summarise(run, "base", 1)
    assert all(0 < each.low <= each.ratio <= each.high < math.inf for each in found.comparisons)
    assert from_json(to_json(found), Summary) == found


def test_the_correction_is_for_all_comparisons_of_the_run() -> None:
    """One metric with p just below ALPHA is found alone, and not among others in which nothing differs."""
    ours, theirs = [110.0, 104, 108, 101, 107, 105], [100.0, 101, 99, 102, 98, 103]
    found = paired(list(zip(ours, theirs, strict=True)))
    assert found is not None
    assert ALPHA / 10 < found.p < ALPHA
    assert one("latency_p99_us", ours, theirs).judgement == "worse"
    alone = figures("latency_p99_us", ours, theirs)
    beside = [
        replace(each, metrics=each.metrics | {"latency_p50_us": 100.0 + (each.round * 7 + len(each.treatment)) % 5})
        for each in alone
    ]
    among = beside + [replace(each, load="max", asked_per_second=None) for each in beside]
    among += [replace(each, treatment="newer", metrics=each.metrics) for each in among if each.treatment == "base"]
    assert {each.judgement for each in compare(among, ["new", "newer"], "base")} == {NOTHING}
