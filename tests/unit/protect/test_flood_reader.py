"""Whether rings were emptied, by threads and by tasks that poll for themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings
from napctl.protect.flood_reader import Slept, is_emptied
from napctl.protect.groups import Protected
from napctl.protect.ladder import LEAST_PACKETS_PER_SECOND

BUSY = 2 * LEAST_PACKETS_PER_SECOND
RUNS, SLEEPS, WAKES = Slept(at_all=False, anew=False), Slept(at_all=True, anew=False), Slept(at_all=True, anew=True)
THREADS = st.lists(st.tuples(st.booleans(), st.sampled_from((RUNS, SLEEPS, WAKES))), max_size=5)
"""Of instances: whether it is attached, and whether its thread slept."""


def group(*attached: bool) -> Protected:
    """Pids are the ids of the instances."""
    napis = tuple(
        Napi(
            napi_id=number, ifindex=2, irq=None, cpus="0", thread_pid=number,
            settings=NapiSettings(threaded="enabled", irq_suspend_timeout_ns=20_000_000 * is_attached),
        )
        for number, is_attached in enumerate(attached, 1)
    )  # fmt: skip
    return Protected("eth0", 2, napis, frozenset({0}))


def emptied(threads: list[tuple[bool, Slept]], offered_per_second: float = BUSY, *, counts_drops: bool = False) -> bool:
    """Of these, told of all; without a thread of a pid that is not theirs."""
    slept = {number: each for number, (_, each) in enumerate(threads, 1)}
    return is_emptied(group(*(each for each, _ in threads)), slept, offered_per_second, counts_drops=counts_drops)


@given(THREADS, st.booleans(), st.floats(0, 1e6))
def test_a_thread_that_runs_all_the_time_empties_nothing(
    threads: list[tuple[bool, Slept]], counts_drops: bool, offered: float
) -> None:
    runs = any(each == RUNS for _, each in threads)
    assert not (runs and emptied(threads, offered, counts_drops=counts_drops))
    assert runs or emptied(threads, offered, counts_drops=True)
    assert runs or emptied([(False, each) for _, each in threads], offered, counts_drops=counts_drops)


@pytest.mark.parametrize("others", [[], [(True, SLEEPS)], [(False, WAKES)]])
def test_a_task_that_polls_for_itself_has_come_to_its_end_if_it_left_something_to_its_thread(
    others: list[tuple[bool, Slept]],
) -> None:
    """Where nobody counts what the ring drops, and there are packets."""
    assert not emptied([(True, SLEEPS), *others])
    assert emptied([(True, WAKES), *others])
    assert emptied([(True, SLEEPS), *others], LEAST_PACKETS_PER_SECOND / 2)
    assert emptied([(True, SLEEPS), *others], counts_drops=True)


def test_of_a_thread_that_was_not_looked_at_before_nothing_is_known() -> None:
    assert is_emptied(group(True), {}, BUSY, counts_drops=False)
