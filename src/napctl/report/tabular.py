"""A run's cells in long form, one row for each cell and metric: CSV and Parquet, for other programs."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napctl.experiment.run_directory import write_bytes
from napctl.model.errors import Unsupported
from napctl.model.text import printable
from napctl.report.summary import Run
from napctl.report.table import all_metrics, metric_of

__all__ = ["COLUMNS", "csv_text", "long_rows", "write_csv", "write_parquet"]


COLUMNS = {
    "run": str,
    "treatment": str,
    "load": str,
    "asked_per_second": float,
    "round": int,
    "position": int,
    "started_unix_ns": int,
    "seconds": float,
    "metric": str,
    "value": float,
    "unit": str,
    "source": str,
    "failed": str,
    "warnings": str,
}
"""Name: what it holds. Values are in the metric's own unit (`cpu_share` 0 … 1), not in the one that tables show."""


def long_rows(runs: Sequence[tuple[str, Run]]) -> Iterator[dict[str, Any]]:
    """The rows, by column; None for what is not known. A cell without figures has one row, which says why."""
    for name, run in runs:
        for cell in run.cells:
            common = {
                "run": name,
                "treatment": cell.treatment,
                "load": cell.load,
                "asked_per_second": cell.asked_per_second,
                "round": cell.round,
                "position": cell.position,
                "started_unix_ns": cell.started_unix_ns,
                "seconds": cell.seconds,
                "failed": cell.failed or None,
                "warnings": "; ".join(cell.warnings) or None,
            }
            for metric in all_metrics(cell.metrics):
                yield common | {
                    "metric": metric,
                    "value": cell.metrics[metric],
                    "unit": _unit(metric),
                    "source": cell.sources.get(metric),
                }
            if not cell.metrics:
                yield common | {"metric": None, "value": None, "unit": None, "source": None}


def _unit(name: str) -> str | None:
    """Of the value as it is: shares are shown in percent, and stored as shares."""
    metric = metric_of(name)
    return metric.unit if metric.unit and metric.factor == 1 else None


def csv_text(runs: Sequence[tuple[str, Run]]) -> str:
    """As CSV (RFC 4180) with a header; nothing stands for what is not known. It may be read on a terminal."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in long_rows(runs):
        writer.writerow({name: printable(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    return text.getvalue()


def write_csv(path: Path | str, runs: Sequence[tuple[str, Run]]) -> None:
    """Write it. Raises what write_bytes() raises."""
    write_bytes(path, csv_text(runs).encode("utf-8", "replace"))


def write_parquet(path: Path | str, runs: Sequence[tuple[str, Run]]) -> None:
    """The same as a Parquet file. Raises Unsupported without pyarrow, and what write_bytes() raises."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra, and large
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise Unsupported("--parquet needs pyarrow, which is not installed: pip install 'napctl[parquet]'") from None
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(long_rows(runs)), schema=schema), file)
    write_bytes(path, file.getvalue())
