"""Trying out one setting: pairs of windows with and without it, until they tell or there have been enough."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from napctl.kernel import snmp
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.counters import grown
from napctl.model.counts import Deliveries
from napctl.model.machine import Device
from napctl.model.settings import kernel_name
from napctl.model.value import Value
from napctl.observe.window import Observer
from napctl.probe import DeliveryProbe, ProbeUnavailable
from napctl.stats.sequential import orders
from napctl.verify.trial import Sample, SettingTrial, Statistic, sample, statistic_of

__all__ = ["SETTLE_SECONDS", "SILENCE", "Progress", "Tried", "Windows", "try_out"]


SETTLE_SECONDS = 0.1
"""Between a change and its window: what was on its way under the other value has passed."""


class Windows(Value, frozen=True, kw_only=True):
    """How long, how many at most, in which order."""

    seconds: float
    """Of each window."""
    pairs: int
    """At most."""
    seed: int

    @property
    def total_seconds(self) -> float:
        """At most, for one setting."""
        return self.pairs * 2 * (self.seconds + SETTLE_SECONDS)


class Progress(Protocol):
    """Who is told how far it is."""

    def begin(self, trials: int, seconds: float) -> None:
        """Before the first window: how many settings, and how long it takes at most."""

    def pair(self, device: str, setting: str, number: int, most: int) -> None:
        """A pair of windows begins."""


class _Silence:
    def begin(self, trials: int, seconds: float) -> None: ...

    def pair(self, device: str, setting: str, number: int, most: int) -> None: ...


SILENCE = _Silence()


@dataclass(frozen=True)
class Tried:
    """The windows, and by which statistic they are to be judged."""

    statistic: Statistic | None
    """None: the wire has nothing to show it by."""
    pairs: list[tuple[Sample, Sample]]
    """With the setting, and without it; those left out in which a counter was set back."""


def try_out(
    trial: SettingTrial,
    device: Device,
    switch: Callable[[bool], object],
    observer: Observer,
    netns: NetworkNamespace,
    windows: Windows,
    progress: Progress,
    enough: Callable[[Statistic, list[tuple[Sample, Sample]]], bool],
) -> Tried:
    """Until there is `enough`, or the limit.

    `switch(True)` gives the device the other value, `switch(False)` the setting. Raises what that raises.
    """
    statistic: Statistic | None = None
    pairs: list[tuple[Sample, Sample]] = []
    with _deliveries(device, netns) as deliveries:
        for number, setting_first in enumerate(orders(windows.seed), start=1):
            progress.pair(trial.device, kernel_name(trial.setting), number, windows.pairs)
            found: dict[bool, Sample | None] = {}
            for on in (True, False) if setting_first else (False, True):
                switch(not on)
                time.sleep(SETTLE_SECONDS)
                observer.restart()
                tcp, delivered = snmp.tcp(netns), deliveries() if deliveries else None
                time.sleep(windows.seconds)
                window = observer.window(refresh=False)
                tcp_after, delivered_after = snmp.tcp(netns), deliveries() if deliveries else None
                statistic = statistic or statistic_of(trial, device, window, deliveries=deliveries is not None)
                if statistic is None:
                    return Tried(None, [])
                counted = sample(trial, statistic, window, _since(delivered, delivered_after))
                found[on] = _with_tcp(counted, tcp, tcp_after)
            with_it, without_it = found[True], found[False]
            if with_it is not None and without_it is not None:
                pairs.append((with_it, without_it))
            assert statistic is not None
            if number >= windows.pairs or enough(statistic, pairs):
                break
    return Tried(statistic, pairs)


@contextmanager
def _deliveries(device: Device, netns: NetworkNamespace) -> Iterator[Callable[[], Deliveries] | None]:
    """Reads the probe of a device without NAPI instances; None for others, and where it cannot be loaded."""
    if device.napis:
        yield None
        return
    try:
        probe = DeliveryProbe.load(netns.inode, device.ifindex)
    except ProbeUnavailable:
        yield None
        return
    with probe:
        yield probe.read


def _since(before: Deliveries | None, after: Deliveries | None) -> Deliveries | None:
    if before is None or after is None:
        return None
    packets, runs = grown(before.packets, after.packets), grown(before.runs, after.runs)
    return None if packets is None or runs is None else Deliveries(packets=packets, runs=runs)


def _with_tcp(found: Sample | None, before: snmp.Tcp | None, after: snmp.Tcp | None) -> Sample | None:
    if found is None or before is None or after is None:
        return found
    segments, retransmits = grown(before.sent, after.sent), grown(before.retransmitted, after.retransmitted)
    return replace(found, segments=segments, retransmits=retransmits)
