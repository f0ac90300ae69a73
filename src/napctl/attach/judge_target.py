"""What fits of a target: what was found, the verdicts, and what of it would be attached. Changes nothing."""

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as but

from napctl.attach.attach_options import AttachOptions
from napctl.attach.fitness import InstanceVerdict, verdicts
from napctl.attach.fitness_report import explain
from napctl.attach.inspect_process import EpollInstance, Key, PlainSocket, Ring
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.next_best import fed_napis, misfit
from napctl.attach.placement import cpus_online_count, places_for_threads
from napctl.attach.plain_sockets import socket_fitness, why_unpollable
from napctl.attach.rings import RingVerdict, ring_verdicts
from napctl.attach.steering import Group, groups
from napctl.attach.thread_places import ThreadPlace, spin_misfit
from napctl.kernel.processes import Process
from napctl.kernel.sysctl import read_global
from napctl.model.fitness import Fitness
from napctl.model.modes import OF_INSTANCES, Mode

__all__ = [
    "BESIDE",
    "NONE",
    "WATCH_SECONDS",
    "Choice",
    "JudgedTarget",
    "choose",
    "judge",
    "judge_target",
    "unfit_words",
    "who",
    "why_not",
]


STILL_OPEN = (
    "connections from before the steering are open in it; `--stay` attaches it once all that are open are of one NAPI "
    "instance"
)
WATCH_SECONDS = 0.25
"""How long to look at the way in which the threads wait. Every system call of the machine costs some 0.15 µs more."""
BESIDE = "its server has another way that fits, which takes no CPU time for nothing"
NONE: Mapping[Key, str] = {}
"""Nothing is refused."""


@dataclass(frozen=True)
class Choice:
    """What of a target is attached."""

    instances: tuple[EpollInstance, ...]
    sockets: tuple[PlainSocket, ...]
    steered: tuple[Group, ...]
    """Groups that are given a program."""
    napis: tuple[int, ...]
    mode: Mode = "suspend"
    """In one of OF_INSTANCES these NAPI instances alone are."""
    threads: tuple[ThreadPlace, ...] = ()
    """Where those of `thread` run."""
    spins: bool = False
    why_empty: str = ""
    """Of a mode of NAPI instances: why none is chosen, in a clause."""
    rings: tuple[Ring, ...] = ()
    """With them no epoll instance is."""

    @property
    def empty(self) -> bool:
        """Whether nothing is chosen."""
        if self.mode in OF_INSTANCES:
            return not self.napis
        return not (self.instances or self.sockets or self.steered or self.rings)

    def without(self, napi_ids: Container[int]) -> "Choice":
        """Of a mode of NAPI instances."""
        napis = tuple(each for each in self.napis if each not in napi_ids)
        return but(self, napis=napis, threads=tuple(each for each in self.threads if each.napi_id not in napi_ids))


@dataclass(frozen=True)
class JudgedTarget:
    """What was found of a target, what was judged of it, and what is chosen to be attached."""

    found: Examination
    verdicts: tuple[InstanceVerdict, ...]
    choice: Choice
    fitness: Fitness
    """All of it in plain data, as people are shown it."""
    seconds: float = 0.0
    """What looking took, where that is part of attaching."""
    rings: tuple[RingVerdict, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of a target was left alone, and why: one sentence each."""
        if self.choice.mode != "suspend":
            return ()
        chosen = {(each.process.pid, each.fd) for each in self.choice.instances}
        left: dict[str, list[str]] = {}
        for each in self.verdicts:
            key = (each.instance.process.pid, each.instance.fd)
            if key not in chosen and each.judgement in ("does not fit", "fits after steering"):
                open_still = each.judgement == "fits after steering" and self.choice.steered
                why = STILL_OPEN if open_still else each.why
                left.setdefault(why, []).append(each.instance.where)
        for one in self.rings:
            if one.ring not in self.choice.rings and one.judgement != "nothing to poll":
                why = BESIDE if one.judgement == "fits" else one.why
                left.setdefault(why, []).append(one.ring.where)
        return tuple(
            f"left alone: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}"
            for why, names in left.items()
        )


def judge_target(name: str, processes: Sequence[Process], options: AttachOptions) -> JudgedTarget:
    """Examine, judge and choose. Takes and raises what examine() does."""
    start = time.monotonic()
    judged = judge(examine(name, processes, WATCH_SECONDS), options)
    return but(judged, seconds=time.monotonic() - start)


def judge(
    found: Examination,
    options: AttachOptions,
    *,
    steered: frozenset[int] = frozenset(),
    refused: Mapping[Key, str] = NONE,
) -> JudgedTarget:
    """Judge what was found, and choose.

    `steered`: as of verdicts(). `refused`: what does not fit for a reason that an examination does not show.
    """
    poll_sysctl = read_global("core/busy_poll")
    judged = tuple(
        but(each, judgement="does not fit", why=refused[each.instance.key], hint="")
        if each.instance.key in refused and each.judgement != "nothing to poll"
        else each
        for each in verdicts(found, steered)
    )
    rings = tuple(
        but(each, judgement="does not fit", why=refused[each.ring.key])
        if each.ring.key in refused and each.judgement == "fits"
        else each
        for each in ring_verdicts(found)
    )
    if options.mode in OF_INSTANCES:
        choice = choose_napis(found, options)
    else:
        mode: Mode = "poll" if options.mode == "poll" else "suspend"
        choice = choose(
            found, judged, rings, steer=options.steer, force=options.force, poll_sysctl=poll_sysctl, without=refused,
            mode=mode,
        )  # fmt: skip
    suspends = options.mode not in OF_INSTANCES
    fitness = explain(found, judged, rings, poll_sysctl=poll_sysctl, suspends=suspends)
    return JudgedTarget(found, judged, choice, fitness, rings=rings)


def choose(
    found: Examination, judged: Iterable[InstanceVerdict], rings: Iterable[RingVerdict] = (), *, steer: bool,
    force: bool, poll_sysctl: int | None = None, without: Container[Key] = (), mode: Mode = "suspend",
) -> Choice:  # fmt: skip
    """What fits; with `steer` also what fits once it is steered; with `force` whatever the kernel would take; but
    nothing `without` which it is to be. In the mode `poll` no epoll instance.

    A worker that has connections from before is left alone when it is steered: they may be of another queue than the
    one that it gets, and one of the two would wait for the suspend timer. A ring is attached in the mode `poll`, and
    where nothing else fits: busy polling costs CPU time that suspension does not.
    """
    judged = tuple(each for each in judged if each.instance.key not in without and mode != "poll")
    after = [each.instance for each in judged if each.judgement == "fits after steering"]
    chosen = [each.instance for each in judged if each.judgement == "fits"]
    if force:
        chosen += [each.instance for each in judged if each.judgement == "does not fit" and _possible(each, found)]
        chosen += after
    elif steer:
        chosen += [each for each in after if not each.sockets_by_napi]
    members = {id(each) for each in after}
    steered = [each for each in groups(found) if steer and any(id(one.instance) in members for one in each.members)]
    plain_sockets = socket_fitness(found, poll_sysctl=poll_sysctl)
    sockets = [one for one, each in plain_sockets if each.judgement == "fits" and one.key not in without]
    ids = {napi for each in chosen for napi in each.sockets_by_napi} | {one.napi_id for one in sockets if one.napi_id}
    only_way = mode == "poll" or not (chosen or sockets or steered)
    busy = [each.ring for each in rings if only_way and each.judgement == "fits"]
    unfed = {id(each) for each in chosen if each.listeners and not each.sockets_by_napi}
    for group in groups(found) if steer else ():
        if group in steered or any(id(member.instance) in unfed for member in group.members):
            ids |= set(group.napis)
    napis = tuple(sorted(ids | {napi_id for ring in busy for napi_id in ring.napis}))
    return Choice(tuple(chosen), tuple(sockets), tuple(steered), napis, mode, rings=tuple(busy))


def choose_napis(found: Examination, options: AttachOptions) -> Choice:
    """Of a mode of NAPI instances: those that feed it, unless that mode cannot be had for one of them."""
    mode: Mode = "thread" if options.mode == "thread" else "defer"
    napis, bad = fed_napis(found), misfit(mode, found)
    places = places_for_threads(found, napis) if mode == "thread" and not bad else ()
    if options.spin and not options.force:
        bad = bad or spin_misfit(places, cpus_online_count())
    ids = () if bad else tuple(each.napi.napi_id for each in napis)
    return Choice((), (), (), ids, mode, () if bad else places, options.spin, bad)


def _possible(verdict: InstanceVerdict, found: Examination) -> bool:
    """Whether the kernel would take it at all."""
    ids = verdict.instance.sockets_by_napi
    located = [found.napis[napi] for napi in ids if napi in found.napis]
    return bool(ids) and len(located) == len(ids) and all(
        each.napi.settings.irq_suspend_timeout_ns is not None for each in located
    )  # fmt: skip


def unfit_words(target: JudgedTarget) -> str:
    """Why nothing of it can be attached in the mode that is asked for, in one clause."""
    mode = target.choice.mode
    if mode in OF_INSTANCES:
        return target.choice.why_empty
    if mode == "poll":
        return _of_ring(target.rings[0]) if target.rings else why_unpollable(target.found)
    return why_not(target.found, target.verdicts, target.rings)


def why_not(found: Examination, judged: Iterable[InstanceVerdict], rings: Sequence[RingVerdict]) -> str:
    """Why nothing of a target can be attached as it is, in one clause."""
    judged = tuple(judged)
    for judgement in ("does not fit", "fits after steering"):
        alike = [each for each in judged if each.judgement == judgement]
        if alike:
            more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
            advice = "`--steer` would give each worker one queue" if judgement != "does not fit" else alike[0].hint
            return alike[0].why + more + (f"; what would help: {advice}" if advice else "")
    unsteerable = next((each for each in judged if each.hint), None)
    if unsteerable is not None:
        return f"{unsteerable.why}; what would help: {unsteerable.hint}"
    return _why_not_without_epoll(found, rings)


def _why_not_without_epoll(found: Examination, rings: Sequence[RingVerdict]) -> str:
    if refused := [each for each in rings if each.judgement == "does not fit"]:
        return _of_ring(refused[0])
    if found.plain_sockets:
        return why_unpollable(found)
    watched = sum(each.watched for each in found.instances)
    if found.instances:
        return next((each.unfed for each in found.instances if each.unfed), None) or (
            f"none of the {watched} descriptors that its epoll instances watch has received a packet through a NAPI "
            "instance: it has no connection yet"
        )
    if rings:
        return _of_ring(rings[0])
    return "it has no epoll instance; the kernel suspends interrupts only for tasks that wait in epoll"


def _of_ring(verdict: RingVerdict) -> str:
    return f"it waits in io_uring (ring {verdict.ring.fd} of {verdict.ring.process.name}): {verdict.why}"


def who(found: Examination) -> str:
    """The target, for messages."""
    first, more = found.processes[0], len(found.processes) - 1
    return f"{first.name} ({first.pid})" + (f" and {more} more" if more else "")
