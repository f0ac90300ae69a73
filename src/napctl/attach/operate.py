"""One attachment from the target's name to what was made: examine, judge, choose, pick the timer, attach."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as but

from msgspec.structs import replace

from napctl.attach.attach import ONCE, Choice, Keeping, attach, choose, refuse_second, refuse_shared, who, why_not
from napctl.attach.examine import Examination, examine
from napctl.attach.explain import explain
from napctl.attach.fitness import Verdict, verdicts
from napctl.attach.look import Key
from napctl.attach.sweep import choose_timer
from napctl.change.journal import Journal
from napctl.change.transaction import undisturbed
from napctl.kernel.processes import Process
from napctl.kernel.sysctl import read_global
from napctl.model.change import Guard, SteeringChange, Transaction
from napctl.model.errors import BadInput, Unsupported
from napctl.model.fitness import Fitness
from napctl.model.suspension import Suspension
from napctl.model.timer import TimerChoice

STILL_OPEN = (
    "connections from before the steering are open in it; `--stay` attaches it once all that are open are of one NAPI "
    "instance"
)
WATCH_SECONDS = 0.25
"""How long to look at the way in which the threads wait. Every system call of the machine costs some 0.15 µs more."""


@dataclass(frozen=True)
class Wish:
    """What the user asks for. `timer_ns` None: the timer is to be chosen, within `budget_ns` if that is given."""

    suspension: Suspension
    timer_ns: int | None = None
    budget_ns: int | None = None
    steer: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        longest = self.timer_ns or self.budget_ns or self.suspension.gro_flush_timeout_ns
        if self.suspension.irq_suspend_timeout_ns <= longest:
            raise BadInput("--irq-suspend-timeout must be longer than --defer-us, or nothing is ever suspended")


@dataclass(frozen=True)
class Examined:
    """What was found, judged and chosen."""

    found: Examination
    judged: tuple[Verdict, ...]
    choice: Choice
    fitness: Fitness


@dataclass(frozen=True)
class Made:
    """What came of it."""

    examined: Examined
    transaction: Transaction
    timer: TimerChoice
    seconds: float


def look(
    name: str, found: Sequence[Process], wish: Wish, *, watch_seconds: float = WATCH_SECONDS,
    most_sockets: int | None = None,
) -> Examined:  # fmt: skip
    """Examine, judge and choose; changes nothing. Takes and raises what examine() does."""
    return judge(examine(name, found, watch_seconds, most_sockets), wish)


NONE: Mapping[Key, str] = {}


def judge(
    found: Examination, wish: Wish, *, steered: frozenset[int] = frozenset(), refused: Mapping[Key, str] = NONE
) -> Examined:
    """Judge what was found, and choose.

    `steered`: as of verdicts(). `refused`: what does not fit for a reason that an examination does not show.
    """
    poll_sysctl = read_global("core/busy_poll")
    judged = tuple(
        but(each, judgement="does not fit", why=refused[each.instance.key], hint="")
        if each.instance.key in refused and each.judgement != "nothing to poll"
        else each
        for each in verdicts(found, steered)
    )
    choice = choose(found, judged, steer=wish.steer, force=wish.force, poll_sysctl=poll_sysctl, without=refused)
    return Examined(found, judged, choice, explain(found, judged, poll_sysctl=poll_sysctl))


def attach_target(
    journal: Journal,
    name: str,
    found: Sequence[Process],
    wish: Wish,
    progress: Callable[[str], None],
    *,
    examined: Examined | None = None,
    made: Callable[[Made], object] = lambda _made: None,
    keeping: Keeping = ONCE,
) -> Made:
    """Attach what fits. To be called after recover(). Raises Unsupported, with the reason, if nothing does.

    `examined`: of just now, by who has looked already. `made` is told what is in force before any signal can interrupt:
    from then on it is the caller's to undo.
    """
    refuse_second(found, journal.live())
    start = time.monotonic()
    examined = examined or look(name, found, wish)
    if examined.choice.empty:
        refuse_shared(examined.found.feeding, journal.live())
        raise Unsupported(f"{who(examined.found)}: {why_not(examined.found, examined.judged)}; nothing was changed")
    looked = time.monotonic()
    timer, suspension = pick_timer(journal, examined, wish, progress, keeping.guard)
    picked = time.monotonic()
    with undisturbed():
        transaction = attach(journal, examined.found, examined.choice, suspension, keeping)
        done = Made(examined, transaction, timer, looked - start + time.monotonic() - picked)
        made(done)
    return done


def pick_timer(
    journal: Journal, examined: Examined, wish: Wish, progress: Callable[[str], None], guard: Guard | None = None
) -> tuple[TimerChoice, Suspension]:
    """The timer that was asked for, or the best of a sweep."""
    if wish.timer_ns is not None:
        timer = TimerChoice(gro_flush_timeout_ns=wish.timer_ns, why="asked for")
    else:
        timer = choose_timer(
            journal, examined.found, examined.choice, wish.suspension, budget_ns=wish.budget_ns, progress=progress,
            guard=guard,
        )  # fmt: skip
    return timer, replace(wish.suspension, gro_flush_timeout_ns=timer.gro_flush_timeout_ns)


def steered_inodes(live: Sequence[Transaction]) -> frozenset[int]:
    """Listening sockets whose group napctl steers by now."""
    changes = (change for each in live for change in each.changes if isinstance(change, SteeringChange))
    return frozenset(inode for change in changes for inode in change.inodes)


def warnings_of(examined: Examined) -> list[str]:
    """What of a target was left alone, and why: one sentence each."""
    chosen = {(each.process.pid, each.fd) for each in examined.choice.instances}
    left: dict[str, list[str]] = {}
    for each in examined.judged:
        key = (each.instance.process.pid, each.instance.fd)
        if key not in chosen and each.judgement in ("does not fit", "fits after steering"):
            open_still = each.judgement == "fits after steering" and examined.choice.steered
            why = STILL_OPEN if open_still else each.why
            left.setdefault(why, []).append(f"epoll {key[1]} of {each.instance.process.name} ({key[0]})")
    return [
        f"left alone: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}"
        for why, names in left.items()
    ]
