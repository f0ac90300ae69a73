"""What parts of an attachment cost: together all of it, and each by what is its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach import packet_cost
from napctl.attach.packet_cost import CostProbe, CostReading, PartReading, cost_between, costs_of_parts
from napctl.model.suspension_counts import WAIT_BUCKETS, SuspensionCounts
from napctl.probe.softirq_parts import PartTime
from napctl.probe.softirq_time import NetRxTime

NETNS = 7
SECONDS = st.floats(0, 1)


def reading(at: float, ran: dict[int, float], softirqs: float, packets: list[int], polled: list[float]) -> CostReading:
    """Of one process, pid 10 and up, and one NAPI instance, 300 and up, for each part."""
    waits = tuple(
        SuspensionCounts(napi_id=300 + number, netns=NETNS, waits=(count, *(0,) * (WAIT_BUCKETS - 1)))
        for number, count in enumerate(packets)
    )
    parts = tuple(
        PartReading(frozenset({(NETNS, 300 + number)}), frozenset({10 + number}), seconds)
        for number, seconds in enumerate(polled)
    )
    return CostReading(at, ran, softirqs, waits, parts)


@given(
    st.integers(1, 3).flatmap(
        lambda count: st.lists(st.tuples(st.integers(0, 10**5), SECONDS, SECONDS), min_size=count, max_size=count)
    ),
    SECONDS,
)
def test_they_are_all_of_it_and_what_is_nobodys_falls_to_them_by_packets(
    parts: list[tuple[int, float, float]], others: float
) -> None:
    nothing = [0.0 for _ in parts]
    before = reading(1.0, {10 + number: 0.0 for number in range(len(parts))}, 0.0, [0 for _ in parts], nothing)
    ran = {10 + number: seconds for number, (_, seconds, _) in enumerate(parts)}
    polled = [seconds for _, _, seconds in parts]
    after = reading(2.0, ran, sum(polled) + others, [packets for packets, _, _ in parts], polled)

    together, apart = cost_between(before, after), costs_of_parts(before, after)

    assert [each.packets for each in apart] == [packets for packets, _, _ in parts]
    if together.packets:
        assert sum(each.cpu_seconds for each in apart) == pytest.approx(together.cpu_seconds)
        for (packets, own, softirqs), each in zip(parts, apart, strict=True):
            assert each.cpu_seconds == pytest.approx(own + softirqs + others * packets / together.packets)


def test_readings_of_other_parts_tell_nothing() -> None:
    before, after = reading(1.0, {10: 0.0}, 0.0, [0], [0.0]), reading(2.0, {10: 1.0, 11: 0.0}, 1.0, [9, 9], [0.0, 0.0])
    assert costs_of_parts(before, after) == ()


class Parts:
    """As SoftirqPartsProbe: how many were loaded, and what they are asked for."""

    loaded: ClassVar[list["Parts"]] = []

    def __init__(self, parts: Sequence[object]) -> None:
        self.parts, self.closed = parts, False
        self.loaded.append(self)

    def choose(self, parts: Sequence[object]) -> None:
        self.parts = parts

    def read(self) -> tuple[PartTime, ...]:
        return tuple(PartTime(1_000_000_000, 0) for _ in self.parts)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cost_probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[CostProbe]:
    """Of nobody, without a kernel."""

    class Nothing:
        def __getattr__(self, _name: str) -> Callable[..., tuple[()]]:
            return lambda *_arguments: ()

    softirqs = SimpleNamespace(read=lambda: NetRxTime(0, 0))
    monkeypatch.setattr(packet_cost, "in_initial_pid_namespace", lambda: True)
    monkeypatch.setattr(packet_cost, "SoftirqTimeProbe", SimpleNamespace(load=lambda _pids: nullcontext(softirqs)))
    monkeypatch.setattr(packet_cost, "SuspensionProbe", SimpleNamespace(load=Nothing))
    monkeypatch.setattr(packet_cost, "SoftirqPartsProbe", SimpleNamespace(load=Parts))
    monkeypatch.setattr(Parts, "loaded", [])
    with CostProbe(()) as probe:
        yield probe


HALVES = tuple((frozenset({(NETNS, 300 + number)}), frozenset({10 + number})) for number in range(2))


def test_a_probe_is_loaded_once_for_groups_that_come_and_go(cost_probe: CostProbe) -> None:
    for _ in range(3):
        cost_probe.divide(HALVES)
        (parts,) = Parts.loaded
        assert parts.parts == [({300}, {10}), ({301}, {11})]
        assert [(each.napis, each.pids) for each in cost_probe.read(()).parts] == list(HALVES)
        cost_probe.free_unused()
        assert not parts.closed
        cost_probe.divide(())
        assert parts.parts == []
        assert cost_probe.read(()).parts == ()
    cost_probe.free_unused()
    assert parts.closed
    cost_probe.divide(HALVES)
    assert len(Parts.loaded) == 2
    assert len(cost_probe.read(()).parts) == 2
