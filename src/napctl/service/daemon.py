"""The service: one process that keeps a policy true, and no thread that changes anything.

Level-triggered: what is wanted against what is, at events and from time to time. It stands on the followers of targets
(target_keeper.py), on one transaction for the devices (device_keeper.py), and on the journal, by which another process
of the service goes on where this one ends.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_state
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_many import take_turns, wait_for_any
from napctl.attach.objections import Objections
from napctl.change.guard_wait import now_boot_ns
from napctl.change.journal import Journal
from napctl.change.recovery import recover, restored_each
from napctl.change.transaction import undisturbed
from napctl.kernel import running_kernel
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.priority import in_short_slices
from napctl.kernel.service_manager import notify, watchdog_seconds
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from napctl.model.policy import AttachEntry
from napctl.model.snapshot import Decision, PolicyState
from napctl.model.units import long_duration_text
from napctl.protect.steps_in_force import PROTECTION
from napctl.service.control import Answer, ControlServer, Request
from napctl.service.decisions import Decisions, ServiceDecision
from napctl.service.device_keeper import DEVICES, UNTIL, DeviceKeeper
from napctl.service.exposure import Exposure
from napctl.service.own_guard import OwnGuard
from napctl.service.protection_keeper import ProtectionKeeper
from napctl.service.service_lock import the_only_one
from napctl.service.service_memory import keep_memory, kept_memory
from napctl.service.snapshots import DeviceState, WatchedTarget
from napctl.service.target_keeper import TargetKeeper
from napctl.service.wake import Wake
from napctl.service.watched_policy import WatchedPolicy

__all__ = ["Service", "ServiceEnd"]


OWED_SECONDS = 5.0
"""Until what could not be put back is tried again."""
BY_HAND = f"detached by hand: left so {UNTIL}"
Keeper = TargetKeeper | DeviceKeeper | ProtectionKeeper


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
        self._state = kept_memory(directory)
        self._objections = Objections()
        self._targets: list[TargetKeeper] = []
        self._owed: list[Keeper] = []
        """Those of which not all could be put back yet."""
        self._owed_at = 0.0
        self._left = False
        """Somebody else had changed what was to be put back."""
        self._devices: DeviceKeeper
        self._protection: ProtectionKeeper
        self._exposure: Exposure
        self._guard: OwnGuard

    def run(self, wake: Wake) -> ServiceEnd:
        """Until `wake` asks for the end. Raises what cannot be undone."""
        with ExitStack() as open_, in_short_slices():
            open_.enter_context(the_only_one(self._directory))
            control = open_.enter_context(ControlServer(self._directory))
            self._policy.keep()
            self._guard = open_.enter_context(OwnGuard(self._directory, self._policy.now.service.guard_wait_ns))
            self._devices = DeviceKeeper(
                self._netns, self._guard.now, self._directory, self._objections, self._tell, self._held
            )
            self._protection = ProtectionKeeper(self._netns, self._guard.now, self._directory, self._tell)
            self._expose()
            open_.callback(self._close_exposure)
            self._begin()
            notify("READY=1", f"STATUS={self._status()}")
            while not (wake.stop or wake.renew):
                self._turn(wake)
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
        before = self._state
        if self._policy.error:
            self._tell("", f"the policy cannot be read, the one before stays in force: {self._policy.error}")
        if self._state.policy != self._policy.digest:
            self._state = replace(self._state, policy=self._policy.digest, detached=(), left=())
        if not self._paused_ns():
            self._state = replace(self._state, paused_until_boot_ns=0)  # it has ended meanwhile
        if self._state != before:
            self._keep()
        self._objections.leave(frozenset(self._state.left))
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
        with self._told(), undisturbed(), Journal(self._directory) as journal:
            for orphan, _ in recover(journal):
                self._tell("", f"put back what was left of {orphan.title}", "restore")
            unwanted = [each for each in journal.live() if each.keeper and each.keeper.entry not in wanted]
            for each, _ in restored_each(journal, unwanted):
                assert each.keeper is not None
                self._tell(each.keeper.entry, f"put back {each.title}: the policy no longer names it", "restore")

    def _take_up(self, live: Sequence[Transaction]) -> None:
        for entry in self._policy.now.attach:
            self._follow(entry)
        with self._told():
            self._devices.adopt(live, self._state.kept)
            self._state = replace(self._state, kept=0)
            self._keep()
        self._devices.keep(self._policy.now.devices)
        self._devices.rolled_back = DEVICES in self._state.detached
        self._protection.keep(self._policy.now.protect)
        self._protection.rolled_back = PROTECTION in self._state.detached
        with self._told():
            self._protection.arm()

    def _follow(self, entry: AttachEntry) -> None:
        tell = partial(self._tell, entry.target)
        keeper = TargetKeeper(entry, self._guard.now, self._directory, tell, self._objections)
        self._targets.append(keeper)
        if entry.target in self._state.detached:
            keeper.by_hand = True
            self._tell(entry.target, BY_HAND, "detach")
        else:
            keeper.begin()

    def _turn(self, wake: Wake) -> None:
        now = time.monotonic()
        if self._policy.have_files_changed(now):
            self._reload()
        if not self._guard.seconds_left(now):
            self._mind_guard()
        if self._owed and now >= self._owed_at:
            self._put_back_what_is_owed()
        if self._state.paused_until_boot_ns and not self._paused_ns() and not self._owed:
            self._resume("the pause is over")
        if not self._paused_ns():
            self._protect()
            for each, _goes_on in take_turns(tuple(self._targets)):
                self._left |= any(row.outcome == "left" for row in each.take_restored())
                notify("WATCHDOG=1")
                if wake.stop:
                    return
                self._protect()
            if not self._devices.seconds_left(time.monotonic()):
                self._devices.turn()
            self._keep_what_was_done_by_hand()
        if not self._exposure.seconds_left(time.monotonic()):
            self._take_snapshot()

    def _protect(self) -> None:
        """Also between two targets: a flood is answered within a second."""
        if not self._protection.seconds_left(time.monotonic()):
            self._protection.turn()

    def _mind_guard(self) -> None:
        """The guard may have ended, or its unit have come; then everything is to name another one."""
        with self._told():
            if self._guard.is_another(self._policy.now.service.guard_wait_ns):
                for each in dict.fromkeys((*self._keepers, *self._owed)):
                    each.change_guard(self._guard.now)

    def _wait(self, wake: Wake, control: ControlServer) -> frozenset[int]:
        now = time.monotonic()
        seconds = [self._policy.seconds_left(now), self._guard.seconds_left(now), self._exposure.seconds_left(now)]
        if self._owed:
            seconds.append(self._owed_at - now)
        if paused_ns := self._paused_ns():
            seconds.append(paused_ns / 1e9)
        else:
            seconds += [self._devices.seconds_left(now), self._protection.seconds_left(now)]
        if (watchdog := watchdog_seconds()) is not None:
            notify("WATCHDOG=1", f"STATUS={self._status()}")
            seconds.append(watchdog / 3)
        others = (self._devices, self._protection)
        sources = {source.fileno(): each for each in others for source in each.sources()}
        awake = wait_for_any(self._targets, [wake, control, *sources], max(0.0, min(seconds)))
        for each in {sources[fd] for fd in awake & sources.keys()}:
            each.take_notices()
        return awake

    def _end(self, *, renew: bool) -> ServiceEnd:
        """Put everything back, or leave it to the process that comes."""
        keep = renew or self._policy.now.service.on_stop == "keep"
        errors: list[NapctlError] = []
        left = self._left
        if keep and not renew and (in_force := self._devices.settings_in_force) is not None:
            self._state = replace(self._state, kept=in_force.number)
            self._keep()
        for each in dict.fromkeys((*self._keepers, *self._owed)):
            try:
                if keep:
                    each.leave(kept=renew)
                else:
                    left |= any(row.outcome == "left" for row in each.let_go())
            except (NapctlError, OSError) as error:
                errors.append(error if isinstance(error, NapctlError) else NapctlError(str(error)))
        if not keep:
            all_or_not = "not all could be" if left or errors else "all is"
            self._tell("", f"stopped: {all_or_not} put back", "restore")
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
            self._close_exposure()
            self._expose()
        self._mind_guard()
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
            else:
                there[entry.target].try_anew()
        self._devices.rolled_back = False
        self._devices.keep(policy.devices)
        self._protection.keep(policy.protect)

    @property
    def _keepers(self) -> Sequence[Keeper]:
        return (*self._targets, self._devices, self._protection)

    def _let_go(self, keeper: Keeper, why: str) -> None:
        """What cannot be put back now is owed."""
        name, attached = (keeper.name, keeper.attached) if isinstance(keeper, TargetKeeper) else ("", None)
        try:
            self._left |= any(row.outcome == "left" for row in keeper.let_go())
        except (NapctlError, OSError) as error:
            self._tell(name, f"not all could be put back: {error}; tried again in {OWED_SECONDS:.0f}s", "retry")
            self._owed.append(keeper)
            self._owed_at = time.monotonic() + OWED_SECONDS
            return
        if attached is not None:
            self._tell(name, f"put back {attached.title}: {why}", "restore")

    def _put_back_what_is_owed(self) -> None:
        owed, self._owed = self._owed, []
        for keeper in owed:
            self._let_go(keeper, "owed since before")

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
        for each in self._keepers:
            self._let_go(each, "paused")
        self._targets.clear()
        words = f"paused for {long_duration_text(int(seconds * 1e9))}: {'not ' if self._owed else ''}all is put back"
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
        again = [*sorted(self._objections.left), *(each.name for each in self._targets if each.by_hand)]
        self._objections.forget()
        self._state = replace(self._state, detached=(), left=())
        self._keep()
        for each in self._targets:
            each.try_anew()
        self._devices.rolled_back = False
        self._devices.keep(self._policy.now.devices)
        self._protection.keep(self._policy.now.protect)
        self._tell("", "asked to make the policy true")
        return Answer(lines=tuple(f"{each}: tried anew" for each in again) or ("nothing was left out",))

    # What is seen of it.

    def _expose(self) -> None:
        """Where the policy says."""
        self._exposure = Exposure(self._policy.now.service, self._netns).__enter__()

    def _close_exposure(self) -> None:
        self._exposure.__exit__()

    def _take_snapshot(self) -> None:
        targets = [
            WatchedTarget(each.name, each.pids, each.attached, int(each.by_hand) + each.conflicts, each.conflicts)
            for each in self._targets
        ]
        policy = PolicyState(
            decisions=dict(self._decisions.made),
            errors=self._decisions.made.get("retry", 0),
            policy_valid=not self._policy.error,
            paused=bool(self._paused_ns()),
            protection_steps={kind.replace(" ", "_"): count for kind, count in self._protection.made.items()},
        )
        napis = (change for each in self._targets for change in each.napis)
        held = {each.device for each in napis if each.netns == self._netns.inode}
        try:
            names = {*self._devices.names, *self._protection.device_names, *held}
            self._exposure.turn(names, targets, self._device_states(), policy)
        except (NapctlError, OSError) as error:
            self._log("", str(error), "retry")  # the next is due in its time

    def _device_states(self) -> dict[str, DeviceState]:
        states = self._devices.states()
        for name in self._protection.device_names:
            state = states.get(name, DeviceState())
            states[name] = replace_state(state, protection_step=self._protection.step_of(name))
        return states

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
        detached += [PROTECTION] if self._protection.rolled_back else []
        fresh = replace(self._state, detached=tuple(detached), left=tuple(sorted(self._objections.left)))
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

    @contextmanager
    def _told(self, about: str = "") -> Iterator[None]:
        """What goes wrong meanwhile is said, and does not end the service."""
        try:
            yield
        except (NapctlError, OSError) as error:
            self._tell(about, str(error), "retry")

    def _tell(self, about: str, text: str, kind: Decision | None = None, /) -> None:
        self._exposure.changed()
        self._log(about, text, kind)

    def _log(self, about: str, text: str, kind: Decision | None) -> None:
        self._decisions.made_now(ServiceDecision(unix_ns=time.time_ns(), about=about, text=text, kind=kind))
