"""Protection runs while packets have the CPU that it was on: on another one, or before all that is ordinary."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from napctl.kernel.own_cpu import away_from, before_others
from napctl.model.cpus import cpus_text

__all__ = ["kept_running"]


@contextmanager
def kept_running(busy: Collection[int] | None) -> Iterator[str]:
    """Meanwhile; yields how, in words. `busy`: CPUs to which packets come; None: nobody knows which."""
    free = away_from(busy) if busy is not None else frozenset()
    if free:
        yield f"runs on CPU {cpus_text(free)}, where none of these packets come"
        return
    where = "any CPU" if busy is None else "each CPU that it may run on"
    with before_others() as allowed:
        if allowed:
            yield f"runs before all ordinary processes (SCHED_RR), as packets come to {where}"
        else:
            yield f"may be kept from running: packets come to {where}, and real-time scheduling needs CAP_SYS_NICE"
