"""Interrupts: how often each was raised, and on which CPUs it may be (Documentation/filesystems/proc.rst)."""

from pathlib import Path

PROC = Path("/proc")


def counts() -> dict[int, int]:
    """Interrupts by number, all CPUs together, since boot. Architecture lines (LOC, RES, …) are left out."""
    return {irq: sum(by_cpu.values()) for irq, by_cpu in _table().items()}


def totals_per_cpu() -> dict[int, int]:
    """Device interrupts by CPU, since boot: the numbered lines of /proc/interrupts."""
    sums: dict[int, int] = {}
    for by_cpu in _table().values():
        for cpu, count in by_cpu.items():
            sums[cpu] = sums.get(cpu, 0) + count
    return sums


def _table() -> dict[int, dict[int, int]]:
    """Counts by interrupt number and CPU."""
    header, *lines = (PROC / "interrupts").read_text().splitlines()
    cpus = [int(word.removeprefix("CPU")) for word in header.split()]
    found = {}
    for line in lines:
        label, _, rest = line.partition(":")
        if label.strip().isdigit():
            words = zip(cpus, rest.split(), strict=False)
            found[int(label)] = {cpu: int(word) for cpu, word in words if word.isdigit()}
    return found


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
