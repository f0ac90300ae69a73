"""Promises of a run's summary: what is compared, and that it is said."""

import pytest

from napctl.report.summary import summarise
from napctl.stats.verdicts import AGAINST_BUSY
from tests.unit.stats.test_verdicts import figures
from tests.unit.test_published_order import run


def test_suspension_is_set_against_full_busy_polling_in_what_experiments_are_made_for() -> None:
    found = summarise(run(packets_per_poll=2.0), "base", 1)
    busy = [each for each in found.between if each.reference == "fullbusy"]
    assert {each.treatment for each in busy} == {"suspend:20us", "suspend:200us"}
    assert {each.metric for each in busy} == {"cpu_share", "latency_p50_us"} <= set(AGAINST_BUSY)
    assert any(each.startswith("At 20,000/s, suspend:200us against fullbusy: ") for each in found.sentences)
    assert all(each.reference == "base" for each in found.comparisons)


@pytest.mark.parametrize("reference", ["base", "fullbusy"])
def test_nothing_is_compared_twice(reference: str) -> None:
    found = summarise(run(), reference, 1)
    keys = [(each.load, each.metric, frozenset((each.treatment, each.reference)))
            for each in (*found.comparisons, *found.between)]  # fmt: skip
    assert len(keys) == len(set(keys))


def test_with_fewer_than_3_rounds_it_is_said_that_there_is_no_verdict() -> None:
    found = summarise(figures("latency_p99_us", [1, 1], [9, 9]), "base", 1)
    assert found.sentences == ("new against base: no verdict, as fewer than 3 rounds have figures of both.",)
    assert any("fewer than 3 rounds" in each for each in found.warnings)
