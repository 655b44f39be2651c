"""The study's figure: how much better the whole is than every other line, stream by stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from klopf.experiments.drawing import FAINT, INK, PALETTE, STYLE, rows_frame
from klopf.files import atomic_write
from study.comparison import Comparison, Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "error": "error, online",
    "accuracy": "accuracy",
    "recall_1": "1 task back",
    "recall_5": "5 tasks back",
    "recall_20": "20 tasks back",
}
BLUE, ORANGE, GREY = PALETTE[0], PALETTE[1], "#888888"


def draw(comparisons: Sequence[Comparison], path: Path, role: str) -> None:
    """A row for each stream, a panel for each measure, a point with its interval for each line of a role."""
    import matplotlib as mpl

    columns = max(len(of.criteria) for of in comparisons)
    names = list(dict.fromkeys(line.name for of in comparisons for line in of.lines if line.role == role))
    names = [name for name in names if all(name != of.line_of_whole.name for of in comparisons)]
    with mpl.rc_context(STYLE):
        figure, grid = rows_frame(
            f"{comparisons[0].line_of_whole.name.capitalize()}: how much better it is",
            "mean difference of runs of the same seed with its 95% interval; "
            "right of the line, in blue: it is better; left of it, in orange: worse",
            len(comparisons),
            (1,) * columns,
            row=0.9 + 0.17 * len(names),
            gap=0.72,
        )
        grid.update(left=0.2, wspace=0.14)
        for row, of in enumerate(comparisons):
            for place, column in enumerate(of.criteria):
                axes = figure.add_subplot(grid[row, place])
                _panel(axes, of, column, names)
                axes.set_title(TITLES[column])
                if place:
                    axes.set_yticklabels([])
                else:
                    axes.set_title(f"{of.name}  ", loc="right", x=0, weight="bold")
        with atomic_write(path) as file:
            figure.savefig(file, format="png")


def _panel(axes: Axes, of: Comparison, column: str, names: Sequence[str]) -> None:
    found = {
        names.index(line.name): (of.difference(of.line_of_whole, line, column), len(of.results(line).lost))
        for line in of.others(column)
        if line.name in names
    }
    limit = _limit([_reach(difference) for difference, lost in found.values() if not lost])
    for place, (difference, lost) in found.items():
        colour = _colour(difference)
        if lost or _reach(difference) > limit:  # said at the edge, so that others are seen
            said = f"{lost} runs gave out" if lost else f"{difference.mean:+.2f}"
            edge, align = (0.99, "right") if difference.mean > 0 else (0.01, "left")
            at = axes.get_yaxis_transform()
            axes.text(edge, place, said, color=colour, fontsize=7, va="center", ha=align, transform=at)
            axes.plot(np.copysign(limit / 2, difference.mean), place, alpha=0)  # room on its side of the line
            continue
        axes.plot([difference.low, difference.high], [place, place], color=colour, linewidth=1.6)
        axes.plot(difference.mean, place, "o", color=colour, markersize=3.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8, labelcolor=FAINT)
    axes.locator_params(axis="x", nbins=4)


def _reach(found: Difference) -> float:
    return max(abs(found.low), abs(found.high))


def _limit(reaches: Sequence[float]) -> float:
    """How far a panel shows: to the farthest line, unless it is alone out there."""
    *_, second, first = sorted([0.0, 0.0, *reaches])
    return first if first <= 4 * second or not second else 1.5 * second


def _colour(found: Difference) -> str:
    return BLUE if found.low > 0 else ORANGE if found.high < 0 else GREY
