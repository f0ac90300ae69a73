"""Whether a worker and its queue go together, and sets of CPUs as the kernel writes them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.placement import mismatch
from napctl.model.cpus import cpus_text, parse_cpus

CPUS = st.frozensets(st.integers(0, 8191), max_size=40)
NODES = {0: frozenset(range(8)), 1: frozenset(range(8, 16))}


@given(CPUS)
def test_a_set_of_cpus_survives_being_written_as_a_kernel_list(cpus: frozenset[int]) -> None:
    assert parse_cpus(cpus_text(cpus)) == cpus


@given(CPUS)
def test_a_kernel_list_has_each_run_of_cpus_once_and_in_order(cpus: frozenset[int]) -> None:
    parts = [part for part in cpus_text(cpus).split(",") if part]
    bounds = [(int(part.split("-")[0]), int(part.split("-")[-1])) for part in parts]

    assert all(first <= last for first, last in bounds)
    assert all(here[1] + 1 < there[0] for here, there in pairwise(bounds))
    assert all(("-" in part) == (first < last) for part, (first, last) in zip(parts, bounds, strict=True))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", set()), ("\n", set()), ("0", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("1,3,5", {1, 3, 5}), ("7-7", {7})],
)
def test_a_kernel_list_is_read(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["a", "1-b", "0x1"])
def test_what_is_no_kernel_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpus(text)


SMALL = st.frozensets(st.integers(0, 15), min_size=1, max_size=4)


@given(SMALL, SMALL)
def test_a_worker_that_may_run_where_its_queues_interrupt_comes_goes_together_with_it(
    worker: frozenset[int], queue: frozenset[int]
) -> None:
    assert (mismatch(worker, queue, NODES) == "") == bool(worker & queue)


@given(SMALL)
def test_nothing_is_said_of_a_queue_whose_cpus_are_not_known(worker: frozenset[int]) -> None:
    assert mismatch(worker, None, NODES) == ""
    assert mismatch(worker, frozenset(), NODES) == ""


@given(SMALL, SMALL, st.sampled_from([NODES, {}, {0: frozenset(range(16))}]))
def test_another_numa_node_is_named_only_if_both_are_known_and_have_none_in_common(
    worker: frozenset[int], queue: frozenset[int], nodes: dict[int, frozenset[int]]
) -> None:
    why = mismatch(worker, queue, nodes)
    at = [{node for node, cpus in nodes.items() if cpus & each} for each in (worker, queue)]

    assert ("NUMA" in why) == (not worker & queue and bool(at[0]) and bool(at[1]) and not at[0] & at[1])
    assert "\n" not in why


def test_both_nodes_or_the_queues_cpus_are_told() -> None:
    assert mismatch(frozenset({1, 2}), frozenset({9}), NODES) == "the worker is on NUMA node 0, its queue on node 1"
    assert mismatch(frozenset({1}), frozenset({2, 3}), NODES).endswith("where its queue's interrupt comes: CPU 2-3")
    assert "NUMA" not in mismatch(frozenset({1}), frozenset({2}), {})
