"""Which worker serves which queue, on which CPUs both run, and whether these go together."""

import os
from collections.abc import Iterable, Iterator, Mapping

from napctl.attach.fitness import waiting_threads
from napctl.attach.inspect_process import EpollInstance
from napctl.attach.inspect_target import Examination, LocatedNapi
from napctl.kernel.numa import cpus_by_node
from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.fitness import Placement

__all__ = ["mismatch", "placements"]


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


def _queues(located: LocatedNapi) -> tuple[str, ...]:
    queues = located.device.queues
    return tuple(f"{each.kind}{each.index}" for each in queues if each.napi_id == located.napi.napi_id)
