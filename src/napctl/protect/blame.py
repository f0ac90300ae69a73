"""Which CPUs a device answers for: those that take its packets, and of them those that it gives much of their work."""

from collections.abc import Callable, Iterable, Sequence

from napctl.kernel.processes import last_cpu
from napctl.kernel.schedstat import turns
from napctl.model.overload import LATE_PER_SECOND, OverloadedCpu
from napctl.protect.groups import Protected

__all__ = ["FAIR_SHARE", "Cpus", "CpusOfGroups", "to_blame"]


FAIR_SHARE = 0.2
"""Of a CPU's packets: a device that is offered fewer is not what floods that CPU."""
Cpus = frozenset[int] | None
"""None: nobody knows which."""
Ran = tuple[int, int]
"""The CPU on which a thread ran last, and how long it has run, ns."""
Key = tuple[int, frozenset[int]]


class CpusOfGroups:
    """Where packets are taken, from look to look.

    Threads that are not pinned may run anywhere, which makes no foreign CPU theirs: it counts where they ran of late,
    and, once they were made for a flood, where interrupts came before.
    """

    def __init__(self, ran: Callable[[int], Ran | None] | None = None):
        """`ran`: of the thread with that pid; None: as the kernel tells."""
        self._ran = ran or _ran
        self._before_steps: dict[Key, frozenset[int]] = {}
        self._threads: dict[int, Ran] = {}
        self._late: dict[int, frozenset[int]] = {}
        """By pid: where it ran between the last two looks."""

    def read(self, groups: Sequence[Protected]) -> list[Cpus]:
        """Of each group, now."""
        pids = {pid for group in groups for pid in group.thread_pids}
        before, self._threads = self._threads, {pid: ran for pid in pids if (ran := self._ran(pid)) is not None}
        late = {pid: _between(before.get(pid), now) for pid, now in self._threads.items()}
        former, self._late = self._late, late
        found = [self._of(each, former) for each in groups]
        kept = {each.key: self._before_steps.get(each.key, frozenset()) for each in groups if each.ladder.made}
        fresh = {each.key: cpus for each, cpus in zip(groups, found, strict=True) if not each.ladder.made and cpus}
        self._before_steps = kept | fresh
        return found

    def _of(self, group: Protected, former: dict[int, frozenset[int]]) -> Cpus:
        of_late = [at.get(pid, frozenset()) for at in (former, self._late) for pid in group.thread_pids]
        ran: frozenset[int] = frozenset().union(*of_late)
        if group.ladder.made:
            ran |= self._before_steps.get(group.key, frozenset())
        return ran or group.cpus


def to_blame(
    found: Iterable[OverloadedCpu], cpus: Cpus, offered_per_second: float, dropped_per_second: float
) -> OverloadedCpu | None:
    """The first of these CPUs that such a device floods, if it does."""
    mine = (each for each in found if cpus is None or each.cpu in cpus)
    return next(
        (each for each in mine if _is_fair(each, offered_per_second) and _harms(each, dropped_per_second)), None
    )


def _is_fair(found: OverloadedCpu, offered_per_second: float) -> bool:
    return found.packets_per_second is None or offered_per_second >= FAIR_SHARE * found.packets_per_second


def _harms(found: OverloadedCpu, dropped_per_second: float) -> bool:
    """A CPU that packets take, and none of them for nothing, is only busy."""
    return found.level == "overloaded" or dropped_per_second >= LATE_PER_SECOND


def _between(before: Ran | None, now: Ran) -> frozenset[int]:
    """On which CPUs it ran; also one that is there and polls nothing, as softirqs do so again."""
    return frozenset({before[0], now[0]}) if before is not None and now[1] > before[1] else frozenset()


def _ran(pid: int) -> Ran | None:
    cpu, times = last_cpu(pid, pid), turns(pid)
    return None if cpu is None or times is None else (cpu, times.ran_ns)
