"""The table of all metrics: name, meaning, labels, and what of a Snapshot they tell. docs/metrics.md is its mirror."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, Literal, NamedTuple, TypeVar

from napctl.model.histogram import Histogram
from napctl.model.latency import BOUNDS_NS, LatencyHistogram
from napctl.model.machine import Coalescing
from napctl.model.other_manager import KNOWN_MANAGERS
from napctl.model.overload import LEVELS
from napctl.model.settings import NapiSettings
from napctl.model.snapshot import (
    DECISIONS,
    PROBES,
    DeviceTotals,
    NapiTotals,
    PollTotals,
    Snapshot,
    SuspensionTotals,
    TargetTotals,
)
from napctl.model.storm import BY_REASON
from napctl.model.suspension_counts import WAIT_BOUNDS_US
from napctl.model.window import EmptyPolls
from napctl.protect.ladder import KINDS

__all__ = ["OF_DEVICES", "OF_MACHINE", "OF_POLLING", "OF_TARGETS", "REASONS", "Buckets", "Exposed", "Polling"]


class Buckets(NamedTuple):
    """A histogram as Prometheus has it."""

    bounds: tuple[float, ...]
    """Upper bounds of all buckets but the last, which has none."""
    counts: tuple[int, ...]
    """Up to each bound, and all."""
    sum: float


class Polling(NamedTuple):
    """What one series tells of: a device with all its NAPI instances, or one instance."""

    polls: PollTotals | None
    suspension: SuspensionTotals | None
    interrupts: int | None
    settings: tuple[NapiSettings, ...]

    @classmethod
    def of(cls, found: DeviceTotals | NapiTotals) -> "Polling":
        """Of either."""
        settings = (found.settings,) if isinstance(found, NapiTotals) else tuple(each.settings for each in found.napis)
        return cls(found.polls, found.suspension, found.interrupts, settings)


Of = TypeVar("Of")
Rows = Iterable[tuple[tuple[str, ...], float | Buckets | None]]
"""Values of the metric's own labels, and the figure; None: it cannot be told, so there is no series."""


class Exposed(NamedTuple, Generic[Of]):
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    """Its own, besides those of what it tells of."""
    series: int
    """At most, of one device, target or machine; a histogram has one for each bucket, and two."""
    rows: Callable[[Of], Rows]


PACKET_BOUNDS = (0, 1, 2, 4, 8, 16, 32, 48, 64)
WAIT_BOUNDS_NS = (0, *(2**power for power in (13, 15, 16, 17, 18, 20, 22, 24)))
LATENCY_BOUNDS_NS = tuple(2**power for power in (14, 16, 17, 18, 19, 20, 22, 24, 26))
HISTOGRAM_SERIES = 12
"""Ten buckets, the sum and the count."""

DIRECTIONS = ("rx", "tx")
STEP_KINDS = tuple(each.replace(" ", "_") for each in KINDS)
REASONS = tuple(each.replace(" ", "_").lower() for each in BY_REASON)
METHODS = ("softirq", "thread", "busy_poll", "netpoll")


def packet_buckets(found: Histogram) -> Buckets:
    """Packets per poll."""
    upto = tuple(accumulate(found.counts))
    return Buckets(PACKET_BOUNDS, (*(upto[bound] for bound in PACKET_BOUNDS), upto[-1]), found.packets)


def wait_buckets(waits: Sequence[int]) -> Buckets:
    """Waits, each as long as its bound; those of 67 ms and more as 67 ms."""
    upto = tuple(accumulate(waits))
    places = [WAIT_BOUNDS_US.index(bound / 1000) for bound in WAIT_BOUNDS_NS]
    longest = [min(bound, WAIT_BOUNDS_US[-2]) for bound in WAIT_BOUNDS_US]
    seconds = sum(bound * count for bound, count in zip(longest, waits, strict=True)) / 1e6
    bounds = tuple(bound / 1e9 for bound in WAIT_BOUNDS_NS)
    return Buckets(bounds, (*(upto[place] for place in places), upto[-1]), seconds)


def latency_buckets(found: LatencyHistogram) -> Buckets:
    """Latencies, each taken to lie in the middle of its narrow bucket."""
    upto = tuple(accumulate(found.counts))
    places = [BOUNDS_NS.index(bound) - 1 for bound in LATENCY_BOUNDS_NS]
    ends = (*BOUNDS_NS[1:], BOUNDS_NS[-1])
    seconds = sum((a + b) / 2 * count for a, b, count in zip(BOUNDS_NS, ends, found.counts, strict=True)) / 1e9
    bounds = tuple(bound / 1e9 for bound in LATENCY_BOUNDS_NS)
    return Buckets(bounds, (*(upto[place] for place in places), upto[-1]), seconds)


def one(value: float | Buckets | None) -> Rows:
    """Of a metric without labels of its own."""
    return [((), value)]


def of_polls(found: Polling, figure: Callable[[PollTotals], float | Buckets]) -> float | Buckets | None:
    """None where nobody counted them."""
    return None if found.polls is None else figure(found.polls)


def of_suspension(found: Polling, figure: Callable[[SuspensionTotals], float | Buckets]) -> float | Buckets | None:
    """The same."""
    return None if found.suspension is None else figure(found.suspension)


def _each(found: Polling, names: Iterable[str], figure: Callable[[PollTotals, str], float]) -> Rows:
    """By a label with these values."""
    return [((name,), None if found.polls is None else figure(found.polls, name)) for name in names]


def of_latency(found: LatencyHistogram | None) -> Rows:
    """The same."""
    return one(None if found is None else latency_buckets(found))


def _range(found: Polling, name: str, factor: float = 1.0) -> Iterator[tuple[tuple[str, ...], float]]:
    """Least and most over a device's NAPI instances; of a single instance both are the same, and one is told."""
    values = [value * factor for each in found.settings if (value := getattr(each, name)) is not None]
    if values and len(found.settings) == 1:
        yield ("most",), values[0]
    elif values:
        yield ("least",), min(values)
        yield ("most",), max(values)


def _coalescing(device: DeviceTotals, name: str, factor: float = 1.0) -> Rows:
    found = device.coalescing or Coalescing()
    for direction in DIRECTIONS:
        value = getattr(found, name.format(direction))
        yield (direction,), None if value is None else value * factor


OF_POLLING: tuple[Exposed[Polling], ...] = (
    Exposed("napctl_polls_total", "counter", "Polls of NAPI instances, by who made them.", ("by",), len(METHODS),
            lambda of: _each(of, METHODS, lambda polls, by: getattr(polls, by).polls)),
    Exposed("napctl_packets_per_poll", "histogram", "Packets that a poll found.", (), HISTOGRAM_SERIES,
            lambda of: one(of_polls(of, lambda polls: packet_buckets(polls.all)))),
    Exposed("napctl_empty_polls_total", "counter", "Polls that found no packet, by what may be claimed of them.",
            ("meaning",), 3,
            lambda of: _each(of, EmptyPolls.__struct_fields__, lambda polls, name: getattr(polls.empty, name))),
    Exposed("napctl_poll_wait_seconds", "histogram", "Time until a packet is polled, upper bound.", (),
            HISTOGRAM_SERIES, lambda of: one(of_suspension(of, lambda each: wait_buckets(each.waits)))),
    Exposed("napctl_interrupts_total", "counter", "Interrupts of the interrupt lines of NAPI instances.", (), 1,
            lambda of: one(of.interrupts)),
    Exposed("napctl_suspended_seconds_total", "counter", "Time with interrupts suspended, summed over NAPI instances.",
            (), 1, lambda of: one(of_suspension(of, lambda each: each.suspended_ns / 1e9))),
    Exposed("napctl_suspensions_total", "counter", "Times that interrupts were suspended.", (), 1,
            lambda of: one(of_suspension(of, lambda each: each.suspensions))),
    Exposed("napctl_rescues_total", "counter", "Suspensions that the safety timer had to end.", (), 1,
            lambda of: one(of_suspension(of, lambda each: each.rescues))),
    Exposed("napctl_defer_hard_irqs", "gauge", "defer-hard-irqs in force, over NAPI instances.", ("bound",), 2,
            lambda of: _range(of, "defer_hard_irqs")),
    Exposed("napctl_gro_flush_timeout_seconds", "gauge", "gro-flush-timeout in force, over NAPI instances.",
            ("bound",), 2, lambda of: _range(of, "gro_flush_timeout_ns", 1e-9)),
    Exposed("napctl_irq_suspend_timeout_seconds", "gauge", "irq-suspend-timeout in force, over NAPI instances.",
            ("bound",), 2, lambda of: _range(of, "irq_suspend_timeout_ns", 1e-9)),
)  # fmt: skip
"""Of each device, or of each NAPI instance."""

OF_DEVICES: tuple[Exposed[DeviceTotals], ...] = (
    Exposed("napctl_device_up", "gauge", "1: the device is up.", (), 1, lambda of: one(of.up)),
    Exposed("napctl_napi_instances", "gauge", "NAPI instances of the device.", (), 1, lambda of: one(len(of.napis))),
    Exposed("napctl_packets_total", "counter", "Packets, as the device's driver counts them.", ("direction",), 2,
            lambda of: (((each,), getattr(of.interface, f"{each}_packets")) for each in DIRECTIONS)),
    Exposed("napctl_drops_total", "counter", "Packets dropped, as the device's driver counts them.", ("kind",), 3,
            lambda of: (((each,), getattr(of.interface, each)) for each in ("rx_dropped", "rx_missed", "tx_dropped"))),
    Exposed("napctl_coalescing_seconds", "gauge", "rx-usecs and tx-usecs in force.", ("direction",), 2,
            lambda of: _coalescing(of, "{}_usecs", 1e-6)),
    Exposed("napctl_coalescing_frames", "gauge", "rx-max-frames and tx-max-frames in force.", ("direction",), 2,
            lambda of: _coalescing(of, "{}_max_frames")),
    Exposed("napctl_coalescing_adaptive", "gauge", "1: adaptive coalescing is on.", ("direction",), 2,
            lambda of: _coalescing(of, "use_adaptive_{}")),
    Exposed("napctl_device_drift", "gauge", "Settings that are not as the policy wants them.", (), 1,
            lambda of: one(of.drift)),
    Exposed("napctl_device_conflicts", "gauge", "Settings left to somebody else, who keeps putting them back.", (), 1,
            lambda of: one(of.conflicts)),
    Exposed("napctl_device_changed_timestamp_seconds", "gauge", "When the service last changed a setting.", (), 1,
            lambda of: one(of.changed_unix_ns and of.changed_unix_ns / 1e9)),
    Exposed("napctl_protection_step", "gauge",
            "Of the protection against overload: 0 none, 1 NAPI threads, 2 nice, 3 storm control.", (), 1,
            lambda of: one(of.protection_step)),
)  # fmt: skip
"""Of each device."""

ACTIVE = {"active": True, "not active": False, "starving": False}
"""Verdicts of which it can be told; not of those with too little traffic, or on interrupts by choice."""

OF_TARGETS: tuple[Exposed[TargetTotals], ...] = (
    Exposed("napctl_target_attached", "gauge", "1: the target is attached.", (), 1, lambda of: one(of.attached)),
    Exposed("napctl_target_active", "gauge", "1: its mode works. Missing with too little traffic to tell.", (), 1,
            lambda of: one(ACTIVE.get(of.verdict))),
    Exposed("napctl_target_starving", "gauge", "1: the safety timer had to rescue its packets again and again.", (), 1,
            lambda of: one(of.verdict == "starving")),
    Exposed("napctl_target_on_interrupts", "gauge", "1: adapting has chosen plain interrupts for now.", (), 1,
            lambda of: one(of.verdict == "interrupts")),
    Exposed("napctl_target_processes", "gauge", "Processes of the target.", (), 1, lambda of: one(of.processes)),
    Exposed("napctl_target_cpu_seconds_total", "counter", "CPU time of its processes.", (), 1,
            lambda of: one(of.cpu_seconds)),
    Exposed("napctl_target_polls_total", "counter", "Polls that its processes made themselves.", (), 1,
            lambda of: one(of.polls)),
    Exposed("napctl_target_packets_total", "counter", "Packets that these polls found.", (), 1,
            lambda of: one(of.packets)),
    Exposed("napctl_target_read_seconds", "histogram", "Time until the target had read a request, of samples.", (),
            HISTOGRAM_SERIES, lambda of: of_latency(of.until_read)),
    Exposed("napctl_target_reply_seconds", "histogram", "Time until the target had replied, of the same samples.", (),
            HISTOGRAM_SERIES, lambda of: of_latency(of.until_reply)),
    Exposed("napctl_target_timer_seconds", "gauge", "gro-flush-timeout that its attachment has set.", (), 1,
            lambda of: one(None if of.timer_ns is None else of.timer_ns / 1e9)),
    Exposed("napctl_target_mode", "gauge", "1: the mode in which it is attached.", ("mode",), 1,
            lambda of: [((of.mode,), 1)] if of.mode else []),
    Exposed("napctl_target_drift", "gauge", "Settings that are not as the policy wants them.", (), 1,
            lambda of: one(of.drift)),
    Exposed("napctl_target_conflicts", "gauge", "Settings left to somebody else, who keeps putting them back.", (), 1,
            lambda of: one(of.conflicts)),
)  # fmt: skip
"""Of each target."""

OF_MACHINE: tuple[Exposed[Snapshot], ...] = (
    Exposed("napctl_info", "gauge", "1, with the versions as labels.", ("version", "kernel"), 1,
            lambda of: [((of.version, of.kernel), 1)]),
    Exposed("napctl_start_time_seconds", "gauge", "When the service began.", (), 1,
            lambda of: one(of.started_unix_ns / 1e9)),
    Exposed("napctl_snapshot_take_seconds", "gauge", "How long it took to take the snapshot.", (), 1,
            lambda of: one(of.seconds_to_take)),
    Exposed("napctl_probe_up", "gauge", "1: the probe is loaded. 0: what it counts is missing.", ("probe",),
            len(PROBES), lambda of: (((name,), up) for name, up in of.probes.items())),
    Exposed("napctl_lost_polls_total", "counter", "Polls that found no place in the probe's table.", (), 1,
            lambda of: one(of.lost_polls)),
    Exposed("napctl_packet_cpu_seconds_total", "counter", "CPU time spent on packets outside of the targets.", ("by",),
            2, lambda of: [(("softirq",), None if of.softirq_ns is None else of.softirq_ns / 1e9),
                           (("thread",), of.thread_seconds)]),
    Exposed("napctl_machine_interrupts_total", "counter", "Calls of device interrupt handlers, of whatever device.",
            (), 1, lambda of: one(of.interrupts)),
    Exposed("napctl_time_squeezes_total", "counter", "Softirqs that ran out of budget or time with work left.", (), 1,
            lambda of: one(of.time_squeezes)),
    Exposed("napctl_backlog_drops_total", "counter", "Packets dropped as a CPU's backlog was full.", (), 1,
            lambda of: one(of.backlog_drops)),
    Exposed("napctl_overloaded_seconds_total", "counter", "Time that packets took CPUs from threads, over all CPUs.",
            ("level",), len(LEVELS), lambda of: (((each,), of.overload.seconds[each]) for each in LEVELS)),
    Exposed("napctl_late_drops_total", "counter", "Packets dropped after the stack had worked on them.", (), 1,
            lambda of: one(of.overload.late_drops)),
    Exposed("napctl_decisions_total", "counter", "Decisions of the service.", ("decision",), len(DECISIONS),
            lambda of: (((each,), of.policy.decisions.get(each, 0)) for each in DECISIONS)),
    Exposed("napctl_protection_steps_total", "counter", "Steps made against overload.", ("step",), len(STEP_KINDS),
            lambda of: (((each,), of.policy.protection_steps.get(each)) for each in STEP_KINDS)),
    Exposed("napctl_storm_drops_total", "counter", "Packets that storm control dropped.", ("reason",), len(REASONS),
            lambda of: (((each,), of.policy.storm_drops.get(each)) for each in REASONS)),
    Exposed("napctl_errors_total", "counter", "Things that failed and were written to the log.", (), 1,
            lambda of: one(of.policy.errors)),
    Exposed("napctl_policy_valid", "gauge", "0: the policy cannot be read; the one before is in force.", (), 1,
            lambda of: one(of.policy.policy_valid)),
    Exposed("napctl_other_manager_info", "gauge", "1: another program that sets what napctl sets runs.",
            ("name", "touches"), len(KNOWN_MANAGERS),
            lambda of: (((each.name, ",".join(each.concerns)), 1) for each in of.managers)),
    Exposed("napctl_paused", "gauge", "1: napctl pause has put everything back for a time.", (), 1,
            lambda of: one(of.policy.paused)),
    Exposed("napctl_cpu_seconds_total", "counter", "CPU time of the service itself.", (), 1,
            lambda of: one(of.own.cpu_seconds)),
    Exposed("napctl_resident_memory_bytes", "gauge", "Memory of the service itself.", (), 1,
            lambda of: one(of.own.resident_bytes)),
    Exposed("napctl_open_files", "gauge", "Descriptors of the service itself.", (), 1,
            lambda of: one(of.own.open_files)),
)  # fmt: skip
"""Of the machine, and of the service itself."""
