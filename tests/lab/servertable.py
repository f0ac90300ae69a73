"""docs/servers.md: the part that a test writes."""

import platform
import textwrap
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.lab.rounds import Cell
from tests.lab.trial import LATE_SHARE, TREATMENTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "servers.md"
BEGIN = "<!-- written by tests/lab/attach/test_real_servers.py -->"
END = "<!-- end of what the test writes -->"
WIDTH = 100
HEAD = "| server | queues | `attach` | requests/s | p50 µs | p99 µs | own polls % |"


@dataclass(frozen=True)
class Row:
    """One server."""

    name: str
    queues: int
    outcome: str
    why: str
    """Why it was left alone, or is attached only after steering."""
    cells: tuple[Cell, ...] = ()
    """Under the open-loop load, in all treatments; empty for one that is left alone."""
    saturated: tuple[float, ...] = ()
    """Share of polls that it made in closed loops: with all workers at work, and with one; empty as `cells`."""

    def figure(self, treatment: str, metric: str) -> float:
        return float(median(getattr(cell, metric) for cell in self.cells if cell.treatment == treatment))

    def line(self) -> str:
        start = f"| {self.name} | {self.queues} | {self.outcome} |"
        if not self.cells:
            return f"{start} – | – | – | – |"
        p50, p99 = (
            " / ".join(rounded(self.figure(treatment, metric)) for treatment in TREATMENTS)
            for metric in ("p50_us", "p99_us")
        )
        own = (self.figure("suspension", "server_poll_share"), *self.saturated)
        rate = self.figure("interrupts", "asked_per_second")
        return f"{start} {rounded(rate)} | {p50} | {p99} | {' / '.join(f'{share * 100:.0f}' for share in own)} |"


def rounded(figure: float) -> str:
    """Two significant digits: one run gives no more."""
    digits = len(str(int(figure)))
    return f"{round(figure, 2 - digits):,.0f}"


def written(rows: list[Row], rounds: int) -> str:
    """The generated part, without its markers."""
    cells = [cell for row in rows for cell in row.cells]
    late = sum(cell.generator_late_share > LATE_SHARE for cell in cells)
    lines = [
        f"Linux {platform.release()}; 2 CPUs, veth, one run; medians of {rounds} rounds. In {late} of {len(cells)}",
        "cells other work of the machine delayed the load generator (over 1 % of its requests by 100 µs or more).",
        "",
        HEAD,
        "|---|--:|---|--:|---|---|---|",
        *(row.line() for row in rows),
        "",
        "What `attach` says without `--steer` to those it does not attach as they are:",
        "",
    ]
    for row in rows:
        if row.why:
            lines += textwrap.wrap(f"- {row.name}: {row.why}.", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def put(text: str) -> None:
    """Put it between the markers."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def names() -> list[str]:
    """The servers that the document has a row for."""
    table = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    return rows[1:]  # the first is the heading
