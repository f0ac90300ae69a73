"""Interrupts: how often each was raised, and on which CPUs it may be (Documentation/filesystems/proc.rst)."""

from pathlib import Path

PROC = Path("/proc")


def counts() -> dict[int, int]:
    """Interrupts by number, all CPUs together, since boot. Architecture lines (LOC, RES, …) are left out."""
    found: dict[int, int] = {}
    header, *lines = (PROC / "interrupts").read_text().splitlines()
    cpus = len(header.split())
    for line in lines:
        label, _, rest = line.partition(":")
        if label.strip().isdigit():
            found[int(label)] = sum(int(word) for word in rest.split()[:cpus] if word.isdigit())
    return found


def totals_per_cpu() -> dict[int, int]:
    """Device interrupts by CPU, since boot: the numbered lines of /proc/interrupts."""
    header, *lines = (PROC / "interrupts").read_text().splitlines()
    cpus = [int(word.removeprefix("CPU")) for word in header.split()]
    sums = dict.fromkeys(cpus, 0)
    for line in lines:
        label, _, rest = line.partition(":")
        if label.strip().isdigit():
            for cpu, word in zip(cpus, rest.split(), strict=False):
                sums[cpu] += int(word) if word.isdigit() else 0
    return sums


def affinity(irq: int) -> str | None:
    """CPUs on which the interrupt is raised now, as a kernel list ("0-3,8"); None if the kernel does not tell."""
    for name in ("effective_affinity_list", "smp_affinity_list"):
        try:
            text = (PROC / "irq" / str(irq) / name).read_text().strip()
        except OSError:
            continue
        if text:  # effective_affinity_list is empty on interrupt chips that do not track it
            return text
    return None
