"""Verifying: does the device obey, on the wire? Windows with and without each setting, in turns, under live traffic."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from msgspec.structs import replace

from napctl.change.alternating import alternating
from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Guard, Keeper, ThreadChange, Transaction, devices_of
from napctl.model.errors import BadInput, ChangedMeanwhile, Unsupported
from napctl.model.machine import Device, Machine, leases
from napctl.model.plan import Plan, named_as
from napctl.model.settings import kernel_name
from napctl.model.value import Value
from napctl.model.verdict import Regression, ThreadPrice, Verdict, Verification
from napctl.observe.machine import take_machine
from napctl.observe.window import Observer
from napctl.plan.diff import changes
from napctl.plan.lower_devices import look_below
from napctl.stats.sequential import MOST_PAIRS
from napctl.verify.judge import Pairs, compared, enough, judge, verdict
from napctl.verify.regression import regressions
from napctl.verify.thread_price import THREADS, price_of_threads
from napctl.verify.trial import Sample, SettingTrial, Statistic
from napctl.verify.trial_list import (
    RING,
    Wanted,
    changes_to,
    chosen,
    complete,
    of_machine,
    of_plan,
    plan_for,
    plan_of_devices,
    present,
    settled,
    trial_of,
)
from napctl.verify.trial_run import SILENCE, Progress, Tried, Windows, try_out

__all__ = ["Keeping", "Options", "verify_devices", "verify_plan", "without_link"]


BLIND = "napctl has nothing on this device by which the wire could show it"
SET_BACK = "its counters were set back in every pair of windows, as when a link comes up again"


@dataclass(frozen=True)
class Keeping:
    """Where trials are recorded, and who puts them back if this process, their keeper, is killed."""

    directory: Path
    guard: Guard
    keeper: Keeper


class Options(Value, frozen=True, kw_only=True):
    """How to measure."""

    seconds: float = 1.0
    """Of each window."""
    pairs: int = MOST_PAIRS
    """At most, of each setting."""
    settings: tuple[str, ...] = ()
    """Kernel names, such as "rx-usecs"; empty: all."""
    seed: int | None = None
    """Of the order of the windows; None: any."""


def verify_plan(
    netns: NetworkNamespace, plan: Plan, keeping: Keeping, options: Options, progress: Progress = SILENCE
) -> Verification:
    """Every setting of a plan, whether it is in force or not; afterwards all is as it was before.

    Raises BadInput (also for a device that is down), NotPermitted, ChangedMeanwhile, and Unsupported where napctl
    cannot do it at all; a driver's refusal is a verdict.
    """
    machine = take_machine(netns, [device.name for device in plan.devices])
    plan = named_as(plan, machine)
    _refuse_down(machine, netns)
    if leased := _leased(machine):
        raise Unsupported(f"{'; '.join(leased.values())}: to vary the device's settings would disturb it")
    others = replace(options, settings=tuple(each for each in options.settings if each != THREADS))
    verifying = _Verifying(netns, machine, plan, keeping, others, progress)
    only_threads = bool(options.settings) and not others.settings
    found = verifying.run([] if only_threads else list(of_plan(plan)))
    if options.settings and THREADS not in options.settings:
        return found
    return replace(found, prices=tuple(verifying.prices()))


def verify_devices(
    netns: NetworkNamespace, names: Collection[str], keeping: Keeping, options: Options, progress: Progress = SILENCE
) -> Verification:
    """Every setting of these devices (by default all that are up) that delays anything now. Raises as verify_plan()."""
    machine = take_machine(netns, names)
    if names:
        _refuse_down(machine, netns)
    down = without_link(machine.devices, _with_carrier(netns))
    machine = replace(machine, devices=tuple(each for each in machine.devices if each.name not in down))
    leased = _leased(machine)
    machine = replace(machine, devices=tuple(device for device in machine.devices if device.name not in leased))
    wanted = list(of_machine(machine))
    found = _Verifying(netns, machine, plan_of_devices(machine), keeping, options, progress).run(wanted)
    if down:
        found = replace(found, lacks=(*found.lacks, f"what {', '.join(down)} would do: no link"))
    below = (look_below(device, "verify", seen=names, one_by_one=True) for device in machine.devices if names)
    left = (f"left alone: {words}" for words in leased.values())
    return replace(found, notes=(*filter(None, below), *left))


def _leased(machine: Machine) -> dict[str, str]:
    """Devices with queues that another device has, and whose."""
    found = {device.name: leases(device) for device in machine.devices}
    return {name: "; ".join(words for _, words in leased) for name, leased in found.items() if leased}


def without_link(devices: Iterable[Device], with_carrier: Collection[int]) -> dict[str, str]:
    """Devices that no packet can pass, and what is wrong."""
    found = {}
    for device in devices:
        if not device.up:
            found[device.name] = f"{device.name} is down (ip link set {quote(device.name)} up)"
        elif device.ifindex not in with_carrier:
            found[device.name] = f"{device.name} has no carrier: no cable, or nobody at its other end"
    return found


def _with_carrier(netns: NetworkNamespace) -> frozenset[int]:
    """The carrier of a software device comes and goes with its user: it is not asked for."""
    return frozenset(link.ifindex for link in links(netns) if link.carrier or link.virtual)


def _refuse_down(machine: Machine, netns: NetworkNamespace) -> None:
    """At once, instead of windows in which nothing can come."""
    down = without_link(machine.devices, _with_carrier(netns))
    if down:
        raise BadInput(f"nothing can be verified without traffic: {'; '.join(down.values())}")


class _Verifying:
    """One run."""

    def __init__(
        self,
        netns: NetworkNamespace,
        machine: Machine,
        plan: Plan,
        keeping: Keeping,
        options: Options,
        progress: Progress,
    ):
        self._netns, self._before, self._plan, self._keeping = netns, machine, plan, keeping
        self._options, self._progress = options, progress
        self._names = [device.name for device in machine.devices]
        self._live = Journal.read(keeping.directory, live=True)
        seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
        self._windows = Windows(seconds=options.seconds, pairs=options.pairs, seed=seed)

    def run(self, wanted: list[Wanted]) -> Verification:
        """All settings, one after the other."""
        wanted = [complete(each, self._device(each)) for each in self._chosen(wanted)]
        verdicts: dict[int, Verdict] = {}
        warnings: list[Regression] = []
        lacks: dict[str, None] = {}
        with ExitStack() as stack:
            refused = self._put_in_force(stack, wanted)
            now = take_machine(self._netns, self._names) if wanted else self._before
            trials: dict[int, SettingTrial] = {}
            for number, each in enumerate(wanted):
                found = self._trial(each, now, refused)
                if isinstance(found, SettingTrial):
                    trials[number] = found
                else:
                    verdicts[number] = found
            trials = {number: replace(trial, among=len(trials)) for number, trial in trials.items()}
            self._progress.begin(len(trials), sum(map(self._most_seconds, trials.values())))
            if trials:
                observer = stack.enter_context(Observer(self._netns, self._names))
                for number, trial in trials.items():
                    verdicts[number], more = self._try(trial, wanted[number], observer)
                    warnings += more
                    lacks |= dict.fromkeys(observer.window(refresh=False).lacks)
        return Verification(
            netns=self._before.netns,
            seed=self._windows.seed,
            verdicts=tuple(verdicts[number] for number in sorted(verdicts)),
            regressions=tuple(warnings),
            lacks=(*lacks, *self._changed_meanwhile()),
        )

    def prices(self) -> Iterator[ThreadPrice]:
        """Of the threads of the plan that are not in force yet, by device."""
        differing = changes(self._plan, take_machine(self._netns, self._names))
        asked = [each for each in differing if isinstance(each, ThreadChange)]
        self._progress.begin(len(devices_of(asked)), len(devices_of(asked)) * self._windows.total_seconds)
        for planned in self._plan.devices:
            mine = tuple(each for each in asked if each.device == planned.name)
            if mine:
                places = tuple(each.instance for each in planned.threads)
                yield price_of_threads(
                    self._netns, planned.name, places, mine, self._alternating, self._windows, self._progress
                )

    def _most_seconds(self, trial: SettingTrial) -> float:
        """A delay that seems to be clamped is compared twice."""
        return self._windows.total_seconds * (2 if trial.setting == "rx_usecs" else 1)

    def _chosen(self, wanted: list[Wanted]) -> list[Wanted]:
        found = chosen(wanted, self._options.settings)
        missing = set(self._options.settings) - {kernel_name(each.setting) for each in wanted}
        if missing:
            there = ", ".join(dict.fromkeys(kernel_name(each.setting) for each in wanted)) or "none"
            raise BadInput(f"{', '.join(sorted(missing))}: not among the settings to verify; they are: {there}")
        return found

    def _device(self, wanted: Wanted, machine: Machine | None = None) -> Device:
        return next(each for each in (machine or self._before).devices if each.name == wanted.device)

    def _put_in_force(self, stack: ExitStack, wanted: Sequence[Wanted]) -> dict[Wanted, str]:
        """What of a plan is not in force yet, until the stack unwinds. Returns what was refused, in the kernel's words.

        As `apply` would: all at once. If that is refused, one setting after the other, so that the rest can be tried.
        """
        settable = [each for each in wanted if each.setting not in RING.values()]
        pending = [each for each in settable if present(each, self._device(each)) != each.value]
        if not pending or self._switched_on(stack, pending) is None:
            return {}
        answers = {each: self._switched_on(stack, [each]) for each in pending}
        return {each: words for each, words in answers.items() if words is not None}

    def _switched_on(self, stack: ExitStack, wanted: Sequence[Wanted]) -> str | None:
        """The refusal, after which nothing of it is in force; None if there was none."""
        asked = changes(plan_for(wanted, self._plan), take_machine(self._netns, self._names))
        with ExitStack() as trying:
            switch = trying.enter_context(self._alternating(asked))
            try:
                switch(True)
            except Unsupported as error:
                return str(error)
            stack.push(trying.pop_all())
        return None

    def _trial(self, wanted: Wanted, now: Machine, refused: dict[Wanted, str]) -> SettingTrial | Verdict:
        if wanted in refused:
            return settled(wanted, "refused", refused[wanted])
        before, device = self._device(wanted), self._device(wanted, now)
        if wanted.setting in RING.values() and present(wanted, device) != wanted.value:
            return settled(wanted, "not tried", "not in force, and changing ring sizes may take the link down")
        return trial_of(wanted, before, device, self._live, now.netns)

    def _try(self, trial: SettingTrial, wanted: Wanted, observer: Observer) -> tuple[Verdict, list[Regression]]:
        """The windows of one setting. All that is read anew is how the device is set by now."""
        try:
            tried = self._tried(trial, wanted, observer, lambda statistic, pairs: enough(trial, statistic, pairs))
        except Unsupported as error:
            reason = f"the value to compare it with is refused: {error}"
            return settled(wanted, "not tried", reason, read_back=trial.on), []
        if tried.statistic is None:
            return settled(wanted, "not tried", BLIND, read_back=trial.on), []
        if not tried.pairs:
            return settled(wanted, "not tried", SET_BACK, read_back=trial.on), []
        check: Pairs = ()
        seems_us = judge(trial, tried.statistic, tried.pairs).said.seems_us
        if seems_us is not None:
            with suppress(Unsupported):  # then it cannot be told, and is not
                off = replace(trial, off=seems_us)
                check = self._tried(off, wanted, observer, lambda _, pairs: compared(trial, pairs)).pairs
        seconds = self._options.seconds
        found = verdict(trial, tried.statistic, tried.pairs, seconds, check)
        return found, list(regressions(trial, tried.pairs, seconds))

    def _tried(
        self,
        trial: SettingTrial,
        wanted: Wanted,
        observer: Observer,
        enough: Callable[[Statistic, list[tuple[Sample, Sample]]], bool],
    ) -> Tried:
        (device,) = take_machine(self._netns, [trial.device]).devices
        if not trial.adaptive and present(wanted, device) != trial.on:
            name = kernel_name(trial.setting)
            raise ChangedMeanwhile(f"{trial.device}: somebody else has changed {name} since verify began; left alone")
        asked = changes_to(trial.off, trial, device, self._before.netns)
        with self._alternating(asked) as switch:
            switch(True)  # a refusal comes before the first window
            return try_out(trial, device, switch, observer, self._netns, self._windows, self._progress, enough)

    def _alternating(self, asked: tuple[Change, ...]) -> AbstractContextManager[Callable[[bool], Transaction]]:
        names, keeping = ", ".join(devices_of(asked)), self._keeping
        return alternating(keeping.directory, begun("verify", names, asked, guard=keeping.guard, keeper=keeping.keeper))

    def _changed_meanwhile(self) -> Iterator[str]:
        """What is not as it was, though all is put back."""
        after = take_machine(self._netns, self._names)
        for before, now in zip(self._before.devices, after.devices, strict=False):
            if (before.coalescing, before.queue_coalescing) != (now.coalescing, now.queue_coalescing):
                yield f"{now.name}: coalescing is not as it was before: somebody else changed it meanwhile"
