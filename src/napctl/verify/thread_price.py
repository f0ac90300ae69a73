"""What NAPI threads cost at the load that is there: pairs of windows with them and without them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from napctl.kernel import snmp
from napctl.kernel.cpu_time import idle_seconds
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.schedstat import turns
from napctl.model.change import Change, ThreadChange, Transaction
from napctl.model.counters import grown
from napctl.model.errors import Unsupported
from napctl.model.value import Value
from napctl.model.verdict import LEAST_GOODPUT, RatioEstimate, ThreadPrice
from napctl.stats.sequential import CONFIDENCE, FEWEST_PAIRS, Counted, Interval, interval, is_look, orders
from napctl.verify.trial_run import SETTLE_SECONDS, Progress, Windows

__all__ = ["THREADS", "PriceSample", "enough_of_price", "price_of", "price_of_threads"]


GOODPUTS = {
    "payload_bytes": ("bytes received per second", 10_000),
    "datagrams": ("datagrams read per second", 100),
    "forwarded": ("packets forwarded per second", 100),
}
"""Fields of snmp.Delivered: as a statistic, and how many a second tell anything at all."""
THREADS = "threads"
"""Their name among the settings that are verified."""


class PriceSample(Value, frozen=True, kw_only=True):
    """One window."""

    seconds: float
    delivered: Mapping[str, int]
    """By what is counted: see GOODPUTS."""
    busy_seconds: float
    """Of all CPUs."""
    waited_ns: int | None
    """By the threads for their CPU, together."""
    runs: int | None
    """How often they got it."""

    @property
    def busy_ms(self) -> float:
        """Steps of 10 ms may make it less than none."""
        return max(0.0, self.busy_seconds) * 1000


PricePairs = Sequence[tuple[PriceSample, PriceSample]]
"""With threads, and without them."""


def price_of_threads(
    netns: NetworkNamespace,
    device: str,
    instances: tuple[int, ...],
    changes: tuple[ThreadChange, ...],
    alternating: Callable[[tuple[Change, ...]], AbstractContextManager[Callable[[bool], Transaction]]],
    windows: Windows,
    progress: Progress,
) -> ThreadPrice:
    """Until it is clear, or the limit. Afterwards all is as it was. Raises what alternating() raises, but for the
    kernel's refusal, which is an answer."""
    pairs: list[tuple[PriceSample, PriceSample]] = []
    try:
        with alternating(changes) as switch:
            switch(True)  # a refusal comes before the first window
            for number, threads_first in enumerate(orders(windows.seed), start=1):
                progress.pair(device, THREADS, number, windows.pairs)
                found: dict[bool, PriceSample | None] = {}
                for on in (True, False) if threads_first else (False, True):
                    switch(on)
                    time.sleep(SETTLE_SECONDS)
                    found[on] = _window(netns, changes if on else (), windows.seconds)
                with_them, without = found[True], found[False]
                if with_them is not None and without is not None:
                    pairs.append((with_them, without))
                if number >= windows.pairs or enough_of_price(pairs):
                    break
    except Unsupported as error:
        return ThreadPrice(
            device=device, instances=instances, goodput=None, cpu=None, waited_us=None, refused=str(error)
        )
    return price_of(device, instances, pairs, windows.seconds)


# Pure


def price_of(device: str, instances: tuple[int, ...], pairs: PricePairs, seconds: float) -> ThreadPrice:
    """What the windows say."""
    threads = [on for on, _ in pairs if on.waited_ns is not None and on.runs is not None]
    runs = sum(each.runs or 0 for each in threads)
    return ThreadPrice(
        device=device,
        instances=instances,
        goodput=_goodput(pairs, seconds),
        cpu=_estimate("busy CPU time per second", _cpu(pairs), len(pairs), seconds),
        waited_us=sum(each.waited_ns or 0 for each in threads) / runs / 1000 if runs else None,
    )


def enough_of_price(pairs: PricePairs) -> bool:
    """Whether it is sure on which side of LEAST_GOODPUT they are."""
    if len(pairs) < FEWEST_PAIRS or not is_look(len(pairs)):
        return False
    found = _goodput(pairs, 0)
    return found is not None and (found.low > LEAST_GOODPUT or found.high < LEAST_GOODPUT)


def _goodput(pairs: PricePairs, seconds: float) -> RatioEstimate | None:
    """The least of those that tell anything."""
    found = []
    for field, (statistic, least_per_second) in GOODPUTS.items():
        rates = [off.delivered[field] / off.seconds for _, off in pairs]
        if rates and sum(rates) / len(rates) >= least_per_second:
            both = [(_per_second(on.delivered[field], on), _per_second(off.delivered[field], off)) for on, off in pairs]
            found.append(_estimate(statistic, interval(both), len(pairs), seconds))
    return min((each for each in found if each is not None), key=lambda each: each.ratio, default=None)


def _cpu(pairs: PricePairs) -> Interval | None:
    """In ms: the kernel tells idle time in steps of 10."""
    return interval([(_per_second(on.busy_ms, on), _per_second(off.busy_ms, off)) for on, off in pairs])


def _per_second(events: float, sample: PriceSample) -> Counted:
    return Counted(events=events, per=sample.seconds)


def _estimate(statistic: str, found: Interval | None, pairs: int, seconds: float) -> RatioEstimate | None:
    if found is None:
        return None
    return RatioEstimate(
        statistic=statistic, ratio=found.ratio, low=found.low, high=found.high, confidence=CONFIDENCE, pairs=pairs,
        seconds=seconds,
    )  # fmt: skip


# From the kernel


def _window(netns: NetworkNamespace, changes: Iterable[ThreadChange], seconds: float) -> PriceSample | None:
    """None if a counter was set back."""
    pids = list(_pids(netns, changes))
    before, idle, waited, start = snmp.delivered(netns), idle_seconds(), _waited(pids), time.monotonic()
    time.sleep(seconds)
    after, idle_after, waited_after = snmp.delivered(netns), idle_seconds(), _waited(pids)
    took = time.monotonic() - start
    if before is None or after is None:
        return None
    counts = {name: grown(getattr(before, name), getattr(after, name)) for name in GOODPUTS}
    found = {name: count for name, count in counts.items() if count is not None}
    if len(found) < len(counts):
        return None
    spare = sum(idle_after[cpu] - idle[cpu] for cpu in idle.keys() & idle_after.keys())
    both = waited is not None and waited_after is not None
    return PriceSample(
        seconds=took,
        delivered=found,
        busy_seconds=took * len(idle) - spare,
        waited_ns=waited_after[0] - waited[0] if both else None,  # type: ignore[index]
        runs=waited_after[1] - waited[1] if both else None,  # type: ignore[index]
    )


def _pids(netns: NetworkNamespace, changes: Iterable[ThreadChange]) -> Iterator[int]:
    """Each time that threads are enabled they are others."""
    with Netdev(netns) as netdev:
        for change in changes:
            napi = netdev.napi(change.napi_id)
            if napi is not None and napi.thread_pid is not None:
                yield napi.thread_pid


def _waited(pids: Iterable[int]) -> tuple[int, int] | None:
    """(ns for which they were ready and did not run, how often they ran), from schedstat."""
    waited = runs = 0
    for pid in pids:
        if (found := turns(pid)) is None:  # no CONFIG_SCHED_INFO, another PID namespace, or it has ended
            return None
        waited, runs = waited + found.waited_ns, runs + found.times
    return waited, runs
