"""From the samples of a trial to its verdict: pure rules, one after the other."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

from msgspec.structs import replace

from napctl.model.settings import NapiSettings
from napctl.model.value import Value
from napctl.model.verdict import Outcome, RatioEstimate, Verdict
from napctl.stats.sequential import FEWEST_PAIRS, MARGIN, Interval, interval, is_look, pairs_needed
from napctl.verify.expected import Expectation, frames_bound, of_deferral, of_delay, of_frames
from napctl.verify.sample_figures import arm, gap_interval, implied_us, least_gap_us, loads
from napctl.verify.trial import COUNTED, DEFERRAL, TIMED, Sample, SettingTrial, Statistic, shown

__all__ = ["Pairs", "compared", "enough", "judge", "verdict"]


Pairs = Sequence[tuple[Sample, Sample]]
"""With the setting, and without it."""
EARLY_LOOK = 2
"""Pairs after which traffic that cannot show anything is given up."""
TOO_SHORT = 1.25
"""Interrupts that come so many times more often than a delay lets them make it suspect."""
STRONGER = 4
"""A setting too small to be seen that acts as this many times itself, or more, is another setting."""
STRONGER_US = 10
"""And by at least that much: timers of NICs have steps of a few µs."""


class Said(Value, frozen=True, kw_only=True):
    """An outcome in words."""

    outcome: Outcome
    reason: str
    acts_as: str | None = None
    needs: str | None = None
    seems_us: int | None = None
    """The delay that it seems to be clamped to: to be compared with."""


class Judgement(Value, frozen=True, kw_only=True):
    """What can be said after some pairs, and what it stands on."""

    said: Said
    per_packet: Interval | None
    per_second: Interval | None
    expected: Expectation

    @property
    def outcome(self) -> Outcome:
        """`not enough traffic` as long as nothing can be said."""
        return self.said.outcome


def judge(trial: SettingTrial, statistic: Statistic, pairs: Pairs) -> Judgement:
    """What the pairs so far say."""
    expected = expectation(trial, statistic, pairs)
    per_packet = _per_packet(trial, pairs)
    per_second = interval([(on.per_second, off.per_second) for on, off in pairs], trial.confidence)
    if per_packet is None or per_second is None:
        said = Said(outcome="not enough traffic", reason="there was hardly a packet", needs=expected.needs)
    elif _asked_for(trial, per_packet, expected):
        said = _effect(trial, statistic, pairs, per_packet, expected)
    elif expected.ratio is None:
        said = _no_effect_of_any_kind(per_packet, len(pairs))
    elif expected.showable:
        said = _no_expected_effect(trial, statistic, len(pairs), per_packet, per_second, expected)
    else:
        same = "obeyed or not, this traffic would look the same"
        other = "the difference that shows is not the one that is asked for"
        reason = other if per_packet.above or per_packet.below else same
        said = Said(outcome="not enough traffic", reason=reason, needs=expected.needs)
    return Judgement(said=said, per_packet=per_packet, per_second=per_second, expected=expected)


def enough(trial: SettingTrial, statistic: Statistic, pairs: Pairs) -> bool:
    """Whether more windows are of no use: the figures tell; or this traffic will never."""
    if len(pairs) < EARLY_LOOK:
        return False
    found = judge(trial, statistic, pairs)
    if _hopeless(found):
        return True
    return len(pairs) >= FEWEST_PAIRS and is_look(len(pairs)) and found.outcome != "not enough traffic"


def compared(trial: SettingTrial, pairs: Pairs) -> bool:
    """Whether two delays are by now the same, or not: the stopping rule for a suspect."""
    found = _per_packet(trial, pairs)
    return len(pairs) >= FEWEST_PAIRS and is_look(len(pairs)) and found is not None and (found.equal or found.below)


def _per_packet(trial: SettingTrial, pairs: Pairs) -> Interval | None:
    return interval([(on.per_packet, off.per_packet) for on, off in pairs], trial.confidence)


def _hopeless(found: Judgement) -> bool:
    """It shows neither an effect nor the absence of one."""
    if found.outcome != "not enough traffic" or found.expected.showable:
        return False
    if found.per_packet is None:
        return True
    quiet = 1 / MARGIN < found.per_packet.ratio < MARGIN
    return quiet and not found.expected.either_way  # for the latter the model is too rough to give up by


def expectation(trial: SettingTrial, statistic: Statistic, pairs: Pairs) -> Expectation:
    """What the setting would do to this traffic, from what it was in the arm that delays less."""
    if not pairs:
        return Expectation(ratio=None)
    lesser = [on if _delays_less(trial) else off for on, off in pairs]
    there = loads(lesser)
    on, off = trial.on, trial.off
    if isinstance(on, NapiSettings) or isinstance(off, NapiSettings):
        assert isinstance(on, NapiSettings)
        assert isinstance(off, NapiSettings)
        return of_deferral(there, on, off, interrupts=statistic.startswith("interrupts"))
    if trial.setting in TIMED:
        expected = of_delay(there, on, off, trial.frames)
        # What a driver's own moderation leaves of the events nobody knows: no change of theirs is no disobedience.
        unknown = trial.mode is not None and (expected.showable or trial.mode == on)
        return Expectation(ratio=None, either_way=True) if unknown else expected
    if trial.setting in COUNTED:
        return of_frames(there, on, off, trial.delay_us, fmean(each.seconds for each in lesser))
    return Expectation(ratio=None, either_way=True)


def _asked_for(trial: SettingTrial, found: Interval, expected: Expectation) -> bool:
    """An effect, in the direction that was asked for; in any, if none was."""
    if expected.either_way:
        return found.below or found.above
    return found.above if _delays_less(trial) else found.below


def verdict(trial: SettingTrial, statistic: Statistic, pairs: Pairs, seconds: float, check: Pairs = ()) -> Verdict:
    """The verdict of all pairs, with everything that it stands on. `seconds`: of a window.

    `check`: pairs with the setting and with the delay that it seems to be clamped to.
    """
    found = judge(trial, statistic, pairs)
    said = found.said if found.said.seems_us is None else _checked(trial, found.said, found.said.seems_us, check)
    altered = trial.on != trial.wanted
    clamped = altered and said.outcome in ("honoured", "not enough traffic")

    def estimate(of: Interval | None, name: str, expected: float | None, pairs: Pairs) -> RatioEstimate | None:
        if of is None:
            return None
        return RatioEstimate(
            statistic=name,
            ratio=of.ratio,
            low=of.low,
            high=of.high,
            confidence=trial.confidence,
            expected=expected,
            pairs=len(pairs),
            seconds=seconds,
        )

    return Verdict(
        device=trial.device,
        queue=trial.queue,
        setting=trial.setting,
        wanted=shown(trial.wanted),
        without=shown(trial.off),
        read_back=shown(trial.on),
        outcome="clamped" if clamped else said.outcome,
        acts_as=str(shown(trial.on)) if clamped else said.acts_as,
        estimate=estimate(found.per_packet, statistic, found.expected.ratio, pairs),
        per_second=estimate(found.per_second, f"{_unit(statistic)} per second", found.expected.ratio, pairs),
        to_acts_as=estimate(_per_packet(trial, check), statistic, None, check),
        with_it=arm(trial.on, [on for on, _ in pairs]),
        without_it=arm(trial.off, [off for _, off in pairs]),
        reason=_reason(trial, said.reason),
        needs=said.needs,
    )


def _reason(trial: SettingTrial, words: str) -> str:
    """With what the driver made of the values."""
    made = f"the driver made {shown(trial.on)} of it; {words}" if trial.on != trial.wanted else words
    return made if trial.mode is None else f"{made}. {trial.mode} is no delay, but a moderation of the driver's own"


def _checked(trial: SettingTrial, said: Said, seems_us: int, check: Pairs) -> Said:
    """A clamped delay does the same as the one that it is clamped to.

    If it does not, the device obeys and only counts otherwise (QEMU's e1000e sends two interrupts in each interval).
    """
    same = _per_packet(trial, check)
    if same is not None and same.equal:
        reason = f"{said.reason}, and {seems_us} µs does the same"
        return replace(said, outcome="clamped", acts_as=f"about {seems_us} µs", reason=reason)
    if same is not None and same.below:
        return replace(said, reason=f"{said.reason}; but it is not clamped: {seems_us} µs delays less")
    return Said(
        outcome="not enough traffic",
        reason=f"it has an effect; but {said.reason}, and whether {seems_us} µs does the same cannot be told",
        needs=None if same is None else _too_noisy(same, len(check)).needs,
    )


def _effect(trial: SettingTrial, statistic: Statistic, pairs: Pairs, found: Interval, expected: Expectation) -> Said:
    """The direction is the one asked for: is the size?"""
    if trial.setting == "rx_usecs" and statistic == "interrupts per packet" and not _delays_less(trial):
        asked_us = trial.on
        assert not isinstance(asked_us, NapiSettings)
        on, off = [on for on, _ in pairs], [off for _, off in pairs]
        gap, least_us = gap_interval(on, trial.confidence), least_gap_us(trial, asked_us, on)
        if gap is not None and gap.high * TOO_SHORT < least_us:
            reason = f"interrupts come every {gap.ratio:.0f} µs, where obeying leaves {least_us:.0f} µs or more"
            return Said(outcome="honoured", reason=reason, seems_us=max(1, round(gap.ratio * asked_us / least_us)))
        implied = implied_us(found, off)
        if trial.mode is None and not expected.showable and implied > STRONGER * asked_us + STRONGER_US:
            reason = f"{asked_us} µs cannot do as much in this traffic: it acts as a longer delay"
            return Said(outcome="clamped", reason=reason, acts_as=f"at least {implied:.0f} µs")
    fewer = found.ratio < 1
    factor = 1 / found.ratio if fewer else found.ratio
    reason = f"{factor:.1f} times {'fewer' if fewer else 'as many'} {statistic} with it"
    return Said(outcome="honoured", reason=reason)


def _no_effect_of_any_kind(found: Interval, pairs: int) -> Said:
    """Adaptive coalescing, of which nobody can say what it should do."""
    if found.equal:
        reason = "no difference on the wire; it may rightly choose what was there before"
        return Said(outcome="accepted", reason=reason)
    return _too_noisy(found, pairs)


def _no_expected_effect(
    trial: SettingTrial,
    statistic: Statistic,
    pairs: int,
    per_packet: Interval,
    per_second: Interval,
    expected: Expectation,
) -> Said:
    """The traffic could have shown the effect.

    "Without effect" needs three things: that per packet nothing changes; that obeying would have changed much; and
    that events per second have not changed half as much (in logarithms) either. For a setting that is obeyed slows
    down a client which waits for each answer, and then the events per packet stay as they are.
    """
    if per_packet.above or per_packet.below:
        way = "as many" if per_packet.above else "fewer"
        factor = per_packet.ratio if per_packet.above else 1 / per_packet.ratio
        return Said(outcome="contrary", reason=f"{factor:.1f} times {way} {statistic}, where the opposite is asked for")
    if not per_packet.equal:
        return _too_noisy(per_packet, pairs)
    ratio = expected.ratio
    assert ratio is not None
    if _asked_for(trial, per_second, expected):
        reason = f"{_unit(statistic)} become slower and packets with them: the traffic waits for them"
        return Said(outcome="honoured", reason=reason)
    excluded = per_second.low > sqrt(ratio) if ratio < 1 else per_second.high < sqrt(ratio)
    if not excluded:
        return _too_noisy(per_second, pairs)
    reason = f"nothing changes, where obeying would give {ratio:.2g} times the {_unit(statistic)}"
    if trial.adaptive and trial.setting != DEFERRAL:
        reason += ". Adaptive coalescing is on, which sets this itself"
    return Said(outcome="without effect", reason=reason)


def _too_noisy(found: Interval, pairs: int) -> Said:
    return Said(
        outcome="not enough traffic",
        reason="the figures vary too much from window to window",
        needs=f"about {pairs_needed(found, pairs)} pairs of such windows (--pairs), or longer ones (--seconds)",
    )


def _unit(statistic: Statistic) -> str:
    return statistic.split(" per ")[0]


def _delays_less(trial: SettingTrial) -> bool:
    """The setting delays less than its other value."""
    on, off = trial.on, trial.off
    if isinstance(on, NapiSettings) or isinstance(off, NapiSettings):
        return isinstance(on, NapiSettings) and not on.defers
    if trial.setting in COUNTED:
        return frames_bound(on, trial.delay_us) < frames_bound(off, trial.delay_us)
    return on < off
