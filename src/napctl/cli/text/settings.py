"""Settings and their values as people know them: `gro-flush-timeout 200us`, not `gro_flush_timeout_ns 200000`."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from napctl.change.one_change import side_effects, touched
from napctl.cli.text.table import ABSENT
from napctl.model.change import Change
from napctl.model.machine import levels_text
from napctl.model.settings import EpollParams, kernel_name
from napctl.model.units import duration_text

__all__ = ["changed", "counted", "grouped", "made_rows", "setting_name", "value_text"]


MANY = {"NAPI instance": 3, "NAPI thread": 3, "epoll instance": 8, "socket": 8, "io_uring instance": 8}
"""So many alike are still told one by one: workers are known by their pids, NAPI instances of one device are not."""
INSTANCE = re.compile(r"(?P<kind>NAPI thread|NAPI|epoll|socket|ring) \d+ of (?P<owner>.+?)(?: \(\d+\))?")
"""As `where` of a change: "NAPI 12 of eth0", "epoll 5 of nginx (1234)"."""
KINDS = {
    "NAPI": "NAPI instance", "NAPI thread": "NAPI thread", "epoll": "epoll instance", "socket": "socket",
    "ring": "io_uring instance",
}  # fmt: skip


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
    """Rows that differ only in their first cell, the NAPI instance of a device or the epoll instance, ring or socket of
    processes of one name, as one row for them all if they are many."""
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        instance = INSTANCE.fullmatch(row[0])
        kind, owner = (KINDS[instance["kind"]], instance["owner"]) if instance else ("", row[0])
        groups.setdefault((kind, owner, *row[1:]), []).append(row)
    found = []
    for (kind, owner, *rest), alike in groups.items():
        many = kind and len(alike) > MANY[kind]
        found += [(f"{len(alike):,} {kind}s of {owner}", *rest)] if many else alike
    return found


def counted(where: Iterable[str]) -> str:
    """The objects of changes by kind, each once: "4 NAPI instances, 1 epoll instance"."""
    kinds: Counter[str] = Counter()
    for each in set(where):
        instance = INSTANCE.fullmatch(each)
        kinds[KINDS[instance["kind"]] if instance else "steered group"] += 1
    ordered = (*KINDS.values(), "steered group")
    return ", ".join(f"{kinds[kind]:,} {kind}{'s' * (kinds[kind] > 1)}" for kind in ordered if kinds[kind])


def setting_name(field: str) -> str:
    """The kernel's name: with dashes in netlink, with underscores in struct epoll_params; without the unit."""
    return field if field in EpollParams.__struct_fields__ else kernel_name(field)


def value_text(field: str, value: object) -> str:
    """Times with their unit, switches as yes and no."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, tuple):
        return levels_text(value)
    if field.endswith("_ns"):
        return duration_text(int(str(value)))
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
