"""How a target is to be attached, as the user asks for it: by options of `attach` and `run`, or in a policy.

What is wrong is told in the names of the options, which are a policy's keys as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as but
from typing import Any

from msgspec.structs import replace

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import ways_between
from napctl.attach.timer_choice import within
from napctl.model.errors import BadInput
from napctl.model.limits import LONGEST_SUSPENSION_NS, LONGEST_TIMER_NS, MOST_SPIN_USECS
from napctl.model.modes import OF_INSTANCES, AskedMode
from napctl.model.suspension import Suspension
from napctl.model.units import duration_ns, duration_text

__all__ = [
    "AUTO",
    "DEFAULT",
    "RANGE",
    "AttachOptions",
    "in_mode",
    "options_of",
    "timer_ns_of",
    "timer_range_ns_of",
]


DEFAULT = Suspension()
AUTO = "auto"
RANGE = "20us..200us"
"""Of the timers among which is adapted."""
SUSPENSION = ("defer_hard_irqs", "irq_suspend_timeout_ns", "busy_poll_usecs", "busy_poll_budget")
"""What is Suspension's; its timer is chosen beside them."""


@dataclass(frozen=True)
class AttachOptions:
    """`timer_ns` None: the timer is to be chosen, within `budget_ns` if that is given; or, where there is a `goal`, the
    way of taking packets is, again and again. That only who stays can do."""

    suspension: Suspension
    timer_ns: int | None = None
    budget_ns: int | None = None
    goal: LatencyGoal | None = None
    steer: bool = False
    force: bool = False
    mode: AskedMode = "suspend"
    """Not suspension: `suspension` has none, and, without anybody who polls, no polling either."""
    spin: bool = False
    """Threads never sleep."""

    def __post_init__(self) -> None:
        if self.mode not in ("suspend", "auto"):
            return  # nothing is suspended
        suspend_ns = self.suspension.irq_suspend_timeout_ns
        if self.goal is not None and suspend_ns > LONGEST_SUSPENSION_NS:
            raise BadInput(
                f"--irq-suspend-timeout {duration_text(suspend_ns)}: who adapts waits so long at each change to "
                f"interrupts, and takes {duration_text(LONGEST_SUSPENSION_NS)} at most"
            )
        longest_ns = self.timer_ns or within(self.budget_ns)[-1]
        if self.goal is None and suspend_ns <= longest_ns:
            raise BadInput(
                f"--irq-suspend-timeout {duration_text(suspend_ns)} must be longer than the timer, here up to "
                f"{duration_text(longest_ns)}, or nothing is ever suspended"
            )

    def timer_upon_ns(self, in_force_ns: int | None) -> int:
        """The timer that an attachment is to have, without a goal, which stands with that one (None: with interrupts):
        that which fits is kept."""
        if self.timer_ns is not None:
            return self.timer_ns
        longest_ns = within(self.budget_ns)[-1]
        fits = in_force_ns is not None and (self.budget_ns is None or in_force_ns <= longest_ns)
        return in_force_ns if fits and in_force_ns is not None else longest_ns


def timer_ns_of(text: str) -> int | None:
    """A number of µs, with or without its unit, as ns; or "auto", as None. Raises ValueError, which says why."""
    if text == AUTO:
        return None
    try:
        ns = duration_ns(f"{text}us" if text.isascii() and text.isdigit() else text)
    except ValueError:
        raise ValueError(f"'{text}' is neither 'auto' nor a number of µs, such as 50") from None
    if not 0 < ns <= LONGEST_TIMER_NS:
        raise ValueError(f"{text} is not between 1ns and {duration_text(LONGEST_TIMER_NS)}")
    return ns


def timer_range_ns_of(text: str) -> tuple[int, int]:
    """Two times, such as 20us..200us, as ns. Raises ValueError, which says why."""
    ends = text.split("..")
    try:
        shortest_ns, longest_ns = (duration_ns(each) for each in ends)
    except ValueError:
        raise ValueError(f"'{text}' is no range of times, such as {RANGE}") from None
    return shortest_ns, longest_ns


def options_of(values: Mapping[str, Any], *, stays: bool) -> AttachOptions:
    """From the values of the options, each within its own bounds; one that is missing or None has its default.

    `stays`: napctl stays, and so can adapt. Raises BadInput for timers that contradict each other, or a spin too long.
    """
    given = {name: value for name, value in values.items() if value is not None}
    suspension = Suspension(**{name: given[name] for name in SUSPENSION if name in given})
    if suspension.busy_poll_usecs > MOST_SPIN_USECS and not given.get("force"):
        raise BadInput(
            f"--busy-poll-usecs {suspension.busy_poll_usecs}: a task that spins in epoll_wait cannot be killed until "
            f"it runs out; more than {MOST_SPIN_USECS:,} µs needs --force"
        )
    _refuse_beside_mode(given, stays=stays)
    options = AttachOptions(
        suspension=suspension,
        timer_ns=given.get("timer_ns"),
        budget_ns=given.get("latency_budget_ns"),
        goal=_goal(given, suspension, stays=stays),
        steer=given.get("steer", False),
        force=given.get("force", False),
    )
    return in_mode(options, given.get("mode", "suspend"), spins=given.get("spin", False))


def in_mode(options: AttachOptions, mode: AskedMode, *, spins: bool = False) -> AttachOptions:
    """The same for another mode than suspension."""
    suspension = options.suspension
    if mode not in ("suspend", "auto"):
        suspension = replace(suspension, irq_suspend_timeout_ns=0)
    if mode in OF_INSTANCES:
        suspension = replace(suspension, busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
    return but(options, mode=mode, spin=spins, suspension=suspension)


def _refuse_beside_mode(given: Mapping[str, Any], *, stays: bool) -> None:
    """Options that have no meaning in the mode that is asked for."""
    mode: AskedMode = given.get("mode", "suspend")
    if given.get("spin") and mode != "thread":
        raise BadInput("--spin: threads of the kernel spin; it goes with --mode thread")
    if given.get("steer") and mode not in ("suspend", "auto"):
        raise BadInput(f"--steer: it gives each worker one queue, for suspension; leave it out, as --mode is {mode}")
    if mode != "suspend" and stays and given.get("latency_budget_ns") is not None:
        raise BadInput(f"--latency-budget: adapting is by suspension; leave it out, as --mode is {mode}")
    if mode == "thread" and ("timer_ns" in given or "latency_budget_ns" in given):
        name = "--defer-us" if "timer_ns" in given else "--latency-budget"
        raise BadInput(f"{name}: a thread has no timer; leave it out, as --mode is thread")


def _goal(given: Mapping[str, Any], suspension: Suspension, *, stays: bool) -> LatencyGoal | None:
    """What to adapt for; None: nothing is adapted, and no option is for that."""
    budget_ns, timer_range_ns, prefer = (given.get(name) for name in ("latency_budget_ns", "timer_range_ns", "prefer"))
    adapting = "--timer-range" if timer_range_ns else "--prefer" if prefer else ""
    if "timer_ns" in given and (chooses := adapting or ("" if budget_ns is None else "--latency-budget")):
        raise BadInput(f"{chooses}: --defer-us sets the timer, so there is nothing to choose; leave out one of both")
    if adapting and not stays:
        raise BadInput(f"{adapting}: only who stays can adapt; add --stay")
    if adapting and budget_ns is None:
        raise BadInput(f"{adapting}: adapting needs a --latency-budget, such as 150us")
    if budget_ns is None or not stays:
        return None
    shortest_ns, longest_ns = timer_range_ns or timer_range_ns_of(RANGE)
    ways = ways_between(shortest_ns, longest_ns, irq_suspend_timeout_ns=suspension.irq_suspend_timeout_ns)
    return LatencyGoal(ways=ways, budget_ns=budget_ns, prefer=prefer or "cpu")
