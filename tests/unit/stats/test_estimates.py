"""Promises of what a run says beside its verdicts: estimates, bounds, and what makes its figures doubtful."""

import random

import pytest

from napctl.report.summary import summarise
from tests.unit.stats.test_verdicts import cell, figures


def test_an_estimate_is_the_median_with_an_interval_that_the_seed_gives_again() -> None:
    run = figures("latency_p99_us", [5, 1, 4, 2, 3, 9, 7], [1] * 7)
    found = [each for each in summarise(run, "base", 7).estimates if each.treatment == "new"]
    assert found == [each for each in summarise(run, "base", 7).estimates if each.treatment == "new"]
    (estimate,) = found
    assert estimate.median == 4
    assert 1 <= estimate.low < 4 < estimate.high <= 9


def test_the_bootstrap_interval_holds_the_median_in_most_runs() -> None:
    chance = random.Random(1)
    runs = [figures("latency_p99_us", [chance.gauss(100, 5) for _ in range(12)], [1] * 12) for _ in range(200)]
    found = [each for run in runs for each in summarise(run, "base", 1).estimates if each.treatment == "new"]
    assert sum(each.low <= 100 <= each.high for each in found) >= 0.88 * len(found)


def test_the_bound_is_the_references_network_share_and_each_treatments_saving() -> None:
    run = []
    for n in range(6):
        run += [
            cell("base", n, cpu_share=0.2 + n / 1000, network_cpu_share=0.3),
            cell("new", n, cpu_share=0.15 + n / 1000, network_cpu_share=0.2),
            cell("base", n, "max", cpu_share=1, cpu_us_per_request=10 + n / 100, network_cpu_share=0.4),
            cell("new", n, "max", cpu_share=1, cpu_us_per_request=8 + n / 100, network_cpu_share=0.4),
        ]
    bounds = summarise(run, "base", 1).bounds
    assert [(each.load, each.network_cpu_share) for each in bounds] == [("20,000/s", 0.3), ("max", 0.4)]
    assert [each.saved_share["new"] for each in bounds] == pytest.approx([0.25, 0.2], abs=0.01)


def test_warnings_tell_how_many_cells_of_whom_have_each() -> None:
    run = [
        cell(
            who, n, requests_per_second=20_000 - 2_000 * n * (who == "base"), warnings=(f"stolen: {n}.5 % of the time",)
        )
        for who in ("base", "new")
        for n in range(3)
    ]
    run += [cell("new", 3, failed="refused")]
    few, failed, short, stolen = summarise(run, "base", 1).warnings
    assert few.startswith("only 3 rounds: a machine that jumps between two states can pass for a difference")
    assert failed == "1 of 7 cells (new 1) failed: refused"
    assert short.startswith(
        "2 of 6 cells (base 2) at 20,000/s achieved less than 95 % of the rate asked for (the least 80 %)"
    )
    assert stolen == "6 of 7 cells (base 3, new 3): stolen: 0.5 % of the time, and the like"


def test_a_reference_that_polls_itself_has_no_bound_as_nobody_counts_what_it_takes_in_system_calls() -> None:
    run = [
        cell(name, n, cpu_share=share + n / 1000, network_cpu_share=0.01, server_poll_share=polled)
        for n in range(6) for name, share, polled in (("fullbusy", 0.9, 0.98), ("base", 0.4, 0.0))
    ]  # fmt: skip
    assert summarise(run, "fullbusy", 1).bounds == ()
    assert [each.load for each in summarise(run, "base", 1).bounds] == ["20,000/s"]


def test_a_load_that_makes_more_requests_than_were_asked_for_is_warned_of() -> None:
    run = figures("requests_per_second", [500_000.0] * 6, [20_000.0] * 6)
    (warning,) = summarise(run, "base", 1).warnings
    assert warning.startswith(
        "6 of 12 cells (new 6) at 20,000/s made more than 105 % of the requests asked for (the most 2500"
    )


def test_the_treatment_with_the_fewest_rounds_is_warned_of() -> None:
    run = figures("latency_p99_us", [200.0, 201, 202, 203], [100.0 + n for n in range(8)])
    run += [cell("whole", n, latency_p99_us=150 + n) for n in range(8)]
    assert any(each.startswith("only 4 rounds") for each in summarise(run, "base", 1).warnings)
