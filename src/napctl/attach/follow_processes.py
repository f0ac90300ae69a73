"""The processes of a followed target: cheap checks of them and deep looks at them, and when which of them is due."""

import time
from contextlib import nullcontext, suppress

from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_check import Pulse
from napctl.attach.follow_members import Members
from napctl.attach.follow_memory import Known
from napctl.attach.follow_pace import PULSE_SECONDS, Pace
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.target import Target
from napctl.kernel import processes
from napctl.kernel.priority import in_background
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError

__all__ = ["FollowedProcesses"]


WAITING_SHARE = 0.01
"""Of one CPU that looking for a target takes of which no process runs."""


class FollowedProcesses:
    """Of one target. A look is from look() to looked(): what it leads to is between the two."""

    def __init__(self, target: Target, options: AttachOptions, known: Known):
        self._target, self._options, self._known = target, options, known
        self.members, self.pace = Members(target), Pace(known.pauses)
        self._pulse = Pulse(())
        self._look_seconds = 0.0
        """Of CPU time, of the last look."""
        self.devices: frozenset[tuple[int, int]] = frozenset()
        """That feed them, by the last look: network namespace and interface index."""

    @property
    def running(self) -> frozenset[int]:
        """Pids, by the last check."""
        return self._pulse.members

    def check(self) -> bool:
        """Cheaply; a difference makes a look due. Whether a process has come, or all that there were have gone."""
        began = time.process_time()
        try:
            with in_background():
                difference = self._pulse.take()
        finally:
            self.pace.pulsed(time.monotonic(), time.process_time() - began - self._pulse.listing_seconds)
        gone = bool(difference.ended) and self._pulse.all_gone
        if difference.connected or gone or (difference.born and self._options.steer):
            self.pace.want(time.monotonic())
        elif difference.changed:
            self.pace.want(time.monotonic(), churn=True)
        return bool(difference.born) or gone

    def is_put_off(self) -> bool:
        """Something went wrong, it is not time to try again, and no process that may mend it has come or gone since."""
        now = time.monotonic()
        if self.pace.is_put_off(now) and self.pace.is_pulse_due(now):
            with suppress(NapctlError, OSError):
                if self.check():
                    self.pace.go_on(now)
        return self.pace.is_put_off(now)

    def try_anew(self) -> None:
        """What went wrong or was refused: something has happened that may have mended it, or somebody asks for it."""
        if self._known.try_anew() or self.pace.in_trouble:
            self.pace.go_on(time.monotonic())

    def look(self, attached: Transaction | None) -> JudgedTarget | None:
        """Deeply; None: no process of the target runs. At ease, where somebody is attached and nobody new waits."""
        began = time.process_time()
        nobody_waits = attached is not None and not self.pace.urgent
        with in_background() if nobody_waits else nullcontext():
            pids = processes.pids()  # before the look: what comes meanwhile is a difference
            members = self.members.find()
            by_name = self._target.kind == "name"
            self._pulse = Pulse(members, self._known.settled, pids=pids, by_name=by_name)
            now = self.examined(attached) if members else None
        napis = now.found.napis.values() if now is not None else ()
        self.devices = frozenset((each.netns, each.device.ifindex) for each in napis)
        self._look_seconds = time.process_time() - began
        return now

    def examined(self, attached: Transaction | None) -> JudgedTarget:
        """Those that are known by now."""
        return self._known.examined(self.members.examined, attached)

    def looked(self) -> None:
        """What a look has led to is done."""
        moment = time.monotonic()
        self.pace.looked(moment, self._look_seconds)
        if not self.members.known:
            self.pace.again_at(moment + max(PULSE_SECONDS, self._look_seconds / WAITING_SHARE))
        self.pace.again_at(self._known.next_try())

    def settle(self, now: JudgedTarget) -> None:
        """What is attached by now is not looked for any more."""
        self._known.settle(now)
        self._pulse.settled = self._known.settled

    def unsettle(self) -> None:
        """Nothing is attached any more."""
        self._known.settled = self._pulse.settled = frozenset()
