"""Verdicts in words: a table, what each stands on, and warnings."""

from collections import Counter
from collections.abc import Iterator

from napctl.cli.terminal import echo
from napctl.cli.text.settings import value_text
from napctl.cli.text.table import ABSENT, number, paragraph, percent, print_table, wrapped
from napctl.cli.text.window import RANGES
from napctl.model.histogram import Histogram
from napctl.model.settings import kernel_name
from napctl.model.text import each as each_of
from napctl.model.verdict import LEAST_GOODPUT, Arm, RatioEstimate, Regression, ThreadPrice, Verdict, Verification

__all__ = ["show", "unverified"]


WORDS = {"without effect": "accepted but without effect"}
SEEN_BY = {
    "polls per packet": "The driver does not report its interrupts; each is followed by polls.",
    "runs per packet": "The device has neither interrupts nor NAPI instances of its own. A run is packets that it "
    "hands over without a pause: if it gathers them, runs become fewer.",
}
"""Where the statistic is not the obvious one, why."""


def show(verification: Verification) -> None:
    """Print it."""
    if not verification.verdicts and not verification.prices:
        echo("nothing to verify: no setting of these devices delays anything")
        _show_lacks(verification)
        return
    rows = [_row(verdict) for verdict in verification.verdicts]
    if rows:
        print_table(("device", "setting", "value", "verdict", "ratio", "interval"), rows, left=4)
    for verdict in verification.verdicts:
        echo("")
        for line in _details(verdict):
            echo(line)
    for regression in verification.regressions:
        echo("")
        paragraph(_warning(regression))
    for price in verification.prices:
        for line in _price(price):
            echo(line)
    unclear = sum(verdict.outcome == "not enough traffic" for verdict in verification.verdicts)
    if unclear:
        echo("")
        paragraph(
            f"{unclear} of {len(verification.verdicts)} settings could not be judged: not enough traffic. "
            "That is no verdict on the device."
        )
    _show_lacks(verification)


def _show_lacks(verification: Verification) -> None:
    for lack in verification.lacks:
        paragraph(f"not known: {lack}")
    for note in verification.notes:
        paragraph(note)


UNCLEAR = {
    "not enough traffic": "not enough traffic",
    "accepted": "nothing on the wire shows it",
    "not tried": "cannot be compared",
}
"""Outcomes that are no judgement, and why there is none."""


def unverified(verification: Verification) -> tuple[str, str] | None:
    """(how many settings could not be judged and why, which); None if all could be."""
    unclear = [verdict for verdict in verification.verdicts if verdict.outcome in UNCLEAR]
    if not unclear:
        return None
    reasons = Counter(UNCLEAR[verdict.outcome] for verdict in unclear)
    why = ", ".join(reasons) if len(reasons) == 1 else ", ".join(f"{reason} ({n})" for reason, n in reasons.items())
    count = len(verification.verdicts)
    devices: dict[str, list[str]] = {}
    for verdict in unclear:
        devices.setdefault(_device(verdict), []).append(kernel_name(verdict.setting))
    which = "; ".join(f"{device} {', '.join(names)}" for device, names in devices.items())
    return f"{len(unclear)} of {count} setting{'s' * (count > 1)} could not be judged: {why}", which


def _row(verdict: Verdict) -> tuple[str, ...]:
    estimate = verdict.estimate
    return (
        _device(verdict),
        kernel_name(verdict.setting),
        _value(verdict.wanted),
        _outcome(verdict),
        f"{estimate.ratio:.2f}" if estimate else ABSENT,
        _interval(estimate) if estimate else ABSENT,
    )


def _details(verdict: Verdict) -> Iterator[str]:
    setting = f"{kernel_name(verdict.setting)} {_value(verdict.wanted)}"
    yield from wrapped(f"{_device(verdict)} {setting}: {_outcome(verdict)}")
    yield from _indented(f"{verdict.reason}.")
    if verdict.needs:
        yield from _indented(f"It would need {verdict.needs}.")
    estimate, on, off = verdict.estimate, verdict.with_it, verdict.without_it
    if estimate:
        expected = f"; if obeyed, about {estimate.expected:.2g}" if estimate.expected is not None else ""
        yield from _indented(
            f"{estimate.statistic}: {estimate.ratio:.3g} times those with {_value(verdict.without)} "
            f"({estimate.confidence * 100:.4g} %: {_interval(estimate)}{expected}), from "
            f"{estimate.pairs} pairs of windows of {estimate.seconds:g} s"
        )
        if estimate.statistic in SEEN_BY:
            yield from _indented(SEEN_BY[estimate.statistic])
    if verdict.to_acts_as:
        same = verdict.to_acts_as
        yield from _indented(
            f"To the delay that it seems to act as: {same.ratio:.3g} times ({same.confidence * 100:.4g} %: "
            f"{_interval(same)}), from {same.pairs} pairs"
        )
    if on and off:
        yield from _arms(on, off)


def _arms(on: Arm, off: Arm) -> Iterator[str]:
    """Two columns of figures; what neither arm has is left out."""
    rows = [
        ("value", _value(on.value), _value(off.value)),
        *_figures("packets received", [number(arm.rx_packets) for arm in (on, off)]),
        *_figures("packets sent", [number(arm.tx_packets) for arm in (on, off)]),
        *_figures("interrupts", [number(arm.interrupts) for arm in (on, off)]),
        *_figures("interrupts per packet", [number(arm.interrupts_per_packet) for arm in (on, off)]),
        *_figures("µs between interrupts", [number(arm.mean_gap_us) for arm in (on, off)]),
        *_figures("polls", [number(arm.polls) for arm in (on, off)]),
        *_figures("packets per poll", [number(arm.packets_per_poll) for arm in (on, off)]),
        *_figures("TX-only polls", [percent(arm.tx_only_share) for arm in (on, off)]),
        *_figures("runs of packets", [number(arm.runs) for arm in (on, off)]),
    ]
    for name, *cells in rows:
        yield f"    {name:<22}{cells[0]:>27}{cells[1]:>27}"
    if on.polls or off.polls:
        yield "    polls by packets found"
        yield from _histograms(on.histogram, off.histogram)


def _histograms(on: Histogram, off: Histogram) -> Iterator[str]:
    for first, last in RANGES:
        counts = [sum(each.counts[first : last + 1]) for each in (on, off)]
        if any(counts):
            label = ">64" if first > 64 else str(first) if first == last else f"{first}-{last}"
            shares = [
                percent(count / each.polls if each.polls else None)
                for count, each in zip(counts, (on, off), strict=True)
            ]
            yield f"      {label:<20}{shares[0]:>27}{shares[1]:>27}"


def _figures(name: str, cells: list[str]) -> Iterator[tuple[str, str, str]]:
    if set(cells) != {ABSENT}:
        yield name, cells[0], cells[1]


def _warning(regression: Regression) -> str:
    estimate = regression.estimate
    where = regression.device if regression.queue is None else f"{regression.device} queue {regression.queue}"
    return (
        f"warning: {where} {kernel_name(regression.setting)} harms {regression.what}: {regression.text}; "
        f"{estimate.statistic} {estimate.ratio:.3g} times ({estimate.confidence * 100:.4g} %: {_interval(estimate)})"
    )


def _price(price: ThreadPrice) -> Iterator[str]:
    """Whether the threads of a device are worth it, and what that stands on."""
    which = f"NAPI instance{'s' * (len(price.instances) > 1)} {each_of(price.instances)}"
    goodput = price.goodput
    if price.refused is not None:
        yield from wrapped(f"{price.device} threads of {which}: refused")
        yield from _indented(f"{price.refused}.")
        return
    if goodput is None:
        yield from wrapped(f"{price.device} threads of {which}: no price, as hardly anything was delivered to anybody")
        return
    sure = goodput.low >= LEAST_GOODPUT
    verdict = "too dear" if price.bad else "affordable" if sure else "not enough traffic to be sure"
    yield from wrapped(f"{price.device} threads of {which}: {verdict}")
    least = f"at least {LEAST_GOODPUT:.0%} is asked for"
    yield from _indented(
        f"{goodput.statistic}: {goodput.ratio:.1%} of those without them ({goodput.confidence * 100:.4g} %: "
        f"{_interval(goodput)}; {least}), from {goodput.pairs} pairs of windows of {goodput.seconds:g} s"
    )
    if price.cpu is not None:
        yield from _indented(f"{price.cpu.statistic}: {price.cpu.ratio:.2f} times ({_interval(price.cpu)})")
    if price.waited_us is not None:
        yield from _indented(f"A thread that is woken waits {price.waited_us:.0f} µs for its CPU, with its packets")


def _outcome(verdict: Verdict) -> str:
    if verdict.outcome == "clamped":
        return f"clamped: {verdict.acts_as}"
    return WORDS.get(verdict.outcome, verdict.outcome)


def _interval(estimate: RatioEstimate) -> str:
    return f"{_ratio(estimate.low)} to {_ratio(estimate.high)}"


def _ratio(figure: float) -> str:
    if figure > 1000:
        return ">1000"
    return f"{figure:.3f}" if figure < 0.1 else f"{figure:.2f}"


def _device(verdict: Verdict) -> str:
    return verdict.device if verdict.queue is None else f"{verdict.device} queue {verdict.queue}"


def _value(value: object) -> str:
    return value_text("", value)


def _indented(text: str) -> list[str]:
    return wrapped(text, first="  ", rest="  ")
