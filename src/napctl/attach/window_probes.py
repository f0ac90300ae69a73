"""What windows of an attachment are measured by: the probes of what it costs and of its latency, which follow it for
weeks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import sub

from msgspec.structs import replace

from napctl.adapt.ways import Way, WayWindow
from napctl.attach.attached_devices import AttachedThreads
from napctl.attach.follow_step import NapiKey
from napctl.attach.packet_cost import Cost, CostProbe, CostReading, cost_between, costs_of_parts
from napctl.attach.parts import Part, whole
from napctl.model.change import Transaction
from napctl.model.latency import LatencyHistogram
from napctl.probe import ProbeUnavailable
from napctl.probe.latency import LatencyProbe

__all__ = ["RENEW_SECONDS", "ProbeReading", "WindowProbes"]


UNSEEN_PACKETS, UNSEEN_WINDOWS = 1_000, 6
"""So many packets in so many windows without a single sample: the server does not read by recv."""
PENDING_WINDOWS = 60
"""The same while some of the requests that were looked at are not read yet: half a minute, looking all the time. They
may wait in a queue as long as several windows; those that were read by other means than recv stay so for ever."""
MOST_REFUSALS = 10
"""So often in a row, 5 s, and looking, which cannot be gone on with, is given up. Fewer are a moment without memory or
descriptors."""
RENEW_SECONDS = 600.0
"""Between two looks whether a probe is full: to load it anew takes most of a second of CPU time."""


@dataclass(frozen=True)
class ProbeReading:
    """Of one moment."""

    cost: CostReading
    latency: Mapping[int, LatencyHistogram] | None
    """By process; None: it cannot be measured."""
    threads: Mapping[NapiKey, int]
    """NAPI threads of which the cost is."""


class WindowProbes:
    """Of one attachment. `say` receives what is to be told once.

    Raises ProbeUnavailable if nothing can be measured.
    """

    def __init__(self, transaction: Transaction, say: Callable[[str], None]):
        self._say = say
        self._all = whole(transaction)
        self._parts: Sequence[Part] = ()
        """As of tell_apart()."""
        with ExitStack() as undo:
            self._napi_threads = undo.enter_context(AttachedThreads(transaction))
            self._threads = self._napi_threads.read()
            self._cost = undo.enter_context(CostProbe(self._all.servers | set(self._threads.values())))
            self._latency = self._loaded_latency()
            self._open = undo.pop_all()
        self._refusals = 0
        """Times in a row that looking could not be gone on with."""
        self._unseen = 0
        """Busy windows without a sample, one after the other;"""
        self._blind = False
        """so many that the wait for a poll counts, until as many had samples."""
        self._seen_again = 0

    def close(self) -> None:
        """The end of them."""
        with self._open:
            if self._latency is not None:
                self._latency.close()

    def follow(self, transaction: Transaction) -> None:
        """It has other parts now: packets() and read() cannot be compared with what they gave before."""
        before, self._all = self._all, whole(transaction)
        self._napi_threads.follow(transaction)
        self._threads = self._napi_threads.read()
        self._cost.follow(self._all.servers | set(self._threads.values()))
        if self._latency is not None:
            for pid in self._all.servers:
                self._latency.add(pid)
            for pid in before.servers - self._all.servers:
                self._latency.drop(pid)

    def tell_apart(self, parts: Sequence[Part]) -> None:
        """What each of these costs; of one alone: that of all. Raises ProbeUnavailable: it tells nothing apart then."""
        self._parts = parts
        self._cost.divide(
            [
                (part.napis, part.servers | {pid for key, pid in self._threads.items() if key in part.napis})
                for part in parts
            ]
            if len(parts) > 1
            else []
        )

    def packets(self) -> int:
        """Until now: that alone is quick."""
        return self._cost.packets(self._all.napis)

    def begin(self) -> ProbeReading | None:
        """A window: what there was until now, and from now on latency is looked at. None: that cannot be at the moment,
        and is to be tried again."""
        if self._latency is not None and not self._resumed(self._latency):
            return None
        return self._read()

    def _resumed(self, latency: LatencyProbe) -> bool:
        try:
            latency.resume()
        except ProbeUnavailable as error:
            self._refusals, why = self._refusals + 1, error.reason
        else:
            self._refusals = 0
            return True
        if self._refusals < MOST_REFUSALS:
            return False
        self._say(f"server-side latency is no longer measured: {why}; adapting by the wait for a poll")
        self._latency = None
        latency.close()
        return True

    def rest(self) -> None:
        """Until the next one nobody looks at each request: that costs it some percent, whatever is done with it."""
        if self._latency is not None:
            self._latency.pause()

    def read(self) -> ProbeReading:
        """The end of a window: what there was until now. Somebody, as `napctl protect`, may have given its devices NAPI
        threads in it, or taken them: what these cost is counted from now on."""
        threads = self._napi_threads.read()
        if threads != self._threads:
            self._threads = threads
            self._cost.follow(self._all.servers | set(threads.values()))
            self.tell_apart(self._parts)
        return self._read()

    def _read(self) -> ProbeReading:
        latency = {each.pid: each.until_read for each in self._latency.read()} if self._latency else None
        return ProbeReading(self._cost.read(self._all.napis), latency, self._threads)

    def between(
        self, before: ProbeReading, now: ProbeReading, ways: Sequence[tuple[Part, Way]], rested: float
    ) -> tuple[Cost, tuple[WayWindow, ...]]:
        """What all of it cost, and a window of each of these parts, before which nobody looked for so long; none if
        they are not those that were told apart, or NAPI threads are not those from before."""
        together = cost_between(before.cost, now.cost)
        costs = (together,) if len(ways) == 1 else costs_of_parts(before.cost, now.cost)
        if len(costs) != len(ways) or before.threads != now.threads:
            return together, ()
        if self._latency is not None:
            self._look_for_samples(together, _between(before.latency, now.latency, self._all.servers))
        return together, tuple(
            replace(self._window(cost, _between(before.latency, now.latency, part.servers), way), rested=rested)
            for cost, (part, way) in zip(costs, ways, strict=True)
        )

    def _window(self, cost: Cost, latency: LatencyHistogram | None, way: Way) -> WayWindow:
        instances = max(1, sum(bool(each.packets) for each in cost.napis.values()))
        seen = WayWindow(
            way=way, seconds=cost.seconds, at=cost.at, packets=cost.packets, cpu_seconds=cost.cpu_seconds,
            p99_ns=None, p50_ns=None, samples=0, instances=instances,
        )  # fmt: skip
        if self._latency is None or self._blind:
            p99_us, p50_us = (cost.waits.wait_percentile_us(each) if cost.waits else None for each in (0.99, 0.5))
            return replace(
                seen,
                p99_ns=None if p99_us is None else p99_us * 1000,
                p50_ns=None if p50_us is None else p50_us * 1000,
                samples=cost.packets,
                until_poll_only=True,
            )
        if latency is None:
            return seen
        p99_ns, p50_ns = latency.percentile_ns(0.99), latency.percentile_ns(0.5)
        return replace(seen, p99_ns=p99_ns, p50_ns=p50_ns, samples=latency.samples)

    def _look_for_samples(self, cost: Cost, latency: LatencyHistogram | None) -> None:
        """A server that reads by other means is judged by the wait for a poll, until it is seen to read by recv."""
        if latency is not None and latency.samples:
            self._unseen, self._seen_again = 0, self._seen_again + 1
        elif cost.packets >= UNSEEN_PACKETS:
            self._unseen, self._seen_again = self._unseen + 1, 0
        is_pending = self._latency is not None and self._latency.has_pending
        if self._unseen >= (PENDING_WINDOWS if is_pending else UNSEEN_WINDOWS):
            self._blind = True
            self._say("the server is not seen to read by recv; adapting by the wait for a poll until it does")
        elif self._seen_again >= UNSEEN_WINDOWS:
            self._blind = False

    def renew_full(self) -> bool:
        """What follows for weeks meets more processes and NAPI instances than the probes have places for. To be called
        every RENEW_SECONDS. Whether what was read before cannot be compared with what is read now.

        One that is full of what is in use would be full again.
        """
        self._cost.free_unused()
        renewed = False
        try:
            if self._cost.is_full:
                if self._cost.holds_unused(RENEW_SECONDS):
                    self._cost.renew()
                    renewed = True
                else:
                    self._say("there are more NAPI instances than the probe has places for: not all is measured")
            if self._latency is not None and self._latency.is_full:
                if self._latency.holds_unused:
                    fresh = LatencyProbe.load(self._all.servers)
                    self._latency.close()
                    self._latency, renewed = fresh, True
                elif self._latency.is_full_of_processes:
                    self._say("the server has more processes than the probe has places for: not all are measured")
        except ProbeUnavailable as error:
            self._say(f"a probe is full, and cannot be loaded anew: {error.reason}")
        return renewed

    def _loaded_latency(self) -> LatencyProbe | None:
        try:
            return LatencyProbe.load(self._all.servers)
        except ProbeUnavailable as error:
            self._say(f"server-side latency cannot be measured: {error.reason}; adapting by the wait for a poll")
            return None


def _between(
    before: Mapping[int, LatencyHistogram] | None, after: Mapping[int, LatencyHistogram] | None, pids: Collection[int]
) -> LatencyHistogram | None:
    """Of these processes together; None where there is none, or counts of a process were given up meanwhile."""
    if before is None or after is None:
        return None
    now, then = ([each for pid, each in found.items() if pid in pids] for found in (after, before))
    counts = tuple(map(sub, _summed(now), _summed(then)))
    return LatencyHistogram(counts=counts) if min(counts) >= 0 else None


def _summed(histograms: Sequence[LatencyHistogram]) -> tuple[int, ...]:
    if not histograms:
        return LatencyHistogram().counts
    return tuple(map(sum, zip(*(each.counts for each in histograms), strict=True)))
