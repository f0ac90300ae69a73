"""What may be read from a demo's rows: sentences computed from the figures, each saying against what."""

from napctl.measure.summary import Row, compare
from napctl.measure.treatment import BUSY_POLLING, INTERRUPTS, SUSPENSION

WORDS = {"lower": "lower", "higher": "higher", "no different": "no different beyond the spread"}
Table = dict[tuple[str, str], Row]


def sentences(rows: list[Row], *, heavy: str, light: str, rest: str) -> list[str]:
    """Three sentences: under heavy load, under light load, and at rest."""
    table = {(row.load, row.treatment): row for row in rows}
    p99 = _against(table, heavy, INTERRUPTS.name, "p99_us", "µs")
    cost = _against(table, heavy, INTERRUPTS.name, "cpu_us_per_request", "µs")
    p50 = _against(table, light, BUSY_POLLING.name, "p50_us", "µs")
    share = _against(table, light, BUSY_POLLING.name, "server_cpu_share", "%")
    price = _against(table, light, INTERRUPTS.name, "p50_us", "µs")
    own = _percent(table, heavy, SUSPENSION.name, "server_poll_share")
    idle = {name: _percent(table, rest, name, "server_cpu_share") for name in (row.treatment for row in rows)}
    under_load = f"with suspension the p99 is {p99}, and the CPU time per request {cost}"
    at_rest = f"{idle[SUSPENSION.name]} of a CPU with suspension, {idle[INTERRUPTS.name]} with interrupts"
    light_load = f"with suspension the p50 is {p50}, and the CPU use {share}; against interrupts the p50 is {price}"
    return [
        f"Under {heavy} load, against interrupts: {under_load}; memcached made {own} of the polls itself.",
        f"Under {light} load, against busy polling: {light_load}.",
        f"At {rest}: memcached and its NIC's polls take {at_rest}, {idle[BUSY_POLLING.name]} with busy polling.",
    ]


def _against(table: Table, load: str, other: str, metric: str, unit: str) -> str:
    """How suspension stands to another treatment in one metric: the verdict, and both medians."""
    ours, theirs = table[load, SUSPENSION.name], table[load, other]
    verdict = compare(ours, theirs, metric)
    if verdict is None:
        return "not measured"
    a, b = ours.metrics[metric].median, theirs.metrics[metric].median
    figures = f"{a * 100:.0f} against {b * 100:.0f}" if unit == "%" else f"{_figure(a)} against {_figure(b)}"
    return f"{WORDS[verdict]} ({figures} {unit})"


def _percent(table: Table, load: str, treatment: str, metric: str) -> str:
    found = table[load, treatment].metrics.get(metric)
    return "an unknown share" if found is None else f"{found.median * 100:.1f} %"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
