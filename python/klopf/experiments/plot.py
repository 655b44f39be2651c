"""The figure of an experiment: accuracy on each new task, and what became of the units.

Mean over runs with a shaded interval; the same results give the same bytes.  Colours: Okabe and Ito's
palette, which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import klopf as kl
from klopf.experiments.published import curves, published_curve
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.settings import Parser, option
from klopf.experiments.statistics import INTERVALS, Interval, binned, mean
from klopf.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST_TASKS = 10
PUBLISHED_BIN = 50

COLOURS = {
    "bp": "#D55E00",
    "cbp": "#0072B2",
    "l2": "#009E73",
    "snp": "#CC79A7",
    "scratch": "#333333",
    "linear": "#888888",
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
        return int(self.line.values["accuracy"].shape[0])


@dataclass(frozen=True)
class Settings:
    """Draw the figure of one results folder or of several together, as PNG and SVG."""

    out: str | None = option(
        None, "the PNG; the SVG lies beside it (default: in the folder)", placeholder="FILE"
    )
    published: bool = option(False, "overlay the published curves")
    interval: str = option(
        "se", "shade one standard error or a 95% bootstrap interval", choices=tuple(INTERVALS)
    )
    bin: int | None = option(None, "tasks averaged into one point (default: by their number)", minimum=1)


def command(arguments: Sequence[str]) -> None:
    """`klopf plot`."""
    parser = Parser("klopf plot", Settings.__doc__ or "")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_settings(Settings)
    given = parser.parse(arguments)
    folders = given.pop("folders")
    out = given.pop("out", str(Path(folders[0]) / "figure.png"))
    for path in plot(folders, out, **given):
        print(path)


def plot(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    published: bool = False,
    interval: str = "se",
    bin: int | None = None,
) -> list[Path]:
    """Draw the results of the folders into `out` (.png or .svg, both are written); returns the two paths.

    interval: "se" or "bootstrap".  bin: tasks a point.  Raises kl.Error where there is nothing to draw.
    """
    import matplotlib as mpl

    target = Path(out)
    if target.suffix not in (".png", ".svg"):
        raise kl.Error(f"expected a figure's name to end in .png or .svg, got {target}")
    looks = _looks([(str(folder), line) for folder in folders for line in read_results(folder)])
    with mpl.rc_context(STYLE):
        figure = _figure(looks, interval, bin, published)
        paths = [target.with_suffix(".png"), target.with_suffix(".svg")]
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
            with atomic_write(path) as file:
                file.write(buffer.getvalue())
    return paths


def _looks(found: Sequence[tuple[str, LineResults]]) -> list[Look]:
    """A colour for each line: the method's own where every method appears once, else one after another."""
    labels = [line.label for _, line in found]
    methods = [line.method for _, line in found]
    distinct = len(set(methods)) == len(methods)
    looks = []
    for index, (folder, line) in enumerate(found):
        label = line.label if labels.count(line.label) == 1 else f"{line.label} ({Path(folder).name})"
        if line.values["diverged"].any():
            count = int(line.values["diverged"].any(axis=1).sum())
            label += f" ({count} diverged)"
        if distinct:
            dashes = DASHES[1] if line.method == "scratch" else DASHES[0]
            looks.append(Look(line, label, COLOURS.get(line.method, INK), dashes))
        else:
            dashes = DASHES[index // len(PALETTE) % len(DASHES)]
            looks.append(Look(line, label, PALETTE[index % len(PALETTE)], dashes))
    return looks


# --- the figure ---------------------------------------------------------------------------------------------


def _figure(looks: list[Look], interval: str, bin: int | None, published: bool) -> Figure:
    from matplotlib.figure import Figure

    tasks = max(look.line.values["accuracy"].shape[1] for look in looks)
    width = bin or _bin_width(tasks)
    panels = [panel for panel in _UNIT_PANELS if any(_has(look, panel[0]) for look in looks)]
    labels = [look.label for look in looks] + ([f"published ({curves()['runs']} runs)"] if published else [])
    columns = _legend_columns(labels)
    header = 0.8 + 0.2 * -(-len(labels) // columns)  # all heights in inches
    height = header + 3.15 + (2.6 if panels else 0.0)
    figure = Figure(figsize=(10.0, height), facecolor="white")
    _header(figure, looks, labels, columns, interval, width if tasks > FIRST_TASKS else 1)
    grid = figure.add_gridspec(
        1 + bool(panels),
        1,
        height_ratios=[1.35, 1][: 1 + bool(panels)],
        left=0.065,
        right=0.985,
        bottom=0.48 / height,
        top=1 - (header + 0.22) / height,
        hspace=0.42,
    )
    long = tasks > FIRST_TASKS
    accuracy = grid[0].subgridspec(1, 1 + long, width_ratios=[1, 2.1][: 1 + long], wspace=0.06)
    first = figure.add_subplot(accuracy[0])
    _accuracy(first, looks, interval, 1, FIRST_TASKS, published)
    first.set_title(f"first {min(tasks, FIRST_TASKS)} tasks" if tasks > 1 else "first task")
    first.set_ylabel("test accuracy (%)")
    if long:
        whole = figure.add_subplot(accuracy[1], sharey=first)
        _accuracy(whole, looks, interval, width, tasks, published)
        whole.set_title(f"all {tasks:,} tasks")
        whole.tick_params(labelleft=False)
    if panels:
        below = grid[1].subgridspec(1, len(panels), wspace=0.2)
        for index, (name, title, factor) in enumerate(panels):
            axes = figure.add_subplot(below[index])
            for look in looks:
                if _has(look, name):
                    _draw(axes, look, *_binned_interval(factor * look.line.values[name], width, interval))
            axes.set_title(title)
            _task_axis(axes, tasks)
            if name == "dormant_rate":
                axes.set_ylim(bottom=0)
    return figure


_UNIT_PANELS = (
    ("dormant_rate", "dormant units (%)", 100.0),
    ("effective_rank", "effective rank of the last hidden layer", 1.0),
    ("weight_magnitude", "mean weight magnitude", 1.0),
)


def _has(look: Look, name: str) -> bool:
    """Whether a line has this to show; the linear baseline appears as a horizontal line only."""
    return look.line.method != "linear" and bool(np.isfinite(look.line.values[name]).any())


def _legend_columns(labels: Sequence[str]) -> int:
    """As many columns as fit side by side: one row where possible, else columns of equal width."""
    room, around = 125, 7  # characters across the figure, and what each handle takes
    if sum(len(label) + around for label in labels) <= room:
        return len(labels)
    return max(1, room // (max(len(label) for label in labels) + around))


def _header(
    figure: Figure, looks: list[Look], labels: list[str], columns: int, interval: str, width: int
) -> None:
    """Title, the number of runs, and one legend for all panels."""
    from matplotlib.lines import Line2D

    runs = sorted({look.runs for look in looks})
    count = f"{runs[0]} runs" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
    shade = "one standard error" if interval == "se" else "95% bootstrap interval of the mean"
    said = f"mean of {count}, shaded: {shade}" if runs[-1] > 1 else "a single run"
    if width > 1:
        said += f"; beyond the first {FIRST_TASKS} tasks in bins of {width}"
    height = figure.get_figheight()
    left, top = 0.065, 1 - 0.16 / height
    title = "Accuracy on each new task of the stream"
    figure.text(left, top, title, fontsize=12.5, weight="bold", color=INK, va="top")
    figure.text(left, top - 0.27 / height, said, fontsize=9, color=FAINT, va="top")
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=":" if look.line.method == "linear" else look.dashes,
            linewidth=2,
        )
        for look in looks
    ]
    if len(labels) > len(looks):
        handles.append(Line2D([], [], **_marks(FAINT)))
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(left - 0.008, top - 0.45 / height),
        ncols=columns,
        frameon=False,
        handlelength=1.9,
        columnspacing=1.8,
        handletextpad=0.6,
        labelspacing=0.3,
        borderpad=0.2,
        labelcolor=INK,
    )


def _accuracy(axes: Axes, looks: list[Look], interval: str, width: int, tasks: int, published: bool) -> None:
    """Test accuracy in percent over the first `tasks` tasks."""
    drawn = min(tasks, max(look.line.values["accuracy"].shape[1] for look in looks))
    for look in looks:
        values = 100 * look.line.values["accuracy"][:, :tasks]
        if look.line.method == "linear":
            level = float(mean(100 * look.line.values["accuracy"], axis=(0, 1)))
            _level(axes, level, f"{look.label} {level:.1f}", look.colour)
        else:
            _draw(axes, look, *_binned_interval(values, width, interval))
    if published:
        _overlay(axes, looks, drawn)
    _task_axis(axes, drawn)


def _binned_interval(values: Any, width: int, interval: str) -> tuple[Any, Interval]:
    centres, means = binned(values, width)
    return centres, INTERVALS[interval](means)


def _draw(axes: Axes, look: Look, centres: Any, interval: Interval) -> None:
    """One line with its shade, through the points that are there."""
    there = np.isfinite(interval.mean)
    x = centres[there]
    few = len(x) <= 2
    axes.plot(
        x,
        interval.mean[there],
        color=look.colour,
        linestyle=look.dashes,
        marker="o" if few or len(x) <= FIRST_TASKS else "",
        markersize=3.2,
        zorder=3,
    )
    if few:
        low, high = interval.mean - interval.low, interval.high - interval.mean
        axes.errorbar(
            x, interval.mean[there], [low[there], high[there]], color=look.colour, linestyle="", zorder=2
        )
    else:
        shade: dict[str, Any] = {"color": look.colour, "alpha": 0.18, "linewidth": 0, "zorder": 2}
        axes.fill_between(x, interval.low[there], interval.high[there], **shade)


def _task_axis(axes: Axes, tasks: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel("task")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6 if tasks > FIRST_TASKS else 10, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if tasks > FIRST_TASKS:
        axes.set_xlim(0, tasks * 1.01)
    else:
        axes.set_xlim(0.6, max(tasks, 2) + 0.4)


def _bin_width(tasks: int) -> int:
    """As published where the stream is long, else a round width that leaves at least 20 points."""
    if tasks >= 20 * PUBLISHED_BIN:
        return PUBLISHED_BIN
    return next((width for width in (20, 10, 5, 2) if tasks >= 20 * width), 1)


def _overlay(axes: Axes, looks: list[Look], tasks: int) -> None:
    """The published curves of the methods drawn, as far as the stream goes, and the published baseline."""
    for look in looks:
        if look.line.method == "linear":
            continue
        points = published_curve(look.line.method, look.line.settings, first_tasks=tasks <= FIRST_TASKS)
        points = {task: value for task, value in points.items() if task <= tasks}
        if points:
            axes.plot(list(points), list(points.values()), **_marks(look.colour), zorder=4)
    for level in published_curve("linear", {}).values():
        _level(axes, level, f"published linear {level:.1f}", FAINT)


def _level(axes: Axes, level: float, text: str, colour: str) -> None:
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


def _marks(colour: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": "o",
        "markersize": 4.5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.0,
        "linestyle": (0, (1, 2)),
        "linewidth": 0.9,
    }
