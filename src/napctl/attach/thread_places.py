"""On which CPU each NAPI thread of a target is to run: beside its worker, and not on the worker's own. Pure."""

from collections.abc import Collection, Mapping, Sequence

from napctl.attach.inspect_target import LocatedNapi
from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.value import Value

__all__ = ["ThreadPlace", "spin_misfit", "thread_places", "thread_words"]


class ThreadPlace(Value, frozen=True, kw_only=True):
    """Of the thread of one NAPI instance."""

    netns: int
    napi_id: int
    cpu: int
    shared: bool
    """Workers of the target may run there: it takes CPU time from them."""


def thread_places(
    napis: Sequence[LocatedNapi], workers: Collection[int], online: Collection[int],
    nodes: Mapping[int, frozenset[int]],
) -> tuple[ThreadPlace, ...]:  # fmt: skip
    """One for each. `workers`: CPUs on which the target's threads may run; `online`: CPUs that can be had, of which
    there is one at least; `nodes`: CPUs of each NUMA node.

    Wherever workers leave a CPU, a thread gets one that they leave, of their own node if there is one; then one that no
    other of these threads has; then the one to which its interrupts come.
    """
    near = {cpu for cpus in nodes.values() if cpus & set(workers) for cpu in cpus} or set(online)
    taken: dict[int, int] = {}
    found = []
    for each in napis:
        own = parse_cpus(each.napi.cpus) if each.napi.cpus else frozenset()

        def rank(cpu: int, own: frozenset[int] = own) -> tuple[bool, bool, int, bool, int]:
            return cpu in workers, cpu not in near, taken.get(cpu, 0), cpu not in own, cpu

        cpu = min(online, key=rank)
        taken[cpu] = taken.get(cpu, 0) + 1
        found.append(ThreadPlace(netns=each.netns, napi_id=each.napi.napi_id, cpu=cpu, shared=cpu in workers))
    return tuple(found)


def spin_misfit(places: Sequence[ThreadPlace], online: int) -> str:
    """Why threads that never sleep cannot be had there, in a clause; empty: they can. `online`: so many CPUs there are.

    Each needs one of its own, and the rest of the machine one as well.
    """
    own = {each.cpu for each in places}
    if len(own) == len(places) < online:
        return ""
    spinning = f"{len(places)} thread{'s' * (len(places) > 1)} would spin"
    return f"{spinning}, on {len(own)} of {online} CPU{'s' * (online > 1)}"


def thread_words(places: Sequence[ThreadPlace]) -> str:
    """Which CPUs they take, in a clause."""
    cpus = cpus_text(each.cpu for each in places)
    some = f"CPU {cpus}" if len({each.cpu for each in places}) == 1 else f"CPUs {cpus}"
    if all(each.shared for each in places):
        return f"on {some}, where the target runs as well"
    return f"on {some}"
