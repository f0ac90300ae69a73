"""The answer of a run in at most three sentences. Pure.

What the treatment of interest gives against the reference, and against busy polling where both were measured; and what
packets cost here at all. Suspension is of interest where it is among the treatments, of several the one that gained
most. Each claim is one of the run's comparisons, which are corrected for all of them: it may be picked.
"""

from collections.abc import Iterable, Sequence
from math import log

from napctl.model.experiment import LIVE, MAX, Comparison, SavingsBound, saved_metric
from napctl.model.metrics import Metric
from napctl.report.labels import in_words
from napctl.report.matrix import RATE, matrix
from napctl.report.sentences import NO_DIFFERENCE, percent, smallest_text
from napctl.report.summary import Run
from napctl.report.table import CPU_PER_REQUEST, P50, P99, kind, metric_of, short

__all__ = ["LONGEST", "SILENT", "answers"]


SILENT = "Nothing can be said: there is no comparison with figures on both sides."
SUSPENDED = "suspend"
LONGEST = (210, 145)
"""Letters of the first sentence and of the second, three lines and two: beyond it the least is left to the table."""
NOISY = 1.0
"""If not even a doubling would have shown, it is not worth a figure."""
Found = dict[str, list[Comparison]]
"""By load, in the order of the matrix."""


def answers(run: Run) -> tuple[str, ...]:
    """What a reader asks first; SILENT if nothing was compared."""
    run = in_words(run)
    metrics = {each.load: [metric.name for metric in each.metrics] for each in matrix(run)}
    pairs: dict[tuple[str, str], Found] = {}
    for each in (*run.summary.comparisons, *run.summary.between):
        if each.metric in metrics.get(each.load, ()):
            pairs.setdefault((each.treatment, each.reference), {}).setdefault(each.load, []).append(each)
    reference = run.config.treatments[0] if run.config.treatments else ""
    first = _most([pair for pair in pairs if pair[1] == reference], pairs)
    if first is None:
        return (SILENT,)
    beside = next((pair for pair in pairs if pair[0] == first[0] and pair[1] != reference), None)
    second = beside or _harmful(first, pairs)
    told = [
        _against(*pair, pairs[pair], list(metrics), most)
        for pair, most in zip((first, second), LONGEST, strict=True)
        if pair
    ]
    return (*told, *_cost(run.summary.bounds, run.summary.comparisons, list(metrics)))


def _most(those: Sequence[tuple[str, str]], pairs: dict[tuple[str, str], Found]) -> tuple[str, str] | None:
    suspended = [pair for pair in those if pair[0].startswith(SUSPENDED)]
    return max(suspended or those, key=lambda pair: _gain(pairs[pair]), default=None)


def _harmful(first: tuple[str, str], pairs: dict[tuple[str, str], Found]) -> tuple[str, str] | None:
    """Of the others with the same reference, that which lost most, if any was worse in something."""
    others = [pair for pair in pairs if pair != first and pair[1] == first[1]]
    worse = [pair for pair in others if any(each.judgement == "worse" for row in pairs[pair].values() for each in row)]
    return min(worse, key=lambda pair: _gain(pairs[pair]), default=None)


def _gain(found: Found) -> float:
    """How much better in all, as the sum of log ratios; what is worse counts against it."""
    signs = {"better": 1, "worse": -1, "different": 0, "none": 0}
    return sum(signs[kind(each)] * abs(log(each.ratio)) for row in found.values() for each in row if each.ratio > 0)


# A treatment against another


def _against(treatment: str, reference: str, found: Found, loads: Sequence[str], most: int) -> str:
    """ "suspend 200 µs against interrupts: at full load p99 62 % lower; at 33,000/s 32 % less CPU, but …"."""
    differing = [load for load in loads if any(kind(each) != "none" for each in found.get(load, ()))]
    differing.sort(key=lambda load: -_gain({load: found[load]}))
    silent = {load: found[load] for load in loads if load in found and load not in differing}
    parts = {load: f"{_where(load)} {_differences(found[load])}" for load in differing}
    start = f"{treatment} against {reference}: "
    if not parts:
        return f"{start}{_nothing(silent, everywhere=True)}."
    nothing = _nothing(silent) if silent else ""
    endings = [nothing, nothing.partition(" (")[0], ""]  # what can be left to the table, the least first
    gains = [load for load in parts if all(kind(each) != "worse" for each in found[load])]  # a loss is never left out
    while gains and len(parts) > 1 and all(len(text) > most for text in _joined(start, parts.values(), endings)):
        least = min(gains, key=lambda load: _size(found[load]))
        gains.remove(least)
        del parts[least]
    texts = _joined(start, parts.values(), endings)
    return next((text for text in texts if len(text) <= most), texts[-1])


def _joined(start: str, parts: Iterable[str], endings: Iterable[str]) -> list[str]:
    return [f"{start}{'; '.join([*parts, *([end] if end else [])])}." for end in endings]


def _differences(row: Sequence[Comparison]) -> str:
    """What is better, then what is worse; but p50 only if it goes another way than p99, and where the rate is a result,
    which is what the CPU allows, not the CPU time of a request besides."""
    by_name = {each.metric: each for each in row}
    told = [each for each in row if kind(each) != "none"]
    told = [each for each in told if each.metric != P50 or P99 not in by_name or kind(each) != kind(by_name[P99])]
    if RATE in by_name and kind(by_name[RATE]) != "none":
        told = [each for each in told if each.metric != CPU_PER_REQUEST]
    told.sort(key=lambda each: (each.metric != RATE, each.metric == P50))
    worse = ", ".join(_difference(each) for each in told if kind(each) == "worse")
    others = ", ".join(_difference(each) for each in told if kind(each) != "worse")
    return f"{others}, but {worse}" if others and worse else others or worse


def _size(row: Sequence[Comparison]) -> float:
    return max(abs(log(each.ratio)) if each.ratio > 0 else 1.0 for each in row if kind(each) != "none")


def _difference(each: Comparison) -> str:
    metric, ratio = metric_of(each.metric), each.ratio
    if ratio >= 2:
        times = f"{short(ratio)} times"
        return f"{times} the {_title(metric)}" if _counted(metric) else f"{_title(metric)} {times} as high"
    size = percent(abs(ratio - 1))
    if _counted(metric):
        word = "more" if ratio > 1 else "fewer" if metric.name.endswith("_per_second") else "less"
        return f"{size} {word} {_title(metric)}"
    return f"{_title(metric)} {size} {'higher' if ratio > 1 else 'lower'}"


def _counted(metric: Metric) -> bool:
    """What there is more or less of, and that is not higher or lower."""
    return metric.name.endswith("_per_second") or "cpu" in metric.name


def _title(metric: Metric) -> str:
    return "CPU" if "cpu" in metric.name else metric.title


def _nothing(found: Found, *, everywhere: bool = False) -> str:
    """ "no significant difference at 20,000/s (p99 too noisy; a change of CPU above 8 % would have shown)"."""
    loads = [_where(load) for load in found]
    where = "under any load" if everywhere else " or ".join(loads)
    best: dict[str, Comparison] = {}
    for each in (each for row in found.values() for each in row if each.stand_in is None):
        if each.metric not in best or each.smallest < best[each.metric].smallest:
            best[each.metric] = each
    headline = [each for name, each in best.items() if name not in (P50, RATE)] or list(best.values())
    noisy = [_title(metric_of(each.metric)) for each in headline if each.smallest >= NOISY]
    clear = [f"{_title(metric_of(each.metric))} above {smallest_text(each)}" for each in headline
             if each.smallest < NOISY]  # fmt: skip
    why = [f"{' and '.join(noisy)} too noisy"] if noisy else []
    why += [f"a change of {' or '.join(clear)} would have shown{' at best' * (len(loads) > 1)}"] if clear else []
    return f"{NO_DIFFERENCE} {where}" + (f" ({'; '.join(why)})" if why else "")


def _where(load: str) -> str:
    return {MAX: "at full load", LIVE: "under live traffic"}.get(load, f"at {load}")


# What packets cost


def _cost(bounds: Sequence[SavingsBound], comparisons: Sequence[Comparison], loads: Sequence[str]) -> list[str]:
    """ "At 33,000/s, 48 % of the CPU time goes into packet processing: about the most that any setting here can save."

    Taking packets otherwise can also spare what is not taking packets: wake-ups, switches, misses of caches. So the
    bound is not absolute, and who saved more is named.
    """
    known = [bound for load in loads for bound in bounds if bound.load == load]
    if not known:
        return []
    shares = {bound.load: bound.network_cpu_share for bound in known}
    beyond = {
        load: [
            each.treatment for each in comparisons
            if (each.load, each.metric, kind(each)) == (load, saved_metric(load), "better") and 1 - each.high > share
        ]
        for load, share in shares.items()
    }  # fmt: skip
    load = max(shares, key=lambda load: (bool(beyond[load]), shares[load]))
    where = _where(load)
    told = f"{where[0].upper()}{where[1:]}, {percent(shares[load])} of the CPU time goes into packet processing"
    if who := beyond[load]:
        names = f"{who[0]} and {len(who) - 1} more" if len(who) > 1 else who[0]
        return [f"{told}; {names} saved more, so wake-ups or the server's own work, too."]
    others = ", ".join(f"{percent(share)} {_where(other)}" for other, share in shares.items() if other != load)
    return [f"{told}{f' ({others})' if others else ''}: about the most that any setting here can save."]
