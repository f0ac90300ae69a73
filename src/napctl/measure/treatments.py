"""Treatments: the ways of taking packets that an experiment compares, by the names under which they are published.

Values of the presets: martinkarsten/irqsuspend, commit d59592c. From outside nobody can make a server's loop never
block, so full busy polling is a busy_poll_usecs that outlasts a cell.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.attach import Choice, Keeping, attach, detach
from napctl.attach.examine import Examination
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.plans import apply_plan
from napctl.change.transaction import restore, undisturbed
from napctl.kernel.namespaces import NetworkNamespace
from napctl.measure.shell import ShellCommand
from napctl.model.change import Guard, Keeper, Restored, Transaction
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError, Unsupported
from napctl.model.plan import Plan
from napctl.model.suspension import Suspension
from napctl.model.units import duration_ns
from napctl.model.value import Value

SPIN_USECS = 10_000_000
"""Of full busy polling: a task that spins in epoll_wait cannot be killed until this runs out, so not much longer than a
cell."""
OFF = Suspension(busy_poll_budget=0, prefer_busy_poll=False, irq_suspend_timeout_ns=0)
HOOK_SECONDS = 60

PRESETS = {
    "irq-suspension": (
        "base", "defer:10us", "defer:20us", "defer:50us", "defer:200us", "napibusy", "fullbusy", "suspend:0",
        "suspend:10us", "suspend:20us", "suspend:50us", "suspend:200us",
    ),
    "demo": ("base", "defer:200us", "fullbusy", "suspend:200us"),
}  # fmt: skip
"""By name; `coalescing` is made of plans, for this machine (presets.py)."""


class NotTakenBack(NapctlError):
    """What a treatment changed may still be in force: whatever is measured from then on would be measured under it."""


class Treatment(Value, frozen=True, kw_only=True):
    """One way of taking packets. With neither of the three: the kernel's own way, interrupts."""

    name: str
    suspension: Suspension | None = None
    plan: Plan | None = None
    hooks: tuple[str, str] | None = None
    """Shell commands that begin and end it."""

    @property
    def polls(self) -> bool:
        """Whether it lets the server poll, so that its epoll instances must fit."""
        return self.suspension is not None and (self.suspension.prefer_busy_poll or self.suspension.busy_poll_usecs > 0)

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.suspension is not None or self.plan is not None or self.hooks is not None

    @property
    def needs_target(self) -> bool:
        """Whether it is applied to a server."""
        return self.suspension is not None


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """A treatment that is named again is one of its own: "base", "base" become "base", "base#2"."""
    return tuple(
        name if name not in names[:place] else f"{name}#{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    )


def is_known(text: str) -> bool:
    """Whether it is a treatment without anybody's hook."""
    try:
        parse_treatment(text, {}, {})
    except BadInput:
        return text.startswith("plan:")
    return True


def parse_treatment(text: str, plans: dict[str, Plan], hooks: dict[str, tuple[str, str]]) -> Treatment:
    """From its name: base, defer:TIME, napibusy, fullbusy, suspend:TIME, one of `plans` or of `hooks`; or one of those
    again, as numbered() calls it. Raises BadInput.
    """
    if text in hooks or text in plans:
        return Treatment(name=text, hooks=hooks.get(text), plan=None if text in hooks else plans[text])
    if again := re.fullmatch(r"(.+)#\d+", text):
        return replace(parse_treatment(again[1], plans, hooks), name=text)
    fixed = {
        "base": None,
        "napibusy": Suspension(irq_suspend_timeout_ns=0, busy_poll_usecs=64),
        "fullbusy": Suspension(gro_flush_timeout_ns=5_000_000, irq_suspend_timeout_ns=0, busy_poll_usecs=SPIN_USECS),
    }
    if text in fixed:
        return Treatment(name=text, suspension=fixed[text])
    match = re.fullmatch(r"(defer|suspend):(.+)", text)
    if match is None:
        raise BadInput(
            f"{text}: no such treatment; there are base, defer:TIME, napibusy, fullbusy, suspend:TIME, plan:FILE and "
            "those of --hook"
        )
    try:
        timer = duration_ns(match[2])
    except ValueError as error:
        raise BadInput(f"{text}: {error}") from None
    if match[1] == "defer":
        return Treatment(name=text, suspension=replace(OFF, gro_flush_timeout_ns=timer))
    if timer == 0:  # published as suspend0: suspension without deferral
        return Treatment(name=text, suspension=Suspension(defer_hard_irqs=0, gro_flush_timeout_ns=0))
    if timer >= Suspension().irq_suspend_timeout_ns:
        raise BadInput(f"{text}: the timer must be shorter than the 20ms of irq-suspend-timeout")
    return Treatment(name=text, suspension=Suspension(gro_flush_timeout_ns=timer))


@dataclass(frozen=True)
class Place:
    """Where treatments are applied: a server as it was examined, and a network namespace for plans.

    The journal is free between changes; `guard` restores them if this process, the `keeper`, is killed.
    """

    directory: Path
    netns: NetworkNamespace
    guard: Guard
    found: Examination | None = None
    choice: Choice | None = None

    @property
    def keeper(self) -> Keeper:
        """This process."""
        return myself()


@contextmanager
def applied(treatment: Treatment, place: Place) -> Iterator[None]:
    """The treatment is in force; afterwards every former value is back.

    Raises Unsupported if the server does not fit, what attach() and apply_plan() raise, and NotTakenBack. A server's
    former values are those of its examination: ChangedMeanwhile if they are not there any more, before or afterwards.
    """
    if not treatment.changes:
        yield
        return
    made: list[Transaction] = []
    try:
        with undisturbed():
            transaction = _apply(treatment, place)
            if transaction is not None:
                made.append(transaction)
        if treatment.hooks:
            _run_hook(treatment.name, treatment.hooks[0])
        yield
    finally:
        try:
            with undisturbed():
                if treatment.hooks:
                    _run_hook(treatment.name, treatment.hooks[1])
        except NapctlError as error:
            raise NotTakenBack(f"{error}; what its beginning changed may still be in force") from None
        finally:
            _take_back(treatment.name, made, place.directory)


def _apply(treatment: Treatment, place: Place) -> Transaction | None:
    if treatment.plan is not None:
        with Journal(place.directory) as journal:
            return apply_plan(journal, treatment.plan, place.netns, guard=place.guard)
    if treatment.suspension is None:
        return None
    found, choice = place.found, place.choice
    if found is None or choice is None or not choice.napis:
        raise Unsupported(f"{treatment.name}: no NAPI instance feeds the server")
    if treatment.polls and not choice.instances:
        raise Unsupported(f"{treatment.name}: none of the server's epoll instances fits")
    with Journal(place.directory) as journal:
        return attach(journal, found, choice, treatment.suspension, Keeping(place.guard, place.keeper))


def _take_back(name: str, made: list[Transaction], directory: Path) -> None:
    if not made:
        return
    try:
        with undisturbed(), Journal(directory) as journal:
            live = [each for each in journal.live() if each.number in {one.number for one in made}]
            rows = [row for each in live for row in _undo(journal, each)]
    except NapctlError as error:
        raise NotTakenBack(f"{name}: not taken back: {error}") from None
    if left := [row for row in rows if row.outcome == "left"]:
        where = f"{left[0].setting} of {left[0].where}"
        raise ChangedMeanwhile(f"{name}: somebody else has changed {where} meanwhile, which was left as it is now")


def _undo(journal: Journal, made: Transaction) -> list[Restored]:
    return detach(journal, [made]) if made.kind == "attach" else restore(journal, made)


def _run_hook(name: str, command: str) -> None:
    """What it leaves in the background goes on, unless it runs out of time: then all that it started is killed."""
    with tempfile.TemporaryFile() as output:  # not a pipe: something in the background would keep it open
        with ShellCommand(command, output, output) as hook:
            status = hook.waited(HOOK_SECONDS)
            if status is None:
                hook.end()
                raise NapctlError(f"{name}: its hook `{command}` did not end within {HOOK_SECONDS} s; it was killed")
        output.seek(0)
        words = output.read().decode(errors="replace").strip().splitlines()
    if status:
        raise NapctlError(f"{name}: its hook `{command}` failed: {words[-1] if words else status}")
