"""See for some time how the threads of chosen processes wait for packets: with the probe, or by samples of /proc."""

import time
from collections.abc import Collection, Iterable

import msgspec

from napctl.kernel import capabilities, processes
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.kernel.waiting import Waiting, current_wait
from napctl.model.waits import Call, ThreadWaits, Waits
from napctl.probe import ProbeUnavailable
from napctl.probe.waits import WaitProbe

__all__ = ["observe_waits"]


SAMPLES = 20
"""Of /proc, where the probe cannot be had."""
SAMPLING_SHARE = 0.1
"""Of the time at most goes into samples: a thread takes some 15 µs."""

Threads = dict[tuple[int, int], Waiting]
"""What each blocked thread, by pid and tid, is blocked in."""


def observe_waits(pids: Collection[int], seconds: float) -> Waits:
    """Watch these processes for that long. One that is gone, or goes meanwhile, is no error. Changes nothing.

    A thread that made no call but is blocked in one has `calls` 0 and `blocked_now`.
    """
    try:
        if not in_initial_pid_namespace():
            raise ProbeUnavailable("napctl is not in the initial PID namespace")
        probe = WaitProbe.load(pids)
    except ProbeUnavailable as error:
        return _sampled(pids, seconds, error.reason)
    with probe:
        began = time.monotonic()
        time.sleep(seconds)
        counted, lost, elapsed = probe.read(), probe.lost, time.monotonic() - began
    lacks: list[str] = []
    if lost:
        lacks.append(f"{lost} calls, for which the probe's table had no place")
    return Waits(threads=_merged(counted, _blocked(pids, lacks)), seconds=elapsed, source="bpf", lacks=tuple(lacks))


def _sampled(pids: Collection[int], seconds: float, reason: str) -> Waits:
    seen: dict[tuple[int, int, Call, int], ThreadWaits] = {}
    began = time.monotonic()
    lacks: list[str] = []
    now: Threads = {}
    while True:
        start = time.monotonic()
        now = _blocked(pids, lacks := [])
        for (pid, tid), wait in now.items():
            seen.setdefault((pid, tid, wait.call, wait.fd), _uncounted(pid, tid, wait, blocked_now=False))
        end = time.monotonic()
        left = began + seconds - end
        if left <= 0:
            break
        time.sleep(min(left, max(seconds / SAMPLES, (end - start) / SAMPLING_SHARE)))
    lacks.append(f"how often threads call, and how often a call returns without waiting: {reason}")
    return Waits(
        threads=_merged(seen.values(), now), seconds=time.monotonic() - began, source="proc", lacks=tuple(lacks)
    )


def _blocked(pids: Collection[int], lacks: list[str]) -> Threads:
    found: Threads = {}
    refused: list[int] = []
    for pid in sorted(set(pids)):
        try:
            for tid in processes.threads(pid):
                wait = current_wait(pid, tid)
                if wait is not None:
                    found[pid, tid] = wait
        except PermissionError:
            refused.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone
    if refused:
        why = capabilities.why_refused(capabilities.held(), everywhere=capabilities.in_initial_user_namespace())
        lacks.append(f"what threads of {_some(refused)} are blocked in: {why}")
    return found


def _merged(counted: Iterable[ThreadWaits], blocked: Threads) -> tuple[ThreadWaits, ...]:
    """Both together, by process and thread."""
    found = {(entry.pid, entry.tid, entry.call, entry.fd): entry for entry in counted}
    for (pid, tid), wait in blocked.items():
        key = (pid, tid, wait.call, wait.fd)
        found[key] = (
            msgspec.structs.replace(found[key], blocked_now=True, timeout_ms=wait.timeout_ms)
            if key in found
            else _uncounted(pid, tid, wait, blocked_now=True)
        )
    return tuple(found[key] for key in sorted(found))


def _uncounted(pid: int, tid: int, wait: Waiting, *, blocked_now: bool) -> ThreadWaits:
    return ThreadWaits(
        pid=pid,
        tid=tid,
        call=wait.call,
        fd=wait.fd,
        calls=0,
        nonblocking=0,
        fruitful=0,
        blocked_now=blocked_now,
        timeout_ms=wait.timeout_ms if blocked_now else None,
    )


def _some(pids: list[int]) -> str:
    shown = ", ".join(str(pid) for pid in pids[:3])
    return f"process {shown}" if len(pids) == 1 else f"processes {shown}{', …' if len(pids) > 3 else ''}"
