"""One page from runs: what may be said first, how it was measured last."""

import json
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from napctl.experiment.idle_baseline import baseline_doubt, baseline_sentence
from napctl.model.experiment import Cell
from napctl.report.answers import answers
from napctl.report.labels import in_words
from napctl.report.page import figures
from napctl.report.page.figures import Figure, Named
from napctl.report.page.idle_table import above_idle
from napctl.report.page.matrix_cards import matrix_of
from napctl.report.page.tables import (
    beside,
    bounds,
    comparisons,
    conditions,
    differences,
    estimates,
    glance,
    machine_rows,
    orders,
    sources,
    what_differs,
)
from napctl.report.summary import Run
from napctl.report.table import CPU_PER_REQUEST, P50, P99, loads_of, measured, treatments_of

__all__ = ["page_of"]


HERE = Path(__file__).parent
UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""What HTML does not allow in a text, also not as a reference; and what turns the direction of the text behind it."""


def page_of(runs: Sequence[Run], names: Sequence[str] | None = None) -> str:
    """The report of a run, or of several beside each other, the first being what the others are compared with: HTML
    that needs nothing else.

    `names`: what each is called on the page; without them, what its configuration calls it.
    """
    import jinja2  # noqa: PLC0415 - only a page needs it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html").render(_content(runs, names or called(runs)))
    return UNFIT.sub("\ufffd", text)


def called(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its own; with its number where that is another's, too."""
    own = [run.config.name or "run" for run in runs]
    return [name if own.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(own, 1)]


def _content(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """All that the template shows."""
    seen = figures.named([in_words(run) for run in runs], names)
    return {
        "title": " against ".join(names),
        "several": len(runs) > 1,
        "runs": [_run(each) for each in seen],
        "between": differences(seen) if len(runs) > 1 else [],
        "differing": what_differs(seen) if len(runs) > 1 else [],
        "charts": _charts(seen),
        "polls": _polls(seen),
        "energy": _energy(seen),
        "glance": glance(seen),
        "estimates": estimates(seen),
    }


def _run(each: Named) -> dict[str, Any]:
    run = each.run
    config = run.config
    kernel = run.machine.get("kernel") if isinstance(run.machine, dict) else None
    return {
        "name": each.name,
        "config": config,
        "made": _date(config.made_unix_ns),
        "kernel": kernel if isinstance(kernel, str) else "",
        "loads": loads_of(run.cells, run.summary),
        "treatments": treatments_of(config, run.cells, run.summary),
        "reference": config.treatments[0] if config.treatments else "",
        "answers": answers(run),
        "matrix": matrix_of(run),
        "sentences": run.summary.sentences,
        "bounds": bounds(run),
        "comparisons": comparisons(run),
        "beside": beside(run),
        "warnings": run.summary.warnings,
        "doubtful": _doubtful(run.cells),
        "idle": baseline_sentence(run.baseline) if run.baseline else "",
        "doubt": baseline_doubt(run.baseline) if run.baseline else "",
        "above_idle": above_idle(each),
        "conditions": conditions(run),
        "machine": machine_rows(run.machine),
        "machine_json": json.dumps(run.machine, indent=2, ensure_ascii=False),
        "sources": sources(run),
        "orders": orders(run),
        "hooks": [(name, *commands) for name, commands in config.hooks.items()],
        "cells": len(run.cells),
        "failed": sum(bool(cell.failed) for cell in run.cells),
    }


def _charts(seen: list[Named]) -> dict[str, list[Figure]]:
    series = figures.all_series(seen)
    lines = [
        figures.against_load(ident, measured(name, figures.all_rows(seen)), seen, series)
        for ident, name in (("p50", P50), ("p99", P99), ("cpu", CPU_PER_REQUEST))
    ]
    planes = [figures.trade_off(f"plane-{number}", load, seen, series)
              for number, load in enumerate(figures.all_loads(seen), 1)]  # fmt: skip
    return {"lines": [each for each in lines if each], "planes": [each for each in planes if each]}


def _polls(seen: list[Named]) -> list[Figure]:
    series = figures.all_series(seen)
    return [
        each for number, load in enumerate(figures.all_loads(seen), 1)
        for each in figures.polls(f"polls-{number}", load, seen, series)
    ]  # fmt: skip


def _energy(seen: list[Named]) -> list[Figure]:
    series = figures.all_series(seen)
    found = [figures.against_load(name.replace("_", "-"), name, seen, series) for name in figures.ENERGY]
    return [each for each in found if each]


def _doubtful(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Cell: why it failed, or what makes its figures doubtful."""
    found = []
    for cell in cells:
        failed = (f"failed: {cell.failed}",) if cell.failed else ()
        if failed or cell.warnings:
            found.append((f"round {cell.round}: {cell.treatment}, {cell.load}", "; ".join((*failed, *cell.warnings))))
    return found


def _date(unix_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_ns / 1e9))
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
