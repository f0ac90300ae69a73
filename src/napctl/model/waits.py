"""How the threads of some processes waited for packets: which calls they made, and whether those could wait."""

from typing import Literal

from napctl.model.value import Value

__all__ = ["Call", "ThreadWaits", "Waits"]


Call = Literal["epoll", "poll", "select", "recv", "io_uring"]
"""Kinds of system calls. `epoll`: epoll_wait, epoll_pwait, epoll_pwait2; `poll`: poll, ppoll; `select`: select,
pselect6; `recv`: recvfrom, recvmsg, recvmmsg, and read if from a socket; `io_uring`: io_uring_enter. Calls of poll and
select for no descriptor are sleeps, and left out."""


class ThreadWaits(Value, frozen=True, kw_only=True):
    """One thread's calls of one kind on one descriptor."""

    pid: int
    tid: int
    call: Call
    fd: int
    """The epoll instance, the socket, or the ring; -1 for poll and select, and for a ring that is named by an index."""
    calls: int
    """That returned during the watch. 0 where the source cannot count (`Waits.source`)."""
    nonblocking: int
    """Of these, those that could not wait: a timeout of 0; recv with MSG_DONTWAIT, or from a socket with O_NONBLOCK;
    io_uring_enter that waits for no completion."""
    fruitful: int
    """Of these, those that returned more than 0. For io_uring that is what was submitted, not what was completed."""
    blocked_now: bool
    """Was inside such a call, asleep, when the watch ended."""
    timeout_ms: int | None = None
    """Of the call it is blocked in; -1: without end. None: not blocked, or not known."""


class Waits(Value, frozen=True, kw_only=True):
    """What was seen of all of them."""

    threads: tuple[ThreadWaits, ...]
    seconds: float
    """How long the watch was."""
    source: Literal["bpf", "proc"]
    """`proc`: samples. They find who was blocked in what, and count nothing."""
    lacks: tuple[str, ...]
    """What could not be told, and why; each a clause."""
