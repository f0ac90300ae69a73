"""The one base of all values that travel between the stages: frozen, strict, JSON both ways."""

from typing import Any, TypeVar

import msgspec

__all__ = ["Value", "from_json", "to_json"]


V = TypeVar("V")


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen value. Unknown keys are refused when it is read back; a missing fact is None, never 0."""


def to_json(value: Any) -> bytes:
    """One line of JSON, UTF-8, keys being the model's field names."""
    return msgspec.json.encode(value)


def from_json(data: bytes | str, kind: type[V]) -> V:
    """Read a value back. Raises ValueError if it does not fit."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:  # which is no ValueError before msgspec 0.20
        raise ValueError(str(error)) from None
