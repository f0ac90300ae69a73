"""Examinations without a kernel: processes, epoll instances, listeners and devices as tests need them."""

import socket
from collections.abc import Iterable, Mapping, Sequence

from napctl.attach.fitness import verdicts
from napctl.attach.fitness_report import explain
from napctl.attach.inspect_process import EpollInstance, Listener, PlainSocket, Ring
from napctl.attach.inspect_target import Examination, LocatedNapi
from napctl.attach.judge_target import JudgedTarget, choose
from napctl.attach.rings import ring_verdicts
from napctl.kernel.executable import Program
from napctl.kernel.io_uring import RingFacts
from napctl.kernel.processes import Process
from napctl.kernel.sockets import Kind
from napctl.model.machine import Device, EpollPoller, Napi, Queue, RingPoller
from napctl.model.settings import INACTIVE, EpollParams, NapiSettings, RingPolling, SocketPolling
from napctl.model.waits import Call, ThreadWaits

UNSET = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
QUIET = RingPolling(tracking=INACTIVE, busy_poll_usecs=0, prefer_busy_poll=False)
ABLE = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="disabled")
NETNS, IFINDEX = 1, 3
PORT = socket.AF_INET.to_bytes(2, "little") + (8080).to_bytes(2, "big") + bytes([10, 0, 0, 1]) + bytes(8)
GROUP = ("tcp", NETNS, PORT)


def process(pid: int = 42, name: str = "server") -> Process:
    return Process(pid=pid, name=name, started_ticks=pid)


def listener(
    inode: int, *, reuseport: bool = True, kind: Kind = "tcp", group: tuple[str, int, bytes] = GROUP
) -> Listener:
    return Listener(inode=inode, fd=inode, kind=kind, reuseport=reuseport, group=(kind, *group[1:]))


def instance(
    fd: int, sockets_by_napi: Mapping[int, int] | None = None, params: EpollParams = UNSET, *, pid: int = 42,
    listeners: Iterable[Listener] = (), threads: tuple[ThreadWaits, ...] | None = None,
    also: tuple[tuple[int, int], ...] = (),
) -> EpollInstance:  # fmt: skip
    by_napi = dict(sockets_by_napi or {})
    listening = tuple(listeners)
    return EpollInstance(
        process(pid), fd, params, 2 + sum(by_napi.values()), by_napi, listening, also=also, threads=threads
    )


def waits(
    tid: int = 42, calls: int = 100, nonblocking: int = 0, *, blocked: bool = True, call: Call = "epoll", fd: int = 5
) -> ThreadWaits:
    return ThreadWaits(
        pid=42, tid=tid, call=call, fd=fd, calls=calls, nonblocking=nonblocking, fruitful=calls, blocked_now=blocked,
        timeout_ms=-1 if blocked else None,
    )  # fmt: skip


def plain_socket(
    napi_id: int | None = 300, *, kind: Kind = "udp", threads: tuple[ThreadWaits, ...] | None = None,
    nonblocking: bool = False,
) -> PlainSocket:  # fmt: skip
    off = SocketPolling(busy_poll_usecs=0, prefer_busy_poll=False)
    return PlainSocket(process(), 9, 900, kind, napi_id, off, nonblocking, threads)


def ring(
    *napis: int, fd: int = 20, pid: int = 42, polling: RingPolling | None = QUIET, told: bool = True, refusal: int = 0,
    submission_thread: bool = False, threads: tuple[ThreadWaits, ...] | None = None,
) -> Ring:  # fmt: skip
    """`told`: whether it could be read."""
    facts = RingFacts(polling, submission_thread, frozenset()) if told else None
    return Ring(process(pid), fd, 100 * pid + fd, facts, refusal, frozenset(napis), threads=threads)


def nic(
    queues: Sequence[int | None], *, name: str = "eth0", ifindex: int = IFINDEX, settings: NapiSettings = ABLE,
    driver: str = "veth", napis: Iterable[int] = (),
) -> Device:  # fmt: skip
    """A device whose RX queue q is served by the NAPI instance queues[q] (None: not told); `napis`: more instances."""
    ids = sorted({napi_id for napi_id in queues if napi_id} | set(napis))
    return Device(
        name=name, ifindex=ifindex, up=True, driver=driver,
        napis=tuple(Napi(napi_id=napi_id, ifindex=ifindex, irq=None, cpus="0", settings=settings) for napi_id in ids),
        queues=tuple(
            Queue(ifindex=ifindex, kind="rx", index=index, napi_id=napi_id) for index, napi_id in enumerate(queues)
        ),
    )  # fmt: skip


def examination(
    *instances: EpollInstance, queues: int | None = None, settings: NapiSettings = ABLE, known: bool = True,
    plain_sockets: tuple[PlainSocket, ...] = (), others: tuple[EpollPoller | RingPoller, ...] = (),
    program: Program | None = None, rings: Sequence[Ring] = (),
    sharers: Mapping[tuple[str, int, bytes], frozenset[int]] | None = None,
    nics: Sequence[Device] | None = None, namespaces: frozenset[int] = frozenset({NETNS}),
) -> Examination:  # fmt: skip
    """`nics`: the devices that feed it; by default one, with a queue for each of its NAPI instances. These are
    `queues`, 300 and on; by default those that feed somebody."""
    used = {napi for each in instances for napi in each.sockets_by_napi}
    used |= {each.napi_id for each in plain_sockets if each.napi_id}
    used |= {napi_id for each in rings for napi_id in each.napis}
    ids = sorted(used | set(range(300, 300 + (queues or 0))))
    found = {each.process.pid: each.process for each in instances}
    found = found | {each.process.pid: each.process for each in rings} or {42: process()}
    located = {
        napi.napi_id: LocatedNapi(napi, device, NETNS)
        for device in (nics if nics is not None else [nic(ids, settings=settings)])
        for napi in device.napis
    }
    return Examination(
        name="server",
        processes=tuple(found.values()),
        instances=instances,
        plain_sockets=plain_sockets,
        rings=tuple(rings),
        napis=located if known else {},
        others=others,
        programs={pid: program or Program("server", ("server",)) for pid in found},
        namespaces=namespaces,
        sharers=sharers or {GROUP: frozenset(one.inode for each in instances for one in each.listeners)},
    )


def judged(
    found: Examination, *, steer: bool = False, force: bool = False, steered: frozenset[int] = frozenset()
) -> JudgedTarget:
    """What was found, with the verdicts, and what of it would be attached."""
    each, rings = verdicts(found, steered), ring_verdicts(found)
    choice = choose(found, each, rings, steer=steer, force=force)
    return JudgedTarget(found, each, choice, explain(found, each, rings), rings=rings)
