"""Treatments: the ways of taking packets that an experiment compares."""

from collections.abc import Iterator
from contextlib import contextmanager

from napctl.attach.attach import attach_process, detach
from napctl.attach.examine import examine
from napctl.change.journal import Journal
from napctl.kernel.processes import Process
from napctl.model.suspension import Suspension
from napctl.model.value import Value


class Treatment(Value, frozen=True, kw_only=True):
    """One way of taking packets, by name. `settings` None: the kernel's defaults, interrupts."""

    name: str
    settings: Suspension | None


INTERRUPTS = Treatment(name="interrupts", settings=None)
DEFERRAL = Treatment(
    name="deferral",
    settings=Suspension(irq_suspend_timeout_ns=0, busy_poll_budget=0, prefer_busy_poll=False),
)
BUSY_POLLING = Treatment(
    name="busy polling",
    # The published `fullbusy` needs a server whose loop never blocks. From outside that is a busy_poll_usecs which does
    # not run out while a cell lasts; not much longer, for a task that spins in epoll_wait cannot be killed until then.
    settings=Suspension(gro_flush_timeout_ns=5_000_000, irq_suspend_timeout_ns=0, busy_poll_usecs=10_000_000),
)
SUSPENSION = Treatment(name="suspension", settings=Suspension())


@contextmanager
def applied(treatment: Treatment, process: Process, journal: Journal) -> Iterator[None]:
    """The process runs under the treatment; afterwards every former value is back. Raises what attach() raises."""
    if treatment.settings is None:
        yield
        return
    attach_process(journal, examine(process.name, [process]), treatment.settings)
    try:
        yield
    finally:
        detach(journal, [each for each in journal.live() if each.pid == process.pid])
