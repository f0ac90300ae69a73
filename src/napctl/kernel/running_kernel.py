"""The machine as a whole: which boot, which kernel."""

import os
from functools import cache
from pathlib import Path

__all__ = ["boot_id", "cpus_online", "in_initial_pid_namespace", "kernel_release"]


@cache
def boot_id() -> str:
    """Random name of this boot (proc_sys_kernel(5)): what was set in another boot is gone. No process sees two."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def in_initial_pid_namespace() -> bool:
    """Whether our pids are those that the kernel's tracing sees (PROC_PID_INIT_INO of include/linux/proc_ns.h)."""
    return Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC


def cpus_online() -> str:
    """As a kernel list, for example "0-3"."""
    return Path("/sys/devices/system/cpu/online").read_text().strip()


def kernel_release() -> str:
    """For example "6.18.44"."""
    return os.uname().release
