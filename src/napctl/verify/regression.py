"""What is worse with a setting than without it: throughput, retransmits, drops; by the same pairs and interval."""

from collections.abc import Callable, Iterator, Sequence

from napctl.model.verdict import RatioEstimate, Regression, What
from napctl.stats.sequential import Counted, Interval, interval
from napctl.verify.judge import Pairs
from napctl.verify.trial import Sample, SettingTrial

__all__ = ["regressions"]


FEWEST = 10
"""Retransmits or drops with the setting, below which none is worth a warning."""


def regressions(trial: SettingTrial, pairs: Pairs, seconds: float) -> Iterator[Regression]:
    """Warnings, each with the ratio that it stands on."""
    on, off = [on for on, _ in pairs], [off for _, off in pairs]
    again, before = (sum(each.retransmits or 0 for each in arm) for arm in (on, off))
    lost, lost_before = (sum(each.drops for each in arm) for arm in (on, off))
    packets = _interval(trial, pairs, lambda each: Counted(events=_packets(each), per=each.seconds))
    retransmits = _interval(
        trial, pairs, lambda each: Counted(events=each.retransmits or 0, per=max(each.segments or 0, 1))
    )
    drops = _interval(trial, pairs, lambda each: Counted(events=each.drops, per=max(_packets(each), 1)))
    found: list[tuple[What, str, Interval, str]] = []
    if packets is not None and packets.below:
        text = f"{_rate(on):,.0f} packets/s with it, {_rate(off):,.0f} without"
        found.append(("throughput", "packets per second", packets, text))
    if retransmits is not None and retransmits.above and again >= FEWEST:
        text = f"{again:,} TCP retransmits with it, {before:,} without (of all devices)"
        found.append(("retransmits", "retransmits per TCP segment", retransmits, text))
    if drops is not None and drops.above and lost >= FEWEST:
        text = f"{lost:,} packets dropped with it, {lost_before:,} without"
        found.append(("drops", "drops per packet", drops, text))
    for what, statistic, ratio, text in found:
        yield Regression(
            device=trial.device,
            queue=trial.queue,
            setting=trial.setting,
            what=what,
            estimate=RatioEstimate(
                statistic=statistic,
                ratio=ratio.ratio,
                low=ratio.low,
                high=ratio.high,
                confidence=trial.confidence,
                pairs=len(pairs),
                seconds=seconds,
            ),
            text=text,
        )


def _interval(trial: SettingTrial, pairs: Pairs, figure: Callable[[Sample], Counted]) -> Interval | None:
    return interval([(figure(on), figure(off)) for on, off in pairs], trial.confidence)


def _packets(sample: Sample) -> int:
    return sample.rx_packets + sample.tx_packets


def _rate(samples: Sequence[Sample]) -> float:
    return sum(map(_packets, samples)) / sum(each.seconds for each in samples)
