"""Promises of verdicts: fewer than one wrong one in twenty, whatever the noise; what each kind of driver is told."""

import random
from collections import Counter
from collections.abc import Callable
from math import exp

import pytest
from msgspec.structs import replace

from napctl.model.settings import NapiSettings
from napctl.model.verdict import Outcome, Verdict
from napctl.stats.sequential import EQUAL, MARGIN, MOST_PAIRS
from napctl.verify.judge import compared, enough, judge, verdict
from napctl.verify.regression import regressions
from napctl.verify.trial import Instance, Sample, SettingTrial, Statistic

RATE = 10_000
"""Packets per second, one interrupt each without a delay."""
USECS = SettingTrial(
    device="eth0", ifindex=2, setting="rx_usecs", wanted=100, on=100, off=0, delay_us=100, frames=None, tx_delay_us=None
)
"""Obeyed, half of the interrupts are left: 1 / (1 + 10,000/s x 100 µs)."""
INTERRUPTS: Statistic = "interrupts per packet"
Trials = Callable[[int, int], int]


def window(interrupts: float, packets: float = RATE, *, drops: int = 0, retransmits: int = 0) -> Sample:
    """One second, and ten thousand TCP segments."""
    return Sample(
        seconds=1.0,
        instances=(Instance(events=interrupts, packets=packets),),
        rx_packets=int(packets),
        tx_packets=0,
        interrupts=int(interrupts),
        drops=drops,
        segments=10_000,
        retransmits=retransmits,
    )


Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "steady": lambda noise: exp(noise.gauss(0, 0.01)),
    "moderate": lambda noise: exp(noise.gauss(0, 0.08)),
    "wild": lambda noise: exp(noise.gauss(0, 0.4)),
    "with outliers": lambda noise: exp(noise.gauss(0, 0.03)) * (4 if noise.random() < 0.1 else 1),
    "skewed": lambda noise: 0.8 + noise.expovariate(5),
}
"""Factors on the traffic, or on interrupts per packet, of one window."""


class Traffic:
    """Windows under a driver that leaves `ratio` of the interrupts, in traffic that drifts and varies."""

    def __init__(self, seed: int, ratio: float, *, on_packets: Noise, on_interrupts: Noise, closed: bool = False):
        self._noise, self._ratio, self._closed = random.Random(seed), ratio, closed
        self._on_packets, self._on_interrupts = on_packets, on_interrupts
        self._drift = 1.0

    def pair(self) -> tuple[Sample, Sample]:
        return self._window(self._ratio), self._window(1)

    def _window(self, ratio: float) -> Sample:
        self._drift *= exp(self._noise.gauss(0.02, 0.02))
        packets = RATE * self._drift * self._on_packets(self._noise) * (ratio if self._closed else 1)
        interrupts = packets * (1 if self._closed else ratio) * self._on_interrupts(self._noise)
        return window(round(self._noise.gauss(interrupts, interrupts**0.5)), round(packets))


def outcome(trial: SettingTrial, traffic: Traffic) -> Outcome:
    """As `verify` comes to it: it looks after every pair, and stops when the figures tell."""
    pairs: list[tuple[Sample, Sample]] = []
    while len(pairs) < MOST_PAIRS:
        pairs.append(traffic.pair())
        if enough(trial, INTERRUPTS, pairs):
            break
    return judge(trial, INTERRUPTS, pairs).outcome


def outcomes(
    ratio: float, noise: str, runs: int, *, quiet_packets: bool = False, closed: bool = False
) -> dict[Outcome, float]:
    """Shares of outcomes."""
    on_packets, on_interrupts = NOISES["steady" if quiet_packets else noise], NOISES[noise]
    counts = Counter(
        outcome(USECS, Traffic(seed, ratio, on_packets=on_packets, on_interrupts=on_interrupts, closed=closed))
        for seed in range(runs)
    )
    return {said: count / runs for said, count in counts.items()}


@pytest.mark.trials
@pytest.mark.parametrize("noise", NOISES)
def test_a_driver_that_ignores_is_hardly_ever_called_obedient(noise: str, trials: Trials) -> None:
    found = outcomes(1, noise, trials(100, 400))
    assert (
        sum(share for outcome, share in found.items() if outcome not in ("without effect", "not enough traffic")) < 0.02
    )


@pytest.mark.trials
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("closed", [False, True], ids=["open loop", "clients that wait"])
def test_a_driver_that_obeys_is_hardly_ever_said_to_ignore(noise: str, closed: bool, trials: Trials) -> None:
    found = outcomes(0.5, noise, trials(100, 400), closed=closed)
    assert sum(share for outcome, share in found.items() if outcome not in ("honoured", "not enough traffic")) < 0.02


@pytest.mark.trials
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("ratio", "wrong"), [(1 / MARGIN, "honoured"), (MARGIN, "contrary"), (1 / EQUAL, "without effect")]
)
def test_wrong_verdicts_are_fewer_than_one_in_twenty_even_on_the_border(
    ratio: float, wrong: Outcome, noise: str, trials: Trials
) -> None:
    """The worst case: the truth lies where the one verdict ends. Looking again and again is part of it."""
    assert outcomes(ratio, noise, trials(100, 400), quiet_packets=True).get(wrong, 0) < 1 / 20


@pytest.mark.trials
@pytest.mark.parametrize("noise", ["moderate", "wild"])
def test_wrong_runs_are_fewer_than_one_in_twenty_however_many_settings_are_tried(noise: str, trials: Trials) -> None:
    """Eight settings, and of each the truth lies on the border: without a correction a fifth of the runs are wrong."""
    steady, noisy, trial = NOISES["steady"], NOISES[noise], replace(USECS, among=8)
    wrong, runs = 0, trials(25, 100)
    for run in range(runs):
        seeds = range(8 * run, 8 * run + 8)
        found = (outcome(trial, Traffic(s, 1 / MARGIN, on_packets=steady, on_interrupts=noisy)) for s in seeds)
        wrong += any(said == "honoured" for said in found)
    assert wrong / runs < 1 / 20


@pytest.mark.trials
@pytest.mark.parametrize(("ratio", "right"), [(0.5, "honoured"), (0.7, "honoured"), (1, "without effect")])
def test_in_steady_traffic_the_verdict_is_right_at_least_19_times_in_20(
    ratio: float, right: Outcome, trials: Trials
) -> None:
    assert outcomes(ratio, "steady", trials(100, 300))[right] >= 19 / 20


@pytest.mark.trials
def test_in_moderately_noisy_traffic_obedience_is_seen_most_of_the_time(trials: Trials) -> None:
    assert outcomes(0.5, "moderate", trials(100, 300))["honoured"] >= 19 / 20


def said(trial: SettingTrial, on: list[Sample], off: list[Sample]) -> Verdict:
    return verdict(trial, INTERRUPTS, list(zip(on, off, strict=True)), 1.0)


def test_a_verdict_states_its_statistic_its_interval_and_its_windows() -> None:
    found = said(USECS, [window(5_000)] * 4, [window(10_000)] * 4)

    assert found.outcome == "honoured"
    assert found.estimate is not None
    assert found.estimate.statistic == INTERRUPTS
    assert found.estimate.ratio == pytest.approx(0.5, rel=1e-3)
    assert 0.45 < found.estimate.low < found.estimate.high < 0.55
    assert (found.estimate.pairs, found.estimate.seconds, found.estimate.confidence) == (4, 1.0, 0.99)
    assert found.estimate.expected == pytest.approx(0.5)
    assert found.with_it is not None
    assert (found.with_it.interrupts, found.with_it.interrupts_per_packet, found.with_it.mean_gap_us) == (
        20_000,
        0.5,
        200,
    )


def test_without_packets_there_is_no_verdict_and_the_rate_that_would_do_is_named() -> None:
    found = said(USECS, [window(0, 0)] * 2, [window(0, 0)] * 2)

    assert found.outcome == "not enough traffic"
    assert found.needs == "about 5,100 packets/s on a queue; the busiest had 0"


def test_traffic_too_thin_to_show_anything_is_given_up_after_two_pairs() -> None:
    pairs = [(window(100, 100), window(100, 100))] * 2

    assert enough(USECS, INTERRUPTS, pairs)
    assert judge(USECS, INTERRUPTS, pairs).said.needs == "about 5,100 packets/s on a queue; the busiest had 100"


def checked(on: list[Sample], off: list[Sample], check_on: list[Sample], check_off: list[Sample]) -> Verdict:
    """rx-usecs 256 against 0, then against the delay that it seems to act as."""
    trial = replace(USECS, wanted=256, on=256, delay_us=256)
    pairs = list(zip(on, off, strict=True))
    assert judge(trial, INTERRUPTS, pairs).said.seems_us == 74
    check = list(zip(check_on, check_off, strict=True))
    assert compared(trial, check) == bool(check)
    return verdict(trial, INTERRUPTS, pairs, 1.0, check)


ENA = [window(13_500, 100_000)] * 4
"""rx-usecs 256, of which the ENA makes 64 µs: 100,000 packets/s in 13,500 interrupts/s."""
UNDELAYED = [window(100_000, 100_000)] * 4


def test_a_driver_that_ignores_values_above_64_is_clamped() -> None:
    found = checked(ENA, UNDELAYED, ENA, ENA)

    assert (found.outcome, found.acts_as) == ("clamped", "about 74 µs")
    assert found.to_acts_as is not None
    assert found.to_acts_as.low < 1 < found.to_acts_as.high


def test_a_driver_that_only_counts_otherwise_obeys() -> None:
    """QEMU's e1000e: interrupts come oftener than asked for, but less often if more delay is asked for."""
    found = checked(ENA, UNDELAYED, ENA, [window(40_000, 100_000)] * 4)

    assert found.outcome == "honoured"
    assert "not clamped" in found.reason


def test_whether_it_is_clamped_is_not_guessed() -> None:
    assert checked(ENA, UNDELAYED, [], []).outcome == "not enough traffic"


def test_gaps_shorter_than_the_delay_are_rightful_where_frames_or_sending_cause_them() -> None:
    trial = replace(USECS, wanted=256, on=256, delay_us=256)
    by_frames = replace(trial, frames=8)
    sending = [Sample(seconds=1.0, instances=(Instance(events=13_500, packets=1e5, sends=True),), rx_packets=100_000,
                      tx_packets=50_000, interrupts=13_500)] * 4  # fmt: skip

    assert said(by_frames, [window(13_500, 100_000)] * 4, [window(100_000, 100_000)] * 4).outcome == "honoured"
    assert said(replace(trial, tx_delay_us=0), sending, [window(100_000, 100_000)] * 4).outcome == "honoured"


def test_a_driver_that_takes_1_microsecond_for_adaptive_is_clamped() -> None:
    """The ixgbevf."""
    trial = replace(USECS, wanted=1, on=1, delay_us=1)
    found = said(trial, [window(9_000, 40_000)] * 4, [window(40_000, 40_000)] * 4)

    assert found.outcome == "clamped"
    assert found.acts_as is not None
    assert found.acts_as.startswith("at least 8")


def test_a_known_moderation_of_the_drivers_own_is_no_short_delay_that_is_disobeyed() -> None:
    """rx-usecs 1 of the ixgbe and 3 of the igb are their defaults."""
    trial = replace(USECS, wanted=1, on=1, delay_us=1, mode=1)
    found = said(trial, [window(9_000, 40_000)] * 4, [window(40_000, 40_000)] * 4)

    assert found.outcome == "honoured"
    assert found.reason.endswith("1 is no delay, but a moderation of the driver's own")

    same = said(trial, [window(40_000, 40_000)] * 4, [window(40_000, 40_000)] * 4)
    assert (same.outcome, same.needs) == ("accepted", None)


@pytest.mark.parametrize(("interrupts", "outcome"), [(8_000, "accepted"), (4_000, "honoured"), (10_000, "honoured")])
def test_a_delay_is_not_blamed_for_what_the_drivers_own_moderation_did_before_it(
    interrupts: int, outcome: Outcome
) -> None:
    trial = replace(USECS, off=3, mode=3)
    assert said(trial, [window(interrupts, 80_000)] * 4, [window(8_000, 80_000)] * 4).outcome == outcome


def test_what_the_driver_makes_another_value_of_is_clamped_and_what_it_then_ignores_is_without_effect() -> None:
    trial = replace(USECS, wanted=1_000)
    clamped = said(trial, [window(5_000)] * 4, [window(10_000)] * 4)
    ignored = said(trial, [window(10_000)] * 4, [window(10_000)] * 4)

    assert (clamped.outcome, clamped.acts_as, clamped.read_back) == ("clamped", "100", 100)
    assert ignored.outcome == "without effect"


def test_a_setting_that_does_the_opposite_is_said_to() -> None:
    assert said(USECS, [window(20_000)] * 4, [window(10_000)] * 4).outcome == "contrary"


def test_a_shorter_delay_is_honoured_if_interrupts_become_more() -> None:
    trial = replace(USECS, wanted=0, on=0, off=100)

    assert said(trial, [window(10_000)] * 4, [window(5_000)] * 4).outcome == "honoured"
    assert said(trial, [window(10_000)] * 4, [window(10_000)] * 4).outcome == "without effect"


def test_nobody_is_blamed_for_a_delay_that_adaptive_coalescing_overrules() -> None:
    found = said(replace(USECS, adaptive=True), [window(10_000)] * 4, [window(10_000)] * 4)

    assert found.outcome == "without effect"
    assert "Adaptive coalescing is on" in found.reason


def test_adaptive_coalescing_is_honoured_by_any_difference_and_accepted_without_one() -> None:
    trial = replace(USECS, setting="use_adaptive_rx", wanted=True, on=True, off=False)

    assert said(trial, [window(5_000)] * 4, [window(10_000)] * 4).outcome == "honoured"
    assert said(trial, [window(20_000)] * 4, [window(10_000)] * 4).outcome == "honoured"
    assert said(trial, [window(10_000)] * 4, [window(10_000)] * 4).outcome == "accepted"


def test_deferral_is_honoured_by_more_polls_as_by_fewer() -> None:
    on = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=20_000)
    trial = replace(
        USECS, setting="deferral", wanted=on, on=on, off=NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0)
    )

    for polls in (50_000, 2_000):
        found = verdict(trial, "polls per packet", [(window(polls), window(10_000))] * 4, 1.0)
        assert found.outcome == "honoured"


def test_what_harms_throughput_retransmits_or_drops_is_warned_of() -> None:
    good = window(10_000, retransmits=10)
    bad = window(5_000, 5_000, retransmits=100, drops=500)

    found = list(regressions(USECS, [(bad, good)] * 4, 1.0))

    assert [each.what for each in found] == ["throughput", "retransmits", "drops"]
    assert found[0].text == "5,000 packets/s with it, 10,000 without"
    assert not list(regressions(USECS, [(good, bad)] * 4, 1.0)), "better is no harm"
    assert not list(regressions(USECS, [(good, good)] * 4, 1.0))


@pytest.mark.trials
@pytest.mark.parametrize("noise", NOISES)
def test_harm_is_hardly_ever_seen_where_there_is_none(noise: str, trials: Trials) -> None:
    warned, runs = 0, trials(100, 400)
    for seed in range(runs):
        traffic = Traffic(seed, 1, on_packets=NOISES[noise], on_interrupts=NOISES["steady"])
        warned += bool(list(regressions(USECS, [traffic.pair() for _ in range(MOST_PAIRS)], 1.0)))

    assert warned / runs < 0.02


def test_no_bound_on_frames_delays_more_than_any_bound() -> None:
    """0 frames, beside a delay; where nothing else ends the gathering 0 means none."""
    unbounded = SettingTrial(
        device="eth0", ifindex=2, setting="rx_max_frames", wanted=0, on=0, off=1, delay_us=100, frames=0
    )

    assert said(unbounded, [window(5_000)] * 4, [window(10_000)] * 4).outcome == "honoured"
    assert said(unbounded, [window(20_000)] * 4, [window(10_000)] * 4).outcome == "contrary"
    assert said(replace(unbounded, delay_us=None), [window(10_000)] * 4, [window(5_000)] * 4).outcome == "honoured"


def test_a_delay_that_cannot_act_beside_a_bound_of_one_frame_is_not_judged() -> None:
    found = said(replace(USECS, frames=1), [window(10_000)] * 4, [window(10_000)] * 4)
    assert found.outcome == "not enough traffic"
    assert found.needs == "more frames than 1 to wait for: with 1 each has its interrupt"


def test_an_effect_that_the_model_did_not_promise_is_one() -> None:
    assert said(replace(USECS, frames=1), [window(5_000)] * 4, [window(10_000)] * 4).outcome == "honoured"
