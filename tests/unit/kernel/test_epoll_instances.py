"""Which sockets of many are looked at."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.epoll_instances import sample, spread


@given(st.integers(0, 5000), st.integers(1, 300))
def test_so_many_are_taken_evenly_from_all(count: int, most: int) -> None:
    found = spread(range(count), most)

    assert len(found) == min(count, most)
    gaps = [after - before for before, after in pairwise(found)]
    assert not gaps or (max(gaps) - min(gaps) <= 1 and min(gaps) >= 1)
    assert not found or count - found[-1] <= max(gaps, default=count) + 1


@given(st.integers(0, 1000), st.integers(1, 300), st.sets(st.integers(0, 1000), max_size=5))
def test_a_sample_has_all_that_it_must_have(count: int, most: int, always: set[int]) -> None:
    sockets = {fd: fd for fd in range(count)}
    found = sample(sockets, most, always)

    assert len(found) == len(set(found)) <= most + len(always)
    assert set(sockets).issuperset(found)
    assert set(found) >= always & set(sockets)
    assert len(found) >= min(count, most)


def test_without_a_limit_all_are_taken() -> None:
    assert sample({3: 1, 5: 2}, None, ()) == [3, 5]
