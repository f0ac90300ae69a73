"""Whether IRQ suspension fits a target: one verdict for each epoll instance, socket and ring, as plain data."""

from typing import Literal

from napctl.model.machine import SCHEMA
from napctl.model.next_best import Offer
from napctl.model.value import Value

__all__ = ["Fitness", "InstanceFitness", "Judgement", "Placement", "SocketFitness", "Steering"]


Judgement = Literal["fits", "fits after steering", "does not fit", "nothing to poll"]
"""`nothing to poll`: no NAPI instance feeds it, so that there is nothing to gain and nothing to lose."""


class InstanceFitness(Value, frozen=True, kw_only=True):
    """One epoll instance."""

    pid: int
    name: str
    epoll_fd: int
    held_by: tuple[int, ...] = ()
    """Other processes that hold the same instance, as after a fork."""
    watched: int
    """Descriptors it watches, of any kind."""
    sockets_by_napi: dict[int, int]
    """Sockets by the NAPI instance that fed them last."""
    threads: tuple[int, ...] | None
    """Threads seen to wait in it; None: nobody looked."""
    loop: str
    """"waits", "spins" (asks with timeout 0), "mostly spins", "not seen"."""
    judgement: Judgement
    why: str
    """One clause."""
    hint: str = ""
    """What would make it fit, in the server's own configuration or the device's; empty: nothing known."""


class SocketFitness(Value, frozen=True, kw_only=True):
    """One socket that is read without epoll, or one io_uring instance."""

    pid: int
    name: str
    fd: int
    kind: str
    """"udp", "tcp", "xdp", "io_uring"."""
    napi_id: int | None
    judgement: Judgement
    why: str


class Placement(Value, frozen=True, kw_only=True):
    """Which worker serves which queue, and on which CPUs both run."""

    pid: int
    tid: int
    name: str
    epoll_fd: int
    device: str
    napi_id: int
    queues: tuple[str, ...]
    worker_cpus: str
    """Where the thread may run, as a kernel list."""
    queue_cpus: str | None
    """Where the interrupt or NAPI thread of the queue runs; None: not told."""
    mismatch: str = ""
    """Why they do not go together; empty: they do, or it is not known."""


class Steering(Value, frozen=True, kw_only=True):
    """One SO_REUSEPORT group whose members can be given one RX queue each."""

    kind: str
    address: str
    members: int
    """Listening sockets, one for each worker."""
    queues: int
    """RX queues of the device."""
    present: int
    """Connections that exist by now, over whatever queue; they stay with their workers until they close."""


class Fitness(Value, frozen=True, kw_only=True):
    """What attaching a target would do, and why."""

    schema: int = SCHEMA
    target: str
    processes: int
    instances: tuple[InstanceFitness, ...]
    sockets: tuple[SocketFitness, ...]
    placements: tuple[Placement, ...]
    steering: tuple[Steering, ...]
    notes: tuple[str, ...]
    """What is worth knowing beside: one sentence each."""
    lacks: tuple[str, ...]
    """What could not be seen, and why: one clause each."""
    next_best: tuple[Offer, ...] = ()
    """What fits beside suspension, without prices; empty: nobody asked."""
