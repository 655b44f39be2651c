"""The table of an experiment: a row for each line, an interval over runs in each column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.measures import (
    MANY,
    Column,
    Measure,
    Part,
    columns_asked,
    is_relative,
    measure_of,
    said_of_part,
)
from klopf.experiments.results import LineResults
from klopf.experiments.statistics import Interval, Summary

Array = NDArray[np.float64]


class Cell(NamedTuple):
    """What a row says in one column.  numbers: None where it is not a statistic with an interval."""

    text: str
    numbers: Interval | None = None


@dataclass
class Table:
    """Rows of cells, ready to be written in any form.

    title: over the names of the lines.  compared: columns that differences between lines are of.
    measure: what it is about.  remark: what there is to say below.
    """

    title: str
    headings: list[str]
    lines: Sequence[LineResults]
    cells: list[list[Cell]]
    summary: Summary
    compared: Sequence[Column] = ()
    measure: str = ""
    remark: str = field(default="")

    def add(self, heading: str, cells: Sequence[Cell]) -> None:
        """One more column."""
        self.headings.append(heading)
        for row, cell in zip(self.cells, cells, strict=True):
            row.append(cell)

    def __str__(self) -> str:
        """For the terminal."""
        rows = [[line.label, *(cell.text for cell in row)] for line, row in self.named()]
        return f"{aligned([[self.title, *self.headings], *rows])}\n{self.remark}"

    def named(self) -> list[tuple[LineResults, list[Cell]]]:
        """Each line with its cells."""
        return list(zip(self.lines, self.cells, strict=True))


def table_of_lines(
    lines: Sequence[LineResults],
    summary: Summary | None = None,
    names: Sequence[str] = (),
    part: Part | None = None,
) -> Table:
    """What an experiment says at its end; or, where columns are named or there is a part, these over it.

    Raises kl.Error where it is no experiment that is known, or a column is not there.
    """
    summary = summary or Summary()
    measure = measure_of(lines[0])
    columns, compared, remark = measure.columns, measure.compared, measure.remark
    if names or part is not None:
        columns = compared = columns_asked(lines[0], names, part)
        remark = f"over {said_of_part(lines, part or measure.part)}; "
    about = measure.title
    if any(is_relative(lines[0], name) for name in names or (measure.column,)):
        about, remark = f"{about}, relative", f"errors relative to a constant's; {remark}"
    table = Table(measure.title, [], lines, [[] for _ in lines], summary, compared, about)
    if columns is compared or columns[0].title == measure.title:
        table.title = ""  # the columns say it
    for column in columns:
        if column.text is not None:
            cells = [Cell(column.text(column.of(line))) for line in lines]
        else:
            cells = [cell_of(column.of(line), column.form, summary) for line in lines]
        table.add(column.title or summary.said, cells)
    table.remark = remark + footing(lines, summary) + _silent(lines, measure)
    return table


def end_of_run(lines: Sequence[LineResults]) -> str:
    """The table that an experiment prints when it is done."""
    return str(table_of_lines(lines))


def cell_of(values: Array, form: Callable[[Any], str], summary: Summary) -> Cell:
    """A statistic of those runs that are there with its interval; of one run without, of none a dash.

    values: of each run [R].
    """
    numbers = summary(values)
    if numbers.runs < 2:
        return Cell(form(numbers.centre) if numbers.runs else "-", numbers)
    if summary.interval == "se":
        return Cell(f"{form(numbers.centre)} ± {form(numbers.high - numbers.centre)}", numbers)
    return Cell(f"{form(numbers.centre)} [{form(numbers.low)}, {form(numbers.high)}]", numbers)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        text.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(text)


def of_runs(runs: Sequence[int]) -> str:
    """Which they are, or how many."""
    return " ".join(map(str, runs)) if len(runs) <= MANY else f"{len(runs)} of them"


def number_of_runs(counts: Sequence[int]) -> str:
    """`3 runs`, or `2 to 5 runs` where lines have different numbers of them."""
    fewest, most = min(counts), max(counts)
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"


def footing(lines: Sequence[LineResults], summary: Summary) -> str:
    """What the statistics in a table are over: runs, and those that gave out."""
    runs = [next(iter(line.values.values())).shape[0] for line in lines]
    said = "of one run"
    if max(runs) > 1:
        between = " ± one standard error" if summary.interval == "se" else ""
        said = f"{summary.said}s of {number_of_runs(runs)}{between}"
        if summary.interval != "se":
            said += f"; in brackets: {summary.interval_said}s"
    for line in lines:
        if line.at[-1] < line.whole:
            said += f"; {line.label} so far: {line.counter} {line.at[-1]:,} of {line.whole:,}"
        if line.lost:
            said += f"; {line.label} lost run{'s' if len(line.lost) > 1 else ''} {of_runs(line.lost)}"
    return said


def _silent(lines: Sequence[LineResults], measure: Measure) -> str:
    """Runs that go on and have nothing to show there, which may be the best."""
    said = ""
    for line in lines if measure.weights else ():
        nothing = np.flatnonzero(np.isnan(measure.of(line)))
        without = [int(run) for run in nothing if run not in line.lost]
        if without:
            said += f"; {line.label}: no episode ended there in run {of_runs(without)}"
    return said
