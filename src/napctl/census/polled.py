"""Who polls one NAPI instance, and with which share of its packets. Pure."""

from collections.abc import Collection, Iterable, Iterator

from napctl.model.census import TakenBy, TakenWay
from napctl.model.machine import EpollPoller
from napctl.model.settings import BUSY_POLL, DISABLED, NapiSettings
from napctl.model.units import duration_text
from napctl.model.window import NapiWindow

__all__ = ["polled"]


COUNTED = "counted [probe]"


def polled(row: NapiWindow, epolls: Collection[EpollPoller]) -> tuple[TakenWay, ...]:
    """The ways by which its packets came, most first; without packets, or nobody who counts them, those by which they
    would come.

    `epolls`: epoll instances whose tasks poll, as far as they are known.
    """
    ours = [each for each in epolls if row.napi_id in each.napi_ids]
    found = [way for way in _by_kernel(row) if way.packets]
    found += _by_processes(row, ours)
    there = {way.by for way in found}
    found += [
        TakenWay(kind=_kind_of_poll(row, [each]), by=_name(each.name, each.pid), evidence=_of_epoll(row, each))
        for each in {each.pid: each for each in ours}.values()
        if _name(each.name, each.pid) not in there
    ]
    if not any(way.packets for way in found):
        found.append(_would_be_kernel(row))
    return tuple(sorted(found, key=lambda way: -(way.packets or 0)))


def _by_kernel(row: NapiWindow) -> Iterator[TakenWay]:
    softirq: TakenBy = "deferral" if row.settings and row.settings.defers else "interrupts"
    yield _counted(row, softirq, row.softirq.packets if row.softirq else 0, _deferral(row.settings))
    yield _counted(row, _thread(row.settings), row.thread.packets if row.thread else 0, _threaded(row.settings))
    yield _counted(row, "netpoll", row.netpoll.packets if row.netpoll else 0)


def _by_processes(row: NapiWindow, epolls: Collection[EpollPoller]) -> list[TakenWay]:
    """Who polled, whether he found a packet or not; and what was polled by somebody whose name found no place."""
    found = []
    for each in row.pollers:
        own = [epoll for epoll in epolls if epoll.pid == each.pid]
        kind = _kind_of_poll(row, own)
        found.append(_counted(row, kind, each.packets, _suspension(row.settings, kind), by=_name(each.name, each.pid)))
    rest = (row.busy_poll.packets if row.busy_poll else 0) - sum(each.packets for each in row.pollers)
    if rest > 0:
        found.append(_counted(row, "busy polling", rest))
    return found


def _counted(
    row: NapiWindow, kind: TakenBy, packets: int, evidence: Iterable[str] = (), *, by: str | None = None
) -> TakenWay:
    total = row.polls.packets
    return TakenWay(
        kind=kind,
        by=by,
        packets=packets,
        share=packets / total if total else None,
        evidence=(COUNTED, *evidence),
    )


def _would_be_kernel(row: NapiWindow) -> TakenWay:
    """By whom the kernel would take them, as it is set now."""
    settings = row.settings
    if settings is not None and settings.threaded not in (None, DISABLED):
        return TakenWay(kind=_thread(settings), packets=_none(row), evidence=tuple(_threaded(settings)))
    defers = settings is not None and settings.defers
    kind: TakenBy = "deferral" if defers else "interrupts"
    return TakenWay(kind=kind, packets=_none(row), evidence=tuple(_deferral(settings)))


def _none(row: NapiWindow) -> int | None:
    """0 where somebody has counted."""
    return None if row.softirq is None else 0


def _thread(settings: NapiSettings | None) -> TakenBy:
    return "spinning NAPI thread" if settings and settings.threaded == BUSY_POLL else "NAPI thread"


def _kind_of_poll(row: NapiWindow, epolls: Collection[EpollPoller]) -> TakenBy:
    """`epolls`: of who polls. Only who prefers to poll keeps interrupts suspended (ep_suspend_napi_irqs() in
    fs/eventpoll.c)."""
    suspends = row.settings is not None and row.settings.irq_suspend_timeout_ns and row.settings.defers
    return "suspension" if suspends and any(each.params.prefer_busy_poll for each in epolls) else "busy polling"


def _deferral(settings: NapiSettings | None) -> Iterator[str]:
    if settings is not None and settings.defers:
        flush = duration_text(settings.gro_flush_timeout_ns or 0)
        yield f"defer-hard-irqs {settings.defer_hard_irqs}, gro-flush-timeout {flush} [netdev netlink]"


def _threaded(settings: NapiSettings | None) -> Iterator[str]:
    if settings is not None and settings.threaded is not None:
        yield f"threaded {settings.threaded} [netdev netlink]"


def _suspension(settings: NapiSettings | None, kind: TakenBy) -> Iterator[str]:
    if kind == "suspension" and settings is not None:
        yield f"irq-suspend-timeout {duration_text(settings.irq_suspend_timeout_ns or 0)} [netdev netlink]"


def _of_epoll(row: NapiWindow, epoll: EpollPoller) -> tuple[str, ...]:
    params = epoll.params
    prefer = ", prefer_busy_poll" if params.prefer_busy_poll else ""
    own = f"epoll {epoll.epoll_fd}: busy_poll_usecs {params.busy_poll_usecs}{prefer} [EPIOCGPARAMS]"
    return (own, *_suspension(row.settings, _kind_of_poll(row, [epoll])))


def _name(name: str, pid: int) -> str:
    return f"{name} ({pid})"
