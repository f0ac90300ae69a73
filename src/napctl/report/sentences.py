"""The verdicts of a run in words, the most important first: what was measured, and against what. Pure.

One sentence for each load and treatment, those with the greatest difference first, and one for each load of all those
in which none was found; then, for each load, what a change of the way packets are taken can save at all. A word of
difference ("lower", "higher", "saved") is only used where the comparison found one; what it did not find is named as
such, with the change that would have shown.
"""

from collections.abc import Iterable, Sequence
from math import log

from napctl.model.experiment import LIVE, MAX, NOTHING, Comparison, Estimate, SavingsBound, saved_metric
from napctl.model.metrics import BY_NAME, Metric

__all__ = ["HOPELESS", "NO_DIFFERENCE", "Medians", "against", "percent", "range_text", "sentences", "smallest_text"]


HOPELESS = 9.0
"""From this smallest difference on (tenfold) its figure says nothing more."""

FAR = 1000.0
"""An end of an interval beyond this says nothing more."""

NO_DIFFERENCE = "no significant difference"
NO_VERDICT = "no verdict, as fewer than 3 rounds have figures of both"
Key = tuple[str, str, str]
"""Load, treatment, and what it is compared with."""
Medians = dict[tuple[str, str, str], float]
"""By load, treatment, metric."""


def sentences(
    reference: str,
    treatments: Sequence[str],
    loads: Sequence[str],
    estimates: Iterable[Estimate],
    comparisons: Iterable[Comparison],
    bounds: Iterable[SavingsBound],
) -> tuple[str, ...]:
    """`treatments` without the reference, `loads` from light to heavy. Some comparisons may be with another than it."""
    medians = {(each.load, each.treatment, each.metric): each.median for each in estimates}
    table: dict[Key, dict[str, Comparison]] = {}
    for each in comparisons:
        table.setdefault((each.load, each.treatment, each.reference), {})[each.metric] = each
    without = [name for name in treatments if not any((load, name, reference) in table for load in loads)]
    keys = [(load, name, reference) for load in loads for name in treatments if name not in without]
    keys += [key for key in table if key[2] != reference]
    keys.sort(key=lambda key: -max((_weight(each) for each in _told(key[0], table.get(key, {}))), default=-1.0))
    silent = [key for key in keys if key in table and not any(map(_weight, _told(key[0], table[key])))]
    verdicts = [_verdict(key, table.get(key, {}), medians) for key in keys if key not in silent]
    verdicts += _nothing([key for key in silent if _told(key[0], table[key])], table)
    verdicts += [f"{name} against {reference}: {NO_VERDICT}." for name in without]
    return (*verdicts, *(_bound(each, reference, table) for each in bounds))


def _told(load: str, measured: dict[str, Comparison]) -> list[Comparison]:
    """Those of a sentence, in its order: latency, CPU, throughput, energy; and what went wrong, if it differs."""

    def first_of(*names: str) -> list[str]:
        return [name for name in names if name in measured][:1]

    found = [name for name, each in measured.items() if each.judgement != NOTHING]
    cpu = first_of("cpu_us_per_request", "server_cpu_us_per_request")
    if load != MAX:
        cpu = [*first_of("cpu_share", "server_cpu_share"), *cpu]
    wanted = [
        *first_of("latency_p99_us", "latency_p95_us"),
        *(name for name in ("latency_p999_us",) if name in found),
        *first_of("latency_p50_us", "latency_avg_us"),
        *cpu,
        *(name for name in ("requests_per_second",) if name in found or (name in measured and load in (MAX, LIVE))),
        *first_of("joules_per_request", "package_watts", "platform_watts"),
        *(name for name in ("errors_per_second", "drops_per_second", "retransmits_per_second") if name in found),
    ]
    return [measured[name] for name in wanted]


def _weight(each: Comparison) -> float:
    """How much a difference counts for the order of the sentences: its size; 0 if none was found."""
    return 0.0 if each.judgement == NOTHING else abs(log(each.ratio))


def _verdict(key: Key, measured: dict[str, Comparison], medians: Medians) -> str:
    load, treatment, reference = key
    told = _told(load, measured)
    start = f"{_where(load)}, {treatment} against {reference}: "
    if not told:
        return f"{start}{NO_VERDICT}."
    parts = [_difference(each, medians) for each in told if each.judgement != NOTHING]
    nothing = [each for each in told if each.judgement == NOTHING]
    found = start + "; ".join(parts) + "." if parts else start.removesuffix(" ")
    return f"{found} {_without(nothing)}" if nothing else found


def _nothing(keys: Sequence[Key], table: dict[Key, dict[str, Comparison]]) -> list[str]:
    """One sentence for each load, of all treatments in which nothing was found."""
    found = []
    for load, reference in dict.fromkeys((load, reference) for load, _, reference in keys):
        those = [key for key in keys if (key[0], key[2]) == (load, reference)]
        best: dict[str, Comparison] = {}
        for each in (each for key in those for each in _told(load, table[key])):
            if each.metric not in best or each.smallest < best[each.metric].smallest:
                best[each.metric] = each
        listed = _without(best.values(), "" if len(those) == 1 else " at best")
        *most, last = (name for _, name, _ in those)
        names = f"{', '.join(most)} and {last}" if most else last
        found.append(f"{_where(load)}, {names} against {reference}: {listed}")
    return found


def _where(load: str) -> str:
    return {MAX: "With as many requests as possible", LIVE: "Under live traffic"}.get(load, f"At {load}")


def _difference(each: Comparison, medians: Medians) -> str:
    """ "p99 lower (348 against 963 µs, 31 to 41 % of it)"."""
    metric = BY_NAME[each.metric]
    ours, theirs = (medians[each.load, name, each.metric] for name in (each.treatment, each.reference))
    told = []
    if (ours - theirs) * log(each.ratio) > 0:  # over all rounds as within them
        told.append(against(ours, theirs, metric))
    if each.stand_in is None:
        what = "it" if told else f"{each.reference}'s in the same rounds"
        told.append(f"{range_text(each.low, each.high)} {what}")
    found = f"{metric.title} {'higher' if each.ratio > 1 else 'lower'}"
    return f"{found} ({', '.join(told)})" if told else found


def against(ours: float, theirs: float, metric: Metric) -> str:
    """ "348 against 963 µs", with as many digits as tell them apart."""
    factor, unit = metric.factor, metric.unit
    if unit == "J":  # a request takes some µJ
        factor, unit = next(
            ((scale, name) for scale, name in ((1, "J"), (1e3, "mJ")) if max(ours, theirs) * scale >= 1), (1e6, "µJ")
        )
    ours, theirs = ours * factor, theirs * factor
    digits = 0 if max(ours, theirs) >= 100 else 1 if max(ours, theirs) >= 10 else 2
    while ours != theirs and digits < 6 and f"{ours:.{digits}f}" == f"{theirs:.{digits}f}":
        digits += 1
    return f"{ours:,.{digits}f} against {theirs:,.{digits}f} {unit}".rstrip()


def range_text(low: float, high: float) -> str:
    """The interval of a ratio that is not 1: in percent, or in multiples if it lies beyond 2."""
    if low >= 2 and high >= FAR:
        return f"at least {low:.3g} times"
    if low >= 2:
        return f"{low:.3g} to {high:.3g} times" if f"{low:.3g}" != f"{high:.3g}" else f"{low:.3g} times"
    ends = low * 100, high * 100
    digits = 0
    while digits < 3 and (f"{ends[0]:.{digits}f}" == f"{ends[1]:.{digits}f}" or _hides(ends, digits)):
        digits += 1
    return f"{ends[0]:,.{digits}f} to {ends[1]:,.{digits}f} % of"


def _hides(ends: tuple[float, float], digits: int) -> bool:
    """Whether rounding makes 100 % of what is not."""
    return any(f"{end:.{digits}f}" == f"{100:.{digits}f}" and end != 100 for end in ends)


def _without(those: Iterable[Comparison], best: str = "") -> str:
    """ "p99: no significant difference (too noisy). CPU: none; a change above 8 % would have shown."."""
    parts: list[str] = []
    for each in those:
        found = "none" if parts else NO_DIFFERENCE
        if each.stand_in is None:
            noisy = each.smallest >= HOPELESS
            found += " (too noisy)" if noisy else f"; a change above {smallest_text(each)} would have shown{best}"
        parts.append(f"{BY_NAME[each.metric].title}: {found}.")
    return " ".join(parts)


def smallest_text(each: Comparison) -> str:
    """The smallest difference that could have been found: "3 %", "a factor of 2.1"."""
    return f"a factor of {1 + each.smallest:.2g}" if each.smallest >= 1 else percent(each.smallest)


def percent(share: float) -> str:
    """ "3.1 %", "31 %"."""
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def _bound(bound: SavingsBound, reference: str, table: dict[Key, dict[str, Comparison]]) -> str:
    """ "At 20,000/s, 31 % of the CPU time goes into packet processing: about the most …; suspend:200us saved 12 %."

    Taking packets otherwise can also spare what is not taking packets: wake-ups, switches, misses of caches. So the
    bound is not absolute, and is not claimed to be.
    """
    metric = saved_metric(bound.load)
    saved, cost, nothing, beyond = [], [], [], []
    for treatment, share in bound.saved_share.items():
        each = table.get((bound.load, treatment, reference), {}).get(metric)
        if each is None or each.judgement == NOTHING:
            nothing.append(treatment)
        elif share < 0:
            cost.append(f"{treatment} cost {percent(-share)} more")
        else:
            saved.append(f"{treatment} saved {percent(share)}")
            if 1 - each.high > bound.network_cpu_share:
                beyond.append(treatment)
    limit = "about the most that any setting here can save"
    if beyond:
        limit = f"{' and '.join(beyond)} saved more than that, so also elsewhere: in wake-ups, or in the application"
    parts = [
        f"{_where(bound.load)}, {percent(bound.network_cpu_share)} of the CPU time goes into packet processing: "
        + limit,
        *saved,
        *cost,
    ]
    if nothing:
        per = " per request" if bound.load == MAX else ""
        parts.append(f"{NO_DIFFERENCE} in CPU time{per} with {', '.join(nothing)}")
    return "; ".join(parts) + "."
