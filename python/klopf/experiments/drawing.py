"""What figures of experiments are drawn with: colours, lines with shades, one header for all panels.

A statistic over runs with a shaded interval.  Colours: Okabe and Ito's palette, which people with any colour
vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klopf.experiments.results import LineResults
from klopf.experiments.retention import LAGS, RECALL, REFIT
from klopf.experiments.statistics import Interval, Summary, binned
from klopf.experiments.supervised import named_after
from klopf.experiments.tables import number_of_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from klopf.experiments.panels import Sheet

Panel = tuple[str, str, float]  # column, title, factor


def recall_panels(what: str, unit: str = "", factor: float = 1.0) -> tuple[list[Panel], list[Panel]]:
    """Rows of panels about tasks of before: with stored heads, and with new ones."""
    back = [f"{what} {lag} task{'s' if lag > 1 else ''} back" for lag in LAGS]
    return (
        [(name, f"{one}, stored head{unit}", factor) for name, one in zip(RECALL, back, strict=True)],
        [(name, f"{one}, head refitted{unit}", factor) for name, one in zip(REFIT, back, strict=True)],
    )


FEW = 10  # points that are marked one by one

COLOURS = {
    "bp": "#D55E00",
    "cbp": "#0072B2",
    "l2": "#009E73",
    "snp": "#CC79A7",
    "scratch": "#333333",
    "linear": "#888888",
    "lms": "#D55E00",
    "idbd": "#0072B2",
    "autostep": "#009E73",
    "obgd": "#CC79A7",
    "adaptive-obgd": "#56B4E9",
    "meta-optimize": "#333333",
    "intentional": "#E69F00",
    "adam": "#E69F00",
    "ppo": "#D55E00",
    "ppo-tuned-adam": "#E69F00",
    "ppo-l2": "#009E73",
    "continual-ppo": "#0072B2",
    "ppo-redo": "#CC79A7",
}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#B8A900")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
INK, FAINT = "#222222", "#666666"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "klopf",
    "pdf.fonttype": 42,  # letters remain letters, in fonts that the file brings along
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class Look:
    """How one line of the results is drawn."""

    line: LineResults
    label: str
    colour: str
    dashes: Any

    @property
    def runs(self) -> int:
        return int(next(iter(self.line.values.values())).shape[0])


def looks_of(lines: Sequence[LineResults]) -> list[Look]:
    """A colour for each line: the method's own where every method appears once, else one after another."""
    methods = [line.method for line in lines]
    distinct = len(set(methods)) == len(methods) and set(methods) <= COLOURS.keys()
    looks = []
    for index, line in enumerate(lines):
        label, flag = line.label, list(line.values)[-1]
        if line.values[flag].any():
            label += f" ({int(line.values[flag].any(axis=1).sum())} {flag})"
        if distinct:
            colour, dashes = COLOURS[line.method], DASHES[line.method == "scratch"]
        else:
            colour = PALETTE[index % len(PALETTE)]
            dashes = DASHES[index // len(PALETTE) % len(DASHES)]
        looks.append(Look(line, label, colour, ":" if line.method == "linear" else dashes))
    return looks


def legend_columns(labels: Sequence[str]) -> int:
    """As many columns as fit side by side: one row where possible, else columns of equal width."""
    room, around = 125, 7  # characters across the figure, and what each handle takes
    if sum(len(label) + around for label in labels) <= room:
        return len(labels)
    return max(1, room // (max(len(label) for label in labels) + around))


def frame(
    title: str, remark: str, looks: list[Look], labels: list[str], summary: Summary, below: int
) -> tuple[Sheet, Any]:
    """A figure with its title and legend, and the place for one panel, and for so many rows of them below.

    labels: one more than looks where published points are drawn.
    """
    from klopf.experiments.panels import Sheet

    above = 0.8 + 0.2 * -(-len(labels) // legend_columns(labels))  # title and legend; all in inches
    height = above + 3.15 + 2.6 * below
    heights = [1.35, 1.45 * below - 0.45] if below else [1.35]  # what lies below has gaps of 0.45
    figure = Sheet(10.0, height)
    _header(figure, title, looks, labels, summary, remark)
    grid = figure.add_gridspec(
        len(heights),
        1,
        height_ratios=heights,
        left=0.075,
        right=0.985,
        bottom=0.48 / height,
        top=1 - (above + 0.22) / height,
        hspace=0.5 * len(heights) / sum(heights),  # of their mean
    )
    return figure, grid


def _header(
    figure: Figure, title: str, looks: list[Look], labels: list[str], summary: Summary, remark: str
) -> None:
    """Title, the number of runs, and one legend for all panels; a label more than looks is of what was
    published."""
    from matplotlib.lines import Line2D

    runs = sorted({look.runs for look in looks})
    count = number_of_runs(runs)
    said = f"{summary.said} of {count}, shaded: {summary.interval_said}" if runs[-1] > 1 else "a single run"
    said += f"; {remark}" if remark else ""
    left, top = _titled(figure, title, said)
    height = figure.get_figheight()
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.dashes,
            linewidth=2,
        )
        for look in looks
    ]
    if len(labels) > len(looks):
        handles.append(Line2D([], [], **marks(FAINT)))
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(left - 0.008, top - 0.45 / height),
        ncols=legend_columns(labels),
        frameon=False,
        handlelength=1.9,
        columnspacing=1.8,
        handletextpad=0.6,
        labelspacing=0.3,
        borderpad=0.2,
        labelcolor=INK,
    )


def _titled(figure: Figure, title: str, said: str) -> tuple[float, float]:
    """Title and a line of text below; where they begin."""
    height = figure.get_figheight()
    left, top = 0.075, 1 - 0.16 / height
    figure.text(left, top, title, fontsize=12.5, weight="bold", color=INK, va="top")
    figure.text(left, top - 0.27 / height, said, fontsize=9, color=FAINT, va="top")
    return left, top


def rows_frame(
    title: str,
    said: str,
    rows: int,
    widths: Sequence[float],
    right: float = 0.985,
    row: float = 2.3,
    gap: float = 2.3 / 3,
    legend: float = 0.0,
) -> tuple[Sheet, Any]:
    """A figure with its title, and places for panels of these widths in each of so many rows.

    row: inches of a row with the gap below it.  legend: inches between the title and the first one.
    """
    from klopf.experiments.panels import Sheet

    height = 1.0 + legend + row * rows
    figure = Sheet(10.0, height)
    left, _ = _titled(figure, title, said)
    grid = figure.add_gridspec(
        rows,
        len(widths),
        width_ratios=widths,
        left=left,
        right=right,
        bottom=0.5 / height,
        top=1 - (0.85 + legend) / height,
        hspace=gap / (row - gap),
        wspace=0.3,
    )
    return figure, grid


def binned_interval(look: Look, values: Any, width: int, summary: Summary) -> tuple[Any, Interval]:
    """The middles of bins of `width` rows, as the counter says, and the interval of the means in them,
    over runs."""
    centres, means = binned(values, width)
    rows = np.arange(1, len(look.line.at) + 1)
    return np.interp(centres, rows, look.line.at), summary(means)


def draw(axes: Axes, look: Look, centres: Any, interval: Interval) -> None:
    """One line with its shade, through the points that are there."""
    from klopf.experiments.panels import keep

    keep(axes, look.line.label, centres, interval)
    band(axes, centres, interval, look.colour, look.dashes)


def band(axes: Axes, x: Any, interval: Interval, colour: str, dashes: Any = "-") -> None:
    """A line with its shade; few points are marked."""
    there = np.isfinite(interval.centre)
    x = x[there]
    few = len(x) <= 2
    axes.plot(
        x,
        interval.centre[there],
        color=colour,
        linestyle=dashes,
        marker="o" if few or len(x) <= FEW else "",
        markersize=3.2,
        zorder=3,
    )
    if few:
        low, high = interval.centre - interval.low, interval.high - interval.centre
        axes.errorbar(
            x, interval.centre[there], [low[there], high[there]], color=colour, linestyle="", zorder=2
        )
    else:
        shade: dict[str, Any] = {"color": colour, "alpha": 0.18, "linewidth": 0, "zorder": 2}
        axes.fill_between(x, interval.low[there], interval.high[there], **shade)


def draw_level(axes: Axes, look: Look, interval: Interval) -> None:
    """A line that is the same everywhere."""
    from klopf.experiments.panels import keep

    keep(axes, look.line.label, None, interval)
    level_line(axes, float(interval.centre), f"{look.label} {interval.centre:.3g}", look.colour)


def level_line(axes: Axes, level: float, text: str, colour: str) -> None:
    """A horizontal line with its name at the right end."""
    from matplotlib.patheffects import withStroke

    axes.axhline(level, color=colour, linestyle=":", linewidth=1.2, zorder=1.5)
    axes.annotate(
        text,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=colour,
        fontsize=8,
        zorder=5,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def marks(colour: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": "o",
        "markersize": 4.5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.0,
        "linestyle": (0, (1, 2)),
        "linewidth": 0.9,
    }


def panels_of(looks: Sequence[Look], *panels: Sequence[Panel]) -> list[list[Panel]]:
    """Rows of panels: those that some line has something to show in, and below them metrics of one's own."""
    own = [named_after(word) for look in looks for word in look.line.experiment.get("metric", ())]
    mine = [(name, name, 1.0) for name in dict.fromkeys(own)]
    *shown, added = (
        [panel for panel in row if any(has(look, panel[0]) for look in looks)] for row in (*panels, mine)
    )
    return [part for row in (*shown, added) for part in _rows(row)]


def _rows(panels: list[Panel]) -> list[list[Panel]]:
    """At most three side by side, in rows of about as many: four panels are two rows of two."""
    width = -(-len(panels) // max(1, -(-len(panels) // 3)))
    return [panels[first : first + width] for first in range(0, len(panels), width or 1)]


def units_panels(
    figure: Figure,
    place: Any,
    looks: list[Look],
    panels: Sequence[Sequence[Panel]],
    width: int,
    summary: Summary,
    finish: Callable[[Axes, str], None],
) -> None:
    """Rows of panels about units, (column, title, factor) each; finish(axes, column) does the rest."""
    rows = place.subgridspec(len(panels), 1, hspace=0.45)
    columns = max(len(row) for row in panels)
    for below, row in zip(rows, panels, strict=True):
        places = below.subgridspec(1, columns, wspace=0.2)
        for index, (name, title, factor) in enumerate(row):
            axes = figure.add_subplot(places[index], label=name)
            for look in looks:
                if has(look, name):
                    draw(axes, look, *binned_interval(look, factor * look.line.values[name], width, summary))
            axes.set_title(title)
            if name in ("dormant_rate", "backbone_share"):
                axes.set_ylim(bottom=0)
            finish(axes, name)


def count_axis(axes: Axes, last: int, counted: str) -> None:
    """An axis of steps or examples, in thousands or millions where there are as many."""
    from matplotlib.ticker import FuncFormatter

    units = ((1e6, "million "), (1e3, "thousand "), (1.0, ""))
    unit, name = next((one for one in units if last >= one[0]), units[-1])
    axes.set_xlim(0, last * 1.01)
    axes.set_xlabel(name + counted)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))


def log_ticks(axis: Axis, low: float, high: float, form: Callable[[float], str] = "{:g}".format) -> None:
    """Powers of ten, and threes of them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 100 * low else (1.0,), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axis.set_minor_locator(NullLocator())


def has(look: Look, name: str) -> bool:
    """Whether a line has this to show."""
    return name in look.line.values and bool(np.isfinite(look.line.values[name]).any())
