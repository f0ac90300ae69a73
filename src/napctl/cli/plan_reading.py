"""Reading a plan's file, as `apply` and `export` do."""

import sys
from pathlib import Path

from napctl.model.errors import BadInput
from napctl.model.plan import Plan
from napctl.plan.file import plan_of

__all__ = ["read_plan"]


MOST_BYTES = 1 << 20
"""Far more than any plan: /dev/zero and the wrong file are no plans."""


def read_plan(path: Path | str) -> Plan:
    """The plan in that file, "-" being standard input. Raises BadInput: one line with file, key and what is allowed."""
    standard_input = str(path) == "-"
    name = "standard input" if standard_input else str(path)
    try:
        if standard_input:
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise BadInput(f"{name}: too large for a plan")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{name}: this is no text in UTF-8, so no plan") from None
    return plan_of(text, name)
