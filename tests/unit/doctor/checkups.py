"""Checkups for the tests of the rules: a healthy NIC and two CPUs, of which a test changes what it is about."""

from typing import Any

from msgspec.structs import replace

from napctl.doctor.rules import diagnose
from napctl.model.counts import CpuCounts, DeviceCounts, PollerCounts, QueueCounts
from napctl.model.finding import Checkup, CpuUse, Finding, ProcessUse, ThreadUse
from napctl.model.histogram import EMPTY, Histogram
from napctl.model.machine import (
    Coalescing,
    Device,
    DeviceDeferral,
    EpollPoller,
    Machine,
    Napi,
    Queue,
    Rings,
)
from napctl.model.overload import CpuLoad, PacketLoad
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.window import EmptyPolls, NapiWindow, Window

NETNS, IFINDEX = 4026531840, 2
OFF = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="disabled")
SUSPENDED = replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=20_000_000)
SPINNING = EpollParams(busy_poll_usecs=1_000_000, busy_poll_budget=8, prefer_busy_poll=False)
PREFERS = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)


QUIET = PacketLoad(
    seconds=1.0,
    cpus=tuple(
        CpuLoad(
            cpu=cpu,
            packet_share=0.1,
            idle_share=0.8,
            waited_share=0.0,
            packets_per_second=0.0,
            backlog_drops_per_second=0.0,
        )
        for cpu in range(2)
    ),
    drops=(),
)


def napi(number: int = 0, **changes: Any) -> Napi:
    """Of queue `number`, its interrupt on the CPU of that number."""
    made = Napi(napi_id=8193 + number, ifindex=IFINDEX, irq=24 + number, cpus=str(number), settings=OFF)
    return replace(made, **changes)


def device(*napis: Napi, **changes: Any) -> Device:
    """A healthy 25 Gb/s NIC."""
    own = napis or (napi(),)
    queues = tuple(
        Queue(ifindex=IFINDEX, kind=kind, index=index, napi_id=each.napi_id)
        for index, each in enumerate(own)
        for kind in ("rx", "tx")
    )
    made = Device(
        name="eth0",
        ifindex=IFINDEX,
        up=True,
        driver="mlx5_core",
        bus="0000:00:03.0",
        speed_mbps=25_000,
        coalescing=Coalescing(rx_usecs=8, tx_usecs=16, use_adaptive_rx=False),
        rings=Rings(rx=1024, rx_max=8192, tx=1024, tx_max=8192),
        deferral=DeviceDeferral(defer_hard_irqs=0, gro_flush_timeout_ns=0),
        queues=queues,
        napis=own,
    )
    return replace(made, **changes)


def row(
    of: Napi | None = None,
    *,
    softirq: dict[int, int] | None = None,
    thread: dict[int, int] | None = None,
    busy: dict[int, int] | None = None,
    poller: PollerCounts | None = None,
) -> NapiWindow:
    """What the window holds of a NAPI instance; its empty polls are claimed as napctl.model.difference does."""
    of = of or napi()
    by_softirq, by_thread, by_task = (Histogram.of(polls or {}) for polls in (softirq, thread, busy))
    empty = by_softirq.empty + by_thread.empty + by_task.empty
    polling = busy is not None or of.settings.defers
    return NapiWindow(
        napi_id=of.napi_id,
        device="eth0",
        ifindex=of.ifindex,
        netns=NETNS,
        settings=of.settings,
        irq=of.irq,
        softirq=by_softirq,
        thread=by_thread,
        busy_poll=by_task,
        netpoll=EMPTY,
        pollers=(poller,) if poller else (),
        empty=EmptyPolls(while_polling=empty)
        if polling
        else EmptyPolls(tx_only=by_softirq.empty, unattributed=by_thread.empty),
    )


def idle_cpus(count: int = 2, **busy: float) -> tuple[CpuUse, ...]:
    """`cpu0=0.9`: that one is busy."""
    return tuple(CpuUse(cpu=cpu, busy_share=busy.get(f"cpu{cpu}", 0.1)) for cpu in range(count))


def process(pid: int = 7, name: str = "memcached", *, share: float = 0.0, cpu: int = 0, feeds: Napi | None = None,
            ) -> ProcessUse:  # fmt: skip
    threads = (ThreadUse(tid=pid, cpu_share=share, cpus=(cpu,)),) if share >= 0.01 else ()
    fed = (feeds.napi_id,) if feeds else ()
    return ProcessUse(pid=pid, name=name, cpu_share=share, threads=threads, napi_ids=fed)


def poller(*napi_ids: int, params: EpollParams = PREFERS, pid: int = 7) -> EpollPoller:
    return EpollPoller(pid=pid, name="memcached", epoll_fd=5, params=params, napi_ids=napi_ids)


def checkup(
    *rows: NapiWindow,
    on: Device | None = None,
    was: Device | None = None,
    seconds: float = 1.0,
    rx_packets: int | None = None,
    rx_missed: int = 0,
    queues: tuple[QueueCounts, ...] | None = (),
    cpus: tuple[CpuUse, ...] = (),
    counted: tuple[CpuCounts, ...] = (),
    pollers: tuple[EpollPoller, ...] = (),
    processes: tuple[ProcessUse, ...] = (),
    source: str = "bpf",
    tcp_limit: int | None = 4 << 20,
    load: PacketLoad | None = QUIET,
) -> Checkup:
    """A window of one second on that device, and what it held."""
    on = on or device()
    packets = sum(each.polls.packets for each in rows) if rx_packets is None else rx_packets
    counts = DeviceCounts(device=on.name, ifindex=on.ifindex, rx_packets=packets, tx_packets=packets, rx_dropped=0,
                          tx_dropped=0, rx_missed=rx_missed, queues=queues)  # fmt: skip

    def machine(of: Device) -> Machine:
        return Machine(kernel="7.3", netns=NETNS, devices=(of,), pollers=pollers, tcp_limit_output_bytes=tcp_limit)

    return Checkup(
        before=machine(was or on),
        machine=machine(on),
        window=Window(
            source=source,
            lacks=(),
            started_unix_ns=0,
            seconds=seconds,
            napis=rows,
            cpus=counted,
            devices=(counts,),
            packet_load=load,
        ),
        processes=processes,
        cpus=cpus or idle_cpus(),
    )


def rules(seen: Checkup) -> list[str]:
    return [finding.rule for finding in diagnose(seen)]


def only(seen: Checkup) -> Finding:
    (finding,) = diagnose(seen)
    return finding


def by(rule: str, seen: Checkup) -> Finding:
    (finding,) = (finding for finding in diagnose(seen) if finding.rule == rule)
    return finding


def told(finding: Finding) -> str:
    return " | ".join(f"{evidence.text} [{evidence.source}]" for evidence in finding.evidence)


def two_on_cpu_0(**changes: object) -> tuple[Checkup, Checkup]:
    """(both busy queues on CPU 0, one on each CPU), CPU 0 three quarters busy."""
    apart, together = (napi(), napi(1)), (napi(), napi(1, cpus="0"))
    found = []
    for pair in (together, apart):
        rows = [row(each, softirq={2: 500}) for each in pair]
        found.append(checkup(*rows, on=device(*pair), cpus=idle_cpus(cpu0=0.75)))
    return found[0], found[1]


def on_application_cpu(
    *, cpu0: float = 0.95, cpu1: float = 0.5, share: float = 0.3, cpu: int = 0, **polls: object
) -> Checkup:
    own = napi()
    counts = {"softirq": {2: 500}} | polls
    return checkup(
        row(own, **counts),  # type: ignore[arg-type]
        on=device(own),
        cpus=idle_cpus(cpu0=cpu0, cpu1=cpu1),
        processes=(process(share=share, cpu=cpu, feeds=own),),
    )
