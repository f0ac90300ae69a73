"""Attached io_uring instances of a target of which something else has come to fit. Pure."""

from napctl.attach.follow_step import Step
from napctl.attach.judge_target import BESIDE, JudgedTarget
from napctl.model.change import Change, IoUringChange, NapiChange, Transaction

__all__ = ["step_without_rings"]


def step_without_rings(transaction: Transaction, now: JudgedTarget) -> Step:
    """What lets go of them, as if they had never been attached, where an epoll instance is to be; empty: nothing does.

    Their NAPI instances have no suspension, and what these had before is to be read anew once it is put back: what is
    to be attached instead is another step, after another look.
    """
    step, choice = Step(), now.choice
    rings = [each for each in transaction.changes if isinstance(each, IoUringChange)]
    if not rings or choice.rings or not choice.instances:
        return step
    step.without = [each for each in transaction.changes if isinstance(each, IoUringChange) or _only_defers(each)]
    for ring in rings:
        step.say(f"detached {ring.where}: {BESIDE}", "detach")
    return step


def _only_defers(change: Change) -> bool:
    return isinstance(change, NapiChange) and not change.after.irq_suspend_timeout_ns
