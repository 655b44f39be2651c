"""Tables of words, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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


def footing(lines: Sequence[LineResults]) -> str:
    """What means in a table are over: runs, and those that gave out."""
    runs = next(iter(lines[0].values.values())).shape[0]
    said = f"means of {runs} run{'s' if runs > 1 else ''} ± one standard error"
    for line in lines:
        if line.lost:
            each = " ".join(map(str, line.lost)) if len(line.lost) <= MANY else f"{len(line.lost)} of them"
            said += f"; {line.label} lost run{'s' if len(line.lost) > 1 else ''} {each}"
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
        rows.append([line.label, *(f"{form(mean(part))} ± {form(standard_error(part))}" for part in parts)])
    return f"{aligned(rows)}\n{footing(lines)}"
