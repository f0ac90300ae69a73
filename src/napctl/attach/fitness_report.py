"""What attaching a target would do, and why, as one value: for --dry-run, and for the report after it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from napctl.attach.fitness import InstanceVerdict, instance_fitness, loop_of
from napctl.attach.inspect_target import Examination
from napctl.attach.placement import placements
from napctl.attach.plain_sockets import socket_fitness
from napctl.attach.rings import RingVerdict, ring_fitness
from napctl.attach.server_options import steers_itself
from napctl.attach.steering import groups, steering
from napctl.model.driver_quirks import PERSISTENT, RECEIVES_WHERE_ANSWERED
from napctl.model.fitness import Fitness, SocketFitness

__all__ = ["explain"]


def explain(
    found: Examination, judged: Iterable[InstanceVerdict], rings: Iterable[RingVerdict] = (), *,
    poll_sysctl: int | None = None, suspends: bool = True,
) -> Fitness:  # fmt: skip
    """Everything that is known of a target's fitness. Changes nothing. `suspends`: what hampers that is to be noted."""
    judged, rings = tuple(judged), tuple(rings)
    return Fitness(
        target=found.name,
        processes=len(found.processes),
        instances=tuple(instance_fitness(each) for each in judged),
        sockets=(*ring_fitness(rings), *_left_to_themselves(found, rings, poll_sysctl)),
        placements=placements(found, (each.instance for each in judged if each.instance.sockets_by_napi)),
        steering=tuple(steering(found)),
        notes=tuple(
            dict.fromkeys(chain(_notes(found), *((_hampers(found), _loops(judged), _price(rings)) if suspends else ())))
        ),
        lacks=found.lacks,
    )


def _left_to_themselves(
    found: Examination, rings: Iterable[RingVerdict], poll_sysctl: int | None
) -> Iterator[SocketFitness]:
    """Sockets without epoll, but for those that a ring waits for."""
    by_ring = {pid for each in rings if each.judgement == "fits" for pid, _ in each.ring.places}
    for _, each in socket_fitness(found, poll_sysctl=poll_sysctl):
        if each.pid not in by_ring or each.judgement == "fits":
            yield each


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


def _price(rings: Iterable[RingVerdict]) -> Iterator[str]:
    if any(each.judgement == "fits" for each in rings):
        yield (
            "busy polling in io_uring takes CPU time while there is traffic, up to all of the CPU; at rest each wait "
            "polls for busy_poll_usecs and then sleeps, so that a loop with a timer pays that at each tick"
        )
