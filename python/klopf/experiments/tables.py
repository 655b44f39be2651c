"""Tables of words, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.results import LineResults
from klopf.experiments.statistics import mean, standard_error

MANY = 12  # runs of which not every one is told


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        text.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(text)


def over_runs(values: NDArray[np.float64], form: Callable[[Any], str]) -> str:
    """The mean of those that are there ± its standard error; of one run without, of none a dash.

    values: of each run [R].
    """
    there = int(np.isfinite(values).sum())
    if there < 2:
        return form(mean(values)) if there else "-"
    return f"{form(mean(values))} ± {form(standard_error(values))}"


def of_runs(runs: Sequence[int]) -> str:
    """Which they are, or how many."""
    return " ".join(map(str, runs)) if len(runs) <= MANY else f"{len(runs)} of them"


def footing(lines: Sequence[LineResults]) -> str:
    """What means in a table are over: runs, and those that gave out."""
    runs = next(iter(lines[0].values.values())).shape[0]
    said = f"means of {runs} runs ± one standard error" if runs > 1 else "of one run"
    for line in lines:
        if line.lost:
            said += f"; {line.label} lost run{'s' if len(line.lost) > 1 else ''} {of_runs(line.lost)}"
    return said


def first_and_last(
    lines: Sequence[LineResults], column: str, title: str, change: str, form: Callable[[Any], str]
) -> str:
    """A column's mean over the first and over the last tenth of what was measured, and the change.

    title, change: over the first and the last column.
    """
    rows = [[title, "first tenth", "last tenth", change]]
    for line in lines:
        values = line.values[column]
        tenth = max(values.shape[1] // 10, 1)
        early, late = mean(values[:, :tenth], axis=1), mean(values[:, -tenth:], axis=1)
        parts = (early, late, late - early)
        rows.append([line.label, *(over_runs(part, form) for part in parts)])
    return f"{aligned(rows)}\n{footing(lines)}"
