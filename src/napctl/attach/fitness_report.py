"""What attaching a target would do, and why, as one value: for --dry-run, and for the report after it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from napctl.attach.fitness import InstanceVerdict, instance_fitness, loop_of
from napctl.attach.inspect_target import Examination
from napctl.attach.placement import placements
from napctl.attach.plain_sockets import socket_fitness
from napctl.attach.server_options import steers_itself
from napctl.attach.steering import groups, steering
from napctl.model.driver_quirks import PERSISTENT, RECEIVES_WHERE_ANSWERED
from napctl.model.fitness import Fitness, SocketFitness

__all__ = ["explain"]


def explain(
    found: Examination, judged: Iterable[InstanceVerdict], *, poll_sysctl: int | None = None, suspends: bool = True
) -> Fitness:
    """Everything that is known of a target's fitness. Changes nothing. `suspends`: what hampers that is to be noted."""
    judged = tuple(judged)
    return Fitness(
        target=found.name,
        processes=len(found.processes),
        instances=tuple(instance_fitness(each) for each in judged),
        sockets=(*(each for _, each in socket_fitness(found, poll_sysctl=poll_sysctl)), *_rings(found)),
        placements=placements(found, (each.instance for each in judged if each.instance.sockets_by_napi)),
        steering=tuple(steering(found)),
        notes=tuple(dict.fromkeys(chain(_notes(found), *((_hampers(found), _loops(judged)) if suspends else ())))),
        lacks=found.lacks,
    )


def _rings(found: Examination) -> Iterator[SocketFitness]:
    for process, fd in found.rings:
        yield SocketFitness(
            pid=process.pid,
            name=process.name,
            fd=fd,
            kind="io_uring",
            napi_id=None,
            judgement="does not fit",
            why="the kernel suspends interrupts only for epoll; the ring is left alone",
        )


def _notes(found: Examination) -> Iterator[str]:
    for device in {located.device.name: located.device for located in found.napis.values()}.values():
        if device.driver is not None and device.driver not in PERSISTENT:
            yield (
                f"{device.driver} ({device.name}) does not keep NAPI settings over a link reset or a change of "
                "channels; `attach --stay` sets them again"
            )


def _hampers(found: Examination) -> Iterator[str]:
    for device in {located.device.name: located.device for located in found.napis.values()}.values():
        if device.driver in RECEIVES_WHERE_ANSWERED and any(steering(found)):
            yield (
                f"{device.driver} ({device.name}): its host may move a connection to the queue over which it is "
                "answered; let that be the one that received it: `echo 1 >/sys/class/net/"
                f"{device.name}/queues/tx-0/xps_rxqs`, 2 for tx-1, 4 for tx-2 and so on"
            )
    for pid, program in found.programs.items():
        option = steers_itself(program.name, program.arguments)
        if option is not None:
            yield f"{program.name} ({pid}) gives each thread the connections of one queue itself ({option})"
    for group in groups(found):
        if group.misfit is not None and len(group.napis) > 1:
            yield f"the listeners on {group.address} cannot be steered: {group.misfit}"
    waiting = [each for each in found.instances if each.sockets_by_napi]
    ids = [napi for each in waiting for napi in each.sockets_by_napi]
    if len(set(ids)) > len(waiting) > 0:
        yield f"more NAPI instances ({len(set(ids))}) feed it than epoll instances ({len(waiting)}) could follow"
    single = Counter(next(iter(each.sockets_by_napi)) for each in waiting if len(each.sockets_by_napi) == 1)
    shared = sorted(napi for napi, count in single.items() if count > 1)
    if shared:
        names = ", ".join(map(str, shared[:4])) + (" …" if len(shared) > 4 else "")
        yield f"several of its epoll instances follow the same NAPI instance ({names}) and take turns in polling it"


def _loops(judged: Iterable[InstanceVerdict]) -> Iterator[str]:
    for each in judged:
        if each.instance.sockets_by_napi and loop_of(each.instance.threads) == "mostly spins":
            yield (
                f"the loop on epoll {each.instance.fd} of {each.instance.process.name} ({each.instance.process.pid}) "
                "mostly calls epoll_wait with timeout 0; the kernel busy-polls only in the calls between, which may "
                "block"
            )
