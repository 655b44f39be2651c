"""The numbers that a figure shows, panel by panel, as tables for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from klopf.experiments.settings import written
from klopf.experiments.statistics import Interval, Summary


class Drawn(NamedTuple):
    """One line of a panel.  x: numbers, or words; None where it is the same everywhere."""

    label: str
    x: Sequence[Any] | NDArray[np.float64] | None
    interval: Interval


class Sheet(Figure):
    """A figure that keeps the numbers drawn in its panels, by the label of their axes."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), facecolor="white")
        self.panels: dict[str, list[Drawn]] = {}
        self.more: dict[str, str] = {}  # whole tables of what is no statistic over runs

    def tables(self, summary: Summary) -> dict[str, str]:
        """The text of a CSV file for each panel: line, x, the statistic, low, high, and runs in it.

        Floats are written by `repr`; where no run has a value there is no row.
        """
        return {**{name: _text(lines, summary) for name, lines in self.panels.items()}, **self.more}


def keep(axes: Axes, label: str, x: NDArray[np.float64] | None, interval: Interval) -> None:
    """Remember what is drawn, where the figure is a sheet and the axes have a label."""
    sheet, panel = axes.get_figure(), str(axes.get_label())
    if isinstance(sheet, Sheet) and panel:
        sheet.panels.setdefault(panel, []).append(Drawn(label, x, interval))


def _text(lines: list[Drawn], summary: Summary) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["line", "x", summary.statistic, "low", "high", "runs"])
    for line in lines:
        columns = [np.atleast_1d(part).tolist() for part in line.interval]
        places = [""] if line.x is None else [_place(at) for at in line.x]
        for at, centre, low, high, runs in zip(places, *columns, strict=True):
            if runs:
                writer.writerow([line.label, at, repr(centre), repr(low), repr(high), runs])
    return buffer.getvalue()


def _place(at: Any) -> str:
    return repr(float(at)) if isinstance(at, float) else written(at)
