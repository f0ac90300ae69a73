"""Whom a followed target's name means: from one look to the next, and when an attachment is taken over."""

import os
from contextlib import suppress

from napctl.attach.attachment import processes_of
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.target import Target, resolve
from napctl.change.same_process import running
from napctl.kernel import process_tree, processes
from napctl.kernel.epoll_instances import SAMPLE
from napctl.kernel.processes import Process
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError, NotRunning

__all__ = ["Members"]


class Members:
    """The processes of one target."""

    def __init__(self, target: Target):
        self._target = target
        self.known: tuple[Process, ...] = ()
        """By the last look."""
        self.why = ""
        """The name could not be followed by the last look, though something of it may run."""

    @property
    def pids(self) -> frozenset[int]:
        """Of those that are known."""
        return frozenset(each.pid for each in self.known)

    def find(self) -> tuple[Process, ...]:
        """Whom the name means now; and those who belonged to it and still run, as workers of a dead master."""
        found: dict[int, Process] = {each.pid: each for each in self.known if running(each)}
        for each in process_tree.descendants(tuple(found)):
            found.setdefault(each.pid, each)
        self.why = ""
        try:
            found = {each.pid: each for each in resolve(self._target)} | found
        except NotRunning:
            pass
        except NapctlError as error:
            self.why = str(error)
        self.known = tuple(each for each in found.values() if each.pid != os.getpid())
        return self.known

    def examined(self, watch_seconds: float) -> Examination:
        """A look at them."""
        return examine(self._target.text, self.known, watch_seconds, SAMPLE).without_former_napis()

    def claims(self, attachment: Transaction) -> bool:
        """Whether that is of this target: one of its processes is among those that the name means now."""
        with suppress(NapctlError):
            meant = {(each.pid, each.started_ticks) for each in resolve(self._target)}
            return bool(meant & set(processes_of(attachment)))
        return False

    def adopt(self, attachment: Transaction) -> None:
        """Those of its processes that still run belong to it."""
        recorded = set(processes_of(attachment))
        found = (processes.process(pid) for pid, _ in sorted(recorded))
        self.known = tuple(each for each in found if each is not None and (each.pid, each.started_ticks) in recorded)
