"""A trial: one setting of one device, its two values, and the figures by which the wire shows which is in force."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from napctl.model.counts import Deliveries, DeviceCounts
from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.machine import Device
from napctl.model.settings import NapiSettings
from napctl.model.units import duration_text
from napctl.model.value import Value
from napctl.model.verdict import Setting
from napctl.model.window import NapiWindow, Window
from napctl.stats.sequential import Counted, confidence_among

__all__ = [
    "ADAPTIVE",
    "COUNTED",
    "DEFERRAL",
    "JUDGED",
    "NEUTRAL",
    "TIMED",
    "Instance",
    "Raw",
    "Sample",
    "SettingTrial",
    "Statistic",
    "sample",
    "shown",
    "statistic_of",
]


Statistic = Literal[
    "interrupts per packet",
    "polls per packet",
    "runs per packet",
    "TX-only polls per TX packet",
    "interrupts per TX packet",
]
"""`runs`: of a device without NAPI instances, packets handed to the stack without a pause."""
TIMED = ("rx_usecs", "tx_usecs")
COUNTED = ("rx_max_frames", "tx_max_frames")
ADAPTIVE = ("use_adaptive_rx", "use_adaptive_tx")
DEFERRAL = "deferral"
JUDGED = (*TIMED, *COUNTED, *ADAPTIVE, DEFERRAL)
"""Settings that the wire can show, by their field names in Coalescing; deferral is two that mean nothing alone."""
NEUTRAL: dict[str, int | bool] = dict.fromkeys(TIMED, 0) | dict.fromkeys(COUNTED, 1)
NEUTRAL |= dict.fromkeys(ADAPTIVE, False)
"""What a driver has that does not wait: the other arm, where nothing better is known."""

Raw = int | bool | NapiSettings
"""The value of a setting; NapiSettings for deferral."""


class SettingTrial(Value, frozen=True, kw_only=True):
    """One setting to be tried. The delay and frames are those beside it, of the same direction."""

    device: str
    ifindex: int
    queue: int | None = None
    setting: str
    wanted: Raw
    on: Raw
    """What `wanted` reads back as: the one arm."""
    off: Raw
    """The other arm."""
    delay_us: int | None = None
    """rx-usecs or tx-usecs; None: the driver has no such setting."""
    frames: int | None = None
    """rx-max-frames or tx-max-frames; None: the driver has no such setting."""
    adaptive: bool = False
    """Adaptive coalescing of that direction is on."""
    tx_delay_us: int | None = None
    mode: int | None = None
    """The one of the two values that is no delay but stands for a moderation of the driver's own; None: neither is."""
    among: int = 1
    """How many settings are tried in this run: what is said of each is corrected for them."""

    @property
    def confidence(self) -> float:
        """Of the intervals that its verdict stands on."""
        return confidence_among(self.among)

    @property
    def of_tx(self) -> bool:
        """Whether it delays TX completions."""
        return self.setting in ("tx_usecs", "tx_max_frames", "use_adaptive_tx")


class Instance(Value, frozen=True, kw_only=True):
    """One NAPI instance (or interrupt line, or device) during one window."""

    events: float
    packets: float
    sends: bool = False
    """It serves a TX queue too: not every event is for a received packet."""


class Sample(Value, frozen=True, kw_only=True):
    """One window of one arm."""

    seconds: float
    instances: tuple[Instance, ...]
    rx_packets: int
    tx_packets: int
    interrupts: int | None = None
    tx_only: int | None = None
    runs: int | None = None
    polls: Histogram = EMPTY
    drops: int = 0
    segments: int | None = None
    """TCP segments sent in the whole namespace; None: cannot be told."""
    retransmits: int | None = None

    @property
    def per_packet(self) -> Counted:
        """Events against packets."""
        return Counted(
            events=sum(each.events for each in self.instances), per=sum(each.packets for each in self.instances)
        )

    @property
    def per_second(self) -> Counted:
        """Events against time."""
        return Counted(events=self.per_packet.events, per=self.seconds)


def statistic_of(trial: SettingTrial, device: Device, window: Window, *, deliveries: bool) -> Statistic | None:
    """The best that this driver and this kernel offer, from a first window; None if the wire has nothing to show.

    Interrupts where the driver tells which are whose: they are what a delay is about. Else polls, which follow them.
    """
    rows = _rows(trial, window)
    told = bool(rows) and all(row.interrupts is not None for row in rows)
    if trial.of_tx:
        defers = any(napi.settings.defers for napi in device.napis)
        if window.source == "bpf" and device.bus is not None and rows and not defers:
            return "TX-only polls per TX packet"
        return "interrupts per TX packet" if told else None
    if told:
        return "interrupts per packet"
    if window.source == "bpf" and rows:
        return "polls per packet"
    return "runs per packet" if deliveries else None


def sample(
    trial: SettingTrial, statistic: Statistic, window: Window, deliveries: Deliveries | None = None
) -> Sample | None:
    """What one window says of the trial's setting.

    None: nothing, as a counter was set back in it, or the device has gone. What does that interrupts the traffic, too.
    """
    rows = _rows(trial, window)
    device = next((each for each in window.devices if each.ifindex == trial.ifindex), None)
    interrupts = [row.interrupts for row in _one_per_irq(rows)]
    if device is None or device.rx_packets is None or device.tx_packets is None or (drops := _drops(device)) is None:
        return None
    by_interrupts, by_runs = statistic.startswith("interrupts"), statistic.startswith("runs")
    if (by_interrupts and None in interrupts) or (by_runs and deliveries is None):
        return None
    counted = window.source == "bpf"
    return Sample(
        seconds=window.seconds,
        instances=_instances(statistic, rows, device.tx_packets, device.rx_packets, deliveries, counted=counted),
        rx_packets=device.rx_packets,
        tx_packets=device.tx_packets,
        interrupts=sum(filter(None, interrupts)) if interrupts and None not in interrupts else None,
        tx_only=sum(row.empty.tx_only for row in rows if row.empty) if counted and trial.of_tx else None,
        runs=deliveries.runs if deliveries else None,
        polls=total(_asked_for(row) for row in rows),
        drops=drops,
    )


def _instances(
    statistic: Statistic,
    rows: Sequence[NapiWindow],
    sent: int,
    received: int,
    deliveries: Deliveries | None,
    *,
    counted: bool,
) -> tuple[Instance, ...]:
    match statistic:
        case "runs per packet":
            return (Instance(events=deliveries.runs, packets=deliveries.packets),) if deliveries else ()
        case "polls per packet":
            return tuple(Instance(events=_asked_for(row).polls, packets=row.polls.packets) for row in rows)
        case "TX-only polls per TX packet":
            events = [row.empty.tx_only if row.empty else 0 for row in rows]
            return tuple(Instance(events=each, packets=sent / len(rows)) for each in events)
        case "interrupts per TX packet":
            lines = _one_per_irq(rows)
            return tuple(Instance(events=row.interrupts or 0, packets=sent / len(lines)) for row in lines)
        case "interrupts per packet":
            lines = _one_per_irq(rows)
            return tuple(
                Instance(
                    events=line.interrupts or 0,
                    packets=sum(row.polls.packets for row in rows if row.irq == line.irq)
                    if counted
                    else received / len(lines),
                    sends=any(name.startswith("tx") for row in rows if row.irq == line.irq for name in row.queues),
                )
                for line in lines
            )


def _rows(trial: SettingTrial, window: Window) -> list[NapiWindow]:
    """The instances that the setting is about; all of the device where the driver does not tell which serve what."""
    kind = "tx" if trial.of_tx else "rx"
    mine = [row for row in window.napis if row.ifindex == trial.ifindex and row.settings is not None and row.napi_id]
    names = {name for row in mine for name in row.queues}
    wanted = {f"{kind}{trial.queue}"} if trial.queue is not None else {name for name in names if name[:2] == kind}
    return [row for row in mine if wanted & set(row.queues)] if wanted & names else mine


def _one_per_irq(rows: Sequence[NapiWindow]) -> list[NapiWindow]:
    """Instances may share an interrupt line, which is counted once."""
    ordered = sorted(rows, key=lambda row: (row.irq is None, row.irq or 0))
    return [next(group) for _, group in groupby(ordered, key=lambda row: row.irq)]


def _asked_for(row: NapiWindow) -> Histogram:
    """Polls that an interrupt or a timer asked for."""
    return total(part for part in (row.softirq, row.thread) if part)


def _drops(device: DeviceCounts) -> int | None:
    """None if its counters were set back."""
    by_device = (device.rx_dropped, device.tx_dropped, device.rx_missed)
    by_queue = ((queue.alloc_fail or 0) + (queue.hw_drops or 0) for queue in device.queues or ())
    return None if None in by_device else sum(filter(None, by_device)) + sum(by_queue)


def shown(value: Raw) -> Setting:
    """A value as a verdict has it; of deferral: defer-hard-irqs x gro-flush-timeout."""
    if isinstance(value, NapiSettings):
        return f"{value.defer_hard_irqs} x {duration_text(value.gro_flush_timeout_ns or 0)}"
    return value
