"""In which way an attached target takes its packets: read off what was changed for it."""

from collections.abc import Sequence
from typing import Literal, get_args

from napctl.model.change import Change, EpollChange, NapiChange, RingChange, SocketChange, SteeringChange, ThreadChange
from napctl.model.settings import BUSY_POLL

__all__ = ["ASKED", "OF_INSTANCES", "AskedMode", "Mode", "mode_of", "satisfies", "spins"]


Mode = Literal["suspend", "poll", "thread", "defer"]
"""`suspend`: its epoll instances poll, and interrupts are suspended meanwhile. `poll`: its blocking reads busy poll, or
its waits in io_uring. `thread`: a thread of the kernel polls for it. `defer`: interrupts are deferred, and nobody else
polls."""
AskedMode = Literal["suspend", "poll", "thread", "defer", "auto"]
"""`suspend` polls also for sockets that are read without epoll, and for rings where nothing else fits; `auto`:
suspension where it fits, else the best."""
ASKED: tuple[AskedMode, ...] = get_args(AskedMode)
OF_INSTANCES: tuple[Mode, ...] = ("thread", "defer")
"""Modes that are settings of NAPI instances alone: nothing of the target itself is changed, and nothing of it polls."""


def mode_of(changes: Sequence[Change]) -> Mode:
    """Of an attachment."""
    if any(isinstance(each, ThreadChange) for each in changes):
        return "thread"
    if any(isinstance(each, EpollChange | SteeringChange) for each in changes):
        return "suspend"
    if any(isinstance(each, SocketChange | RingChange) for each in changes):
        return "poll"
    napis = [each.after for each in changes if isinstance(each, NapiChange)]
    defers = any(each.gro_flush_timeout_ns and not each.irq_suspend_timeout_ns for each in napis)
    return "defer" if defers else "suspend"


def satisfies(mode: Mode, asked: AskedMode) -> bool:
    """Whether an attachment in that mode is what was asked for."""
    return asked in (mode, "auto") or (asked, mode) == ("suspend", "poll")


def spins(changes: Sequence[Change]) -> bool:
    """Whether a thread of an attachment never sleeps."""
    return any(isinstance(each, ThreadChange) and each.after.threaded == BUSY_POLL for each in changes)
