"""The bar chart: a panel for each case, a row for each formulation, a bar for each thread count."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.series import Series
from comparison.summary import Row, digits, rows, unit_of
from klopf.experiments.drawing import FAINT, INK, STYLE
from klopf.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KLOPF, PEERS = "#0072B2", "#999999"
LOG_FROM = 12.0  # an axis is logarithmic where the longest bar exceeds the shortest by this factor

# All in inches.
COLUMN, LABELS, MARGIN = (
    5.3,
    1.5,
    0.15,
)  # width of a column of panels, of the names in it, of what surrounds it
BAR, BETWEEN = 0.15, 0.09  # a bar, and the space from row to row
HEAD, ABOVE, BELOW = 0.75, 0.35, 0.5  # title of the figure; title and axis of a panel


def draw(all_series: Sequence[Series], path: Path) -> None:
    """Write the chart as PNG; the same series give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    cases = dict.fromkeys(series.case for series in all_series)
    panels = [[series for series in all_series if series.case == case] for case in cases]
    columns = _columns(panels)
    width = 2 * MARGIN + COLUMN * len(columns)
    height = HEAD + max(sum(map(_height, column)) for column in columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        for number, column in enumerate(columns):
            left, top = MARGIN + COLUMN * number, height - HEAD
            for panel in column:
                bottom = top - _height(panel)
                box = (left + LABELS, bottom + BELOW, COLUMN - LABELS - 0.1, _height(panel) - ABOVE - BELOW)
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                _panel(axes, panel)
                figure.text(left / width, (top - 0.1) / height, panel[0].title, va="top", color=INK)
                top = bottom
        _header(figure, sorted({series.threads for series in all_series}))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _height(panel: Sequence[Series]) -> float:
    rows_of_panel = len(panel[0].formulations)
    return ABOVE + BELOW + rows_of_panel * (BAR * len(panel) + BETWEEN)


def _columns(panels: list[list[Series]]) -> list[list[list[Series]]]:
    """One column, or two of about the same height: each panel goes below the shorter one."""
    if len(panels) < 3:
        return [panels]
    columns: list[list[list[Series]]] = [[], []]
    for panel in panels:
        min(columns, key=lambda column: sum(map(_height, column))).append(panel)
    return columns


def _panel(axes: Axes, panel: Sequence[Series]) -> None:
    """Bars of one case from the top down, each with its time and its ratio to klopf."""
    from matplotlib.ticker import FuncFormatter

    found = [rows(series) for series in panel]
    names = [row.name for row in found[0]]
    longest = max(row.seconds.median for some in found for row in some)
    shortest = min(row.seconds.median for some in found for row in some)
    logarithmic = longest > LOG_FROM * shortest
    unit, factor = unit_of((longest * shortest) ** 0.5 if logarithmic else longest)
    row_height = BAR * len(panel) + BETWEEN
    for number, some in enumerate(found):
        for place, row in enumerate(some):
            y = place * row_height + (number + 0.5) * BAR
            value = factor * row.seconds.median
            colour = _shade(KLOPF if row.library == "klopf" else PEERS, number, len(panel))
            axes.barh(y, value, height=0.88 * BAR, color=colour, linewidth=0)
            low, high = factor * row.seconds.lower, factor * row.seconds.upper
            axes.plot([low, high], [y, y], color=INK, linewidth=0.8, solid_capstyle="butt")
            axes.annotate(
                _label(row),
                (max(value, high), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=7.5,
                color=INK,
            )
    if logarithmic:
        axes.set_xscale("log")
        start, room = factor * shortest / 3, (3 * longest / shortest) ** 0.4
        axes.set_xlim(start, factor * longest * room)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        unit += ", logarithmic"
    else:
        axes.set_xlim(0, 1.4 * factor * longest)
    axes.set_xlabel(f"a step ({unit})", fontsize=8, labelpad=2)
    axes.tick_params(labelsize=8)
    axes.set_yticks([place * row_height + BAR * len(panel) / 2 for place in range(len(names))], names)
    axes.set_ylim(len(names) * row_height - BETWEEN / 2, -BETWEEN / 2)
    axes.grid(axis="y", visible=False)


def _label(row: Row) -> str:
    unit, factor = unit_of(row.seconds.median)
    time = f"{digits(factor * row.seconds.median)} {unit}"
    return time if row.name == row.against else f"{time}  ({digits(row.ratio.median)}×)"


def _shade(colour: str, number: int, count: int) -> tuple[float, float, float]:
    """The colour of bar `number` of `count`: more threads, less white."""
    from matplotlib.colors import to_rgb

    share = 1.0 if count == 1 else 0.45 + 0.55 * number / (count - 1)
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _header(figure: Figure, threads: list[int]) -> None:
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    left, top = MARGIN / width, 1 - 0.12 / height
    figure.text(left, top, "Time of a training step", fontsize=12.5, weight="bold", color=INK, va="top")
    said = "median of the rounds, line: quartiles; in brackets the ratio to klopf's formulation"
    figure.text(left, top - 0.27 / height, said, fontsize=9, color=FAINT, va="top")
    patches: list[Any] = []
    for name, colour in (("klopf", KLOPF), ("peers", PEERS)):
        for number, count in enumerate(threads):
            label = f"{name}, {count} thread{'s' if count > 1 else ''}"
            patches.append(Patch(color=_shade(colour, number, len(threads)), linewidth=0, label=label))
    figure.legend(
        handles=patches, loc="upper right", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK,
        handlelength=1.4, columnspacing=1.5, borderaxespad=0.3,
    )  # fmt: skip
