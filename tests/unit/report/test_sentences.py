"""Promises of what is said of an experiment: what was measured, against what, and nothing that was not found."""

import re

from hypothesis import given, settings

from napctl.model.experiment import Cell, Comparison, Estimate, SavingsBound
from napctl.model.metrics import BY_NAME
from napctl.report.sentences import NO_DIFFERENCE, sentences
from napctl.report.summary import summarise
from tests.strategies import examples
from tests.unit.stats.test_verdicts import NOTHING, cell, runs

NEW = "suspend:200us"
Figures = tuple[str, float, float, float, float, float]
"""Metric, median of the treatment and of the reference, low, high, smallest. Both ends beyond 1: a difference."""
P99 = ("latency_p99_us", 348, 963, 0.31, 0.41, 0.1)
P50 = ("latency_p50_us", 160, 158, 0.9, 1.2, 0.124)
CPU = ("cpu_share", 0.0684, 0.0959, 0.66, 0.75, 0.05)
PER_REQUEST = ("cpu_us_per_request", 13.7, 19.2, 0.66, 0.75, 0.05)
RATE = ("requests_per_second", 98_000, 99_000, 0.97, 1.02, 0.03)
ENERGY = ("joules_per_request", 988e-6, 935e-6, 1.01, 1.11, 0.05)


def said(*figures: Figures, load: str = "20,000/s", bounds: tuple[SavingsBound, ...] = ()) -> tuple[str, ...]:
    estimates, comparisons = [], []
    for metric, ours, theirs, low, high, smallest in figures:
        for who, value in ((NEW, ours), ("base", theirs)):
            estimates.append(
                Estimate(treatment=who, load=load, metric=metric, median=value, low=value, high=value, rounds=8)
            )
        better = BY_NAME[metric].better == ("higher" if low >= 1 else "lower")
        differs, ratio = low >= 1 or high <= 1, (low * high) ** 0.5
        comparisons.append(
            Comparison(
                treatment=NEW, reference="base", load=load, metric=metric, ratio=ratio, low=low, high=high,
                judgement=("better" if better else "worse") if differs else "no difference found", smallest=smallest,
                blocks=8, stand_in=0.5 if not ours or not theirs else None,
            )
        )  # fmt: skip
    return sentences("base", [NEW], [load], estimates, comparisons, bounds)


def test_a_sentence_says_under_what_load_what_against_what_and_what_was_not_found() -> None:
    (sentence,) = said(P50, P99, CPU, RATE)
    assert sentence == (
        "At 20,000/s, suspend:200us against base: p99 lower (348 against 963 µs, 31 to 41 % of it); "
        "CPU lower (6.84 against 9.59 %, 66 to 75 % of it). p50: no significant difference; a change above 12 % "
        "would have shown."
    )


def test_at_max_requests_per_second_are_a_result_and_cpu_is_told_per_request() -> None:
    (sentence,) = said(P50, RATE, CPU, PER_REQUEST, ENERGY, load="max")
    assert sentence == (
        "With as many requests as possible, suspend:200us against base: "
        "CPU/request lower (13.7 against 19.2 µs, 66 to 75 % of it); "
        "energy/request higher (988 against 935 µJ, 101 to 111 % of it). p50: no significant difference; a change "
        "above 12 % would have shown. requests/s: none; a change above 3.0 % would have shown."
    )


def test_a_rate_that_was_asked_for_is_told_only_if_it_was_not_achieved() -> None:
    assert "requests/s" not in said(P99, RATE)[0]
    less = ("requests_per_second", 15_000, 20_000, 0.7, 0.8, 0.03)
    assert "requests/s lower (15,000 against 20,000, 70 to 80 % of it)" in said(P99, less)[0]


def test_what_the_whole_machine_did_not_tell_is_told_of_the_server() -> None:
    server = ("server_cpu_share", 0.5, 1.0, 0.4, 0.6, 0.05)
    assert "server CPU lower (50 against 100 %, 40 to 60 % of it)" in said(P99, server)[0]
    assert "server CPU" not in said(P99, CPU, server)[0]


def test_medians_that_contradict_the_pairs_are_not_told() -> None:
    """Blocks that differ much: each pair is lower, the median over all rounds is not."""
    found = said(("latency_p99_us", 350, 348, 0.9, 0.98, 0.1))[0]
    assert found.endswith("p99 lower (90 to 98 % of base's in the same rounds).")


def test_a_ratio_to_zero_is_not_told() -> None:
    found = said(P99, ("drops_per_second", 5000, 0, 1.5, 3, 0.1))[0]
    assert found.endswith("drops/s higher (5,000 against 0).")


def test_what_could_have_been_found_is_a_factor_where_percents_would_mislead() -> None:
    found = said(("latency_p99_us", 348, 330, 0.4, 4, 2.0), ("latency_p50_us", 10, 10, 0.9, 1.1, 0.1))[0]
    assert found.endswith(
        ": p99: no significant difference; a change above a factor of 3 would have shown. p50: none; a change "
        "above 10 % would have shown."
    )


def test_rounding_never_makes_equal_what_was_found_to_differ() -> None:
    found = said(("latency_p99_us", 348.3, 348.4, 0.9991, 0.9996, 0.1))[0]
    assert "(348.3 against 348.4 µs, 99.91 to 99.96 % of it)" in found
    assert "3.2 to 4.1 times of it" not in said(("latency_p99_us", 348, 100, 3.2, 4.1, 0.1))[0]
    assert "(348 against 100 µs, 3.2 to 4.1 times it)" in said(("latency_p99_us", 348, 100, 3.2, 4.1, 0.1))[0]


def test_the_bound_comes_last_and_saves_nothing_that_was_not_found() -> None:
    bound = SavingsBound(load="20,000/s", network_cpu_share=0.41, saved_share={NEW: 0.29})
    start = "At 20,000/s, 41 % of the CPU time goes into packet processing: "
    limit = "about the most that any setting here can save; "
    assert said(P99, CPU, bounds=(bound,))[-1] == start + limit + "suspend:200us saved 29 %."
    not_found = ("cpu_share", 0.0684, 0.0959, 0.66, 1.05, 0.05)
    last = said(P99, not_found, bounds=(bound,))[-1]
    assert last == start + limit + "no significant difference in CPU time with suspend:200us."
    more = said(P99, ("cpu_share", 0.12, 0.1, 1.1, 1.3, 0.05), bounds=(SavingsBound(
        load="20,000/s", network_cpu_share=0.41, saved_share={NEW: -0.2}),))[-1]  # fmt: skip
    assert more == start + limit + "suspend:200us cost 20 % more."


def test_a_treatment_that_saved_more_than_the_bound_refutes_it() -> None:
    bound = SavingsBound(load="20,000/s", network_cpu_share=0.1, saved_share={NEW: 0.29})
    last = said(CPU, bounds=(bound,))[-1]
    assert "can save more" not in last
    assert "suspend:200us saved more than that, so also elsewhere" in last


def test_the_greatest_difference_comes_first_and_what_failed_last() -> None:
    run = []
    for n in range(8):
        run += [cell("base", n, latency_p99_us=100 + n), cell("a", n, latency_p99_us=101 + n % 5)]
        run += [cell("b", n, latency_p99_us=50 + n / 2), cell("c", n, latency_p99_us=10 + n / 10)]
        run += [cell("0", n, failed="refused")]
    told = summarise(run, "base", 1).sentences
    assert [re.split(" against |, ", each)[-3 if "At" not in each else 1] for each in told[:3]] == ["c", "b", "a"]
    assert told[3] == "0 against base: no verdict, as fewer than 3 rounds have figures of both."


def test_treatments_in_which_nothing_was_found_share_a_sentence_with_the_best_that_could_have_been() -> None:
    run = []
    for n in range(8):
        run += [cell("base", n, latency_p99_us=100 + n % 3), cell("b", n, latency_p99_us=100 + 20 * (n % 2))]
        run += [cell("a", n, latency_p99_us=100 + n % 2), cell("c", n, latency_p99_us=10 + n / 10)]
    differing, nothing = summarise(run, "base", 1).sentences
    assert differing.startswith("At 20,000/s, c against base: p99 lower")
    finest = min(each.smallest for each in summarise(run, "base", 1).comparisons if each.judgement == NOTHING)
    could = f"a change above {finest:.1%} would have shown at best".replace("%", " %")
    assert nothing == f"At 20,000/s, a and b against base: p99: {NO_DIFFERENCE}; {could}."


@settings(max_examples=examples(25, 100))
@given(runs())
def test_nothing_is_claimed_that_the_comparison_does_not_find(run: list[Cell]) -> None:
    try:
        found = summarise(run, "base", 1)
    except ValueError:
        return
    titles = {BY_NAME[each.metric].title: each.metric for each in found.comparisons}
    by_key = {(each.load, each.treatment, each.metric): each for each in found.comparisons}
    for sentence in found.sentences:
        words = {"With as many requests as possible": "max", "At 20,000/s": "20,000/s"}
        load = next((name for start, name in words.items() if sentence.startswith(start)), "")
        if "packet processing" in sentence:
            metric = "cpu_us_per_request" if load == "max" else "cpu_share"
            claimed = re.findall(r"; (\S+) (saved|cost) ", sentence)
            assert all((by_key[load, who, metric].ratio < 1) == (verb == "saved") for who, verb in claimed)
            assert all(by_key[load, who, metric].judgement != NOTHING for who, _ in claimed)
            continue
        if "no verdict" in sentence:
            continue
        start, told = sentence.split(" against base: ")
        treatment = start.split(", ")[-1]
        differing, _, without = told.partition(NO_DIFFERENCE)
        for title, word in re.findall(r"(?:^|; )(.+?) (lower|higher)(?= \(|;|\.)", differing):
            each = by_key[load, treatment, titles[title]]
            assert each.judgement in ("better", "worse")
            assert (each.ratio > 1) == (word == "higher")
        assert not re.search("lower|higher|saved|cost", without)
