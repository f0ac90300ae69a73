"""In which order changes are undone, so that nothing waits for a timer that nobody serves any more. Pure."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from napctl.model.change import (
    Change,
    ChannelsChange,
    NapiChange,
    PollerChange,
    RingsChange,
    ThreadChange,
)
from napctl.model.limits import LONGEST_SUSPENSION_NS
from napctl.model.settings import NapiSettings

__all__ = [
    "SUSPENSION",
    "paused_meanwhile",
    "resumed_seconds",
    "suspension_first",
    "suspension_of",
    "undoing_order",
]


SUSPENSION = ("irq_suspend_timeout_ns",)
SLACK_SECONDS = 0.002
"""What a timer, and the task that starts it just before it would have been told otherwise, may be late."""


def resumed_seconds(changes: Sequence[Change]) -> float:
    """How long suspension may go on after irq-suspend-timeout has been set to 0 on these NAPI instances."""
    longest_ns = max((_suspend_ns(each) for each in changes), default=0)
    return min(longest_ns, LONGEST_SUSPENSION_NS) / 1e9 + SLACK_SECONDS if longest_ns else 0.0


def _suspend_ns(change: Change) -> int:
    """What may be in force."""
    if not isinstance(change, NapiChange):
        return 0
    return max(each.irq_suspend_timeout_ns or 0 for each in (change.after, change.leaving or change.after))


def undoing_order(changes: Sequence[Change]) -> list[Change]:
    """Rings first, as when they were changed: a driver that starts its queues anew for them may lose the others.

    Then who polls, so that applications stop before their NAPI instances lose the deferral; then the rest. Of each the
    last change first. But of a device whose channels were changed, deferral and threads come before these: with a queue
    its NAPI instance goes, whose settings some drivers keep for the next one.
    """
    backwards = changes[::-1]
    renumbered = {(each.netns, each.ifindex) for each in changes if isinstance(each, ChannelsChange)}

    def place(change: Change) -> int:
        match change:
            case NapiChange() | ThreadChange() if (change.netns, change.ifindex) in renumbered:
                return 0
            case ChannelsChange():
                return 1
            case RingsChange():
                return 2
        return 3 if _is_of_who_polls(change) else 4

    return sorted(backwards, key=place)


def _is_of_who_polls(change: Change) -> bool:
    return isinstance(change, PollerChange)


def suspension_first(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Changes of who polls and of NAPI instances, as those of irq-suspend-timeout, and what is left of them.

    Who stops polling while interrupts are suspended leaves the queue to the suspend timer: ep_resume_napi_irqs() in
    fs/eventpoll.c does nothing without prefer_busy_poll. So suspension is undone first. What is suspended by then is
    either resumed by the next busy poll, or by the timer, which nobody arms any more (napi_suspend_irqs()).
    """
    if not any(map(_is_of_who_polls, changes)):
        return [], list(changes)
    suspending = [each for each in changes if _suspend_ns(each)]
    rest = [_narrowed(each, lambda name: name not in SUSPENSION) if each in suspending else each for each in changes]
    return suspension_of(suspending), rest


def paused_meanwhile(undone: Sequence[Change], all_in_force: Sequence[Change]) -> list[Change]:
    """NAPI instances that stay, as changes of irq-suspend-timeout, while parts of what is in force are undone.

    Which of them somebody polls is not recorded, so while one who polls is to stop none of them is to be suspended.
    """
    if not any(map(_is_of_who_polls, undone)):
        return []
    return suspension_of([each for each in all_in_force if each not in undone])


def suspension_of(changes: Sequence[Change]) -> list[Change]:
    """Those that may make NAPI instances suspended, as changes of irq-suspend-timeout alone."""
    return [_narrowed(each, SUSPENSION.__contains__) for each in changes if _suspend_ns(each)]


def _narrowed(change: Change, of: Callable[[str], bool]) -> Change:
    """Some of the settings of a NAPI instance alone."""
    assert isinstance(change, NapiChange)

    def some(settings: NapiSettings) -> NapiSettings:
        others = {name: None for name in settings.__struct_fields__ if not of(name)}
        return replace(settings, **others)

    leaving = None if change.leaving is None else some(change.leaving)
    return replace(change, before=some(change.before), after=some(change.after), leaving=leaving)
