"""NAPI threads: how they are scheduled, what a new one begins with, and the switch that is for a whole device."""

import os

from napctl.kernel.processes import PROC, look
from napctl.kernel.small_files import read_small
from napctl.kernel.sysfs import DeviceAttributes
from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.settings import DISABLED, THREADED

__all__ = ["THREAD_NAME", "device_threaded", "new_thread", "scheduled", "set_cpus", "set_device_threaded", "set_nice"]


NEW_NICE = 0
"""Of a new kernel thread (kthread() in kernel/kthread.c)."""
KTHREADD = 2
THREAD_NAME = "napi/"
"""How the names of NAPI threads begin: napi_kthread_create() in net/core/dev.c."""


def scheduled(pid: int) -> tuple[int, str] | None:
    """(nice, CPUs as a kernel list) of a NAPI thread; None if it is gone, or that is none, as in a container with pids
    of its own: the kernel tells its pid as the machine has it.

    The CPUs include those that are offline, so that a CPU's going and coming is no change.
    """
    seen = look(pid)
    if seen is None or not seen.is_kernel_thread or not seen.process.name.startswith(THREAD_NAME):
        return None
    try:
        return os.getpriority(os.PRIO_PROCESS, pid), _allowed(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def new_thread() -> tuple[int, str]:
    """(nice, CPUs) that a new one begins with: those of kthreadd, whose child it is."""
    seen = look(KTHREADD)
    if seen is not None and seen.is_kernel_thread:
        return NEW_NICE, _allowed(KTHREADD)
    return NEW_NICE, cpus_text(range(os.cpu_count() or 1))  # pids of our own


def set_nice(pid: int, nice: int) -> None:
    """Raises OSError."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)


def set_cpus(pid: int, cpus: str) -> None:
    """Raises OSError: EINVAL if none of them is online."""
    os.sched_setaffinity(pid, parse_cpus(cpus))


def device_threaded(attributes: DeviceAttributes, device: str) -> str | None:
    """Whether its instances have threads, as sysfs has it for all of them (Linux 5.12, commit 5fdd2f0e5c64); None: it
    does not say so."""
    text = attributes.read(device, "threaded")
    return THREADED[int(text)] if text is not None and text.isdigit() and int(text) < len(THREADED) else None


def set_device_threaded(attributes: DeviceAttributes, device: str, threaded: str) -> None:
    """Of all its instances; sysfs takes on and off. Raises Unsupported, NapctlError."""
    attributes.write(device, "threaded", "0" if threaded == DISABLED else "1")


def _allowed(pid: int) -> str:
    text = read_small(f"{PROC}/{pid}/status").decode(errors="backslashreplace")
    return cpus_text(parse_cpus(text.split("\nCpus_allowed_list:", 1)[1].split("\n", 1)[0]))
