"""Does busy polling help a server that waits in io_uring? Pure functions, and the verdict on each ring.

It is not suspended: that is epoll's alone. But a wait for completions that may sleep first polls the NAPI instances
that fed the sockets which it waits for, one after the other if they are several, for busy_poll_usecs or as long as its
own timer lets it (__io_napi_busy_loop() in io_uring/napi.c); with prefer_busy_poll the softirq keeps out meanwhile.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from napctl.attach.inspect_process import Ring
from napctl.attach.inspect_target import Examination
from napctl.attach.napi_trouble import NO_DEFERRAL, why_not_ours, why_polled
from napctl.kernel.io_uring import why_refused
from napctl.model.fitness import Judgement, SocketFitness
from napctl.model.settings import DYNAMIC, INACTIVE
from napctl.model.waits import ThreadWaits

__all__ = ["RingVerdict", "ring_fitness", "ring_verdicts"]


LISTED = 4
"""NAPI instances that are named in a line."""


@dataclass(frozen=True)
class RingVerdict:
    """Of one ring, with what is needed to act on it."""

    ring: Ring
    judgement: Judgement
    why: str


def ring_verdicts(found: Examination) -> tuple[RingVerdict, ...]:
    """One for each ring."""
    return tuple(RingVerdict(each, *_judge(each, found)) for each in found.rings)


def ring_fitness(judged: Iterable[RingVerdict]) -> Iterator[SocketFitness]:
    """As it is shown."""
    for each in judged:
        ids = sorted(each.ring.napis)
        yield SocketFitness(
            pid=each.ring.process.pid,
            name=each.ring.process.name,
            fd=each.ring.fd,
            kind="io_uring",
            napi_id=ids[0] if len(ids) == 1 else None,
            judgement=each.judgement,
            why=each.why,
        )


def _judge(ring: Ring, found: Examination) -> tuple[Judgement, str]:
    if not ring.napis:
        return "nothing to poll", (
            "no NAPI instance has fed a socket of its process that could be the ring's, as no epoll instance watches it"
        )
    trouble = _trouble(ring) or _napi_trouble(ring, found) or _not_waited_for(ring.threads)
    if trouble:
        return "does not fit", trouble
    ids = sorted(ring.napis)
    named = ", ".join(map(str, ids[:LISTED])) + (" …" if len(ids) > LISTED else "")
    return "fits", (
        f"busy polling, not suspension: each wait for completions polls NAPI {named} itself, for busy_poll_usecs at "
        "most"
    )


def _trouble(ring: Ring) -> str:
    """Why nothing could make it fit."""
    if ring.facts is None:
        return "its server worked on it all the time, so that it could not be read; try again"
    polling = ring.polling
    if polling is None:
        return "this kernel does not tell how a ring polls (Linux 6.12), so that it could not be put back"
    if polling.tracking not in (INACTIVE, DYNAMIC):
        return (
            f"its program has listed the NAPI instances that it polls ({polling.tracking} tracking); the list cannot "
            "be read, so that it could not be put back"
        )
    if ring.refusal:
        return why_refused(ring.refusal)
    if ring.facts.submission_thread:
        return "its kernel thread (IORING_SETUP_SQPOLL) would poll without end: a whole CPU, with traffic and without"
    return ""


def _napi_trouble(ring: Ring, found: Examination) -> str:
    for napi_id in sorted(ring.napis):
        if bad := why_not_ours(napi_id, found.napis):
            return bad
        if found.napis[napi_id].napi.settings.gro_flush_timeout_ns is None:
            return NO_DEFERRAL
        if bad := why_polled(napi_id, found.others):
            return bad
    return ""


def _not_waited_for(threads: Iterable[ThreadWaits] | None) -> str:
    """The kernel polls for a ring only in calls that wait; threads None: nobody looked."""
    if threads is None or any(each.blocked_now or each.calls > each.nonblocking for each in threads):
        return ""
    return "no thread was seen to wait for completions in it (io_uring_enter); the kernel busy-polls only there"
