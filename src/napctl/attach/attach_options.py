"""How a target is to be attached, as the user asks for it."""

from dataclasses import dataclass

from napctl.adapt.preference import LatencyGoal
from napctl.model.errors import BadInput
from napctl.model.suspension import Suspension

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
        longest = self.timer_ns or self.budget_ns or self.suspension.gro_flush_timeout_ns
        if self.goal is None and self.suspension.irq_suspend_timeout_ns <= longest:
            raise BadInput("--irq-suspend-timeout must be longer than --defer-us, or nothing is ever suspended")
