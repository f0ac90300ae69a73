"""Time in NET_RX softirqs by whose it is, in memory as the program writes it; without a kernel."""

import ctypes
import mmap

import pytest

from napctl.probe import softirq_parts
from napctl.probe.libbpf import BpfObject
from napctl.probe.softirq_parts import PartTime, SoftirqPartsProbe


class NoProgram(BpfObject):
    """None that would count."""

    def __init__(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def memory() -> mmap.mmap:
    return mmap.mmap(-1, ctypes.sizeof(softirq_parts._Parts))


def test_what_a_cpu_has_counted_stays_when_it_goes_offline(memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four CPUs that there may be, some are not online: on the machine that runs this, or on another one."""
    monkeypatch.setattr(softirq_parts, "possible_cpus", lambda: tuple(range(4)))
    with SoftirqPartsProbe(NoProgram(), memory) as probe:
        probe.choose([([300], [10]), ([301], [11])])
        for cpu in range(4):
            probe._parts.cpus[cpu].polled_ns[1] = 10**cpu
            probe._parts.cpus[cpu].on_ns[2] = 2 * 10**cpu
        assert probe.read() == (PartTime(1_111, 0), PartTime(0, 2_222))


def test_other_parts_are_chosen_in_the_memory_of_the_program_that_runs(memory: mmap.mmap) -> None:
    with SoftirqPartsProbe(NoProgram(), memory) as probe:
        for parts in ([([300, 301], [10]), ([302], [11, 12])], [([302, 300], [11])], []):
            probe.choose(parts)
            assert len(probe.read()) == len(parts)
            numbers = {napi_id: probe._parts.of_napi[napi_id] for napi_id in range(300, 304)}
            assert numbers == {
                napi_id: next((place for place, (ids, _) in enumerate(parts, 1) if napi_id in ids), 0)
                for napi_id in numbers
            }
            numbers = {pid: probe._parts.of_pid[pid] for pid in range(10, 14)}
            assert numbers == {
                pid: next((place for place, (_, pids) in enumerate(parts, 1) if pid in pids), 0) for pid in numbers
            }
