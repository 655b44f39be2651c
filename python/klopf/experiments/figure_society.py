"""The picture of a society: a network, what its units are worth, births and deaths."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.drawing import FAINT, INK, count_axis, log_ticks, rows_frame
from klopf.experiments.figure_network import (
    BACKBONE,
    BELOW,
    BESIDE,
    FRINGE,
    HIGH,
    OTHER,
    WITHIN,
    by_utility,
    draw_network,
    greys,
    letters,
    lines_of_network,
)
from klopf.experiments.society import Society, lived, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from klopf.experiments.panels import Sheet

Array = NDArray[np.float64]

BINS, MOMENTS = 30, 400  # of ages at death; of time, that births are counted at
SMALL = 8  # letters of panels beside the network


def society_figure(societies: Mapping[str, Society], run: int) -> Sheet:
    """A row for each network: its units and the strongest lines between them; utility, age and step size of
    every unit, the most useful of a layer first; births and deaths."""
    said = (
        f"run {run} at its last checkpoint; the most useful units are in the middle of their layer; "
        "lines: each unit's strongest weights in and out"
    )
    figure, grid = rows_frame(
        "Society of units", said, len(societies), (1.45, 1), row=HIGH + BELOW + 0.85, legend=0.55
    )
    lines = {label: lines_of_network(society) for label, society in societies.items()}
    for row, (label, society) in enumerate(societies.items()):
        axes = figure.add_subplot(grid[row, 0])
        _title(axes, label, society)
        if society.alive:
            draw_network(axes, society, lines[label])
        else:
            _instead(axes, f"run {run} is no longer finite")
        _beside(figure, grid[row, 1], society, run)
    _legend(figure, societies)
    figure.more |= tables(societies, lines)
    return figure


def _title(axes: Axes, label: str, society: Society) -> None:
    """The line, and what sizes and colours are here."""
    lines = textwrap.wrap(label, 110)
    axes.set_title("\n".join(lines), pad=20, weight="bold")
    said = f"size: {society.utility_is}; backbone {society.backbone_is}"
    axes.annotate(
        said, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=FAINT
    )


# --- beside the network -------------------------------------------------------------------------------------


def _beside(figure: Sheet, place: Any, society: Society, run: int) -> None:
    """What units are worth above, births and deaths below."""
    above, below = place.subgridspec(2, 1, height_ratios=(1.75, 1), hspace=0.42)
    if society.alive:
        _profiles(figure, above, society)
    events = society.events
    if events is None or not len(events.step):
        why = f"none in run {run}" if events is not None else "no log in the folder (see --events)"
        _instead(figure.add_subplot(below), f"births and deaths: {why}")
        return
    left, right = below.subgridspec(1, 2, wspace=0.34)
    _births(figure.add_subplot(left), society)
    _deaths(figure.add_subplot(right), society)


def _profiles(figure: Sheet, place: Any, society: Society) -> None:
    """A strip for each of utility, age and step size, of each layer: units from the most useful one on."""
    from matplotlib.transforms import blended_transform_factory

    layers, below = society.layers, place.get_position(figure)
    few = max(layer.size for layer in layers) <= 30
    strips = {
        "utility": [layer.utility for layer in layers],
        "age": [layer.age for layer in layers],
        "step size": [layer.step_size for layer in layers if layer.step_size is not None],
    }
    strips = {name: of_layers for name, of_layers in strips.items() if of_layers}
    grid = place.subgridspec(len(strips), len(layers), hspace=0.25, wspace=0.1)
    for row, (name, of_layers) in enumerate(strips.items()):
        values = np.concatenate([one[layer.living] for one, layer in zip(of_layers, layers, strict=True)])
        for index, (layer, of_layer) in enumerate(zip(layers, of_layers, strict=True)):
            axes = figure.add_subplot(grid[row, index])
            order = by_utility(layer)[: layer.living.sum()]
            colours = np.where(layer.backbone[order], BACKBONE, FRINGE)
            heights, at = of_layer[order], np.arange(len(order))
            if name == "utility":
                shares = heights / max(heights.max(initial=0), 1e-300)
                axes.bar(at, shares, 0.85 if few else 1.0, color=colours, linewidth=0)
                axes.set_ylim(0, 1.05)
                axes.set_yticks([0, 1], ["0", "most"])
                if len(layers) > 1:
                    axes.set_title(f"layer {layer.place}", fontsize=letters(society), pad=3)
            else:
                axes.scatter(at, heights, 14 if few else 6, colours, linewidths=0)
                if (values > 0).any():
                    _logarithmic(axes, values)
            axes.grid(visible=False, axis="x")
            axes.set_xlim(-0.8, layer.size - 0.2)
            axes.set_xticks([])
            axes.tick_params(axis="y", labelsize=7, labelleft=index == 0)
            if index == 0:
                axes.set_ylabel(name, fontsize=SMALL)
                axes.yaxis.set_label_coords(
                    below.x0 - 0.047, 0.5, blended_transform_factory(figure.transFigure, axes.transAxes)
                )
    figure.text(
        (below.x0 + below.x1) / 2,
        below.y0 - 0.05 / figure.get_figheight(),
        "units, the most useful first",
        ha="center",
        va="top",
        fontsize=SMALL,
        color=INK,
    )


def _logarithmic(axes: Axes, values: Array) -> None:
    """A logarithmic axis around all layers' values, of a decade at least."""
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    low, high = min(low, high / 8) / 1.5, high * 1.5
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis, low, high, short)


def short(value: float) -> str:
    """1000000 as 1M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def _births(axes: Axes, society: Society) -> None:
    """How many were born up to a time, by layer; deaths are dashed where they are not births at once."""
    assert society.events is not None
    times = np.linspace(0, society.updates, MOMENTS + 1)
    apart = bool((society.events.age == 0).any())
    for layer, colour, width in _strokes(society):
        history = lived(society.events, layer)
        shape = {"color": colour, "linewidth": width}
        axes.plot(times, np.searchsorted(history.births, times), **shape, label=f"layer {layer}")
        if apart:
            axes.plot(times, np.searchsorted(history.deaths, times), **shape, linestyle=(0, (2, 1.2)))
    axes.set_title("born, and died (dashed)" if apart else "replaced so far (units)", fontsize=8.5)
    axes.set_ylim(bottom=0)
    count_axis(axes, society.updates, "updates")
    _finish(axes)
    if len(society.layers) > 1:
        look: dict[str, Any] = {"fontsize": 7, "labelcolor": FAINT, "handlelength": 1, "labelspacing": 0.2}
        handles, labels = axes.get_legend_handles_labels()
        some = slice(None) if len(labels) <= 6 else slice(None, None, len(labels) - 1)
        axes.legend(handles[some], labels[some], frameon=False, borderpad=0, **look)


def _deaths(axes: Axes, society: Society) -> None:
    """Of how many units the age at death was such."""
    assert society.events is not None
    high = float(max(society.updates, 10))
    edges = np.geomspace(1, high, BINS + 1)
    died = 0
    for layer, colour, _ in _strokes(society):
        counts, _ = np.histogram(lived(society.events, layer).ages, edges)
        axes.stairs(counts, edges, color=colour, linewidth=1.3)
        died += int(counts.sum())
    axes.set_xscale("log")
    axes.set_xlim(1, high)
    log_ticks(axes.xaxis, 1, high, short)
    axes.set_ylim(bottom=0)
    axes.set_title("age at death (units)", fontsize=8.5)
    axes.set_xlabel("updates")
    _finish(axes)
    if not died:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "none died", transform=axes.transAxes, ha="center", color=FAINT, fontsize=8)


def _strokes(society: Society) -> list[tuple[int, Any, float]]:
    """Place, colour and width of each layer's line, narrower towards the outputs, so that equal ones show."""
    from matplotlib import colormaps

    count = len(society.layers)
    shades = colormaps["viridis"](np.linspace(0.1, 0.82, count))
    widths = np.linspace(min(3.2, 1 + 0.4 * count), 1.4, count)
    return [
        (layer.place, tuple(shade), float(width))
        for layer, shade, width in zip(society.layers, shades, widths, strict=True)
    ]


def _finish(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(SMALL)


def _instead(axes: Axes, said: str) -> None:
    """Words where there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=8.5, color=FAINT, transform=axes.transAxes)


def _legend(figure: Sheet, societies: Mapping[str, Society]) -> None:
    """What marks mean, in one row below the title."""
    from matplotlib.lines import Line2D

    updates = max(society.updates for society in societies.values())

    def circle(fill: str, ring: str, size: float) -> Line2D:
        look: dict[str, Any] = {
            "color": fill,
            "markeredgecolor": ring,
            "markersize": size,
            "markeredgewidth": 1.2,
        }
        return Line2D([], [], linestyle="", marker="o", **look)

    young, middle, old = greys(np.array([0, np.sqrt(updates), updates]), updates)
    entries = [
        (circle(BACKBONE, "white", 9), "backbone"),
        (circle(FRINGE, "white", 9), "fringe"),
        (circle("#BBBBBB", "white", 4), "little"),
        (circle("#BBBBBB", "white", 9), "most utility"),
        (circle("white", young, 7), "age 0"),
        (circle("white", middle, 7), short(float(f"{np.sqrt(updates):.2g}"))),
        (circle("white", old, 7), f"{short(float(f'{updates:.2g}'))} updates"),
        (Line2D([], [], color=WITHIN, linewidth=2), "|weight| within the backbone"),
        (Line2D([], [], color=BESIDE, linewidth=1), "other"),
    ]
    if not all(layer.living.all() for society in societies.values() for layer in society.layers):
        entries.insert(2, (circle(OTHER, OTHER, 1.5), "vacant"))
    height = figure.get_figheight()
    figure.legend(
        *zip(*entries, strict=True),
        loc="upper left",
        bbox_to_anchor=(0.067, 1 - 0.6 / height),
        ncols=len(entries),
        frameon=False,
        fontsize=SMALL,
        handlelength=1.1,
        columnspacing=1.1,
        handletextpad=0.4,
        borderpad=0.2,
        labelcolor=INK,
    )
