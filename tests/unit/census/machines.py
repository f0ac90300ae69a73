"""Devices, windows and queues for the tests of the census: one NIC, of which a test changes what it is about."""

from typing import Any

from msgspec.structs import replace

from napctl.model.counts import DeviceCounts, PollerCounts, QueueCounts
from napctl.model.histogram import EMPTY, Histogram
from napctl.model.machine import Device, EpollPoller, Napi, Queue, QueueUse
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.window import NapiWindow, Window

NETNS, IFINDEX, NAPI = 4026531840, 2, 8193
OFF = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="disabled")
DEFERRED = replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=200_000)
SUSPENDED = replace(DEFERRED, irq_suspend_timeout_ns=20_000_000)
PREFERS = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)
LEASE = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0)


def row(
    *,
    napi_id: int = NAPI,
    settings: NapiSettings | None = OFF,
    softirq: int = 0,
    thread: int = 0,
    pollers: tuple[PollerCounts, ...] = (),
    unnamed: int = 0,
    counted: bool = True,
) -> NapiWindow:
    """So many packets, one to a poll, by each. `counted`: there is a probe."""
    by = [Histogram.of({1: packets} if packets else {}) for packets in (softirq, thread)]
    busy = Histogram.of({1: sum(each.packets for each in pollers) + unnamed})
    return NapiWindow(
        napi_id=napi_id,
        device="eth0",
        ifindex=IFINDEX,
        netns=NETNS,
        settings=settings,
        softirq=by[0] if counted else None,
        thread=by[1] if counted else None,
        busy_poll=busy if counted else None,
        netpoll=EMPTY if counted else None,
        pollers=pollers,
    )


def by_process(packets: int, *, pid: int = 7, name: str = "memcached") -> PollerCounts:
    return PollerCounts(pid=pid, name=name, polls=packets + 1, empty=1, packets=packets)


def epoll(*napi_ids: int, params: EpollParams = PREFERS) -> EpollPoller:
    return EpollPoller(pid=7, name="memcached", epoll_fd=5, params=params, napi_ids=napi_ids or (NAPI,))


def nic(*uses: tuple[QueueUse, ...], **changes: Any) -> Device:
    """With an RX and a TX queue for each of `uses` (one, if there are none), each pair of one NAPI instance."""
    pairs = uses or ((),)
    made = Device(
        name="eth0",
        ifindex=IFINDEX,
        up=True,
        driver="mlx5_core",
        bus="0000:00:03.0",
        napis=tuple(
            Napi(napi_id=NAPI + number, ifindex=IFINDEX, irq=24 + number, settings=OFF) for number in range(len(pairs))
        ),
        queues=tuple(
            Queue(ifindex=IFINDEX, kind=kind, index=number, napi_id=NAPI + number, uses=use if kind == "rx" else ())
            for kind in ("rx", "tx")
            for number, use in enumerate(pairs)
        ),
    )
    return replace(made, **changes)


def window(*rows: NapiWindow, rx_packets: int | None = 1000, queues: tuple[QueueCounts, ...] | None = None) -> Window:
    counts = DeviceCounts(device="eth0", ifindex=IFINDEX, rx_packets=rx_packets, tx_packets=0, rx_dropped=0,
                          tx_dropped=0, rx_missed=0, queues=queues)  # fmt: skip
    return Window(
        source="bpf", lacks=(), started_unix_ns=0, seconds=1.0, napis=rows, cpus=(), devices=(counts,)
    )  # fmt: skip
