"""Promises about when an estimate is told, what it is from, and what a window teaches: on counters that were made."""

from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.census.pollers.busiest_file import BusiestFiles
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.tally import PollerTally
from napctl.census.pollers.thread_estimates import (
    ALIKE,
    BOUND_SAYS_MORE,
    NEVER_AT_REST,
    NEVER_BUSY,
    NOT_COUNTED,
    TELLS_NOTHING,
    TOO_SHORT,
    estimates,
)
from napctl.census.pollers.work_estimate import MARGIN, Counts, RestAndWork
from napctl.census.pollers.work_share import MostWork
from napctl.kernel.processes import Process
from napctl.model.census import SpinningThread
from tests.unit.census.pollers.test_tally import DPDK, PID, Account, moment
from tests.unit.census.pollers.test_work_estimate import LOOP, WORK, mixed

SPIN = Spin(tid=9, name="worker", cpu=1, pinned=True, run_share=1.0)
REST, BUSY, HALF = LOOP.counts(3e9), WORK.counts(3e9), mixed(LOOP, WORK, 0.5)
NOTHING_CAME = MostWork(share=0.0, cost_ns=100.0, calibrated=False)


def one(
    counts: Counts | str,
    known: RestAndWork,
    most: MostWork | None = None,
    packets: int | None = None,
    spin: Spin = SPIN,
) -> tuple[float | None, str, RestAndWork]:
    """What is told of a thread, and what is known of it then."""
    name = "worker on CPU 1"
    found, learned = estimates([spin], {9: counts}, {9: most}, {name: known}, packets)
    return *found[9], learned[name]


def seen() -> RestAndWork:
    """At rest, and busy."""
    *_, rested = one(REST, RestAndWork(), NOTHING_CAME, 0)
    *_, known = one(BUSY, rested, None, 10**6)
    return known


def test_between_rest_and_its_busiest_window_it_tells_and_says_what_from() -> None:
    share, source, _ = one(HALF, seen(), None, 10**5)
    assert share == pytest.approx(0.5 + MARGIN)
    assert source == (
        "instructions per cycle and branches of them 2.00 and 21.1 %; 2.80 and 25.0 % at rest, 1.20 and 12.0 % at its"
        " busiest [perf_event_open]"
    )


def test_it_is_of_the_cpu_not_of_its_time() -> None:
    share, *_ = one(HALF, seen(), spin=changed(SPIN, run_share=0.4))
    assert share == pytest.approx((0.5 + MARGIN) * 0.4)


def test_nothing_is_told_before_both_were_seen() -> None:
    assert one(HALF, RestAndWork(), None, 10**5)[:2] == (None, NEVER_AT_REST)
    *_, rested = one(REST, RestAndWork(), NOTHING_CAME, 0)
    assert one(REST, rested, NOTHING_CAME, 0)[:2] == (None, NEVER_BUSY)
    assert one(BUSY, seen(), None, 10**6)[:2] == (None, TELLS_NOTHING)
    assert one(WORK.counts(1000), seen())[:2] == (None, TOO_SHORT)
    assert one("no such counters", seen())[:2] == (None, "no estimate: no such counters")


def test_the_bound_comes_before_it_where_that_says_more() -> None:
    low, high = (MostWork(share=share, cost_ns=100.0, calibrated=True) for share in (0.55, 0.57))
    assert one(HALF, seen(), low, 10**5)[:2] == (None, BOUND_SAYS_MORE)
    assert one(HALF, seen(), high, 10**5)[0] == pytest.approx(0.56)


def test_where_nobody_counts_its_packets_or_it_loses_some_nothing_is_learned() -> None:
    assert one(BUSY, RestAndWork(), None, None)[2] == one(REST, RestAndWork(), NOTHING_CAME, None)[2] == RestAndWork()


def test_a_thread_that_was_not_counted_or_is_one_of_several_of_a_name_is_left_out() -> None:
    twins = [SPIN, changed(SPIN, tid=10)]
    found, learned = estimates(twins, {9: HALF, 10: HALF}, {}, {}, 10**6)
    assert found == {9: (None, ALIKE), 10: (None, ALIKE)}
    assert learned == {}
    assert estimates([SPIN], {}, {}, {}, 0)[0] == {9: (None, f"no estimate: {NOT_COUNTED}")}


def window(
    state: Path, counts: Counts, received: int | None, detected: Detected = DPDK, **after: Any
) -> SpinningThread:
    """A second of a program of one thread; the files are opened anew."""
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())
    start = Statement(received=None if received is None else 0, cycles=dict.fromkeys(after.get("cycles", ()), (0, 0)))
    tally = PollerTally(
        suspect, detected, moment(1, start), moment(2, Statement(received=received, **after)), {9: counts}
    )
    (thread,) = tally.poller(BusiestFiles(state)).threads
    return thread


def test_what_was_learned_outlives_us_and_tells_where_nobody_counts_packets(tmp_path: Path) -> None:
    unseen = window(tmp_path, HALF, None)
    assert (unseen.estimated_work_share, unseen.estimate_source) == (None, NEVER_AT_REST)
    assert window(tmp_path, REST, 0).estimate_source == NEVER_BUSY
    assert window(tmp_path, BUSY, 10**6).estimate_source == TELLS_NOTHING
    between = window(tmp_path, HALF, 5 * 10**5)
    assert between.most_work_share == pytest.approx(0.6)
    assert between.estimated_work_share == pytest.approx(0.56)
    hidden = window(tmp_path, HALF, None)
    assert hidden.most_work_share is None
    assert hidden.estimated_work_share == pytest.approx(0.56)


def test_a_window_in_which_it_lost_packets_teaches_nothing(tmp_path: Path) -> None:
    window(tmp_path, REST, 0)
    window(tmp_path, BUSY, 10**6, lost=5)
    assert window(tmp_path, HALF, 5 * 10**5, lost=5).estimate_source == NEVER_BUSY


def test_its_own_account_stands_alone(tmp_path: Path) -> None:
    window(tmp_path, REST, 0)
    window(tmp_path, BUSY, 10**6)
    own = window(tmp_path, HALF, 5 * 10**5, changed(DPDK, account=Account()), cycles={"worker": (40, 100)})
    assert own.work_share == pytest.approx(0.4)
    assert replace(own, work_share=None, source="") == SpinningThread(tid=9, name="worker", cpu=1, run_share=1.0)
