"""Figures of the samples of one arm: sums, rates of each instance, gaps between interrupts."""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, stdev

from napctl.model.histogram import total
from napctl.model.verdict import Arm
from napctl.stats.sequential import Interval
from napctl.stats.student import critical
from napctl.verify.expected import InstanceLoad
from napctl.verify.trial import Raw, Sample, SettingTrial, shown

__all__ = ["arm", "gap_interval", "implied_us", "least_gap_us", "loads"]


def arm(value: Raw, samples: Sequence[Sample]) -> Arm:
    """The sum of all windows of one arm."""
    polls = total(each.polls for each in samples)
    interrupts = _sum([each.interrupts for each in samples])
    tx_only = _sum([each.tx_only for each in samples])
    received = sum(each.rx_packets for each in samples)
    gaps = gaps_us(samples) if interrupts else []
    return Arm(
        value=shown(value),
        windows=len(samples),
        seconds=sum(each.seconds for each in samples),
        rx_packets=received,
        tx_packets=sum(each.tx_packets for each in samples),
        interrupts=interrupts,
        polls=polls.polls if polls.polls else None,
        runs=_sum([each.runs for each in samples]),
        interrupts_per_packet=interrupts / received if interrupts is not None and received else None,
        packets_per_poll=polls.packets / polls.polls if polls.polls else None,
        mean_gap_us=fmean(gaps) if gaps else None,
        tx_only_share=tx_only / polls.polls if tx_only is not None and polls.polls else None,
        histogram=polls,
    )


def loads(samples: Sequence[Sample]) -> list[InstanceLoad]:
    """Per second, over all windows, by instance; those of a device that was reset meanwhile are not matched up."""
    seconds = sum(each.seconds for each in samples)
    width = min((len(each.instances) for each in samples), default=0)
    return [
        InstanceLoad(
            events=sum(each.instances[n].events for each in samples) / seconds,
            packets=sum(each.instances[n].packets for each in samples) / seconds,
        )
        for n in range(width)
    ]


def gaps_us(samples: Sequence[Sample]) -> list[float]:
    """Mean gap between the events of the busiest instance, for each window with any, µs."""
    n = _busiest(samples)
    if n is None:
        return []
    return [each.seconds * 1e6 / each.instances[n].events for each in samples if each.instances[n].events]


def gap_interval(samples: Sequence[Sample], confidence: float) -> Interval | None:
    """Where that gap lies, µs; None for fewer than two windows with any event."""
    logs = [log(gap) for gap in gaps_us(samples)]
    if len(logs) < 2:
        return None
    half = critical(1 - confidence, len(logs) - 1) * stdev(logs) / sqrt(len(logs))
    mean = fmean(logs)
    return Interval(ratio=exp(mean), low=exp(mean - half), high=exp(mean + half))


def least_gap_us(trial: SettingTrial, delay_us: int, samples: Sequence[Sample]) -> float:
    """The mean gap that obeying rx-usecs leaves at least, µs.

    One interrupt in so long a time, or for so many frames; and those of TX completions, if the same interrupt serves
    them: where the driver has no tx-usecs one timer holds back both (Intel's ITR).
    """
    n = _busiest(samples)
    assert n is not None
    seconds = sum(each.seconds for each in samples)
    rate = 1e6 / delay_us
    if trial.frames:
        rate += sum(each.instances[n].packets for each in samples) / seconds / trial.frames
    if any(each.instances[n].sends for each in samples) and trial.tx_delay_us is not None:
        sent = sum(each.tx_packets for each in samples) / seconds
        rate += min(sent, 1e6 / trial.tx_delay_us) if trial.tx_delay_us else sent
    return 1e6 / rate


def implied_us(found: Interval, without: Sequence[Sample]) -> float:
    """The least delay that explains so large an effect, µs: the model of expected.py backwards."""
    there = loads(without)
    events = sum(load.events for load in there)
    return (1 / found.high - 1) / (events / len(there)) * 1e6 if events else 0


def _busiest(samples: Sequence[Sample]) -> int | None:
    there = loads(samples)
    return max(range(len(there)), key=lambda n: there[n].events) if there else None


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None
