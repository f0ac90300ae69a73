"""Promises of what is said of the published order: holds, does not hold, or cannot be told, each with its figures."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from napctl.model.experiment import Cell
from tests.published import CLAIMS, Ordering, orderings
from tests.unit.stats.test_verdicts import cell

AS_PUBLISHED = {"base": 0.26, "suspend:20us": 0.30, "fullbusy": 1.0, "suspend:200us": 0.21, "defer:200us": 0.19}
P50 = {"base": 30.0, "suspend:20us": 45.0, "fullbusy": 13.0, "suspend:200us": 116.0, "defer:200us": 204.0}


def run(
    cpu: Mapping[str, float] = AS_PUBLISHED, p50: Mapping[str, float] = P50, *, noise: float = 0.01, rounds: int = 8,
    **explaining: Any,
) -> list[Cell]:  # fmt: skip
    chance = random.Random(1)
    return [
        cell(name, number, cpu_share=cpu[name] * chance.gauss(1, noise), position=number * 10 + place,
             latency_p50_us=p50[name] * chance.gauss(1, noise), **explaining)
        for number in range(rounds) for place, name in enumerate(cpu)
    ]  # fmt: skip


def told(cells: Sequence[Cell]) -> dict[tuple[str, ...], Ordering]:
    return {(each.metric, *each.treatments): each for each in orderings(cells)}


CPU_CHAIN = ("cpu_share", "base", "suspend:20us", "fullbusy")
P50_CHAIN = ("latency_p50_us", "fullbusy", "suspend:20us", "suspend:200us")
P50_PAIR = ("latency_p50_us", "suspend:200us", "defer:200us")


def test_where_it_is_as_published_each_claim_is_said_to_hold_with_its_figures() -> None:
    found = told(run())
    assert {key: each.holds for key, each in found.items()} == {
        CPU_CHAIN: "holds",
        P50_CHAIN: "holds",
        P50_PAIR: "holds",
    }
    assert found[CPU_CHAIN].sentence.startswith(
        "CPU at 20,000/s: base < suspend:20us < fullbusy holds: base < suspend:20us (26."
    )
    assert "suspend:20us < fullbusy (" in found[CPU_CHAIN].sentence
    assert found[P50_PAIR].sentence.startswith("p50 at 20,000/s: suspend:200us < defer:200us holds (116 against 20")


@given(st.permutations(list(AS_PUBLISHED)))
def test_the_order_of_treatments_makes_no_difference(order: list[str]) -> None:
    cells = run({name: AS_PUBLISHED[name] for name in order})
    assert {each.holds for each in orderings(cells)} == {"holds"}


def test_an_order_that_is_the_other_way_round_is_said_not_to_hold_and_what_was_seen_there() -> None:
    cells = run(AS_PUBLISHED | {"suspend:20us": 0.2}, server_poll_share=0.4, interrupts_per_second=900.0)
    found = told(cells)[CPU_CHAIN]
    assert found.holds == "does not hold"
    assert "What was seen there, base against suspend:20us: CPU " in found.sentence
    assert "polls by the server 40.0 against 40.0 %" in found.sentence
    assert "interrupts/s" in found.sentence


def test_what_the_noise_hides_cannot_be_told_and_the_difference_that_could_have_been_found_is() -> None:
    found = told(run(AS_PUBLISHED | {"suspend:20us": 0.261}, noise=0.03))[CPU_CHAIN]
    assert found.holds == "cannot be told"
    assert "base < suspend:20us (26." in found.sentence
    assert "no difference found, could have found " in found.sentence


def test_a_claim_for_light_load_is_not_held_against_a_load_that_is_not() -> None:
    busy = {"base": 0.9, "suspend:20us": 0.7, "fullbusy": 1.0, "suspend:200us": 0.5, "defer:200us": 0.5}
    found = told(run(busy))[CPU_CHAIN]
    assert found.holds == "cannot be told"
    assert re.search(r"CPU at a light load: .* cannot be told: at 20,000/s base has 9\d % already\.$", found.sentence)


def test_too_few_rounds_cannot_tell() -> None:
    found = orderings(run(rounds=2))
    assert {each.holds for each in found} == {"cannot be told"}
    assert all("fewer than 3 rounds" in each.sentence for each in found)


def test_only_claims_whose_treatments_are_there_under_a_load_with_a_rate_are_spoken_of() -> None:
    two = {name: AS_PUBLISHED[name] for name in ("base", "fullbusy")}
    assert list(told(run(two))) == [("cpu_share", "base", "fullbusy")]
    at_max = [cell(each.treatment, each.round, load="max", cpu_share=0.5, latency_p50_us=10) for each in run()]
    assert orderings(at_max) == ()
    assert orderings(run({"base": 0.3, "defer:20us": 0.3}, {"base": 30, "defer:20us": 40})) == ()


def test_each_claim_names_its_treatments_least_first_and_no_treatment_twice() -> None:
    for claim in CLAIMS:
        assert len(set(claim.treatments)) == len(claim.treatments) >= 2
