"""Capabilities (capabilities(7)): what we hold, and so why a process cannot be looked into."""

from pathlib import Path

CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19}
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


def why_refused(held: frozenset[str], *, everywhere: bool) -> str:
    """Why the kernel does not let us look into a process (__ptrace_may_access() in kernel/ptrace.c, and the mode of
    /proc/PID/fd). `everywhere`: in_initial_user_namespace().

    Who holds both capabilities there is refused by a security module alone, such as SELinux or Landlock.
    """
    missing = [] if "CAP_SYS_PTRACE" in held else ["CAP_SYS_PTRACE"]
    if not held & {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}:
        missing.append("CAP_DAC_READ_SEARCH")
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if not everywhere:
        return "CAP_SYS_PTRACE is held in our user namespace only, or a security module refuses"
    return "a security module refuses, though CAP_SYS_PTRACE is held"
