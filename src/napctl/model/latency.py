"""How long data waited for a server, seen from its own machine: until it was read, until the reply was sent."""

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from napctl.model.value import Value

__all__ = [
    "BOUNDS_NS",
    "BUCKETS",
    "NOTHING",
    "LatencyFigures",
    "LatencyHistogram",
    "LatencySummary",
    "ProcessLatency",
    "ServerLatency",
    "latency_between",
]


FIRST_POWER, LAST_POWER = 10, 34
"""Times from 2^10 ns (1 µs) to 2^34 ns (17 s) have eight buckets for each power of two, of equal width within it."""
BOUNDS_NS: tuple[int, ...] = (
    0,
    2**FIRST_POWER,
    *(2**power * (8 + eighth) // 8 for power in range(FIRST_POWER, LAST_POWER) for eighth in range(1, 9)),
)
"""Where buckets begin, ns; the next one begins where a bucket ends, the last has no end. Mirrored by bucket_of() in
probe/latency.bpf.c."""
BUCKETS = len(BOUNDS_NS)


class LatencyHistogram(Value, frozen=True, kw_only=True):
    """Times by their length. A bucket is at most an eighth wide, so a percentile is good to 10 %."""

    counts: tuple[int, ...] = (0,) * BUCKETS

    def __post_init__(self) -> None:
        if len(self.counts) != BUCKETS:
            raise ValueError(f"a histogram of latencies has {BUCKETS} buckets, not {len(self.counts)}")

    @property
    def samples(self) -> int:
        """All times in it."""
        return sum(self.counts)

    def percentile_ns(self, share: float) -> float | None:
        """The time that `share` (0 … 1) of the samples did not exceed, ns; None without any sample.

        Within a bucket samples count as evenly spread. Above 17 s it tells 17 s.
        """
        wanted, before = share * self.samples, 0
        found = None
        for index, count in enumerate(self.counts):
            if not count:
                continue
            begin = BOUNDS_NS[index]
            end = BOUNDS_NS[index + 1] if index + 1 < BUCKETS else begin
            found = begin + (end - begin) * min(1.0, max(0.0, wanted - before) / count)
            before += count
            if before >= wanted:
                break
        return found

    def __add__(self, other: "LatencyHistogram") -> "LatencyHistogram":
        return LatencyHistogram(counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def __sub__(self, earlier: "LatencyHistogram") -> "LatencyHistogram":
        """What came since `earlier`, both read from the same ever-growing counters."""
        return LatencyHistogram(counts=tuple(a - b for a, b in zip(self.counts, earlier.counts, strict=True)))


NOTHING = LatencyHistogram()


class ProcessLatency(Value, frozen=True, kw_only=True):
    """What one process took to read its data and to reply; the difference of two readings is a window.

    The samples are some of its requests, chosen at random; the same ones in all three but for those without a reply.
    """

    pid: int
    """In the initial PID namespace."""
    until_read: LatencyHistogram = NOTHING
    """The server-side latency: from when data may have reached the machine until the process had read it.

    Of the wait for a poll only a bound is known. Arrivals count as spread evenly within it."""
    until_reply: LatencyHistogram = NOTHING
    """From the same moment until the process next sent something on that socket."""
    waited_for_poll_bound: LatencyHistogram = NOTHING
    """How long data can have waited for its poll, at most: the part of `until_read` that is not known exactly."""

    def __add__(self, other: "ProcessLatency") -> "ProcessLatency":
        """Both together; `pid` is this one's."""
        return ProcessLatency(
            pid=self.pid,
            until_read=self.until_read + other.until_read,
            until_reply=self.until_reply + other.until_reply,
            waited_for_poll_bound=self.waited_for_poll_bound + other.waited_for_poll_bound,
        )

    def __sub__(self, earlier: "ProcessLatency") -> "ProcessLatency":
        """What came since `earlier`, of the same process. Raises ValueError if they are of two."""
        if self.pid != earlier.pid:
            raise ValueError(f"{self.pid} and {earlier.pid} are two processes")
        return ProcessLatency(
            pid=self.pid,
            until_read=self.until_read - earlier.until_read,
            until_reply=self.until_reply - earlier.until_reply,
            waited_for_poll_bound=self.waited_for_poll_bound - earlier.waited_for_poll_bound,
        )


class LatencyFigures(Value, frozen=True, kw_only=True):
    """Percentiles of one process, or of several together: what is printed of a ProcessLatency. Times in µs."""

    pid: int | None
    """None: of several together."""
    samples: int
    """Requests behind them."""
    until_read_p50_us: float | None
    until_read_p99_us: float | None
    until_reply_p50_us: float | None
    until_reply_p99_us: float | None
    wait_for_poll_p50_us: float | None
    """Upper bound of the part of `until_read` that was the wait for a poll."""
    wait_for_poll_p99_us: float | None

    @classmethod
    def of(cls, latency: "ProcessLatency", pid: int | None) -> "LatencyFigures":
        """Of a window."""
        parts = {
            "until_read": latency.until_read,
            "until_reply": latency.until_reply,
            "wait_for_poll": latency.waited_for_poll_bound,
        }
        figures = {
            f"{name}_p{round(100 * share)}_us": ns if ns is None else ns / 1000
            for name, histogram in parts.items()
            for share, ns in ((share, histogram.percentile_ns(share)) for share in (0.5, 0.99))
        }
        return cls(pid=pid, samples=latency.until_read.samples, **figures)


class LatencySummary(Value, frozen=True, kw_only=True):
    """What is printed of a ServerLatency."""

    together: LatencyFigures | None
    """None: no sample."""
    processes: tuple[LatencyFigures, ...]
    """By pid, those of which there are samples."""
    lacks: tuple[str, ...] = ()
    """What could not be told, and why; each a clause."""


class ServerLatency(Value, frozen=True, kw_only=True):
    """The latency of a server's processes in one window."""

    seconds: float
    processes: tuple[ProcessLatency, ...]
    """Those of which there are samples, by pid."""
    lacks: tuple[str, ...] = ()
    """What could not be told, and why; each a clause."""

    @property
    def together(self) -> ProcessLatency | None:
        """All processes as one, under the first one's pid; None without any sample."""
        return total(self.processes)

    def only(self, pids: Collection[int]) -> "ServerLatency":
        """Of these processes alone."""
        return replace(self, processes=tuple(each for each in self.processes if each.pid in pids))

    @property
    def summary(self) -> LatencySummary:
        """Its percentiles."""
        together = self.together
        return LatencySummary(
            together=LatencyFigures.of(together, None) if together else None,
            processes=tuple(LatencyFigures.of(each, each.pid) for each in self.processes),
            lacks=self.lacks,
        )


def total(processes: Iterable[ProcessLatency]) -> ProcessLatency | None:
    """The sum of any number of processes, under the first one's pid; None of none."""
    found = None
    for each in processes:
        found = found + each if found else each
    return found


def latency_between(before: Sequence[ProcessLatency], after: Sequence[ProcessLatency]) -> tuple[ProcessLatency, ...]:
    """What came between two readings of one probe, by process; processes without any sample are left out."""
    earlier = {each.pid: each for each in before}
    windows = (each - earlier[each.pid] if each.pid in earlier else each for each in after)
    return tuple(
        each
        for each in sorted(windows, key=lambda each: each.pid)
        if each.until_read.samples or each.until_reply.samples
    )
