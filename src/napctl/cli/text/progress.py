"""A line on stderr that says what is measured and how long it will still take."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napctl.cli.terminal import note, write_over

__all__ = ["progress_line"]


@contextmanager
def progress_line(seconds_each: float, named: Callable[[str], str]) -> Iterator[Callable[[str, str, int, int], None]]:
    """Yields tell(treatment, where, done, steps). On a terminal one line, rewritten; in a pipe a line for each step.
    `named`: what the table calls a treatment.

    The time left is that of the steps so far; before there are any, `seconds_each`.
    """
    interactive = sys.stderr.isatty()
    start = time.monotonic()

    def tell(treatment: str, where: str, done: int, steps: int) -> None:
        each = (time.monotonic() - start) / done if done else seconds_each
        place = f"{done + 1:>{len(str(steps))}} of {steps}, about {each * (steps - done):.0f} s left"
        line = f"[{place}] {named(treatment)} {where}"
        if interactive:
            write_over(line)
        else:
            note(line)

    try:
        yield tell
    finally:
        if interactive:
            write_over("")
