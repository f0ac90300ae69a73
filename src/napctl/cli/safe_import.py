"""Loading code while a signal may come: an exception raised amid an import can be lost.

The import system runs a weak reference's callback for each module (importlib._bootstrap._get_module_lock()), and an
exception in such a callback is printed and dropped. So while modules load, a signal ends the process at once: nothing
has been changed by then.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["load_tables", "loading"]


@contextmanager
def loading() -> Iterator[None]:
    """Signals that end napctl do so at once, unless they are ignored."""
    ending = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load_tables() -> None:
    """All that printing a table needs: for commands that print while something is changed."""
    with loading():
        from io import StringIO  # noqa: PLC0415

        from rich.console import Console  # noqa: PLC0415
        from rich.padding import Padding  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table("", box=None)
        table.add_row(Text(" "))
        Console(file=StringIO(), width=80, highlight=False).print(Padding(table, 0))  # imports more as it goes
