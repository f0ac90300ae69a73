"""Suspensions, resumes and waits of every NAPI instance: loads suspension.bpf.o, reads its counters from memory."""

import ctypes
import mmap
import struct
import time
from collections.abc import Collection
from typing import Any, Self

from napctl.model.suspension_counts import WAIT_BUCKETS, SuspensionCounts
from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import LoadedProgram, ProbeUnavailable, kernel_btf, loaded, net_rx_softirq

__all__ = ["SuspensionProbe"]


CPUS = 8192
SLOTS = 1024
FIELD = b"\0irq_suspend_timeout\0"
"""Of struct napi_struct since commit 5dc51ec86df6 (Linux 6.13), as BTF has names."""
ATTEMPTS = 10_000
"""To find a slot's state and its counts as they belong together, some 30 ms: an event that changes them takes 0.1 µs,
unless its CPU is taken from this machine meanwhile."""

_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class _Slot(ctypes.Structure):
    """struct slot of suspension.bpf.c: one NAPI instance."""

    _fields_ = (
        ("napi", _u64),
        ("net", _u64),
        ("napi_id", _u32),
        ("netns", _u32),
        ("suspended_since", _u64),
        ("armed_until", _u64),
        ("polled_at", _u64),
        ("_state", _u64 * 2),
        ("_armed_by", _u64),
        ("arms", _u64),
        ("suspensions", _u64),
        ("resumes", _u64),
        ("timeouts", _u64),
        ("without_cpu", _u64),
        ("suspended_ns", _u64),
        ("waits", _u64 * WAIT_BUCKETS),
        ("_padding", _u64 * 14),
    )


class _Counters(ctypes.Structure):
    """struct counters, the program's one global variable."""

    _fields_ = (
        ("_cpus", ctypes.c_char * 64 * CPUS),
        ("slots", _Slot * SLOTS),
        ("published", _u32 * SLOTS),
        ("publications", _u32),
        ("watchdog", _u64),
        ("lost_polls", _u64),
        ("_padding", ctypes.c_char * 104),
    )


class SuspensionProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Its counts are its own: any number may run at once."""

    VIEWS = ("_counters", "_found")

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(program, memory)
        self._counters = _Counters.from_buffer(memory)
        self._asked: tuple[list[int], Collection[tuple[int, int]]] = [], ()
        self._found: list[Any] = []
        """Slots of what was asked for last."""

    @classmethod
    def load(cls) -> Self:
        """Load and attach; counting begins with this call, from zero. Raises ProbeUnavailable.

        What is suspended already is seen to be so at its next epoll_wait that returns events.
        """
        image = kernel_btf()
        constants = struct.pack("=I", net_rx_softirq(image))
        if FIELD not in image:
            raise ProbeUnavailable("this kernel has no irq_suspend_timeout (Linux 6.13)")
        return cls(*loaded("suspension", constants, ctypes.sizeof(_Counters)))

    def read(self, only: Collection[tuple[int, int]] = ()) -> tuple[SuspensionCounts, ...]:
        """The counts since load(), from memory, of every instance with an id that was polled since; or `only` of these,
        by network namespace and NAPI id, which is quicker.

        Instances come in the order in which they were first seen; those since removed keep their last counts. No
        count is ever smaller than at an earlier reading.
        """
        found: dict[tuple[int, int], SuspensionCounts] = {}
        for slot in self._slots(only):
            counts = _read(slot)
            # A driver with persistent NAPI configuration gives a new instance the old one's id (see Probe.read()).
            key = (counts.netns, counts.napi_id)
            found[key] = found[key] + counts if key in found else counts
        return tuple(found.values())

    def packets(self, only: Collection[tuple[int, int]]) -> int:
        """All that read() would count by these instances, and quicker."""
        return sum(sum(slot.waits) for slot in self._slots(only))

    def _slots(self, only: Collection[tuple[int, int]]) -> list[Any]:
        """In the order in which they were first seen; those of other instances are left out, if `only` names any."""
        published = memoryview(self._counters.published).cast("B").cast("I").tolist()
        if (published, only) != self._asked:
            used = (self._counters.slots[slot] for _, slot in sorted((o, s) for s, o in enumerate(published) if o))
            self._found = [slot for slot in used if not only or (slot.netns, slot.napi_id) in only]
            self._asked = published, only
        return self._found

    @property
    def lost_polls(self) -> int:
        """Polls of instances that found no free place in the table; 0 means that read() is complete."""
        return int(self._counters.lost_polls)

    @property
    def is_full(self) -> bool:
        """Whether a NAPI instance has found no place: those that have gone keep theirs, so it had better be loaded
        anew."""
        return self.lost_polls > 0

    def holds_unused(self, seconds: float) -> bool:
        """Whether an instance has a place that has not been polled for so long, as it has gone or idles."""
        since = time.monotonic_ns() - int(seconds * 1e9)
        return any(slot.napi and slot.polled_at < since for slot in self._counters.slots)


def _read(slot: Any) -> SuspensionCounts:
    """One instance's counts, with the suspension that is still open."""
    for _ in range(ATTEMPTS):
        now = time.monotonic_ns()  # the clock of bpf_ktime_get_ns(); before the state is read, which then holds for it
        since, closed_ns, suspensions, resumes, timeouts = state = _state(slot)
        # The program counts a transition just after it made it, and the time just before it counts a resume.
        if _state(slot) == state and (since != 0) == (suspensions != resumes):
            break
    # An instance that has been removed is not suspended for ever: it was until its timer would have fired, at most.
    open_ns = max(0, min(now, slot.armed_until) - since) if since else 0
    return SuspensionCounts(
        napi_id=slot.napi_id,
        netns=slot.netns,
        arms=slot.arms,
        suspensions=suspensions,
        resumes=resumes,
        timeouts=timeouts,
        without_cpu=min(slot.without_cpu, timeouts),
        suspended_ns=closed_ns + open_ns,
        waits=tuple(slot.waits),
    )


def _state(slot: Any) -> tuple[int, int, int, int, int]:
    return slot.suspended_since, slot.suspended_ns, slot.suspensions, slot.resumes, slot.timeouts
