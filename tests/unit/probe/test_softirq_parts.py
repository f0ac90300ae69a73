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
    with SoftirqPartsProbe(NoProgram(), memory, 2) as probe:
        for cpu in range(4):
            probe._parts.cpus[cpu].polled_ns[1] = 10**cpu
            probe._parts.cpus[cpu].on_ns[2] = 2 * 10**cpu
        assert probe.read() == (PartTime(1_111, 0), PartTime(0, 2_222))
