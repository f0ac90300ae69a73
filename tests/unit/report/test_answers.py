"""Promises of the answer of a run: at most three short sentences, and none that the comparisons do not bear."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.experiment import Comparison, SavingsBound, Summary
from napctl.report.answers import LONGEST, SILENT, answers
from napctl.report.labels import label
from napctl.report.summary import Run
from tests.unit import runs

DEMO, MEASURED = runs.DEMO, runs.demo()
LOADS = ("20,000/s", "60,000/s", "max")
METRICS = ("latency_p50_us", "latency_p99_us", "cpu_us_per_request", "requests_per_second")
LOWER = dict.fromkeys(METRICS[:3], "lower") | {METRICS[3]: "higher"}
Found = dict[tuple[str, str, str, str], float]
"""Ratio by load, treatment, reference, metric; 1: no difference found."""


def compared(found: Found, smallest: float = 0.08) -> Run:
    """A run of the demo's treatments in which just this was found."""
    those = []
    for load in LOADS:
        for treatment, reference in [*((name, "base") for name in DEMO[1:]), ("suspend:20us", "fullbusy"),
                                     ("suspend:200us", "fullbusy")]:  # fmt: skip
            for metric in METRICS:
                ratio = found.get((load, treatment, reference, metric), 1.0)
                better = (ratio > 1) == (LOWER[metric] == "higher")
                those.append(Comparison(
                    treatment=treatment, reference=reference, load=load, metric=metric, ratio=ratio,
                    low=ratio * 0.9, high=ratio * 1.1, smallest=smallest, blocks=8,
                    judgement="no difference found" if ratio == 1 else "better" if better else "worse",
                ))  # fmt: skip
    bounds = tuple(SavingsBound(load=load, network_cpu_share=share, saved_share={}) for load, share in zip(
        LOADS, (0.48, 0.38, 0.4), strict=True))  # fmt: skip
    summary = Summary(
        estimates=MEASURED.summary.estimates, bounds=bounds,
        comparisons=tuple(each for each in those if each.reference == "base"),
        between=tuple(each for each in those if each.reference != "base"),
    )  # fmt: skip
    return replace(MEASURED, summary=summary)


def test_suspension_is_set_against_interrupts_then_against_busy_polling_then_packets_are_told() -> None:
    found: Found = {
        ("max", "suspend:200us", "base", "requests_per_second"): 1.54,
        ("max", "suspend:200us", "base", "latency_p99_us"): 0.38,
        ("max", "suspend:200us", "base", "cpu_us_per_request"): 0.65,
        ("20,000/s", "suspend:200us", "base", "latency_p50_us"): 2.9,
        ("20,000/s", "suspend:200us", "base", "cpu_us_per_request"): 0.68,
        ("20,000/s", "suspend:200us", "fullbusy", "cpu_us_per_request"): 0.25,
    }
    first, second, cost = answers(compared(found))
    assert first == (
        "suspend 200 µs against interrupts: at full load 54 % more requests/s, p99 62 % lower; at 20,000/s 32 % "
        "less CPU, but p50 2.9 times as high; no significant difference at 60,000/s."
    )
    assert second == (
        "suspend 200 µs against busy polling: at 20,000/s 75 % less CPU; no significant difference at 60,000/s or "
        "at full load."
    )
    assert cost == (
        "At 20,000/s, 48 % of the CPU time goes into packet processing (38 % at 60,000/s, 40 % at full load): about "
        "the most that any setting here can save."
    )


def test_no_loss_is_left_out_for_want_of_room() -> None:
    found: Found = {("max", "suspend:20us", "base", "requests_per_second"): 1.54}
    for load, cpu, p99 in zip(LOADS, (0.2, 0.3, 0.48), (3.1, 2.2, 1.46), strict=True):
        found |= {(load, "suspend:20us", "fullbusy", "cpu_us_per_request"): cpu,
                  (load, "suspend:20us", "fullbusy", "latency_p99_us"): p99}  # fmt: skip
    assert answers(compared(found))[1] == (
        "suspend 20 µs against busy polling: at 20,000/s 80 % less CPU, but p99 3.1 times as high; at 60,000/s "
        "70 % less CPU, but p99 2.2 times as high; at full load 52 % less CPU, but p99 46 % higher."
    )


def test_a_run_that_found_nothing_says_so_and_how_much_would_have_shown() -> None:
    first = answers(compared({}, smallest=12.0))[0]
    assert first.endswith(" against interrupts: no significant difference under any load (p99 and CPU too noisy).")


def test_who_saved_more_than_packets_cost_refutes_that_it_is_the_most() -> None:
    run = compared({("max", "suspend:20us", "base", "cpu_us_per_request"): 0.3})
    assert answers(run)[-1] == (
        "At full load, 40 % of the CPU time goes into packet processing; suspend 20 µs saved more, so wake-ups or "
        "the server's own work, too."
    )


def test_without_comparisons_nothing_is_said() -> None:
    run = compared({})
    assert answers(replace(run, summary=replace(run.summary, comparisons=(), between=()))) == (SILENT,)


def test_without_suspension_the_best_is_told_and_the_most_harmful_besides() -> None:
    run = runs.run(treatments=("base", "defer:200us"))
    assert answers(run)[0].startswith("defer:200us against base: ")
    found = answers(runs.run())
    assert [each.partition(":")[0] for each in found[:2]] == ["suspend", "suspend"]
    assert {each.partition(" against")[0] for each in found[:2]} == {"suspend:20us", "suspend:200us"}


RATIOS = st.just(1.0) | st.floats(0.01, 0.98) | st.floats(1.02, 50)
KEYS = st.tuples(
    st.sampled_from(LOADS), st.sampled_from(DEMO[1:]), st.sampled_from(("base", "fullbusy")), st.sampled_from(METRICS)
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, RATIOS, max_size=40))
def test_each_claim_is_a_comparison_of_the_run_and_each_loss_is_named(found: Found) -> None:
    told = answers(compared(found))
    assert len(told) <= 3
    names = {label(name): name for name in DEMO}
    for sentence in told[:-1]:
        treatment, reference = (names[each] for each in sentence.partition(": ")[0].split(" against "))
        claims = re.split(r"; (?=at |no )", sentence.partition(": ")[2])
        for clause in (each for each in claims if not each.startswith("no ")):
            load = next(load for load in LOADS if clause.startswith("at full load" if load == "max" else f"at {load}"))
            better, _, worse = clause.partition("but ")
            for part in (better, worse):
                for title, metric, up in (("p50", METRICS[0], "high"), ("p99", METRICS[1], "high")):
                    for words in re.findall(rf"{title} [^,;]*", part):
                        assert (found[load, treatment, reference, metric] > 1) == (up in words), sentence
                for word in re.findall(r"(more|less) CPU", part):
                    assert (found[load, treatment, reference, METRICS[2]] > 1) == (word == "more")
                for word in re.findall(r"(more|fewer) requests", part):
                    assert (found[load, treatment, reference, METRICS[3]] > 1) == (word == "more")
        for load in (each for each in LOADS if worse_in(found, each, treatment, reference)):
            assert f" at {'full load' if load == 'max' else load} " in sentence, "a loss is never left to the table"
    for each, most in zip(told[:-1], LONGEST, strict=False):
        clauses = re.split(r"; (?=at )", each.partition(": ")[2])
        assert len(each) <= most or len(clauses) == 1 or all(map(loses, clauses))


def worse_in(found: Found, load: str, treatment: str, reference: str) -> bool:
    ratios = {metric: found.get((load, treatment, reference, metric), 1.0) for metric in METRICS[:3]}
    return any(ratio > 1 for ratio in ratios.values())


def loses(clause: str) -> bool:
    return re.search(r"higher|as high|more CPU|times the CPU|fewer", clause) is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("base", "interrupts"), ("fullbusy", "busy polling"), ("suspend:20us", "suspend 20 µs"),
        ("defer:1ms", "defer 1 ms"),
        ("suspend:200us#2", "suspend 200 µs (2)"), ("plan:nic.toml", "plan:nic.toml"), ("suspend:0", "suspend 0"),
    ],
)  # fmt: skip
def test_a_treatment_of_the_lab_has_a_name_in_words(name: str, words: str) -> None:
    assert label(name) == words
