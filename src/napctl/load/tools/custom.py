"""Any other tool: named regular expressions and JSON paths, given by the user.

    regex:requests_per_second=Throughput: ([0-9.]+) req/s
    regex:latency_p99_us=p99 = (?P<value>[0-9.]+) ?(?P<unit>us|ms|s)
    regex:latency_p50_us[ms]=median ([0-9.]+)
    json:requests_per_second=.end.sum.x
    json:latency_p99_us[ms]=.totals["p99.00"]

The number is the group `value`, else the first group, else the whole match; its unit is the group `unit`, else what
stands in brackets, else µs for times and 1 for the rest.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from napctl.load.tools.numbers import (
    MULTIPLES,
    US_PER,
    Twice,
    documents,
    finite,
    microseconds,
    plain,
    told,
)
from napctl.load.tools.reading import FIGURES, Adapter, Reading
from napctl.model.errors import BadInput

__all__ = ["custom"]


FIELDS = (*FIGURES, "errors")
SPEC = re.compile(r"(regex|json):([a-z0-9_]+)(?:\[([^\]]*)\])?=(.+)", re.DOTALL)
STEP = re.compile(r'\.([A-Za-z_][A-Za-z0-9_]*)|\.?\["([^"]+)"\]|\.?\[(-?\d+)\]|\."([^"]+)"')


@dataclass(frozen=True)
class SoughtFigure:
    """One figure that is to be found."""

    spec: str
    field: str
    """Of a Reading."""
    unit: str
    values: Callable[[str], list[float]]
    """All that the output has for it. Raises ValueError for what is no number."""


def custom(specs: Sequence[str]) -> Adapter:
    """An adapter that finds every one of the figures, or raises ValueError. Raises BadInput for a bad `spec`."""
    figures = [_figure(spec) for spec in specs]
    names = [figure.field for figure in figures]
    if not figures:
        raise BadInput("no figure is asked for: give regex:NAME=PATTERN or json:NAME=PATH")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"{', '.join(sorted(twice))} is asked for more than once")

    def read(text: str) -> Reading:
        found: dict[str, Any] = {figure.field: _one(figure, text) for figure in figures}
        if "errors" in found:
            if not found["errors"].is_integer():
                raise ValueError(f"errors is {found['errors']:g}, which is no count")
            found["errors"] = int(found["errors"])
        return Reading(**found)

    return Adapter("custom", (), read)


def _figure(spec: str) -> SoughtFigure:
    parts = SPEC.fullmatch(spec)
    if not parts:
        raise BadInput(f"'{spec}' is neither regex:NAME=PATTERN nor json:NAME=PATH")
    kind, field, unit, what = parts[1], parts[2], parts[3] or "", parts[4]
    if field not in FIELDS:
        raise BadInput(f"'{field}' is no figure of a load; there are: {', '.join(FIELDS)}")
    if unit and unit not in (US_PER if _is_time(field) else MULTIPLES):
        known = ", ".join(key for key in (US_PER if _is_time(field) else MULTIPLES) if key)
        raise BadInput(f"{field} has no unit '{unit}'; there are: {known}")
    return SoughtFigure(
        spec, field, unit, _by_regex(field, unit, what) if kind == "regex" else _by_path(field, unit, what)
    )


def _by_regex(field: str, unit: str, pattern: str) -> Callable[[str], list[float]]:
    try:
        wanted = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise BadInput(f"'{pattern}' is no regular expression: {error}") from None
    groups = wanted.groupindex
    own_unit = groups.get("unit", 0)
    value = groups.get("value") or next((group for group in range(1, wanted.groups + 1) if group != own_unit), 0)
    if not value and own_unit:
        raise BadInput(f"'{pattern}' has a group for the unit and none for the value")

    def values(text: str) -> list[float]:
        return [
            _number(field, found[value] or "", (found[own_unit] if own_unit else "") or unit)
            for found in wanted.finditer(text)
        ]

    return values


def _by_path(field: str, unit: str, path: str) -> Callable[[str], list[float]]:
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        step = STEP.match(path, at)
        if not step:
            raise BadInput(f"'{path}' is no JSON path such as .end.sum.x, .runs[0].rate or .totals[\"Ops/sec\"]")
        steps.append(int(step[3]) if step[3] else step[1] or step[2] or step[4])
        at = step.end()

    def values(text: str) -> list[float]:
        found = [each for document in documents(text) if (each := _followed(document, steps)) is not None]
        return [_json_number(field, each, unit) for each in found]

    return values


def _followed(document: object, steps: list[str | int]) -> object | None:
    """What the path leads to; None if it leads nowhere."""
    here = document
    for step in steps:
        if isinstance(step, str) and isinstance(here, dict):
            here = here.get(step)
        elif isinstance(step, int) and isinstance(here, list) and -len(here) <= step < len(here):
            here = here[step]
        elif isinstance(here, Twice):
            break  # that it stands more than once is said of it, not that it is not there
        else:
            return None
    return here


def _json_number(field: str, value: object, unit: str) -> float:
    if isinstance(value, str):
        return _number(field, value, unit)
    number = told(value)
    if number is None:
        raise ValueError(f"'{value}' is no number that can be one")
    factor = US_PER[unit or "us"] if _is_time(field) else MULTIPLES[unit]
    return finite(number * factor)


def _number(field: str, text: str, unit: str) -> float:
    if not _is_time(field):
        return plain(text, unit)
    bare = not re.search(r"[a-zµμ]\s*$", text, re.IGNORECASE)
    return microseconds(text, unit or "us") if bare else microseconds(text, unit)


def _is_time(field: str) -> bool:
    return field.endswith("_us")


def _one(figure: SoughtFigure, text: str) -> float:
    try:
        values = set(figure.values(text))
    except ValueError as error:
        raise ValueError(f"{figure.spec}: {error}") from None
    if not values:
        raise ValueError(f"{figure.spec} found nothing in the output")
    if len(values) > 1:
        raise ValueError(f"{figure.spec} found {len(values)} different values in the output")
    return values.pop()
