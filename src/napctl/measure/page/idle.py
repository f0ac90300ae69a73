"""What treatments use beyond the idle machine: a table of a report."""

from napctl.measure.energy import metrics_of
from napctl.measure.page.figures import Cell, Named
from napctl.measure.page.tables import Table
from napctl.measure.table import ABSENT, all_metrics, figure, heading, interval, interval_text, median_text, metric_of
from napctl.model.experiment import Estimate

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
            cells.append(Cell(text=median_text(found, metric), small=interval_text(found, metric)))
            same = _sources(each, load, treatment, metric.name) == {sources[metric.name]}
            cells.append(_above(found if same else None, watts[metric.name]))
        if any(metric.name in row.estimates for metric in metrics):
            rows.append((Cell(text=f"{treatment}, {load}"), *cells))
    if not rows:
        return None
    idle = [cell for metric in metrics for cell in (Cell(text=figure(watts[metric.name])), Cell(text=ABSENT))]
    head = [text for metric in metrics for text in (heading(metric), "above idle, W")]
    return Table(
        title="Above idle",
        head=("case", *head),
        rows=((Cell(text="idle baseline"), *idle), *rows),
        notes=(NOTE,),
    )


def _above(found: Estimate | None, idle: float) -> Cell:
    if found is None:
        return Cell(text=ABSENT)
    text, small = figure(found.median - idle), interval(found.low - idle, found.high - idle)
    return Cell(text=text.replace("-", "−"), small=small.replace("-", "−"))


def _sources(each: Named, load: str, treatment: str, metric: str) -> set[str]:
    return {
        cell.sources.get(metric, "")
        for cell in each.run.cells
        if (cell.load, cell.treatment) == (load, treatment) and metric in cell.metrics
    }
