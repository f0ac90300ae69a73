"""Whether the very process runs that a record names."""

from typing import Protocol

from napctl.kernel import processes

__all__ = ["HasProcess", "running"]


class HasProcess(Protocol):
    """What names a process so that it is known again."""

    # ruff: noqa: D102
    @property
    def pid(self) -> int: ...

    @property
    def started_ticks(self) -> int: ...


def running(one: HasProcess) -> bool:
    """Whether that process runs, and not another one with its pid."""
    found = processes.process(one.pid)
    return found is not None and found.started_ticks == one.started_ticks
