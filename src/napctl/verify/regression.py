"""What is worse with a setting than without it: throughput, retransmits, drops; by the same pairs and interval."""

from collections.abc import Callable, Iterator, Sequence

from napctl.model.verdict import Estimate, Regression
from napctl.verify.contrast import CONFIDENCE, Counted, Interval, interval
from napctl.verify.judge import Pairs
from napctl.verify.trial import Sample, Trial

FEWEST = 10
"""Retransmits or drops with the setting, below which none is worth a warning."""


def regressions(trial: Trial, pairs: Pairs, seconds: float) -> Iterator[Regression]:
    """Warnings, each with the ratio that it stands on."""

    def found(of: Interval, what: str) -> Estimate:
        return Estimate(
            statistic=what,
            ratio=of.ratio,
            low=of.low,
            high=of.high,
            confidence=CONFIDENCE,
            pairs=len(pairs),
            seconds=seconds,
        )

    on, off = [on for on, _ in pairs], [off for _, off in pairs]
    packets = _interval(pairs, lambda each: Counted(events=each.rx_packets + each.tx_packets, per=each.seconds))
    if packets is not None and packets.below:
        yield Regression(
            device=trial.device,
            queue=trial.queue,
            setting=trial.setting,
            what="throughput",
            estimate=found(packets, "packets per second"),
            text=f"{_rate(on):,.0f} packets/s with it, {_rate(off):,.0f} without",
        )
    again = _interval(pairs, lambda each: Counted(events=each.retransmits or 0, per=max(each.segments or 0, 1)))
    sent = sum(each.retransmits or 0 for each in on), sum(each.retransmits or 0 for each in off)
    if again is not None and again.above and sent[0] >= FEWEST:
        yield Regression(
            device=trial.device,
            queue=trial.queue,
            setting=trial.setting,
            what="retransmits",
            estimate=found(again, "retransmits per TCP segment"),
            text=f"{sent[0]:,} TCP retransmits with it, {sent[1]:,} without (of all devices)",
        )
    lost = _interval(pairs, lambda each: Counted(events=each.drops, per=max(each.rx_packets + each.tx_packets, 1)))
    drops = sum(each.drops for each in on), sum(each.drops for each in off)
    if lost is not None and lost.above and drops[0] >= FEWEST:
        yield Regression(
            device=trial.device,
            queue=trial.queue,
            setting=trial.setting,
            what="drops",
            estimate=found(lost, "drops per packet"),
            text=f"{drops[0]:,} packets dropped with it, {drops[1]:,} without",
        )


def _interval(pairs: Pairs, figure: Callable[[Sample], Counted]) -> Interval | None:
    return interval([(figure(on), figure(off)) for on, off in pairs])


def _rate(samples: Sequence[Sample]) -> float:
    return sum(each.rx_packets + each.tx_packets for each in samples) / sum(each.seconds for each in samples)
