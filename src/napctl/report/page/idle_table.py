"""What treatments use beyond the idle machine: a table of a report."""

from napctl.model.experiment import Estimate
from napctl.model.units import figure
from napctl.observe.energy import metrics_of
from napctl.report.page.figures import Named, TableCell
from napctl.report.page.tables import Table
from napctl.report.table import ABSENT, all_metrics, heading, interval, interval_text, median_text, metric_of

__all__ = ["above_idle"]


NOTE = (
    "Above idle: the median less the baseline, and its interval likewise. It knows nothing of the baseline's own "
    "error, as that was measured once."
)


def above_idle(each: Named) -> Table | None:
    """Watts of each treatment under each load, and beside them what is above idle; None if there is nothing to show.

    Figures from another source than the baseline's are not compared with it.
    """
    if each.run.baseline is None:
        return None
    watts, sources = metrics_of(each.run.baseline)
    metrics = [metric_of(name) for name in all_metrics(watts)]
    rows = []
    for (load, treatment), row in each.rows.items():
        cells = []
        for metric in metrics:
            found = row.estimates.get(metric.name)
            cells.append(TableCell(text=median_text(found, metric), small=interval_text(found, metric)))
            same = _sources(each, load, treatment, metric.name) == {sources[metric.name]}
            cells.append(_above(found if same else None, watts[metric.name]))
        if any(metric.name in row.estimates for metric in metrics):
            rows.append((TableCell(text=f"{treatment}, {load}"), *cells))
    if not rows:
        return None
    idle = [cell for metric in metrics for cell in (TableCell(text=figure(watts[metric.name])), TableCell(text=ABSENT))]
    head = [text for metric in metrics for text in (heading(metric), "above idle, W")]
    return Table(
        title="Above idle",
        head=("case", *head),
        rows=((TableCell(text="idle baseline"), *idle), *rows),
        notes=(NOTE,),
    )


def _above(found: Estimate | None, idle: float) -> TableCell:
    if found is None:
        return TableCell(text=ABSENT)
    text, small = figure(found.median - idle), interval(found.low - idle, found.high - idle)
    return TableCell(text=text.replace("-", "−"), small=small.replace("-", "−"))


def _sources(each: Named, load: str, treatment: str, metric: str) -> set[str]:
    return {
        cell.sources.get(metric, "")
        for cell in each.run.cells
        if (cell.load, cell.treatment) == (load, treatment) and metric in cell.metrics
    }
