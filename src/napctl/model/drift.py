"""What of a machine differs from a policy."""

from napctl.model.machine import SCHEMA, DimProfile, levels_text
from napctl.model.policy import Origin
from napctl.model.settings import EpollParams, kernel_name
from napctl.model.units import duration_text, on_or_number
from napctl.model.value import Value

__all__ = ["Drift", "Drifted", "SettingValue", "drifted", "joined"]


SettingValue = int | bool | str | tuple[DimProfile, ...] | None


class Drifted(Value, frozen=True, kw_only=True):
    """One thing that is not as the policy wants it."""

    where: str
    """The target, or what has the setting: "eth0", "NAPI 8193 of eth0", "epoll 5 of nginx (77)"."""
    setting: str | None = None
    """The model's field, or rx_rings, tx_rings, combined_channels, steer; None: not attached, or not whole."""
    found: SettingValue = None
    """None: nothing of that kind is there."""
    wanted: SettingValue = None
    words: str
    """The same, for people."""
    origin: Origin
    """The entry of the policy."""

    def __str__(self) -> str:
        return f"{self.words} ({self.origin})"


class Drift(Value, frozen=True, kw_only=True):
    """All that differs, or that cannot differ yet."""

    schema: int = SCHEMA
    differences: tuple[Drifted, ...] = ()
    waiting: tuple[str, ...] = ()
    """What the policy names and that is not there yet: one sentence each."""
    notes: tuple[str, ...] = ()
    """What could not be compared, and why: one sentence each."""


def joined(*parts: Drift) -> Drift:
    """All of them as one."""
    return Drift(
        differences=tuple(each for part in parts for each in part.differences),
        waiting=tuple(each for part in parts for each in part.waiting),
        notes=tuple(dict.fromkeys(each for part in parts for each in part.notes)),
    )


def drifted(
    where: str, field: str, found: SettingValue, wanted: SettingValue, origin: Origin, who: str = "policy wants"
) -> Drifted:
    """Of a setting, by its field in the model. `who`: what wants that value."""
    name = field if field in EpollParams.__struct_fields__ else kernel_name(field)
    is_now = f"{name} is {_text(field, found)}" if found is not None else f"there is no {name}"
    return Drifted(
        where=where,
        setting=field,
        found=found,
        wanted=wanted,
        words=f"{where}: {is_now}, {who} {_text(field, wanted)}",
        origin=origin,
    )


def _text(field: str, value: SettingValue) -> str:
    if isinstance(value, tuple):
        return levels_text(value)
    if isinstance(value, str) or value is None:
        return str(value)
    return duration_text(value) if field.endswith("_ns") else on_or_number(value)
