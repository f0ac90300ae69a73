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

from napctl.adapt.preference import Prefer
from napctl.attach.attachment import attachment, detach
from napctl.attach.judge_target import JudgedTarget
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.one_change import make
from napctl.change.transaction import apply, restore, undisturbed
from napctl.experiment.follower import Adapt, following
from napctl.kernel.namespaces import NetworkNamespace
from napctl.load.shell import ShellCommand
from napctl.model.change import Guard, Keeper, SteeringChange, Transaction
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError, NotTakenBack, Unsupported
from napctl.model.plan import Plan
from napctl.model.suspension import Suspension
from napctl.model.units import duration_ns
from napctl.model.value import Value
from napctl.plan.apply import apply_plan

__all__ = ["PRESETS", "Place", "Treatment", "applied", "is_known", "numbered", "parse_treatment", "steer"]


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
    "demo": ("base", "suspend:20us", "suspend:200us", "defer:200us", "fullbusy"),
}  # fmt: skip
"""By name; `coalescing` is made of plans, for this machine (presets.py)."""


class Treatment(Value, frozen=True, kw_only=True):
    """One way of taking packets. With none of the four: the kernel's own way, interrupts."""

    name: str
    suspension: Suspension | None = None
    plan: Plan | None = None
    hooks: tuple[str, str] | None = None
    """Shell commands that begin and end it."""
    adapt: Adapt | None = None
    """It is adapted to the load while it is in force."""

    @property
    def polls(self) -> bool:
        """Whether it lets the server poll, so that its epoll instances must fit."""
        return self.suspension is not None and (self.suspension.prefer_busy_poll or self.suspension.busy_poll_usecs > 0)

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return any(each is not None for each in (self.suspension, self.plan, self.hooks, self.adapt))

    @property
    def needs_target(self) -> bool:
        """Whether it is applied to a server."""
        return self.suspension is not None or self.adapt is not None


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
    """From its name: base, defer:TIME, napibusy, fullbusy, suspend:TIME, adapt:TIME[:latency], one of `plans` or of
    `hooks`; or one of those again, as numbered() calls it. Raises BadInput.
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
    match = re.fullmatch(r"(defer|suspend|adapt):([^:]+)(:latency)?", text)
    if match is None or (match[3] and match[1] != "adapt"):
        raise BadInput(
            f"{text}: no such treatment; there are base, defer:TIME, napibusy, fullbusy, suspend:TIME, "
            "adapt:BUDGET[:latency], plan:FILE and those of --hook"
        )
    try:
        return _timed(text, match[1], duration_ns(match[2]), "latency" if match[3] else "cpu")
    except ValueError as error:
        raise BadInput(f"{text}: {error}") from None


def _timed(text: str, kind: str, time_ns: int, prefer: Prefer) -> Treatment:
    if kind == "defer":
        return Treatment(name=text, suspension=replace(OFF, gro_flush_timeout_ns=time_ns))
    if kind == "adapt":
        if not time_ns:
            raise BadInput(f"{text}: a latency budget is longer than 0")
        return Treatment(name=text, adapt=Adapt(budget_ns=time_ns, prefer=prefer))
    if time_ns == 0:  # published as suspend0: suspension without deferral
        return Treatment(name=text, suspension=Suspension(defer_hard_irqs=0, gro_flush_timeout_ns=0))
    if time_ns >= Suspension().irq_suspend_timeout_ns:
        raise BadInput(f"{text}: the timer must be shorter than the 20ms of irq-suspend-timeout")
    return Treatment(name=text, suspension=Suspension(gro_flush_timeout_ns=time_ns))


@dataclass(frozen=True)
class Place:
    """Where treatments are applied: a server as it was examined, and a network namespace for plans.

    The journal is free between changes; `guard` restores them if this process, the `keeper`, is killed.
    """

    directory: Path
    netns: NetworkNamespace
    guard: Guard
    server: JudgedTarget | None = None
    steering: tuple[SteeringChange, ...] = ()
    """In force for the whole experiment, of the server's listeners."""

    @property
    def keeper(self) -> Keeper:
        """This process."""
        return myself()


@contextmanager
def applied(treatment: Treatment, place: Place) -> Iterator[None]:
    """The treatment is in force; afterwards every former value is back.

    Raises Unsupported if the server does not fit, what attachment(), apply() and apply_plan() raise, and NotTakenBack.
    A server's former values are those of its examination: ChangedMeanwhile if they are not there any more, before or
    afterwards.
    """
    if not treatment.changes:
        yield
        return
    if treatment.adapt is not None:
        with _adapted(treatment, place):
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


@contextmanager
def _adapted(treatment: Treatment, place: Place) -> Iterator[None]:
    server = place.server
    assert treatment.adapt is not None
    if server is None or not server.choice.instances:
        raise Unsupported(f"{treatment.name}: none of the server's epoll instances fits")
    try:
        with following(server.found.processes[0].pid, treatment.adapt, place.directory, steer=bool(place.steering)):
            yield
    finally:
        steer(place.steering)  # it had a program of its own, and has taken that away


def steer(changes: Sequence[SteeringChange]) -> None:
    """Give these groups of listeners their program."""
    with Places() as places:
        for each in changes:
            make(each, places)


def _apply(treatment: Treatment, place: Place) -> Transaction | None:
    if treatment.plan is not None:
        with Journal(place.directory) as journal:
            return apply_plan(journal, treatment.plan, place.netns, guard=place.guard)
    if treatment.suspension is None:
        return None
    server = place.server
    if server is None or not server.choice.napis:
        raise Unsupported(f"{treatment.name}: no NAPI instance feeds the server")
    if treatment.polls and not server.choice.instances:
        raise Unsupported(f"{treatment.name}: none of the server's epoll instances fits")
    with Journal(place.directory) as journal:
        planned = attachment(journal, server, treatment.suspension, guard=place.guard, keeper=place.keeper)
        return apply(journal, planned, then="attached")


def _take_back(name: str, made: list[Transaction], directory: Path) -> None:
    if not made:
        return
    try:
        with undisturbed(), Journal(directory) as journal:
            live = [each for each in journal.live() if each.number in {one.number for one in made}]
            undone = (detach(journal, [each]) if each.kind == "attach" else restore(journal, each) for each in live)
            rows = [row for rows in undone for row in rows]
    except NapctlError as error:
        raise NotTakenBack(f"{name}: not taken back: {error}") from None
    if left := [row for row in rows if row.outcome == "left"]:
        where = f"{left[0].setting} of {left[0].where}"
        raise ChangedMeanwhile(f"{name}: somebody else has changed {where} meanwhile, which was left as it is now")


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
