"""Settings and their values as people know them: `gro-flush-timeout 200us`, not `gro_flush_timeout_ns 200000`."""

from collections.abc import Iterable, Iterator

from napctl.change.make import side_effects, touched
from napctl.cli.table import ABSENT
from napctl.model.change import Change
from napctl.model.settings import EpollParams, kernel_name
from napctl.model.units import duration_text

MANY = 3


def changed(change: Change) -> Iterator[tuple[str, str, str, str]]:
    """(where, setting, value before, value asked for) of each setting that a change touches."""
    for name in touched(change):
        before, after = (value_text(name, getattr(block, name)) for block in (change.before, change.after))
        yield change.where, setting_name(name), before, after


def made_rows(change: Change) -> Iterator[tuple[str, str, str, str, str]]:
    """(where, setting, value before, asked for, made of it), side effects included."""
    found = getattr(change, "found", None) or change.after
    for name in [*touched(change), *side_effects(change)]:
        values = (value_text(name, getattr(block, name)) for block in (change.before, change.after, found))
        yield (change.where, setting_name(name), *values)  # type: ignore[misc] # three values


def grouped(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows that differ only in the NAPI instance, their first cell, as one row for them all if they are many."""
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        napi, of, device = row[0].partition(" of ")
        instance = bool(of) and napi.startswith("NAPI ")
        groups.setdefault((device if instance else row[0], *row[1:]), []).append(row)
    found = []
    for (device, *rest), alike in groups.items():
        found += [(f"{len(alike)} NAPI instances of {device}", *rest)] if len(alike) > MANY else alike
    return found


def setting_name(field: str) -> str:
    """The kernel's name: with dashes in netlink, with underscores in struct epoll_params; without the unit."""
    return field if field in EpollParams.__struct_fields__ else kernel_name(field)


def value_text(field: str, value: object) -> str:
    """Times with their unit, switches as yes and no."""
    if value is None or value == "":
        return ABSENT
    if field.endswith("_ns"):
        return duration_text(int(str(value)))
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
