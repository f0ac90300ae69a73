"""Does IRQ suspension fit? Pure functions: from what was found to a verdict for each epoll instance.

Source of the rules: Documentation/networking/napi.rst ("IRQ suspension"), and fs/eventpoll.c: an epoll instance follows
one NAPI id, that of the last socket that became ready (ep_set_busy_poll_napi_id()); a wait that found events suspends
the interrupts of that NAPI instance (ep_suspend_napi_irqs()); only a wait that may sleep polls it, and resumes them
when it found nothing (ep_busy_loop()).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from napctl.attach.inspect_process import EpollInstance
from napctl.attach.inspect_target import Examination
from napctl.attach.napi_trouble import why_not_ours, why_polled
from napctl.attach.server_options import hint
from napctl.attach.steering import Group, groups
from napctl.model.fitness import InstanceFitness, Judgement
from napctl.model.waits import ThreadWaits

__all__ = ["InstanceVerdict", "instance_fitness", "loop_of", "verdicts", "waiting_threads"]


SPINS, MOSTLY_SPINS = 0.99, 0.5
"""Share of waits with timeout 0. Measured: a loop that only ever asks with timeout 0, however seldom, finds every
packet by the suspend timer (median latency 18 ms with 20 ms); libevent does so only while it has events to handle."""
ENOUGH_CONNECTIONS = 8
"""With so many of one queue only, by chance in 1 of 128 cases where there are two, something steers them: a filter of
the NIC, say."""
MARKED = (
    "its datagram socket keeps the NAPI id of its first datagram for good (sk_mark_napi_id_once() in "
    "include/net/busy_poll.h); steered now, it might poll another queue than the one it gets"
)


@dataclass(frozen=True)
class InstanceVerdict:
    """Of one epoll instance, with what is needed to act on it."""

    instance: EpollInstance
    judgement: Judgement
    why: str
    hint: str = ""


def verdicts(found: Examination, steered: frozenset[int] = frozenset()) -> tuple[InstanceVerdict, ...]:
    """One for each epoll instance. `steered`: inodes of listening sockets whose group is steered by napctl already."""
    by_instance = {id(member.instance): group for group in groups(found) for member in group.members}
    mixed = _mixed_listeners(found)
    return tuple(_verdict(each, found, by_instance.get(id(each)), steered, mixed) for each in found.instances)


def _verdict(
    instance: EpollInstance,
    found: Examination,
    group: Group | None,
    steered: frozenset[int],
    mixed: Mapping[int, EpollInstance],
) -> InstanceVerdict:
    ids = instance.sockets_by_napi
    steerable = group is not None and group.misfit is None
    several = _receiving(instance, found, group)
    if not ids and (not steerable or several < 2):
        unsteerable = group.misfit if group and several > 1 else None
        return InstanceVerdict(instance, "nothing to poll", _why_unfed(instance), unsteerable or "")
    if bad := _hopeless(instance, found):
        return InstanceVerdict(instance, "does not fit", bad)
    if len(ids) > 1 or (instance.open_udp and several > 1):
        return _over_several(instance, found, group, steered, several)
    if sibling := next((mixed[each.inode] for each in instance.listeners if each.inode in mixed), None):
        return InstanceVerdict(instance, "does not fit", _like(sibling), _hint(instance, found, several))
    return _over_one(instance, group, steered, several)


def _over_one(instance: EpollInstance, group: Group | None, steered: frozenset[int], several: int) -> InstanceVerdict:
    """Now one NAPI instance feeds it: will it stay so?"""
    ids = instance.sockets_by_napi
    steerable = group is not None and group.misfit is None
    if several > 1 and not steerable and _few_to_tell(instance):
        unsteerable = group.misfit if group else None
        return InstanceVerdict(instance, "does not fit", _too_few(instance, several), unsteerable or "")
    if steerable and several > 1 and not _is_steered(instance, steered):
        return InstanceVerdict(
            instance, "fits after steering", "as long as nothing steers them, its connections may come over any queue"
        )
    why = f"all its sockets are fed by NAPI {next(iter(ids))}" if ids else "its queue is steered to it"
    return InstanceVerdict(instance, "fits", why)


def _hopeless(instance: EpollInstance, found: Examination) -> str | None:
    """Why nothing could make it fit."""
    for napi_id in sorted(instance.sockets_by_napi):
        if trouble := _napi_trouble(napi_id, found):
            return trouble
    if instance.outer is not None:
        return (
            f"its loop waits in epoll instance {instance.outer}, which watches this one, and calls epoll_wait here "
            "with timeout 0; the kernel busy-polls only for calls that may block"
        )
    if loop_of(instance.threads) == "spins":
        return (
            "it calls epoll_wait with timeout 0; the kernel busy-polls only for calls that may block, so packets would "
            "wait for the safety timer"
        )
    program = found.programs.get(instance.process.pid)
    if program is not None and program.go:
        return "the Go runtime has one epoll instance for all its threads, and whichever is free waits in it"
    waiting = waiting_threads(instance.threads)
    if len(waiting) > 1:
        return (
            f"{len(waiting)} threads wait in it; each that finds nothing resumes the interrupts that another has "
            "suspended"
        )
    return None


def _napi_trouble(napi_id: int, found: Examination) -> str:
    if bad := why_not_ours(napi_id, found.napis):
        return bad
    if found.napis[napi_id].napi.settings.irq_suspend_timeout_ns is None:
        return "this kernel has no IRQ suspension (irq-suspend-timeout, Linux 6.13)"
    return why_polled(napi_id, found.others)


def _over_several(
    instance: EpollInstance, found: Examination, group: Group | None, steered: frozenset[int], several: int
) -> InstanceVerdict:
    ids = instance.sockets_by_napi
    mix = ", ".join(f"{count} of NAPI {napi}" for napi, count in sorted(ids.items()))
    trap = (
        f"epoll instance {instance.fd} watches sockets of {len(ids)} NAPI instances ({mix}); the kernel would "
        "follow one, and the others would wait for the safety timer"
        if len(ids) > 1
        else f"its datagrams may come over any of {several} NAPI instances; the kernel would follow one"
    )
    if group is not None and group.misfit is None:
        if instance.open_udp and ids and not _is_steered(instance, steered):
            return InstanceVerdict(
                instance, "does not fit", MARKED, "attach it before its first datagram: `napctl run --steer`"
            )
        if _is_steered(instance, steered) and len(ids) > 1:
            return InstanceVerdict(
                instance, "does not fit", f"steered, but connections from before are still open: {mix}"
            )
        if _is_steered(instance, steered):
            return InstanceVerdict(instance, "fits", "its queue is steered to it")
        return InstanceVerdict(instance, "fits after steering", trap)
    if group is not None and group.misfit:
        return InstanceVerdict(instance, "does not fit", trap, group.misfit)
    return InstanceVerdict(instance, "does not fit", trap, _hint(instance, found, several))


def _mixed_listeners(found: Examination) -> dict[int, EpollInstance]:
    """Listening sockets (by inode number) at which some worker has taken in connections of several NAPI instances."""
    mixed = [each for each in found.instances if len(each.sockets_by_napi) > 1]
    return {listener.inode: each for each in reversed(mixed) for listener in each.listeners}


def _like(other: EpollInstance) -> str:
    """Why a worker that has connections of one NAPI instance will have others, too: those with whom it shares a
    listening socket have, and which of them takes in a connection is chance."""
    return (
        f"it shares a listening socket with epoll instance {other.fd} of {other.process.name} "
        f"({other.process.pid}), which watches sockets of {len(other.sockets_by_napi)} NAPI instances; later "
        "connections of its own may come over any of them"
    )


def _hint(instance: EpollInstance, found: Examination, queues: int) -> str:
    """What would help a server whose instances are fed by several queues."""
    located = next((found.napis[napi] for napi in instance.sockets_by_napi if napi in found.napis), None)
    device = located.device.name if located else "DEV"
    fed = sum(bool(each.sockets_by_napi) for each in found.instances)
    return hint(_program(instance, found), device, queues, fed)


def _few_to_tell(instance: EpollInstance) -> bool:
    """It accepts connections itself, and so few that all of them may be of one queue by chance."""
    accepts = any(each.kind == "tcp" for each in instance.listeners)
    return accepts and sum(instance.sockets_by_napi.values()) < ENOUGH_CONNECTIONS


def _too_few(instance: EpollInstance, several: int) -> str:
    count = sum(instance.sockets_by_napi.values())
    return (
        f"it has {count} connection{'s' if count > 1 else ''} so far: too few to tell whether later ones will come "
        f"over others of the {several} NAPI instances"
    )


def _is_steered(instance: EpollInstance, steered: frozenset[int]) -> bool:
    return bool(instance.listeners) and all(each.inode in steered for each in instance.listeners)


def _receiving(instance: EpollInstance, found: Examination, group: Group | None) -> int:
    """NAPI instances that receive for the devices that feed it, or its group; if none does, for those that may."""
    if group is not None:
        return len(group.napis)
    ids = [napi for napi in instance.sockets_by_napi or found.napis if napi in found.napis]
    return len({other for napi in ids for other in found.receiving(napi)})


def _why_unfed(instance: EpollInstance) -> str:
    return instance.unfed or (
        f"none of the {instance.watched} descriptors that it watches has received a packet through a NAPI instance: "
        "it has no connection yet"
    )


def _program(instance: EpollInstance, found: Examination) -> str:
    program = found.programs.get(instance.process.pid)
    return program.name if program else instance.process.name


def waiting_threads(threads: Iterable[ThreadWaits] | None) -> tuple[int, ...]:
    """Threads that were seen to wait."""
    return tuple(sorted({each.tid for each in threads or () if each.calls or each.blocked_now}))


def loop_of(threads: Iterable[ThreadWaits] | None) -> str:
    """Whether a loop waits or spins: "waits", "mostly spins", "spins", "not seen"."""
    seen = list(threads or ())
    calls = sum(each.calls + each.blocked_now for each in seen)
    at_once = sum(each.nonblocking for each in seen)
    if not calls:
        return "not seen"
    if at_once >= SPINS * calls:
        return "spins"
    return "mostly spins" if at_once > MOSTLY_SPINS * calls else "waits"


def instance_fitness(verdict: InstanceVerdict) -> InstanceFitness:
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
