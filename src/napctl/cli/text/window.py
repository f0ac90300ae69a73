"""A Window in words and bars, for `watch`, `attach` and the demo."""

from collections.abc import Iterable, Iterator

from napctl.cli.text.table import ABSENT, number, percent, wrapped
from napctl.model.histogram import Histogram
from napctl.model.window import NapiWindow, Window

__all__ = ["RANGES", "machine_lines", "napi_lines"]


BAR = 40
RANGES = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (9, 16), (17, 32), (33, 63), (64, 64), (65, 65))
"""Rows of a histogram: packets per poll, first and last; 65 stands for everything above 64."""


def napi_lines(napi: NapiWindow, seconds: float) -> Iterator[str]:
    """One NAPI instance: who polled, how full, how many for nothing."""
    name = f"NAPI {napi.napi_id}" if napi.napi_id else "no NAPI id"
    queues = f" ({' '.join(napi.queues)})" if napi.queues else ""
    polls = napi.polls
    if napi.empty is None:
        yield f"{napi.device} {name}{queues}: {number(_rate(napi.interrupts, seconds))} interrupts/s"
        return
    yield (
        f"{napi.device} {name}{queues}: {number(polls.polls / seconds)} polls/s, "
        f"{number(polls.packets / seconds)} packets/s, {number(_rate(napi.interrupts, seconds))} interrupts/s"
    )
    if not polls.polls:
        return
    yield from _listed("polled by", (f"{who} {percent(count / polls.polls)}" for who, count in pollers(napi)))
    if polls.empty:
        yield from _listed("empty polls", _empty(napi, polls))
    yield "  packets per poll"
    yield from (f"    {row}" for row in bars(polls))


def pollers(napi: NapiWindow) -> list[tuple[str, int]]:
    """Who made the polls, busiest first: softirq, NAPI thread, and each busy-polling process by name."""
    counts = [(f"{each.name} ({each.pid})", each.polls) for each in napi.pollers]
    named = sum(each.polls for each in napi.pollers)
    for who, part in (("softirq", napi.softirq), ("NAPI thread", napi.thread), ("netpoll", napi.netpoll)):
        counts.append((who, part.polls if part else 0))
    counts.append(("other busy polling", (napi.busy_poll.polls if napi.busy_poll else 0) - named))
    least = napi.polls.polls / 2000  # what would print as 0.0 %: the counters of one poll are not read at one instant
    return sorted(((who, count) for who, count in counts if count > least), key=lambda pair: -pair[1])


def bars(histogram: Histogram) -> Iterator[str]:
    """The histogram as rows of text, from the first value that occurs to the last."""
    rows = [(first, last, sum(histogram.counts[first : last + 1])) for first, last in RANGES]
    used = [index for index, (_, _, count) in enumerate(rows) if count]
    if not used:
        return
    most = max(count for _, _, count in rows)
    for first, last, count in rows[used[0] : used[-1] + 1]:
        label = ">64" if first > 64 else str(first) if first == last else f"{first}-{last}"
        bar = "@" * round(BAR * count / most)
        yield f"{label:>5} |{bar:<{BAR}}| {count:>11,} {percent(count / histogram.polls):>7}"


def machine_lines(window: Window) -> Iterator[str]:
    """What is of the whole machine or of a device: interrupts, softirqs, squeezes, drops."""
    busy = window.total_per_second("net_rx_softirq_ns")
    softirq_time = ABSENT if busy is None else f"{busy / 1e7:.1f} % of one CPU"
    yield (
        f"all CPUs: {number(window.total_per_second('interrupts'))} interrupts/s, "
        f"{number(window.total_per_second('net_rx_softirqs'))} NET_RX softirqs/s taking {softirq_time}"
    )
    squeezes, backlog = number(window.total("time_squeezes")), number(window.total("backlog_drops"))
    yield f"          {squeezes} time squeezes, {backlog} backlog drops"
    for device in window.devices:
        drops = {"rx dropped": device.rx_dropped, "rx missed": device.rx_missed, "tx dropped": device.tx_dropped}
        for queue in device.queues or ():
            drops[f"{queue.kind}{queue.index} without a buffer"] = queue.alloc_fail or 0
            drops[f"{queue.kind}{queue.index} dropped by the device"] = queue.hw_drops or 0
        told = [f"{count:,} {name}" for name, count in drops.items() if count]
        if told:
            yield from wrapped(f"{device.device}: {', '.join(told)}", rest="  ")


def _listed(title: str, items: Iterable[str]) -> list[str]:
    """A title and its items, on as many lines of 80 columns as they need."""
    return wrapped(", ".join(items), first=f"  {title:<13}", rest=" " * 15)


def _empty(napi: NapiWindow, polls: Histogram) -> Iterator[str]:
    assert napi.empty is not None
    words = {
        "TX completions only": napi.empty.tx_only,
        "nothing found while polling": napi.empty.while_polling,
        "not attributable": napi.empty.unattributed,
    }
    return (f"{percent(count / polls.polls)} {word}" for word, count in words.items() if count)


def _rate(count: int | None, seconds: float) -> float | None:
    return None if count is None else count / seconds
