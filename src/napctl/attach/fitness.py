"""Does IRQ suspension fit? Pure functions: from what was found to a verdict for each epoll instance.

Source of the rules: Documentation/networking/napi.rst ("IRQ suspension"), and fs/eventpoll.c: an epoll instance follows
one NAPI id, that of the last socket that became ready (ep_set_busy_poll_napi_id()); a wait that found events suspends
the interrupts of that NAPI instance (ep_suspend_napi_irqs()); only a wait that may sleep polls it, and resumes them
when it found nothing (ep_busy_loop()).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from napctl.attach.examine import Examination
from napctl.attach.hints import hint
from napctl.attach.look import EpollInstance
from napctl.attach.steering import Group, groups
from napctl.model.fitness import InstanceFitness, Judgement
from napctl.model.waits import ThreadWaits

SPINS, MOSTLY_SPINS = 0.99, 0.5
"""Share of waits with timeout 0. Measured: a loop that only ever asks with timeout 0 finds every packet by the suspend
timer (median latency 18 ms with 20 ms); libevent does so only while it has events to handle."""
FEW_CALLS = 20


@dataclass(frozen=True)
class Verdict:
    """Of one epoll instance, with what is needed to act on it."""

    instance: EpollInstance
    judgement: Judgement
    why: str
    hint: str = ""


def verdicts(found: Examination, steered: frozenset[int] = frozenset()) -> tuple[Verdict, ...]:
    """One for each epoll instance. `steered`: inodes of listening sockets whose group is steered by napctl already."""
    by_instance = {id(member.instance): group for group in groups(found) for member in group.members}
    return tuple(_verdict(each, found, by_instance.get(id(each)), steered) for each in found.instances)


def _verdict(instance: EpollInstance, found: Examination, group: Group | None, steered: frozenset[int]) -> Verdict:
    ids = instance.sockets_by_napi
    steerable = group is not None and group.misfit is None
    queues = _queues(instance, found)
    if not ids and (not steerable or queues < 2):
        return Verdict(instance, "nothing to poll", _why_unfed(instance))
    if bad := _hopeless(instance, found):
        return Verdict(instance, "does not fit", bad)
    if len(ids) > 1 or (instance.open_udp and queues > 1):
        return _over_several(instance, found, group, steered, queues)
    if steerable and group is not None and queues > 1 and not _is_steered(instance, steered):
        return Verdict(instance, "fits after steering", "until then its connections may come over any queue")
    why = f"all its sockets are fed by NAPI {next(iter(ids))}" if ids else "its queue is steered to it"
    return Verdict(instance, "fits", why)


def _hopeless(instance: EpollInstance, found: Examination) -> str | None:
    """Why nothing could make it fit."""
    for napi_id in sorted(instance.sockets_by_napi):
        if trouble := _napi_trouble(napi_id, found):
            return trouble
    if loop_of(instance.threads) == "spins":
        return (
            "its loop asks with timeout 0 and never waits: the kernel polls only for who may sleep, so that packets "
            "would wait for the suspend timer"
        )
    if _go(instance, found):
        return "the Go runtime has one epoll instance for all its threads, and whichever is free waits in it"
    waiting = waiting_threads(instance.threads)
    if len(waiting) > 1:
        return (
            f"{len(waiting)} threads were seen to wait in it; each that finds nothing resumes the interrupts that "
            "another has suspended"
        )
    return None


def _napi_trouble(napi_id: int, found: Examination) -> str | None:
    located = found.napis.get(napi_id)
    if located is None:
        return f"NAPI {napi_id} belongs to no device of its network namespace or of ours"
    if located.napi.settings.irq_suspend_timeout_ns is None:
        return "this kernel has no IRQ suspension (irq-suspend-timeout, Linux 6.13)"
    for other in found.others:
        if napi_id in other.napi_ids:
            return f"NAPI {napi_id} is polled by {other.name} ({other.pid}) already, through epoll {other.epoll_fd}"
    return None


def _over_several(
    instance: EpollInstance, found: Examination, group: Group | None, steered: frozenset[int], queues: int
) -> Verdict:
    ids = instance.sockets_by_napi
    mix = ", ".join(f"{count} of NAPI {napi}" for napi, count in sorted(ids.items()))
    trap = (
        f"epoll instance {instance.fd} watches sockets of {len(ids)} NAPI instances ({mix}); the kernel would "
        "follow one and let the others wait for the suspend timer"
        if len(ids) > 1
        else f"its datagrams may come over any of {queues} queues, of which the kernel would follow one"
    )
    if group is not None and group.misfit is None:
        if _is_steered(instance, steered) and len(ids) > 1:
            return Verdict(instance, "does not fit", f"steered, but connections from before are still open: {mix}")
        if _is_steered(instance, steered):
            return Verdict(instance, "fits", "its queue is steered to it")
        return Verdict(instance, "fits after steering", trap)
    if group is not None and group.misfit:
        return Verdict(instance, "does not fit", trap, group.misfit)
    located = next((found.napis[napi] for napi in ids if napi in found.napis), None)
    device = located.device.name if located else "DEV"
    fed = sum(bool(each.sockets_by_napi) for each in found.instances)
    return Verdict(instance, "does not fit", trap, hint(_program(instance, found), device, queues, fed))


def _is_steered(instance: EpollInstance, steered: frozenset[int]) -> bool:
    return bool(instance.listeners) and all(each.inode in steered for each in instance.listeners)


def _queues(instance: EpollInstance, found: Examination) -> int:
    """RX queues of the devices that feed the target, as far as they concern this instance."""
    ids = instance.sockets_by_napi or found.napis
    devices = {(found.napis[napi].netns, found.napis[napi].device.ifindex): napi for napi in ids if napi in found.napis}
    return max((len(found.receiving(napi)) for napi in devices.values()), default=0)


def _why_unfed(instance: EpollInstance) -> str:
    return (
        f"none of the {instance.watched} descriptors that it watches has received a packet through a NAPI instance: "
        "it has no connection yet, or only over loopback, which has no NAPI instance"
    )


def _go(instance: EpollInstance, found: Examination) -> bool:
    program = found.programs.get(instance.process.pid)
    return program is not None and program.go


def _program(instance: EpollInstance, found: Examination) -> str:
    program = found.programs.get(instance.process.pid)
    return program.name if program else instance.process.name


def waiting_threads(threads: Iterable[ThreadWaits] | None) -> tuple[int, ...]:
    """Threads that were seen to wait."""
    return tuple(sorted({each.tid for each in threads or () if each.calls or each.blocked_now}))


def loop_of(threads: Iterable[ThreadWaits] | None) -> str:
    """Whether a loop waits or spins: "waits", "mostly spins", "spins", "not seen"."""
    seen = list(threads or ())
    calls, at_once = sum(each.calls for each in seen), sum(each.nonblocking for each in seen)
    if any(each.blocked_now and each.timeout_ms != 0 for each in seen) and at_once < SPINS * calls:
        return "mostly spins" if at_once > MOSTLY_SPINS * calls else "waits"
    if not calls:
        return "waits" if any(each.blocked_now for each in seen) else "not seen"
    if calls >= FEW_CALLS and at_once >= SPINS * calls:
        return "spins"
    return "mostly spins" if at_once > MOSTLY_SPINS * calls else "waits"


def instance_fitness(verdict: Verdict) -> InstanceFitness:
    """As it is shown."""
    instance = verdict.instance
    return InstanceFitness(
        pid=instance.process.pid,
        name=instance.process.name,
        epoll_fd=instance.fd,
        held_by=tuple(sorted({pid for pid, _ in instance.also})),
        watched=instance.watched,
        sockets_by_napi=dict(instance.sockets_by_napi),
        threads=None if instance.threads is None else waiting_threads(instance.threads),
        loop=loop_of(instance.threads),
        judgement=verdict.judgement,
        why=verdict.why,
        hint=verdict.hint,
    )
