"""Which CPU a NAPI thread gets: beside its worker, whatever the machine looks like."""

from collections import Counter
from dataclasses import replace as but

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.attach.inspect_target import LocatedNapi
from napctl.attach.next_best import fed_napis
from napctl.attach.thread_places import thread_places, thread_words
from tests.unit.attach.targets import examination, instance

NODES = {0: frozenset({0, 1, 2, 3}), 1: frozenset({4, 5, 6, 7})}


def napis(*cpus: str | None) -> tuple[LocatedNapi, ...]:
    """One for each of these CPUs to which its interrupt comes."""
    found = fed_napis(examination(instance(5, {300 + number: 1 for number in range(len(cpus))})))
    return tuple(but(each, napi=replace(each.napi, cpus=own)) for each, own in zip(found, cpus, strict=True))


def cpus_of(*irqs: str | None, workers: set[int], online: int = 8) -> list[int]:
    return [each.cpu for each in thread_places(napis(*irqs), workers, range(online), NODES)]


def test_it_is_a_cpu_that_the_worker_leaves_on_the_workers_node() -> None:
    assert cpus_of("0", workers={0}) == [1]
    assert cpus_of("0", workers={4}) == [5]
    assert cpus_of("6", workers={4}) == [6]
    assert cpus_of("1", workers={4, 5, 6, 7}) == [1]


def test_several_get_one_each_as_long_as_there_are_any() -> None:
    assert cpus_of("0", "0", "0", workers={0}) == [1, 2, 3]
    assert cpus_of("0", "1", "2", "3", workers={0, 1, 2, 3, 4, 5, 6, 7}) == [0, 1, 2, 3]


def test_where_workers_run_everywhere_it_is_where_the_interrupt_comes_and_that_is_said() -> None:
    places = thread_places(napis("3"), range(8), range(8), NODES)
    assert [(each.cpu, each.shared) for each in places] == [(3, True)]
    assert thread_words(places) == "on CPU 3, where the target runs as well"
    assert thread_words(thread_places(napis("3", "3"), {0}, range(8), NODES)) == "on CPUs 1,3"


@given(st.lists(st.none() | st.sampled_from(["0", "1", "2-3"]), min_size=1, max_size=6),
       st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7), min_size=1))  # fmt: skip
def test_whatever_there_is_each_gets_one_cpu_that_is_online_and_free_if_any_is(
    irqs: list[str | None], workers: set[int], online: set[int]
) -> None:
    places = thread_places(napis(*irqs), workers & online, online, NODES)
    assert [each.napi_id for each in places] == [300 + number for number in range(len(irqs))]
    assert {each.cpu for each in places} <= online
    free = online - workers
    assert all(each.shared == (not free) for each in places)
    near = {cpu for cpus in NODES.values() if cpus & workers & online for cpu in cpus} or online
    candidates = (free & near) or free or (online & near)
    counts = Counter(each.cpu for each in places)
    assert set(counts) <= candidates
    assert max(counts.values()) - min(counts[cpu] for cpu in candidates) <= 1
