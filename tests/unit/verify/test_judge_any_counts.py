"""Promises of the arithmetic of verify: it raises on no counts whatever, and says nothing that they cannot carry."""

from math import isfinite
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from napctl.model.histogram import Histogram
from napctl.model.settings import NapiSettings
from napctl.stats.sequential import Counted, interval
from napctl.verify.judge import compared, enough, judge, verdict
from napctl.verify.regression import regressions
from napctl.verify.trial import ADAPTIVE, COUNTED, DEFERRAL, TIMED, Instance, Raw, Sample, SettingTrial, Statistic

ANY = st.sampled_from((0, 1, 2**32 - 1, 2**64 - 1)) | st.integers(0, 2**64 - 1)
SETTINGS_U32 = st.sampled_from((0, 1, 50, 2**32 - 1)) | st.integers(0, 2**32 - 1)
DEFERRALS = st.builds(
    NapiSettings, defer_hard_irqs=st.none() | SETTINGS_U32, gro_flush_timeout_ns=st.none() | st.integers(0, 2**63)
)
STATISTICS: st.SearchStrategy[Statistic] = st.sampled_from(get_args(Statistic))


def trial_of(setting: str, value: st.SearchStrategy[Raw]) -> st.SearchStrategy[SettingTrial]:
    beside = st.none() | SETTINGS_U32
    return st.builds(
        SettingTrial, device=st.just("eth0"), ifindex=st.just(2), queue=st.none(), setting=st.just(setting),
        wanted=value, on=value, off=value, delay_us=beside, frames=beside, adaptive=st.booleans(),
        tx_delay_us=beside, mode=st.none() | SETTINGS_U32,
    )  # fmt: skip


TRIALS = st.one_of(
    *(trial_of(name, SETTINGS_U32) for name in (*TIMED, *COUNTED)),
    *(trial_of(name, st.booleans()) for name in ADAPTIVE),
    trial_of(DEFERRAL, DEFERRALS),
)
SAMPLES = st.builds(
    Sample,
    seconds=st.floats(1e-3, 3600),
    instances=st.lists(st.builds(Instance, events=ANY, packets=ANY, sends=st.booleans()), max_size=3).map(tuple),
    rx_packets=ANY,
    tx_packets=ANY,
    interrupts=st.none() | ANY,
    tx_only=st.none() | ANY,
    runs=st.none() | ANY,
    polls=st.builds(Histogram.of, st.dictionaries(st.integers(0, 99), ANY, max_size=3)),
    drops=ANY,
    segments=st.none() | ANY,
    retransmits=st.none() | ANY,
)
PAIRS = st.lists(st.tuples(SAMPLES, SAMPLES), max_size=6)


@given(TRIALS, STATISTICS, PAIRS, PAIRS)
def test_every_verdict_can_be_come_to(
    trial: SettingTrial, statistic: Statistic, pairs: list[tuple[Sample, Sample]], check: list[tuple[Sample, Sample]]
) -> None:
    found = verdict(trial, statistic, pairs, 1.0, check)
    if len(pairs) < 2:
        assert found.outcome in ("not enough traffic", "clamped")
        assert found.estimate is None
    judge(trial, statistic, pairs)
    enough(trial, statistic, pairs)
    compared(trial, pairs)
    list(regressions(trial, pairs, 1.0))


COUNTS = st.builds(Counted, events=st.integers(-(2**64), 2**64), per=st.integers(-1, 2**64) | st.floats(1e-9, 1e12))


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=8))
@example([(Counted(events=20_000, per=100_000), Counted(events=80_000, per=100_000))] * 5
         + [(Counted(events=20_000 - 2**32, per=100_000), Counted(events=80_000, per=100_000))])  # fmt: skip
def test_every_ratio_has_an_interval_or_none(pairs: list[tuple[Counted, Counted]]) -> None:
    found = interval(pairs)
    if found is not None:
        assert 0 < found.low <= found.ratio <= found.high
        assert isfinite(found.high)


def test_a_count_that_cannot_be_moves_nothing() -> None:
    honest = [(Counted(events=20_000 + n, per=100_000), Counted(events=80_000, per=100_000)) for n in range(5)]
    wrapped = (Counted(events=20_000 - 2**32, per=100_000), Counted(events=80_000, per=100_000))
    assert interval([*honest, wrapped]) == interval(honest)
