"""Take a Checkup: the machine, a window, the machine again, and what the processes that matter did meanwhile."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from msgspec.structs import replace

from napctl.kernel import cpu_time, processes
from napctl.kernel.epoll_instances import SAMPLE, ask_sockets, spread
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.open_files import OpenFiles
from napctl.kernel.processes import Process
from napctl.kernel.sockets import incoming_napi_id
from napctl.model.counters import grown
from napctl.model.errors import ChangedMeanwhile
from napctl.model.finding import Checkup, CpuUse, ProcessUse, ThreadUse
from napctl.model.machine import EpollPoller, Machine
from napctl.observe.machine import DISAPPEARED, epoll_pollers, take_machine
from napctl.observe.other_managers import other_managers
from napctl.observe.window import Observer
from napctl.observe.xdp_sockets import xdp_sockets

__all__ = ["take_checkup"]


LEAST_SHARE = 0.01
"""A thread that used less of a CPU is not told: it decides nothing."""
IRQBALANCE = "irqbalance"


def take_checkup(
    netns: NetworkNamespace, names: Collection[str], seconds: float, progress: Callable[[float], None]
) -> Checkup:
    """Look at the named devices (all but loopback by default) for that long. Changes nothing.

    `progress` is called now and then with the seconds that are left. Raises BadInput for a device that is not there,
    ChangedMeanwhile for one that goes meanwhile.
    """
    before = take_machine(netns, names, with_pollers=False)
    watched, pollers, lacks = _watched(before)
    with Observer(netns, names) as observer:
        observer.restart()
        start = _usage(watched)
        _wait(seconds, progress)
        end = _usage(watched)
        window = observer.window()
        if observer.gone:
            raise ChangedMeanwhile(f"{', '.join(observer.gone)}: {DISAPPEARED}")
        names = [device.name for device in observer.devices] if names else ()
    after = take_machine(netns, names, with_pollers=False)
    return Checkup(
        before=before,
        machine=replace(after, pollers=pollers, lacks=(*after.lacks, *lacks)),
        window=window,
        processes=tuple(_process_use(process, napi_ids, start, end) for process, napi_ids in watched),
        cpus=tuple(_cpu_use(start, end)),
        managers=other_managers(netns),
        xdp_sockets=xdp_sockets(netns, after.devices) or (),
    )


Watched = tuple[tuple[Process, tuple[int, ...]], ...]
"""Processes and the NAPI instances that feed their sockets."""


@dataclass(frozen=True)
class _Usage:
    """CPU time at one moment."""

    at: float
    threads: dict[int, dict[int, float]]
    """By process and thread, s; a process that could not be read is missing."""
    last_cpus: dict[int, int | None]
    """By thread."""
    idle: dict[int, float]
    """By CPU, s."""


def _watched(machine: Machine) -> tuple[Watched, tuple[EpollPoller, ...], list[str]]:
    """Processes that matter to packet reception, those that poll, and why some of these are not known: from one pass
    over all processes, of which one with 10,000 descriptors takes 50 ms."""
    napis = {napi.napi_id: napi for device in machine.devices for napi in device.napis}
    of_thread = {napi.thread_pid: napi.napi_id for napi in napis.values() if napi.thread_pid is not None}
    found: list[tuple[Process, tuple[int, ...]]] = []

    def seen(process: Process, files: OpenFiles | None) -> None:
        thread = of_thread.get(process.pid)
        fed_by = (thread,) if thread is not None else _fed_by(process, files, napis.keys())
        if fed_by or process.name == IRQBALANCE:
            found.append((process, fed_by))

    lacks: list[str] = []
    pollers = tuple(epoll_pollers(machine.devices, lacks, seen))
    return tuple(found), pollers, lacks


def _fed_by(process: Process, files: OpenFiles | None, napi_ids: Collection[int]) -> tuple[int, ...]:
    """Which of these NAPI instances feed the process's sockets; none where we may not look, which `lacks` says."""
    if files is None or process.pid == os.getpid():
        return ()
    try:
        fds = spread(sorted(files.sockets), SAMPLE)
        if not fds:
            return ()
        with processes.Handle.of(process) as handle:
            told = dict(ask_sockets(handle, fds, incoming_napi_id))
        return tuple(sorted(set(napi_ids).intersection(told.values())))
    except OSError:
        return ()


def _wait(seconds: float, progress: Callable[[float], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress(left)
        time.sleep(min(left, 0.2))


def _usage(watched: Watched) -> _Usage:
    threads: dict[int, dict[int, float]] = {}
    for process, _ in watched:
        with suppress(OSError):  # gone meanwhile
            threads[process.pid] = cpu_time.run_seconds_by_thread(process.pid)
    return _Usage(
        at=time.monotonic(),
        threads=threads,
        last_cpus={tid: processes.last_cpu(pid, tid) for pid, tids in threads.items() for tid in tids},
        idle=cpu_time.idle_seconds(),
    )


def _process_use(process: Process, napi_ids: tuple[int, ...], start: _Usage, end: _Usage) -> ProcessUse:
    then, now = start.threads.get(process.pid), end.threads.get(process.pid)
    if then is None or now is None:
        return ProcessUse(pid=process.pid, name=process.name, napi_ids=napi_ids)
    elapsed = end.at - start.at
    ran = {tid: grown(then.get(tid, 0.0), seconds) for tid, seconds in now.items()}
    shares = {tid: seconds / elapsed for tid, seconds in ran.items() if seconds is not None}
    busy = sorted((tid for tid in shares if shares[tid] >= LEAST_SHARE), key=lambda tid: -shares[tid])
    return ProcessUse(
        pid=process.pid,
        name=process.name,
        cpu_share=sum(shares.values()),
        threads=tuple(ThreadUse(tid=tid, cpu_share=shares[tid], cpus=_cpus(tid, start, end)) for tid in busy),
        napi_ids=napi_ids,
    )


def _cpus(tid: int, start: _Usage, end: _Usage) -> tuple[int, ...]:
    seen = {usage.last_cpus.get(tid) for usage in (start, end)}
    return tuple(sorted(cpu for cpu in seen if cpu is not None))


def _cpu_use(start: _Usage, end: _Usage) -> Iterator[CpuUse]:
    elapsed = end.at - start.at
    for cpu, idle in sorted(end.idle.items()):
        slept = grown(start.idle.get(cpu), idle)
        if slept is not None:  # else it came meanwhile, or began anew (tick_cancel_sched_timer() in tick-sched.c)
            busy = 1 - slept / elapsed
            yield CpuUse(cpu=cpu, busy_share=min(1.0, max(0.0, busy)))
