"""The service: one process that keeps a policy true, and no thread that changes anything.

Level-triggered: what is wanted against what is, at events and from time to time. It stands on the followers of targets
(target_keeper.py), on one transaction for the devices (device_keeper.py), on protection (protection_keeper.py), all of
which stand in keepers.py; and on the journal, by which another process of the service goes on where this one ends.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.objections import Objections
from napctl.change.journal import Journal
from napctl.change.recovery import recover, restored_each
from napctl.change.transaction import undisturbed
from napctl.kernel.machine_sleep import SleepWatch, now_boot_ns
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.own_memory import give_back_what_is_free
from napctl.kernel.priority import in_short_slices
from napctl.kernel.service_manager import notify, watchdog_seconds
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from napctl.model.snapshot import Decision, PolicyState
from napctl.model.units import long_duration_text
from napctl.protect.steps_in_force import PROTECTION
from napctl.service.control import Answer, ControlServer, Request
from napctl.service.decisions import Decisions, ServiceDecision
from napctl.service.device_keeper import DEVICES
from napctl.service.exposure import Exposure
from napctl.service.keepers import BY_HAND, ServiceKeepers, told
from napctl.service.manager_watch import ManagerWatch
from napctl.service.metrics_drop_in import MetricsReach
from napctl.service.own_guard import OwnGuard
from napctl.service.service_lock import the_only_one
from napctl.service.service_memory import keep_memory, kept_memory
from napctl.service.snapshots import WatchedTarget
from napctl.service.wake import Log, Wake
from napctl.service.watched_policy import WatchedPolicy

__all__ = ["Service", "ServiceEnd"]


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
        self._policy = WatchedPolicy(path, directory)
        self._reach = MetricsReach(path)
        self._state = kept_memory(directory)
        self._objections, self._of_devices = Objections(), Objections()
        """To what targets get, and to settings of devices."""
        self._sleep = SleepWatch()
        self._managers = ManagerWatch(netns, lambda line: self._tell("", line))
        self._keepers: ServiceKeepers
        self._exposure: Exposure
        self._guard: OwnGuard

    def run(self, wake: Wake, log: Log) -> ServiceEnd:
        """Until `wake` asks for the end; `log` takes what is written. Raises what cannot be undone."""
        give_back_what_is_free()
        with ExitStack() as open_, in_short_slices():
            open_.enter_context(the_only_one(self._directory))
            control = open_.enter_context(ControlServer(self._directory))
            self._policy.keep()
            self._guard = open_.enter_context(OwnGuard(self._directory, self._policy.now.service.guard_wait_ns))
            self._keepers = ServiceKeepers(
                self._netns, self._guard.now, self._directory, self._objections, self._of_devices, self._tell
            )  # fmt: skip
            self._expose()
            open_.callback(self._close_exposure)
            self._begin()
            notify("READY=1", f"STATUS={self._status()}")
            while not (wake.stop or wake.renew):
                self._turn(wake)
                awake = self._wait(wake, control, log)
                with suppress(OSError):  # nobody reads it any more: no reason to end
                    log.catch_up()
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
        before, self._state = self._state, self._state.since_boot()
        if self._policy.error:
            self._tell("", f"the policy cannot be read, the one before stays in force: {self._policy.error}")
        if self._state.policy != self._policy.digest:
            self._state = replace(self._state.anew(), policy=self._policy.digest)
        if not self._paused_ns():
            self._state = replace(self._state, paused_until_boot_ns=0)  # it has ended meanwhile
        if self._state != before:
            self._keep()
        self._objections.leave(frozenset(self._state.left_of_targets))
        self._of_devices.leave(frozenset(self._state.left))
        live = Journal.read(self._directory, live=True)
        if self._paused_ns():
            self._tell("", f"paused for {long_duration_text(self._paused_ns())} more")
        else:
            self._take_up(live)
        self._put_back_what_nobody_wants()

    def _put_back_what_nobody_wants(self) -> None:
        """What is orphaned, now that what is adopted has an owner; and what the policy named once. What cannot be put
        back is tried again whenever something is attached."""
        wanted = {"", DEVICES, *(entry.target for entry in self._policy.now.attach)}
        wanted |= {PROTECTION} if self._policy.now.protect is not None else set()
        with told(self._tell), undisturbed(), Journal(self._directory) as journal:
            for orphan, _ in recover(journal):
                self._tell("", f"put back what was left of {orphan.title}", "restore")
            unwanted = [each for each in journal.live() if each.keeper and each.keeper.entry not in wanted]
            for each, _ in restored_each(journal, unwanted):
                assert each.keeper is not None
                self._tell(each.keeper.entry, f"put back {each.title}: the policy no longer names it", "restore")

    def _take_up(self, live: Sequence[Transaction]) -> None:
        if self._keepers.take_up(self._policy.now, live, self._state):
            self._state = replace(self._state, kept=0)
            self._keep()

    def _turn(self, wake: Wake) -> None:
        self._look_anew_after_sleep()
        now = time.monotonic()
        if self._policy.have_files_changed(now):
            self._reload()
        if not self._guard.seconds_left(now):
            self._mind_guard()
        self._keepers.put_back_what_is_owed()
        if self._state.paused_until_boot_ns and not self._paused_ns() and not self._keepers.owed:
            self._resume("the pause is over")
        if not self._paused_ns():
            self._keepers.turn(lambda: wake.stop)
            if wake.stop:
                return
            self._keep_what_was_done_by_hand()
        self._managers.look_if_due()
        if not self._exposure.seconds_left(time.monotonic()):
            self._take_snapshot()

    def _look_anew_after_sleep(self) -> None:
        """After hours all may be otherwise, and what was to be tried again has waited for a clock that stood still."""
        if not (slept_ns := self._sleep.slept_ns()):
            return
        self._tell("", f"the machine has slept for {long_duration_text(slept_ns)}: looks at everything at once")
        self._keepers.look_anew()

    def _mind_guard(self) -> None:
        """The guard may have ended, or its unit have come; then everything is to name another one."""
        with told(self._tell):
            if self._guard.is_another(self._policy.now.service.guard_wait_ns):
                self._keepers.change_guard(self._guard.now)

    def _wait(self, wake: Wake, control: ControlServer, log: Log) -> frozenset[int]:
        now = time.monotonic()
        seconds = [each.seconds_left(now) for each in (self._policy, self._guard, self._managers, self._exposure)]
        if paused_ns := self._paused_ns():
            seconds.append(paused_ns / 1e9)
        if (watchdog := watchdog_seconds()) is not None:
            notify("WATCHDOG=1", f"STATUS={self._status()}")
            seconds.append(watchdog / 3)
        return self._keepers.wait([wake, control, log], min(seconds), paused=bool(paused_ns))

    def _end(self, *, renew: bool) -> ServiceEnd:
        """Put everything back, or leave it to the process that comes."""
        keep = renew or self._policy.now.service.on_stop == "keep"
        if keep and not renew and (in_force := self._keepers.devices.settings_in_force) is not None:
            self._state = replace(self._state, kept=in_force.number)
            self._keep()
        errors = self._keepers.end(keep=keep, renew=renew)
        if not keep:
            all_or_not = "not all could be" if self._keepers.left or errors else "all is"
            self._tell("", f"stopped: {all_or_not} put back", "restore")
        elif not renew:
            self._tell(
                "", "stopped: everything stays as it is; `napctl detach --all` and `napctl rollback --all` undo it"
            )
        if errors:
            raise errors[0]
        return ServiceEnd(renew=renew, left=self._keepers.left)

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
        self._forget_objections()
        policy = self._policy.now
        self._state = replace(self._state.anew(), policy=self._policy.digest)
        self._keep()
        if not self._exposure.is_of(policy.service):
            self._close_exposure()
            self._expose()
        self._mind_guard()
        if not self._paused_ns():
            self._keepers.change(policy)

    # Who asks.

    def _answer(self, request: Request) -> Answer:
        match request.what:
            case "status":
                return Answer(lines=(self._status(), *(f"{each.name}: {each.state}" for each in self._keepers.targets)))
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
        self._state = replace(self._state, paused_until_boot_ns=until)
        self._keep()
        self._keepers.let_go("paused")
        not_all = "not all" if self._keepers.owed else "all"
        words = f"paused for {long_duration_text(int(seconds * 1e9))}: {not_all} is put back"
        self._tell("", words, "restore")
        return Answer(lines=(words,))

    def _resume(self, why: str) -> Answer:
        if not self._state.paused_until_boot_ns:
            return Answer(lines=("it is not paused",))
        self._state = replace(self._state, paused_until_boot_ns=0)
        self._keep()
        self._tell("", f"goes on: {why}")
        self._take_up(Journal.read(self._directory, live=True))
        return Answer(lines=("goes on",))

    def _try_anew(self) -> Answer:
        """What was left to others, or was detached by hand."""
        if self._paused_ns():
            return Answer(
                error=f"paused for {long_duration_text(self._paused_ns())} more; `napctl pause --end` ends that"
            )
        again = [*sorted(self._of_devices.left), *sorted(self._objections.left), *self._keepers.detached_by_hand]
        self._forget_objections()
        self._state = self._state.anew()
        self._keep()
        self._keepers.try_anew(self._policy.now)
        self._tell("", "asked to make the policy true")
        return Answer(lines=tuple(f"{each}: tried anew" for each in again) or ("nothing was left out",))

    def _forget_objections(self) -> None:
        for each in (self._objections, self._of_devices):
            each.forget()

    # What is seen of it.

    def _expose(self) -> None:
        """Where the policy says."""
        service = self._policy.now.service
        self._exposure = Exposure(service, self._netns).__enter__()
        if words := self._reach.reminder(service.metrics):
            self._tell("", words)

    def _close_exposure(self) -> None:
        self._exposure.__exit__()

    def _take_snapshot(self) -> None:
        targets = [
            WatchedTarget(each.name, each.pids, each.attached, int(each.by_hand) + each.conflicts, each.conflicts)
            for each in self._keepers.targets
        ]
        policy = PolicyState(
            decisions=dict(self._decisions.made),
            errors=self._decisions.made.get("retry", 0),
            policy_valid=not self._policy.error,
            paused=bool(self._paused_ns()),
            protection_steps=self._keepers.protection.steps_made,
            storm_drops=self._keepers.protection.storm_drops,
        )
        try:
            self._exposure.turn(
                self._keepers.device_names, targets, self._keepers.device_states(), policy,
                self._managers.now, self._keepers.held,
            )  # fmt: skip
        except (NapctlError, OSError) as error:
            self._log("", str(error), "retry")  # the next is due in its time

    # What it knows.

    def _status(self) -> str:
        attached = sum(each.attached is not None for each in self._keepers.targets)
        paused = f"; paused for {long_duration_text(self._paused_ns())} more" if self._paused_ns() else ""
        return f"{attached} of {len(self._policy.now.attach)} targets attached{paused}"

    def _paused_ns(self) -> int:
        return self._state.paused_ns(now_boot_ns()) if self._state.paused_until_boot_ns else 0

    def _keep_what_was_done_by_hand(self) -> None:
        detached = self._keepers.detached_by_hand
        left, of_targets = (tuple(sorted(each.left)) for each in (self._of_devices, self._objections))
        fresh = replace(self._state, detached=detached, left=left, left_of_targets=of_targets)
        if fresh != self._state:
            by_hand = sorted(set(detached) - set(self._state.detached) - {DEVICES, PROTECTION})
            self._state = fresh
            self._keep()
            for name in by_hand:
                self._tell(name, BY_HAND, "detach")

    def _keep(self) -> None:
        try:
            keep_memory(self._directory, self._state)
        except OSError as error:
            self._tell("", f"what was done by hand cannot be kept: {error.strerror}")

    def _tell(self, about: str, text: str, kind: Decision | None = None, /) -> None:
        self._exposure.changed()
        self._log(about, text, kind)

    def _log(self, about: str, text: str, kind: Decision | None) -> None:
        self._decisions.made_now(ServiceDecision(unix_ns=time.time_ns(), about=about, text=text, kind=kind))
