"""Who floods a CPU: only who gives it much of its work, where that is taken."""

import pytest
from msgspec.structs import replace

from napctl.model.machine import Napi
from napctl.model.overload import OverloadedCpu
from napctl.model.settings import NapiSettings
from napctl.protect.blame import CpusOfGroups, to_blame
from napctl.protect.groups import Protected
from napctl.protect.ladder import Ladder

FLOODED = OverloadedCpu(
    cpu=1, level="overloaded", packet_share=0.97, waited_share=0.9, late_drops_per_second=5000.0,
    ring_drops_per_second=None, packets_per_second=100_000.0,
)  # fmt: skip


def group(cpus: frozenset[int] | None, thread: int | None = None, *, up: bool = False) -> Protected:
    napi = Napi(napi_id=5, ifindex=2, irq=None, cpus=None, settings=NapiSettings(), thread_pid=thread)
    ladder = Ladder(made=("threads",)) if up else Ladder()
    return Protected(device="eth0", ifindex=2, napis=(napi,), cpus=cpus, ladder=ladder)


def of_one(cpus: CpusOfGroups, found: Protected) -> set[int] | None:
    (answer,) = cpus.read([found])
    return None if answer is None else set(answer)


@pytest.mark.parametrize("cpus", [None, frozenset({0, 1})])
def test_a_cpu_that_other_packets_flood_is_nothing_of_a_device_that_is_offered_few(cpus: frozenset[int] | None) -> None:
    assert to_blame([FLOODED], cpus, 19_000.0, 0.0) is None
    assert to_blame([FLOODED], cpus, 20_000.0, 0.0) == FLOODED
    assert to_blame([replace(FLOODED, packets_per_second=None)], cpus, 1.0, 0.0) is not None


def test_a_cpu_that_takes_none_of_its_packets_is_nothing_of_a_device() -> None:
    assert to_blame([FLOODED], frozenset({0}), 100_000.0, 0.0) is None
    first = replace(FLOODED, cpu=0, packets_per_second=1e9)
    assert to_blame([first, FLOODED], frozenset({0, 1}), 100_000.0, 0.0) == FLOODED


def test_a_crowded_cpu_is_harmed_when_the_ring_drops() -> None:
    crowded = replace(FLOODED, level="crowded")
    assert to_blame([crowded], None, 100_000.0, 99.0) is None
    assert to_blame([crowded], None, 100_000.0, 100.0) == crowded


def test_a_softirq_takes_packets_where_its_interrupts_come() -> None:
    assert CpusOfGroups().read([group(frozenset({1})), group(None)]) == [frozenset({1}), None]


def test_a_thread_that_may_run_anywhere_takes_them_where_it_ran_of_late_and_not_on_all_cpus() -> None:
    ran = {77: (1, 100)}
    cpus, anywhere = CpusOfGroups(ran.get), frozenset(range(8))
    assert of_one(cpus, group(frozenset({3}))) == {3}
    assert of_one(cpus, group(anywhere, 77, up=True)) == {3}
    ran[77] = (1, 200)
    assert of_one(cpus, group(anywhere, 77, up=True)) == {1, 3}
    ran[77] = (2, 300)
    assert of_one(cpus, group(anywhere, 77, up=True)) == {1, 2, 3}
    assert of_one(cpus, group(anywhere, 77, up=True)) == {1, 2, 3}
    assert of_one(cpus, group(anywhere, 77, up=True)) == {3}


def test_a_thread_that_never_runs_says_nothing_of_where_packets_are_taken() -> None:
    cpus = CpusOfGroups({77: (7, 100)}.get)
    assert [of_one(cpus, group(frozenset({0, 1}), 77)) for _ in range(3)] == [{0, 1}] * 3
    assert CpusOfGroups(lambda _pid: None).read([group(None, 77)]) == [None]
