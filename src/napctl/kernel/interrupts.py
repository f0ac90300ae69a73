"""Interrupts: how often each was raised, and on which CPUs it may be (Documentation/filesystems/proc.rst)."""

from napctl.kernel.processes import PROC

__all__ = ["affinity", "counts"]


def counts() -> dict[int, dict[int, int]]:
    """Interrupts since boot by number and CPU; architecture lines (LOC, RES, …) are left out.

    Each is an unsigned int, which wraps: napctl.model.counters tells the difference of two, before they are summed.
    """
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
