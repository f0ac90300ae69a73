"""Sets of CPUs as the kernel writes them: "0-3,8"."""

from collections.abc import Iterable

__all__ = ["cpus_text", "parse_cpus"]


def parse_cpus(text: str) -> frozenset[int]:
    """A kernel list. Raises ValueError."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cpus_text(cpus: Iterable[int]) -> str:
    """The shortest kernel list of these CPUs."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
