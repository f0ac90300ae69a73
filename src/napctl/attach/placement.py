"""Which worker serves which queue, on which CPUs both run, and whether these go together."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from napctl.attach.fitness import waiting_threads
from napctl.attach.inspect_process import EpollInstance
from napctl.attach.inspect_target import Examination, LocatedNapi
from napctl.attach.thread_places import ThreadPlace, thread_places
from napctl.kernel.numa import cpus_by_node
from napctl.kernel.processes import PROC, Process
from napctl.kernel.running_kernel import cpus_online
from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.fitness import Placement

__all__ = ["cpus_online_count", "mismatch", "placements", "places_for_threads"]


MOST_THREADS = 64
"""Of one instance: one that more wait in fits nowhere."""


def placements(found: Examination, instances: Iterable[EpollInstance]) -> tuple[Placement, ...]:
    """One for each thread and queue of these epoll instances. Threads that have gone are left out."""
    nodes = cpus_by_node()
    return tuple(each for instance in instances for each in _of_instance(instance, found, nodes))


def _of_instance(
    instance: EpollInstance, found: Examination, nodes: Mapping[int, frozenset[int]]
) -> Iterator[Placement]:
    threads = waiting_threads(instance.threads)[:MOST_THREADS] or (instance.process.pid,)
    for napi_id in sorted(instance.sockets_by_napi):
        located = found.napis.get(napi_id)
        for tid in threads if located else ():
            try:
                worker = frozenset(os.sched_getaffinity(tid))
            except OSError:
                continue
            assert located is not None
            queue = parse_cpus(located.napi.cpus) if located.napi.cpus else None
            yield Placement(
                pid=instance.process.pid,
                tid=tid,
                name=instance.process.name,
                epoll_fd=instance.fd,
                device=located.device.name,
                napi_id=napi_id,
                queues=_queues(located),
                worker_cpus=cpus_text(worker),
                queue_cpus=located.napi.cpus,
                mismatch=mismatch(worker, queue, nodes),
            )


def mismatch(worker: frozenset[int], queue: frozenset[int] | None, nodes: Mapping[int, frozenset[int]]) -> str:
    """Why a worker that may run on these CPUs and a queue whose interrupt comes to those do not go together; "" if they
    do, or the queue's CPUs are not known."""
    if not queue or worker & queue:
        return ""
    worker_nodes = {node for node, cpus in nodes.items() if cpus & worker}
    queue_nodes = {node for node, cpus in nodes.items() if cpus & queue}
    if worker_nodes and queue_nodes and not worker_nodes & queue_nodes:
        return f"the worker is on NUMA node {cpus_text(worker_nodes)}, its queue on node {cpus_text(queue_nodes)}"
    return f"the worker never runs where its queue's interrupt comes: CPU {cpus_text(queue)}"


def places_for_threads(found: Examination, napis: Sequence[LocatedNapi]) -> tuple[ThreadPlace, ...]:
    """Where the threads of these NAPI instances are to run, beside the target's own."""
    online = parse_cpus(cpus_online())
    return thread_places(napis, worker_cpus(found.processes) & online, online, cpus_by_node())


def cpus_online_count() -> int:
    """How many there are to share."""
    return len(parse_cpus(cpus_online()))


def worker_cpus(processes: Iterable[Process]) -> frozenset[int]:
    """CPUs on which threads of these processes may run; of a process with many, of some."""
    cpus: set[int] = set()
    for process in processes:
        with suppress(OSError):  # it has gone
            for task in islice((PROC / str(process.pid) / "task").iterdir(), MOST_THREADS):
                with suppress(OSError):
                    cpus |= os.sched_getaffinity(int(task.name))
    return frozenset(cpus)


def _queues(located: LocatedNapi) -> tuple[str, ...]:
    queues = located.device.queues
    return tuple(f"{each.kind}{each.index}" for each in queues if each.napi_id == located.napi.napi_id)
