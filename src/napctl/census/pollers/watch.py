"""Look for pollers at the beginning and at the end of a window, and tell what they did in between.

One pass over /proc finds them: mappings for the signs, CPU times for what spins. Only of those more is read, and only
they are asked. Nothing is changed.
"""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from napctl.census.pollers import (
    busy_alone,
    dpdk,
    f_stack,
    onload,
    open_vswitch,
    seastar,
    user_driver,
    verbs,
    vpp,
    xdp_socket,
)
from napctl.census.pollers.busiest_file import BusiestFiles
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.namespace_links import Namespaces
from napctl.census.pollers.spinning import busy_processes, cpu_ticks, thread_times
from napctl.census.pollers.suspects import Suspect, mapped_signs, suspect, why_refused_here
from napctl.census.pollers.tally import Moment, PollerTally
from napctl.census.pollers.telemetry import Unanswered, listener
from napctl.census.pollers.thread_counters import ThreadCounters
from napctl.kernel.links import Link
from napctl.kernel.open_files import has_network_socket
from napctl.kernel.packet_rings import waiting_share
from napctl.kernel.processes import PROC, Process, Seen, look_at_all, process
from napctl.model.census import NO_BYPASS, Poller
from napctl.model.errors import NapctlError
from napctl.model.text import printable

__all__ = ["PollerWatch"]


DETECTORS = (
    open_vswitch.detect,
    vpp.detect,
    f_stack.detect,
    seastar.detect,
    dpdk.detect,
    onload.detect,
    xdp_socket.detect,
    verbs.detect,
    user_driver.detect,
    busy_alone.detect,
)
"""The first one that knows a process names it: what stands on another one comes before that."""
MOMENT_SECONDS = 0.1
"""So long a process has to be busy before its threads are looked at."""
WORTH_A_WORD = 0.5
"""Of a CPU, from which what spins and is no bypass is told: on a busy machine many compute with less."""
BEHIND = 0.5
"""Of a ring of copies: so much waits only for a program that gets less than comes."""
AT_ONCE = 8
"""So many programs are asked at the same time: one that hangs holds up no other."""
MOST_ASKED = 64
"""Programs in all: anybody may start some that listen and hang."""
TELEMETRY_SOCKETS, MOST_SOCKETS = "dpdk/*/dpdk_telemetry.v2*", 64
RUN = Path("/run")


@dataclass(frozen=True)
class _Tracked:
    suspect: Suspect
    detected: Detected


class PollerWatch:
    """begin(), wait, end(). Use as a context manager."""

    def __init__(self, state_directory: Path, netns: int | None = None):
        """`netns`: look only at processes in the network namespace with that inode number; None: at all."""
        self.missing: tuple[str, ...] = ()
        """What could not be seen, and why: one line each."""
        self._netns = netns
        self._files = BusiestFiles(state_directory)
        self._namespaces = Namespaces()
        self._counters = ThreadCounters()
        self._tracked: list[_Tracked] = []
        self._before: list[Moment] = []
        self._closed: dict[int, str] = {}
        """Why a process's mappings could not be read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._counters.close()
        self._namespaces.__exit__(*exc)

    def begin(self) -> None:
        """Find them: takes some 0.1 s, most of it waiting."""
        seen = {pid: each for pid, each in look_at_all().items() if _may_poll(each)}
        others = {pid: each.process for pid, each in seen.items()}
        start, used = time.monotonic(), cpu_ticks(others)
        signs = dict(self._signs(others))
        missing, listeners = _telemetry_sockets()
        time.sleep(max(0.0, start + MOMENT_SECONDS - time.monotonic()))
        busy = busy_processes(used, cpu_ticks(others)) | {pid for pid, each in seen.items() if each.state == "R"}
        wanted = {pid for pid, found in signs.items() if found} | busy | listeners & others.keys()
        suspects = [
            self._suspect(others[pid], signs.get(pid, frozenset()), busy=pid in busy)
            for pid in sorted(wanted)
            if self._is_there(pid)
        ]
        suspects = list(_some_may_talk(suspects))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(self._detect, suspects))
        self._tracked = [_Tracked(one, what) for one, what in zip(suspects, found, strict=True) if what is not None]
        self._before = self._moments()
        self._counters.begin(self._untold_threads())
        self.missing = (*missing, *self._untold())

    def end(self) -> tuple[Poller, ...]:
        """What they did since; without those that have ended. Those that take packets come first, then by pid."""
        counted = self._counters.end()
        found = []
        for tracked, before, after in zip(self._tracked, self._before, self._moments(), strict=True):
            ours = tracked.suspect.process
            now = process(ours.pid)
            if now is None or now.started_ticks != ours.started_ticks:
                continue
            its = {tid: counted[tid] for tid in after.threads.keys() & counted.keys()}
            tally = PollerTally(tracked.suspect, tracked.detected, before, after, its)
            if tracked.detected.bypass or any(each.run_share >= WORTH_A_WORD for each in tally.spinning):
                found.append(tally.poller(self._files))
        return tuple(sorted(found, key=lambda each: (each.kind in NO_BYPASS, each.pid)))

    def _untold_threads(self) -> Iterator[int]:
        """That may spin, of programs that take packets and do not tell what of their time is work."""
        for tracked, now in zip(self._tracked, self._before, strict=True):
            detected = tracked.detected
            if detected.bypass and not detected.idle and not now.told.cycles and not now.told.shares:
                yield from (each.tid for each in now.threads.values() if each.ready)

    def _is_there(self, pid: int) -> bool:
        """Whether it is in the network namespace that is looked at, as far as may be known."""
        with suppress(OSError):
            return self._netns in (None, (PROC / str(pid) / "ns" / "net").stat().st_ino)
        return True

    def _signs(self, others: Iterable[int]) -> Iterator[tuple[int, frozenset[str]]]:
        for pid in others:
            try:
                yield pid, mapped_signs(pid)
            except PermissionError:
                self._closed[pid] = f"its mappings cannot be read: {why_refused_here()}"
            except OSError:  # it has ended meanwhile
                continue

    def _suspect(self, ours: Process, mapped: frozenset[str], *, busy: bool) -> Suspect:
        names = tuple(each.name for each in thread_times(ours.pid).values())
        return suspect(ours, mapped, names, spins=busy, there=self._namespaces)

    def _detect(self, one: Suspect) -> Detected | None:
        why = self._closed.get(one.process.pid)
        for detect in DETECTORS:
            found = detect(one)
            if found is not None and why is not None and not found.bypass:
                return replace(found, kind="not known", troubles=() if one.trouble else (why,))
            if found is not None:
                return self._with_sockets(one, found)
        return None

    @staticmethod
    def _with_sockets(one: Suspect, found: Detected) -> Detected:
        """What its sockets say of how its packets are counted, also where the program itself says nothing."""
        if one.packet_sockets:
            found = replace(found, copies=True)
        if found.preloaded and not _has_network_socket(one):
            found = replace(found, preloaded=False)
        if not one.xdp or found.account is not None:
            return found
        return replace(found, account=xdp_socket.rings_of(one), counts_include_port=True)

    def _moments(self) -> list[Moment]:
        """All of them now."""
        self._namespaces.forget()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            readings = list(pool.map(_reading, self._tracked))
        return [self._moment(each.suspect, reading) for each, reading in zip(self._tracked, readings, strict=True)]

    def _moment(self, one: Suspect, reading: Moment) -> Moment:
        """With the devices: network namespaces are not for several threads."""
        pid = one.process.pid
        links: tuple[Link, ...] = ()
        links_at, behind = None, False
        with suppress(OSError, NapctlError):  # gone meanwhile, or not ours to enter
            links, links_at = tuple(self._namespaces.links(pid).values()), self._namespaces.links_at(pid)
            behind = (
                any(
                    (waiting_share(pid, inode, ring) or 0) >= BEHIND
                    for inode, ring in self._namespaces.packet_rings(pid).items()
                    if inode in one.packet_sockets
                )
                if one.packet_sockets
                else False
            )
        return replace(reading, links=links, links_at=links_at, behind=behind)

    def _untold(self) -> Iterator[str]:
        if self._closed:
            who = (
                f"{len(self._closed)} processes bypass"
                if len(self._closed) > 1
                else f"process {min(self._closed)} bypasses"
            )
            yield f"whether {who} the kernel: {why_refused_here()}"
        if self._namespaces.silent:
            yield "which sockets are of AF_XDP: this kernel does not tell (no xdp_diag)"


def _reading(tracked: _Tracked) -> Moment:
    """Its account, and its threads directly after: however long others keep us, their times are of one moment."""
    losses = xdp_socket.losses_of(tracked.suspect) if tracked.suspect.xdp else None
    account, pid = tracked.detected.account, tracked.suspect.process.pid
    told = account.read() if account is not None else Statement()
    at, threads = time.monotonic(), thread_times(pid)
    asked = None if tracked.detected.bypass else busy_alone.calls(pid)
    return Moment(at=at, threads=threads, told=told, losses=losses, calls=asked)


def _may_poll(seen: Seen) -> bool:
    return not seen.is_kernel_thread and not seen.ended and seen.process.pid != os.getpid()


def _has_network_socket(one: Suspect) -> bool:
    """A shell that starts a server has its libraries, and no packet."""
    try:
        return has_network_socket(one.process.pid)
    except OSError:
        return False


def _some_may_talk(suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """The same, of which so many are asked."""
    talking = 0
    for one in suspects:
        talking += bool(one.listens)
        if one.listens and talking > MOST_ASKED:
            yield replace(one, listens=(), trouble=one.trouble or f"not asked: {MOST_ASKED} others listen as well")
        else:
            yield one


def _telemetry_sockets() -> tuple[list[str], set[int]]:
    """Lines about sockets of DPDK at the usual place behind which there is nobody, and the processes behind others."""
    paths = sorted(RUN.glob(TELEMETRY_SOCKETS))[:MOST_SOCKETS]
    missing: list[str] = []
    listeners: set[int] = set()

    def ask(path: Path) -> tuple[Path, int | None, str]:
        try:
            return path, listener(str(path)), ""
        except Unanswered as why:
            return path, None, str(why)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for path, pid, why in pool.map(ask, paths):
            if pid is None:
                missing.append(f"{printable(str(path))}: {why}")
            else:
                listeners.add(pid)
    return missing, listeners
