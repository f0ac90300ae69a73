"""How a target is to be attached, as the user asks for it."""

from dataclasses import dataclass

from napctl.adapt.preference import LatencyGoal
from napctl.attach.timer_choice import within
from napctl.change.undoing_order import LONGEST_SUSPENSION_NS
from napctl.model.errors import BadInput
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text

__all__ = ["AttachOptions"]


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

    def __post_init__(self) -> None:
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
