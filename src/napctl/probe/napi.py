"""The NAPI probe: loads napi.bpf.o and reads its counters from mapped memory."""

import ctypes
import mmap
import struct
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napctl.model.counts import CpuCounts, NapiCounts, PollerCounts, ProbeCounts
from napctl.model.cpus import parse_cpus
from napctl.model.histogram import EMPTY, Histogram
from napctl.probe.layout import SLOTS, Counters
from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import kernel_btf, loaded, net_rx_softirq

__all__ = ["Probe", "ProbeReader", "joined", "possible_cpus"]


NO_DEVICE = "(no_device)"
"""What the kernel itself prints for an instance without a device (include/trace/events/napi.h)."""


class ProbeReader:
    """Reads what a probe counts; once that is closed, nothing more is counted. A context manager."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._counters = Counters.from_buffer(memory)

    def read(self) -> ProbeCounts:
        """The counts since load(), from memory: no system call but for the list of online CPUs.

        Instances come in the order in which they were first seen; those since removed keep their last counts. The
        pids of pollers are those of the initial PID namespace. `interrupts` are calls of device interrupt handlers
        (x86's local timer and inter-processor interrupts have none); softirq time includes interrupts in between.
        """
        pollers = self._read_pollers()
        return ProbeCounts(
            napis=self._read_napis(pollers),
            cpus=tuple(self._read_cpu(cpu) for cpu in online_cpus()),
            lost_polls=self._counters.lost_polls,
            lost_pollers=self._counters.lost_pollers,
        )

    def polls_by_place(self) -> list[int]:
        """Of each place in the tables of NAPI instances and of who polls them, how often it was of use; 0: it is free.

        5 ms; read() takes what is of use together.
        """
        slots = [sum(memoryview(bytes(slot.polls)).cast("Q")) for slot in self._counters.slots]
        return [*slots, *(each.empty + each.fruitful for each in self._counters.pollers)]

    def close(self) -> None:
        """May be called again. read() cannot be called any more."""
        if not self._memory.closed:
            del self._counters
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read_napis(self, pollers: dict[int, list[PollerCounts]]) -> tuple[NapiCounts, ...]:
        used = sorted((order, slot) for slot, order in enumerate(self._counters.published) if order)
        napis: dict[tuple[int, ...], NapiCounts] = {}
        for _, slot in used:
            napi = self._read_napi(slot, pollers.get(slot, []))
            # A driver with persistent NAPI configuration gives a new instance the old one's id after a reset
            # (napi_restore_config() in net/core/dev.c). Seen from outside that is one instance: its counts go on.
            key = (napi.netns, napi.ifindex, napi.napi_id) if napi.napi_id else (slot,)
            napis[key] = joined(napis[key], napi) if key in napis else napi
        return tuple(napis.values())

    def _read_napi(self, slot: int, pollers: list[PollerCounts]) -> NapiCounts:
        found = self._counters.slots[slot]
        softirq, thread, busy_poll, netpoll = (_histogram(polls) for polls in found.polls)
        return NapiCounts(
            napi_id=found.napi_id,
            device=found.name.decode(errors="replace") or NO_DEVICE,
            ifindex=found.ifindex,
            netns=found.netns,
            instance=slot,
            softirq=softirq,
            thread=thread,
            busy_poll=busy_poll,
            netpoll=netpoll,
            pollers=tuple(pollers),
        )

    def _read_pollers(self) -> dict[int, list[PollerCounts]]:
        """By slot of the NAPI instance. A name may be empty for the instant between claim and first sight."""
        found: dict[int, list[PollerCounts]] = defaultdict(list)
        for index, key in enumerate(self._counters.poller_keys):
            if key:
                poller = self._counters.pollers[index]
                found[key >> 1 & (SLOTS - 1)].append(
                    PollerCounts(
                        pid=key >> 32,
                        name=poller.name.decode(errors="replace"),
                        polls=poller.empty + poller.fruitful,
                        empty=poller.empty,
                        packets=poller.packets,
                    )
                )
        return found

    def _read_cpu(self, cpu: int) -> CpuCounts:
        counts = self._counters.cpus[cpu]
        return CpuCounts(
            cpu=cpu,
            interrupts=counts.interrupts,
            interrupt_ns=counts.interrupt_ns,
            net_rx_softirqs=counts.net_rx_softirqs,
            net_rx_softirq_ns=counts.net_rx_softirq_ns,
        )


class Probe(ProbeReader):
    """The loaded and attached probe; a context manager. Its counts are its own: any number may run at once."""

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(memory)
        self._program = program

    @classmethod
    def load(cls) -> Self:
        """Load and attach; counting begins with this call, from zero. Raises ProbeUnavailable."""
        return cls(*loaded("napi", struct.pack("=I", net_rx_softirq(kernel_btf())), ctypes.sizeof(Counters)))

    def reader(self) -> ProbeReader:
        """One more, for another thread: it does not end with this."""
        return ProbeReader(mmap.mmap(*self._program.map_fd(".bss")))

    def prog_fds(self) -> dict[str, int]:
        """File descriptors of the BPF programs by name, to look up their cost; they belong to the probe."""
        return self._program.program_fds()

    def close(self) -> None:
        """Detach and free; may be called again. read() cannot be called any more."""
        self._program.close()
        super().close()


@cache
def possible_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that may ever be online. A sum over them never falls: who goes keeps his counts."""
    return tuple(sorted(parse_cpus(Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii"))))


def online_cpus() -> list[int]:
    """Numbers of the CPUs now online."""
    return sorted(parse_cpus(Path("/sys/devices/system/cpu/online").read_text(encoding="ascii")))


def _histogram(found: Any) -> Histogram:
    """Of most instances three of four are empty, which is told from their bytes."""
    counts = bytes(found.counts)
    if not counts.strip(b"\0"):
        return EMPTY
    return Histogram(counts=tuple(memoryview(counts).cast("Q")), packets_above=found.packets_above)


def joined(first: NapiCounts, second: NapiCounts) -> NapiCounts:
    """One instance found in two slots. Every poll is in one slot only, so the sum counts nothing twice."""
    pollers = {poller.pid: poller for poller in first.pollers}
    for poller in second.pollers:
        earlier = pollers.get(poller.pid)
        if earlier is None:
            pollers[poller.pid] = poller
            continue
        pollers[poller.pid] = PollerCounts(
            pid=poller.pid,
            name=earlier.name,
            polls=earlier.polls + poller.polls,
            empty=earlier.empty + poller.empty,
            packets=earlier.packets + poller.packets,
        )
    return NapiCounts(
        napi_id=first.napi_id,
        device=first.device,
        ifindex=first.ifindex,
        netns=first.netns,
        instance=first.instance,
        softirq=first.softirq + second.softirq,
        thread=first.thread + second.thread,
        busy_poll=first.busy_poll + second.busy_poll,
        netpoll=first.netpoll + second.netpoll,
        pollers=tuple(pollers.values()),
    )
