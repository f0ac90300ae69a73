"""How long data waits for chosen processes: loads latency.bpf.o and reads its histograms from mapped memory."""

import ctypes
import math
import mmap
import time
from collections.abc import Collection
from typing import NamedTuple, Self

from napctl.model.latency import BUCKETS, LatencyHistogram, ProcessLatency
from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import LoadedProgram, ProbeUnavailable, attached, kernel_btf, loaded

__all__ = ["MOST_PORTS", "LatencyProbe", "Losses"]


CPUS = 8192
PIDS = 4 << 20
SOCKETS = 4096
RING = 16
NAPIS = 1024
PROCESSES = 256
FULL_SHARE = 0.75
"""Of the places for processes, from which a new one may find none near its own."""
MOST_PORTS = 4096
"""Local ports: a server has few, and a proxy one for each connection to whom it asks."""
PORTS_SECONDS = 86_400.0
"""It is not known when a port was seen last."""
TRACEPOINTS = ("sk_data_ready", "sock_recv_length", "sock_send_length")
"""Since commits 40e0b0908142 and 6e6eda44b939 (Linux 6.3)."""

LEAST_GAP, MOST_GAP = 2, 65536
"""One request in so many is looked at, of those in a slice of time; the least is for the cost: 1 % of the server's CPU
time is the aim."""
SAMPLES_PER_SECOND = 2_000
"""Are enough for a p99 of each second."""
SHORTEST_SECONDS = 0.1
"""In less than that a rate is not to be seen."""

PERIOD_SECONDS = 0.128
"""Of each period a slice is looked at; half a second has several."""
SLICE_SHARE = 4
"""A slice is one of so many parts of a period."""
LEAD_SECONDS = 0.024
"""Before a slice polls are looked at. Timers that poll are shorter: irq-suspend-timeout is 20 ms at most."""
CLOCK_MONOTONIC_COARSE = 6
"""Of include/uapi/linux/time.h: its resolution is the kernel's tick, a jiffy."""

_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class _Process(ctypes.Structure):
    """struct process of latency.bpf.c."""

    _fields_ = (
        ("tgid", _u32),
        ("_padding", _u32),
        ("until_read", _u64 * BUCKETS),
        ("until_reply", _u64 * BUCKETS),
        ("bound", _u64 * BUCKETS),
    )


class _Slices(ctypes.Structure):
    """struct slices, in jiffies."""

    _fields_ = (("shift", _u32), ("lead", _u32), ("length", _u32))


ALWAYS = _Slices(shift=31, lead=0, length=2**31)
"""One slice without an end."""


class _Latency(ctypes.Structure):
    """struct latency, the program's one global variable."""

    _fields_ = (
        ("_cpus", ctypes.c_char * 64 * CPUS),
        ("wanted", _u64 * (PIDS // 64)),
        ("ports", _u64 * (65536 // 64)),
        ("keys", _u64 * SOCKETS),
        ("sockets", ctypes.c_char * (64 + 16 * RING) * SOCKETS),
        ("_napis", ctypes.c_char * 64 * NAPIS),
        ("processes", _Process * PROCESSES),
        ("lost_samples", _u64),
        ("unread_samples", _u64),
        ("datagrams", _u64),
        ("unseen_datagrams", _u64),
        ("_padding", ctypes.c_char * 32),
        ("slices", _Slices),
        ("gap", _u32),
        ("_padding_of_gap", ctypes.c_char * 48),
        ("pending", _u32),
        ("_padding_of_pending", ctypes.c_char * 60),
    )


class Losses(NamedTuple):
    """What the histograms do not hold, since load()."""

    lost_samples: int
    """For want of room in the program's tables."""
    unread_samples: int
    """Read by other means than recv: splice, or the kernel itself."""
    datagrams: int
    """UDP datagrams that the processes read, all and not only the samples;"""
    unseen_datagrams: int
    """of these such as came without a wake-up, so that nobody knows when."""


class LatencyProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Counting begins with load(), from zero.

    It looks at slices of time, a quarter of it, and there at some of the requests, chosen at random: at most one in
    `least_gap`, and so many fewer that some two thousand a second have come at each reading. A connection is seen as
    soon as one to the same local port was read from in a slice. It can pause: what is attached to a tracepoint costs
    each of its events, also where it leaves at once.
    """

    VIEWS = ("_latency",)

    def __init__(self, program: BpfObject, memory: mmap.mmap, least_gap: int = LEAST_GAP) -> None:
        super().__init__(program, memory)
        self._latency = _Latency.from_buffer(memory)
        self._least_gap = self._latency.gap = least_gap
        self._loaded_at = self._read_at = time.monotonic()
        self._samples = 0
        self._paused = False

    @classmethod
    def load(cls, pids: Collection[int], *, least_gap: int = LEAST_GAP, always: bool = False) -> Self:
        """For these processes, by their pids in the initial PID namespace; `always`: all the time, without slices.

        Raises ProbeUnavailable.
        """

        def prepare(memory: mmap.mmap) -> None:
            latency = _Latency.from_buffer(memory)
            latency.gap = least_gap
            latency.slices = ALWAYS if always else slices(time.clock_getres(CLOCK_MONOTONIC_COARSE))
            for pid in pids:
                latency.wanted[pid // 64] |= 1 << pid % 64

        image = kernel_btf()
        missing = [name for name in TRACEPOINTS if f"\0btf_trace_{name}\0".encode() not in image]
        if missing:
            raise ProbeUnavailable(f"this kernel has no tracepoint {missing[0]} (Linux 6.3)")
        return cls(*loaded("latency", b"", ctypes.sizeof(_Latency), prepare=prepare), least_gap)

    def add(self, pid: int) -> None:
        """Count that process's requests as well from now on; one that is counted already goes on."""
        self._latency.wanted[pid // 64] |= 1 << pid % 64

    def read(self) -> tuple[ProcessLatency, ...]:
        """The samples since load(), from memory, by process; those that have ended keep theirs.

        How many requests are looked at from now on follows from how many there were since the last reading.
        """
        found = tuple(
            ProcessLatency(
                pid=each.tgid,
                until_read=LatencyHistogram(counts=tuple(each.until_read)),
                until_reply=LatencyHistogram(counts=tuple(each.until_reply)),
                waited_for_poll_bound=LatencyHistogram(counts=tuple(each.bound)),
            )
            for each in self._latency.processes
            if each.tgid
        )
        now, samples = time.monotonic(), sum(each.until_read.samples for each in found)
        if now - self._read_at >= SHORTEST_SECONDS and not self._paused:
            found_gap = next_gap(self._latency.gap, samples - self._samples, now - self._read_at)
            self._latency.gap = max(self._least_gap, found_gap)
            self._read_at, self._samples = now, samples
        return found

    def pause(self) -> None:
        """Count nothing until resume(), and cost nothing; best after read(). May be called again."""
        if not self._paused:
            self._program.detach()
            self._paused = True

    def resume(self) -> None:
        """Go on. Who has read what meanwhile is not known: what was chosen before and not read is given up. May be
        called again. Raises ProbeUnavailable; it is paused still, then."""
        if not self._paused:
            return
        self._give_up_chosen()
        attached(self._program)
        self._paused, self._read_at = False, time.monotonic()

    def _give_up_chosen(self) -> None:
        """Apart from resume(), whose frame what it raises keeps: close() fails while a view of the memory is in one."""
        keys, sockets = self._latency.keys, self._latency.sockets
        used = (place for place, key in enumerate(memoryview(bytes(keys)).cast("Q").tolist()) if key)  # 0.1 ms
        for place in used:
            sockets[place].raw = bytes(ctypes.sizeof(sockets[place]))
            keys[place] = 0
        self._latency.pending = 0

    def drop(self, pid: int) -> None:
        """Count that process's requests no more: when it has ended its pid may be another's."""
        self._latency.wanted[pid // 64] &= ~(1 << pid % 64)

    @property
    def is_full(self) -> bool:
        """Whether so many processes or local ports have been seen that it had better be loaded anew: it forgets none,
        and looks at every socket that has such a port."""
        return self.is_full_of_processes or self._is_full_of_ports

    @property
    def is_full_of_processes(self) -> bool:
        """Whether so many have been seen that not all that are added may find a place."""
        seen = sum(1 for each in self._latency.processes if each.tgid)
        return seen >= FULL_SHARE * PROCESSES

    @property
    def _is_full_of_ports(self) -> bool:
        return int.from_bytes(bytes(self._latency.ports), "little").bit_count() >= MOST_PORTS

    @property
    def holds_unused(self) -> bool:
        """Whether some of what fills it has gone: a process that was dropped, or ports that took long to come
        together; those that come soon are in use."""
        wanted, seen = self._latency.wanted, (each.tgid for each in self._latency.processes)
        dropped = any(pid and not wanted[pid // 64] >> pid % 64 & 1 for pid in seen)
        return dropped or (self._is_full_of_ports and time.monotonic() - self._loaded_at >= PORTS_SECONDS)

    @property
    def gap(self) -> int:
        """One request in so many of those in a slice is looked at now, on average."""
        return int(self._latency.gap)

    @property
    def has_pending(self) -> bool:
        """Whether some that were chosen are not read, or not answered, yet; or were read by other means than recv."""
        return bool(self._latency.pending)

    @property
    def losses(self) -> Losses:
        """What read() does not hold."""
        return Losses(*(int(getattr(self._latency, name)) for name in Losses._fields))


def slices(jiffy_seconds: float) -> _Slices:
    """Where a jiffy is that long. A period is a power of two of them."""
    shift = max(3, round(math.log2(PERIOD_SECONDS / jiffy_seconds)))
    return _Slices(shift, math.ceil(LEAD_SECONDS / jiffy_seconds - 1e-6), 2**shift // SLICE_SHARE)


def next_gap(gap: int, samples: int, seconds: float) -> int:
    """The gap with which so much traffic gives the wanted number of samples."""
    return min(MOST_GAP, max(1, round(gap * samples / seconds / SAMPLES_PER_SECOND)))
