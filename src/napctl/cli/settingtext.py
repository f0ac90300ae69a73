"""Settings and their values as people know them: `gro-flush-timeout 200us`, not `gro_flush_timeout_ns 200000`."""

from collections.abc import Iterator

from napctl.cli.table import ABSENT
from napctl.model.change import Change, NapiChange
from napctl.model.settings import NapiSettings
from napctl.model.units import duration_text


def changed(change: Change) -> Iterator[tuple[str, str, str, str]]:
    """(where, setting, value before, value after) of each setting that a change touches."""
    for name in change.after.__struct_fields__:
        before, after = getattr(change.before, name), getattr(change.after, name)
        if after is not None and (before != after or isinstance(change, NapiChange)):
            yield change.where, setting_name(name), value_text(name, before), value_text(name, after)


def setting_name(field: str) -> str:
    """The kernel's name: with dashes in netlink, with underscores in struct epoll_params; without the unit."""
    return field.removesuffix("_ns").replace("_", "-") if field in NapiSettings.__struct_fields__ else field


def value_text(field: str, value: object) -> str:
    """Times with their unit, switches as yes and no."""
    if value is None or value == "":
        return ABSENT
    if field.endswith("_ns"):
        return duration_text(int(str(value)))
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
