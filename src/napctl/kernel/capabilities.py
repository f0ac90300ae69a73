"""Capabilities (capabilities(7)): what we hold, and what the lack of one keeps us from."""

from pathlib import Path

__all__ = ["CAPABILITIES", "PROC_USER_INIT_INO", "held", "in_initial_user_namespace", "missing_for_bpf", "why_refused"]


CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_NICE": 23,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Bits, from include/uapi/linux/capability.h."""
PROC_USER_INIT_INO = 0xEFFFFFFD
"""include/linux/proc_ns.h."""


def held() -> frozenset[str]:
    """Those of CAPABILITIES that are effective."""
    status = Path("/proc/self/status").read_text()
    mask = int(status.split("\nCapEff:", 1)[1].split(maxsplit=1)[0], 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)


def in_initial_user_namespace() -> bool:
    """Whether what we hold reaches every process."""
    return Path("/proc/self/ns/user").stat().st_ino == PROC_USER_INIT_INO


def missing_for_bpf(held: frozenset[str]) -> str | None:
    """What is not held of what loading a BPF program needs, as a clause; None if nothing.

    CAP_SYS_ADMIN stands in for both: bpf_capable() and perfmon_capable() in include/linux/capability.h.
    """
    needed = () if "CAP_SYS_ADMIN" in held else ("CAP_BPF", "CAP_PERFMON")
    missing = [name for name in needed if name not in held]
    return _are_missing(missing) if missing else None


def why_refused(held: frozenset[str], *, everywhere: bool) -> str:
    """Why the kernel does not let us look into a process (__ptrace_may_access() in kernel/ptrace.c, and the mode of
    /proc/PID/fd). `everywhere`: in_initial_user_namespace().

    Who holds both capabilities there is refused by a security module alone, such as SELinux or Landlock.
    """
    missing = [] if "CAP_SYS_PTRACE" in held else ["CAP_SYS_PTRACE"]
    if not held & {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}:
        missing.append("CAP_DAC_READ_SEARCH")
    if missing:
        return _are_missing(missing)
    if not everywhere:
        return "CAP_SYS_PTRACE is held in our user namespace only, or a security module refuses"
    return "a security module refuses access"


def _are_missing(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
