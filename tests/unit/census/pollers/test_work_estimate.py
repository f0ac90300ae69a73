"""Promises of the estimate of a poller's work from its instructions and branches: on mixes that were made.

No counters of a CPU were ever read here: the machines that this was made on have none.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from napctl.census.pollers.work_estimate import (
    MARGIN,
    Counts,
    RestAndWork,
    Resting,
    Signature,
    estimate,
    learn,
    signature,
)
from napctl.census.pollers.work_share import LEAST_PACKETS


@dataclass(frozen=True)
class Code:
    """What a thread may execute."""

    per_cycle: float
    branches: float
    """Of its instructions."""
    misses: float
    """Of its branches."""

    def counts(self, cycles: float) -> Counts:
        instructions = cycles * self.per_cycle
        branches = instructions * self.branches
        return Counts(cycles=cycles, instructions=instructions, branches=branches, branch_misses=branches * self.misses)


def mixed(loop: Code, work: Code, share: float, cycles: float = 3e9) -> Counts:
    """`share`: of its cycles that are work."""
    one, other = loop.counts(cycles * (1 - share)), work.counts(cycles * share)
    return Counts(
        cycles=one.cycles + other.cycles,
        instructions=one.instructions + other.instructions,
        branches=one.branches + other.branches,
        branch_misses=one.branch_misses + other.branch_misses,
    )


def of(counts: Counts) -> Signature:
    found = signature(counts)
    assert found is not None
    return found


def resting(*counts: Counts) -> Resting:
    known = RestAndWork()
    for each in counts:
        known = learn(known, each, 0, resting=True)
    assert known.resting is not None
    return known.resting


SHARE, SLOWER = st.floats(0, 1), st.floats(0.2, 1)
CODE = st.builds(Code, st.floats(0.2, 5), st.floats(0.02, 0.4), st.floats(0, 0.05))
LOOP, WORK = Code(2.8, 0.25, 0.00005), Code(1.2, 0.12, 0.004)


@given(share=st.floats(0, 0.93))
def test_a_mix_of_rest_and_the_busiest_window_is_told_as_what_it_is(share: float) -> None:
    found = estimate(of(mixed(LOOP, WORK, share)), resting(LOOP.counts(1e9)), of(WORK.counts(3e9)))
    assert found == pytest.approx(share + MARGIN, abs=1e-6)


@given(loop=CODE, work=CODE, share=SHARE, at_its_busiest=SHARE)
def test_it_is_never_below_the_truth_however_busy_it_ever_was(
    loop: Code, work: Code, share: float, at_its_busiest: float
) -> None:
    busiest = of(mixed(loop, work, at_its_busiest))
    found = estimate(of(mixed(loop, work, share)), resting(loop.counts(1e9)), busiest)
    assert found is None or found >= min(1.0, share + MARGIN) - 1e-6


@given(
    loop=CODE, work=CODE, share=SHARE, at_its_busiest=SHARE,
    loop_slower=SLOWER, work_slower=SLOWER, then_slower=SLOWER, at_rest_slower=SLOWER,
)  # fmt: skip
def test_another_thread_on_the_same_core_makes_it_no_less(
    loop: Code, work: Code, share: float, at_its_busiest: float,
    loop_slower: float, work_slower: float, then_slower: float, at_rest_slower: float,
) -> None:  # fmt: skip
    """It slows each differently, and was there or not in each window, but once not while this one was at rest."""
    slower, working = (
        replace(loop, per_cycle=loop.per_cycle * loop_slower),
        replace(work, per_cycle=work.per_cycle * work_slower),
    )
    rest = resting(loop.counts(1e9), replace(loop, per_cycle=loop.per_cycle * at_rest_slower).counts(1e9))
    busiest = mixed(replace(loop, per_cycle=loop.per_cycle * then_slower), work, at_its_busiest)
    found = estimate(of(mixed(slower, working, share)), rest, of(busiest))
    assert found is None or found >= min(1.0, share + MARGIN) - 1e-6


@given(loops=st.lists(CODE, min_size=1, max_size=3), work=CODE, one=SHARE, other=SHARE)
def test_more_work_is_never_told_as_less(loops: list[Code], work: Code, one: float, other: float) -> None:
    rest, busiest = resting(*(each.counts(1e9) for each in loops)), of(work.counts(3e9))
    less, more = (estimate(of(mixed(loops[0], work, share)), rest, busiest) for share in sorted((one, other)))
    assert (1.0 if less is None else less) <= (1.0 if more is None else more) + 1e-6


@given(now=CODE, loop=CODE, work=CODE)
def test_whatever_was_counted_it_is_a_share_or_nothing(now: Code, loop: Code, work: Code) -> None:
    found = estimate(of(now.counts(1e9)), resting(loop.counts(1e9)), of(work.counts(1e9)))
    assert found is None or MARGIN <= found < 1


@given(now=CODE, loop=CODE, work=CODE)
def test_it_is_never_below_what_its_instructions_per_cycle_alone_prove(now: Code, loop: Code, work: Code) -> None:
    """So many cycles the loop would not have had for all instructions together."""
    found = estimate(of(now.counts(1e9)), resting(loop.counts(1e9)), of(work.counts(1e9)))
    assert found is None or found >= 1 - now.per_cycle / loop.per_cycle


@given(share=SHARE, misses=st.floats(0, 0.01))
def test_where_work_looks_like_the_loop_nothing_is_told(share: float, misses: float) -> None:
    like = Code(1.5, LOOP.branches * 1.04, min(misses, 0.0009))
    assert estimate(of(mixed(LOOP, like, share)), resting(LOOP.counts(1e9)), of(like.counts(1e9))) is None


def test_its_busiest_window_says_nothing_of_itself() -> None:
    assert estimate(of(WORK.counts(1e9)), resting(LOOP.counts(1e9)), of(WORK.counts(1e9))) is None


def test_mispredicted_branches_alone_tell_as_well() -> None:
    """As DPDK's own monitor takes them; no more than chance, they tell nothing."""
    work = replace(WORK, branches=LOOP.branches)
    rest, half = resting(LOOP.counts(1e9)), of(mixed(LOOP, work, 0.5))
    assert estimate(half, rest, of(work.counts(1e9))) == pytest.approx(0.5 + MARGIN)
    chance = replace(work, misses=0.0009)
    assert estimate(of(mixed(LOOP, chance, 0.5)), rest, of(chance.counts(1e9))) is None


def test_of_two_ratios_that_differ_the_one_counts_that_tells_more_work() -> None:
    half, rest, busiest = mixed(LOOP, WORK, 0.5), resting(LOOP.counts(1e9)), of(WORK.counts(1e9))
    plain = estimate(of(half), rest, busiest)
    missing = estimate(of(structs.replace(half, branch_misses=1.5 * half.branch_misses)), rest, busiest)
    straight = estimate(of(structs.replace(half, branches=0.9 * half.branches)), rest, busiest)
    assert plain is not None
    assert missing is not None
    assert straight is not None
    assert plain < min(missing, straight)


@given(
    share=st.floats(0, 0.9),
    more=st.builds(Code, st.floats(0.2, 5), st.floats(0.14, 0.4), st.floats(0, 0.0005)),
    work=st.sampled_from([WORK, replace(WORK, misses=0.0)]),
)
def test_another_window_at_rest_makes_it_no_less(share: float, more: Code, work: Code) -> None:
    now, busiest = of(mixed(LOOP, work, share)), of(work.counts(1e9))
    found = estimate(now, resting(LOOP.counts(1e9), more.counts(1e9)), busiest)
    assert found is None or found >= share + MARGIN - 1e-6


@pytest.mark.parametrize("counts", [WORK.counts(0), WORK.counts(49e6), replace(WORK, per_cycle=0).counts(1e9)])
def test_a_window_of_nothing_tells_nothing_and_teaches_nothing(counts: Counts) -> None:
    assert signature(counts) is None
    assert (
        learn(RestAndWork(), counts, 10**6, resting=False)
        == learn(RestAndWork(), counts, 0, resting=True)
        == RestAndWork()
    )


def test_the_window_is_its_busiest_in_which_a_packet_had_the_fewest_cycles() -> None:
    slow, quick = mixed(LOOP, WORK, 0.3), mixed(LOOP, WORK, 0.6)
    known = learn(RestAndWork(), slow, 10**6, resting=False)
    assert (known.busiest, known.cycles_per_packet) == (of(slow), 3000)
    assert learn(RestAndWork(), quick, LEAST_PACKETS - 1, resting=False) == RestAndWork()
    assert learn(known, quick, 1_010_000, resting=False) == known
    assert learn(known, quick, 2 * 10**6, resting=False).busiest == of(quick)


def test_a_window_at_rest_is_no_busy_one() -> None:
    known = learn(RestAndWork(), LOOP.counts(3e9), 10**6, resting=True)
    assert known == RestAndWork(resting=Resting(least=of(LOOP.counts(3e9)), most=of(LOOP.counts(3e9))))
