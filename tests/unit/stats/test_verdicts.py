"""Promises of an experiment's verdicts: what they are of single figures, and what changes nothing about them."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.experiment import Cell, Comparison, Summary
from napctl.model.metrics import BY_NAME
from napctl.model.value import from_json, to_json
from napctl.stats.paired import FINEST, paired
from napctl.stats.student import critical, two_sided
from napctl.stats.verdicts import ALPHA, compare, summarise
from tests.strategies import examples

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
