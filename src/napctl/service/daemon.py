"""The service: one process that keeps a policy true, and no thread that changes anything.

Level-triggered: what is wanted against what is, at events and from time to time. It stands on the followers of targets
(target_keeper.py), on one transaction for the devices (device_keeper.py), and on the journal, by which another process
of the service goes on where this one ends.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_many import take_turns, wait_for_any
from napctl.change.guard import watched
from napctl.change.guard_lock import is_on_watch, service_guard
from napctl.change.guard_wait import now_boot_ns
from napctl.change.journal import Journal
from napctl.change.recovery import recover, restored_each
from napctl.change.transaction import undisturbed
from napctl.kernel import running_kernel
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.priority import in_short_slices
from napctl.kernel.service_manager import notify, watchdog_seconds
from napctl.model.change import Guard, Transaction
from napctl.model.errors import NapctlError
from napctl.model.policy import AttachEntry, ServiceEntry
from napctl.model.snapshot import PolicyState
from napctl.model.units import long_duration_text
from napctl.service.control import Answer, ControlServer, Request
from napctl.service.decisions import Decisions, ServiceDecision
from napctl.service.device_keeper import DEVICES, UNTIL, DeviceKeeper
from napctl.service.exposure import Exposure
from napctl.service.retries import Objections
from napctl.service.service_lock import the_only_one
from napctl.service.service_memory import keep_memory, kept_memory
from napctl.service.snapshots import WatchedTarget
from napctl.service.target_keeper import TargetKeeper
from napctl.service.watched_policy import WatchedPolicy

__all__ = ["Service", "ServiceEnd", "Wake"]


BY_HAND = f"detached by hand: left so {UNTIL}"


class Wake:
    """What ends a wait from outside: signals set these, and write to the pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stop = self.reload = self.renew = False

    def fileno(self) -> int:
        """Can be read once something was asked for."""
        return self._read

    def up(self) -> None:
        """From a signal's handler."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def clear(self) -> None:
        """What was written has been noticed."""
        with suppress(BlockingIOError):
            os.read(self._read, 1000)


@dataclass(frozen=True)
class ServiceEnd:
    """Why the service ended: it is to execute itself anew, or not; and whether all could be put back."""

    renew: bool = False
    left: bool = False


class Service:
    """`write` receives each decision once. Raises BadInput for a policy or a state that cannot be used, and
    ChangedMeanwhile if another service runs on this state directory."""

    def __init__(self, path: Path, directory: Path, netns: NetworkNamespace, write: Callable[[ServiceDecision], None]):
        self._directory, self._netns = directory, netns
        self._decisions = Decisions(write)
        self._policy = WatchedPolicy(path)
        self._state = kept_memory(directory)
        self._objections = Objections()
        self._targets: list[TargetKeeper] = []
        self._devices: DeviceKeeper
        self._exposure: Exposure
        self._guard: Guard

    def run(self, wake: Wake) -> ServiceEnd:
        """Until `wake` asks for the end. Raises what cannot be undone."""
        with ExitStack() as open_, in_short_slices():
            open_.enter_context(the_only_one(self._directory))
            control = open_.enter_context(ControlServer(self._directory))
            wait_ns = self._policy.now.service.guard_wait_ns
            on_watch = is_on_watch(self._directory)
            self._guard = (
                service_guard(wait_ns) if on_watch else open_.enter_context(watched(None, self._directory, wait_ns))
            )
            self._devices = DeviceKeeper(
                self._netns, self._guard, self._directory, self._objections, self._tell, self._held
            )
            self._expose()
            open_.callback(self._close_exposure)
            self._begin()
            notify("READY=1", f"STATUS={self._status()}")
            while not (wake.stop or wake.renew):
                self._turn()
                awake = self._wait(wake, control)
                if control.fileno() in awake:
                    control.answer(self._answer)
                wake.clear()
                if wake.reload:
                    wake.reload = False
                    self._reload()
            notify("STOPPING=1" if wake.stop else f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            return self._end(renew=wake.renew and not wake.stop)

    # The loop.

    def _begin(self) -> None:
        """Take over what an earlier process has left, and put back what nobody wants any more."""
        with undisturbed(), Journal(self._directory) as journal:
            self._put_back_what_nobody_wants(journal)
            live = journal.live()
        before = self._state
        if self._state.policy != self._policy.digest:
            self._state = replace(self._state, policy=self._policy.digest, detached=(), left=())
        if not self._paused_ns():
            self._state = replace(self._state, paused_until_boot_ns=0)  # it has ended meanwhile
        if self._state != before:
            self._keep()
        self._objections.leave(frozenset(self._state.left))
        if self._paused_ns():
            self._tell("", f"paused for {long_duration_text(self._paused_ns())} more")
        else:
            self._take_up(live)

    def _put_back_what_nobody_wants(self, journal: Journal) -> None:
        """What is orphaned, and what the policy named once. What cannot be put back is tried again whenever something
        is attached."""
        wanted = {"", DEVICES, *(entry.target for entry in self._policy.now.attach)}
        try:
            for orphan, _ in recover(journal):
                self._tell("", f"put back what was left of {orphan.title}")
            unwanted = [each for each in journal.live() if each.keeper and each.keeper.entry not in wanted]
            for each, _ in restored_each(journal, unwanted):
                assert each.keeper is not None
                self._tell(each.keeper.entry, f"put back {each.title}: the policy no longer names it")
        except NapctlError as error:
            self._tell("", f"not all that was left could be put back: {error}")

    def _take_up(self, live: Sequence[Transaction]) -> None:
        for entry in self._policy.now.attach:
            self._follow(entry)
        self._devices.adopt(live)
        self._devices.keep(self._policy.now.devices)
        self._devices.rolled_back = DEVICES in self._state.detached

    def _follow(self, entry: AttachEntry) -> None:
        keeper = TargetKeeper(entry, self._guard, self._directory, lambda line: self._tell(entry.target, line))
        self._targets.append(keeper)
        if entry.target in self._state.detached:
            keeper.by_hand = True
            self._tell(entry.target, BY_HAND)
        else:
            keeper.begin()

    def _turn(self) -> None:
        if self._policy.have_files_changed(time.monotonic()):
            self._reload()
        if self._state.paused_until_boot_ns and not self._paused_ns():
            self._resume("the pause is over")
        if not self._paused_ns():
            for _ in take_turns(tuple(self._targets)):
                pass
            if not self._devices.seconds_left(time.monotonic()):
                self._devices.turn()
            self._keep_what_was_done_by_hand()
        if not self._exposure.seconds_left(time.monotonic()):
            self._take_snapshot()

    def _wait(self, wake: Wake, control: ControlServer) -> frozenset[int]:
        now = time.monotonic()
        seconds = [self._policy.seconds_left(now), self._exposure.seconds_left(now)]
        seconds.append(self._paused_ns() / 1e9 or self._devices.seconds_left(now))
        if (watchdog := watchdog_seconds()) is not None:
            notify("WATCHDOG=1")
            seconds.append(watchdog / 3)
        sources = {source.fileno(): self._devices for source in self._devices.sources()}
        awake = wait_for_any(self._targets, [wake, control, *sources], max(0.0, min(seconds)))
        if awake & sources.keys():
            self._devices.take_notices()
        return awake

    def _end(self, *, renew: bool) -> ServiceEnd:
        """Put everything back, or leave it to the process that comes."""
        keep = renew or self._policy.now.service.on_stop == "keep"
        errors: list[NapctlError] = []
        left = False
        keepers: list[TargetKeeper | DeviceKeeper] = [*self._targets, self._devices]
        for each in keepers:
            try:
                if keep:
                    each.leave(kept=renew)
                else:
                    left |= any(row.outcome == "left" for row in each.let_go())
            except NapctlError as error:
                errors.append(error)
        if not keep:
            self._tell("", "stopped: all is put back" if not (left or errors) else "stopped: not all could be put back")
        elif not renew:
            self._tell(
                "", "stopped: everything stays as it is; `napctl detach --all` and `napctl rollback --all` undo it"
            )
        if errors:
            raise errors[0]
        return ServiceEnd(renew=renew, left=left)

    # The policy.

    def _reload(self) -> None:
        """What differs from the policy before is changed; one that cannot be read changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        was_valid, changed = not self._policy.error, self._policy.read()
        if self._policy.error:
            self._tell("", f"the policy cannot be read, the one before stays in force: {self._policy.error}")
        elif not (was_valid or changed):
            self._tell("", "the policy can be read again, and is as before")
        if changed:
            self._tell("", "the policy has changed")
            self._change()
        notify("READY=1", f"STATUS={self._status()}")

    def _change(self) -> None:
        self._objections.forget()
        policy = self._policy.now
        self._state = replace(self._state, policy=self._policy.digest, detached=(), left=())
        self._keep()
        if not self._exposure.is_of(policy.service):
            self._expose_anew()
        if self._paused_ns():
            return
        for keeper in tuple(self._targets):
            if not any(map(keeper.is_of, policy.attach)):
                named = any(each.target == keeper.name for each in policy.attach)
                self._let_go(keeper, "its entry is another one now" if named else "the policy no longer names it")
                self._targets.remove(keeper)
        there = {each.name: each for each in self._targets}
        for entry in policy.attach:
            if entry.target not in there:
                self._follow(entry)
            elif there[entry.target].by_hand:
                there[entry.target].begin()
        self._devices.rolled_back = False
        self._devices.keep(policy.devices)

    def _let_go(self, keeper: TargetKeeper | DeviceKeeper, why: str) -> bool:
        """Whether all could be put back."""
        name, attached = (keeper.name, keeper.attached) if isinstance(keeper, TargetKeeper) else ("", None)
        try:
            keeper.let_go()
        except NapctlError as error:
            self._tell(name, f"not all could be put back: {error}")
            return False
        if attached is not None:
            self._tell(name, f"put back {attached.title}: {why}")
        return True

    # Who asks.

    def _answer(self, request: Request) -> Answer:
        match request.what:
            case "status":
                return Answer(lines=(self._status(), *(f"{each.name}: {each.state}" for each in self._targets)))
            case "why":
                return Answer(decisions=self._decisions.about(request.about), lines=self._decisions.objects)
            case "pause":
                return self._pause(request.seconds)
            case "resume":
                return self._resume("asked to go on")
            case "apply":
                return self._try_anew()

    def _pause(self, seconds: float) -> Answer:
        """Restore all, and stay out."""
        until = now_boot_ns() + int(seconds * 1e9)
        self._state = replace(self._state, boot_id=running_kernel.boot_id(), paused_until_boot_ns=until)
        self._keep()
        keepers: list[TargetKeeper | DeviceKeeper] = [*self._targets, self._devices]
        failed = [each for each in keepers if not self._let_go(each, "paused")]
        self._targets.clear()
        words = f"paused for {long_duration_text(int(seconds * 1e9))}: {'not ' if failed else ''}all is put back"
        self._tell("", words)
        return Answer(lines=(words,))

    def _resume(self, why: str) -> Answer:
        if not self._state.paused_until_boot_ns:
            return Answer(lines=("it is not paused",))
        self._state = replace(self._state, paused_until_boot_ns=0)
        self._keep()
        self._tell("", f"goes on: {why}")
        self._take_up(())
        return Answer(lines=("goes on",))

    def _try_anew(self) -> Answer:
        """What was left to others, or was detached by hand."""
        if self._paused_ns():
            return Answer(
                error=f"paused for {long_duration_text(self._paused_ns())} more; `napctl pause --end` ends that"
            )
        again = [*sorted(self._objections.left), *(each.name for each in self._targets if each.by_hand)]
        self._objections.forget()
        self._state = replace(self._state, detached=(), left=())
        self._keep()
        for each in self._targets:
            if each.by_hand:
                each.begin()
        self._devices.rolled_back = False
        self._devices.keep(self._policy.now.devices)
        self._tell("", "asked to make the policy true")
        return Answer(lines=tuple(f"{each}: tried anew" for each in again) or ("nothing was left out",))

    # What is seen of it.

    def _expose(self) -> None:
        """Where the policy says. Raises NapctlError where that cannot be."""
        self._exposure = Exposure(self._policy.now.service, self._netns).__enter__()

    def _close_exposure(self) -> None:
        self._exposure.__exit__()

    def _expose_anew(self) -> None:
        self._close_exposure()
        try:
            self._expose()
        except NapctlError as error:
            self._tell("", str(error))
            self._exposure = Exposure(ServiceEntry(), self._netns)

    def _take_snapshot(self) -> None:
        targets = [
            WatchedTarget(each.name, each.pids, each.attached, drift=int(each.by_hand)) for each in self._targets
        ]
        policy = PolicyState(
            decisions=dict(self._decisions.made),
            errors=self._decisions.made.get("retry", 0),
            policy_valid=not self._policy.error,
            paused=bool(self._paused_ns()),
        )
        held = {change.device for each in self._targets for change in each.napis}
        try:
            self._exposure.turn({*self._devices.names, *held}, targets, self._devices.states(), policy)
        except (NapctlError, OSError) as error:
            self._log("", f"no snapshot: {error}")  # the next is due in its time

    # What it knows.

    def _status(self) -> str:
        attached = sum(each.attached is not None for each in self._targets)
        paused = f"; paused for {long_duration_text(self._paused_ns())} more" if self._paused_ns() else ""
        return f"{attached} of {len(self._policy.now.attach)} targets attached{paused}"

    def _held(self) -> frozenset[int]:
        napis = (each for keeper in self._targets for each in keeper.napis)
        return frozenset(each.napi_id for each in napis if each.netns == self._netns.inode)

    def _paused_ns(self) -> int:
        return self._state.paused_ns(now_boot_ns()) if self._state.paused_until_boot_ns else 0

    def _keep_what_was_done_by_hand(self) -> None:
        detached = [each.name for each in self._targets if each.by_hand]
        detached += [DEVICES] if self._devices.rolled_back else []
        fresh = replace(self._state, detached=tuple(detached), left=tuple(sorted(self._objections.left)))
        if fresh != self._state:
            by_hand = sorted(set(detached) - set(self._state.detached) - {DEVICES})
            self._state = fresh
            self._keep()
            for name in by_hand:
                self._tell(name, BY_HAND)

    def _keep(self) -> None:
        try:
            keep_memory(self._directory, self._state)
        except OSError as error:
            self._tell("", f"what was done by hand cannot be kept: {error.strerror}")

    def _tell(self, about: str, text: str) -> None:
        self._exposure.changed()
        self._log(about, text)

    def _log(self, about: str, text: str) -> None:
        self._decisions.made_now(time.time_ns(), about, text)
