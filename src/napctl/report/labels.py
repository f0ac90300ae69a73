"""The treatments of the lab in words. Pure.

In the lab the reference is interrupts and nothing else, as napctl has built it; elsewhere `base` is whatever the server
had, and treatments keep the names under which they were asked for. Data (config, cells, summary) always do.
"""

import re
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from napctl.model.experiment import Comparison, RunConfig, Summary
from napctl.model.units import duration_ns, duration_text
from napctl.report.summary import Run, worded
from napctl.report.table import treatments_of

__all__ = ["in_words", "label", "naming"]


FIXED = {"base": "interrupts", "napibusy": "busy polling 64 µs", "fullbusy": "busy polling"}


def label(treatment: str) -> str:
    """ "interrupts", "suspend 20 µs", "busy polling"; of what has no other name, its own."""
    if again := re.fullmatch(r"(.+)#(\d+)", treatment):
        return f"{label(again[1])} ({again[2]})"
    if timed := re.fullmatch(r"(suspend|defer):(.+)", treatment):
        return f"{timed[1]} {_time(timed[2])}"
    return FIXED.get(treatment, treatment)


def _time(text: str) -> str:
    try:
        short = duration_text(duration_ns(text))
    except ValueError:
        return text
    return re.sub(r"(\d)([a-z])", r"\1 \2", short).replace("us", "µs")


def naming(config: RunConfig) -> Callable[[str], str]:
    """By which names the table of such a run will call its treatments."""
    names = _in_words(config, config.treatments)
    return lambda treatment: names.get(treatment, treatment)


def _in_words(config: RunConfig, treatments: Sequence[str]) -> dict[str, str]:
    """Their names where the run is one of the lab, and none of them would be called like another: a hook may have such
    a name, or one time be written in two ways."""
    names = {name: label(name) for name in treatments}
    clear = config.source == "lab" and len(set(names.values())) == len(names)
    return names if clear else {name: name for name in treatments}


def in_words(run: Run) -> Run:
    """The run with the treatments' names in words, if it is one of the lab."""
    found = treatments_of(run.config, run.cells, run.summary)
    names = _in_words(run.config, found)
    if all(name == words for name, words in names.items()):
        return run
    hooks = {names.get(name, name): commands for name, commands in run.config.hooks.items()}
    config = replace(run.config, treatments=tuple(names[name] for name in run.config.treatments), hooks=hooks)
    cells = tuple(replace(cell, treatment=names[cell.treatment]) for cell in run.cells)
    summary = worded(_named(run.summary, names), cells, names[found[0]])
    return replace(run, config=config, cells=cells, summary=summary)


def _named(summary: Summary, names: dict[str, str]) -> Summary:
    def of(those: Sequence[Comparison]) -> tuple[Comparison, ...]:
        return tuple(replace(each, treatment=names[each.treatment], reference=names[each.reference]) for each in those)

    return replace(
        summary,
        estimates=tuple(replace(each, treatment=names[each.treatment]) for each in summary.estimates),
        comparisons=of(summary.comparisons),
        between=of(summary.between),
        bounds=tuple(
            replace(bound, saved_share={names[name]: share for name, share in bound.saved_share.items()})
            for bound in summary.bounds
        ),
    )
