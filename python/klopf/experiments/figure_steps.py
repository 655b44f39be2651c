"""The picture of step sizes: how they are spread over each layer's weights, and every single one of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.drawing import PALETTE, log_ticks, rows_frame
from klopf.experiments.standing import learners_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float32]


def read_step_sizes(folder: str | Path) -> dict[str, dict[str, Array]]:
    """By line and layer, [R, units, weights of each], of the last checkpoint of a results folder; NaN in runs
    that no longer learn.

    Raises kl.Error where no line has any.
    """
    found = {}
    for label, learner in learners_of(folder, "step sizes"):
        try:
            sizes = learner.step_sizes()
        except kl.Error:
            continue
        found[label] = {
            key.removesuffix(".weight"): np.where(
                learner.alive[:, None, None], values.reshape(*values.shape[:2], -1), np.nan
            )
            for key, values in sizes.items()
            if key.endswith(".weight")
        }
    if not found:
        raise kl.Error(f"no line of {folder} has step sizes that follow from what is learned")
    return found


def steps_figure(sizes: Mapping[str, Mapping[str, Array]], run: int) -> Figure:
    """A row for each line: a histogram over all runs, and a picture of each layer, by unit and weight.

    Of a layer with one unit the picture has a row for each run.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, MaxNLocator

    layers = max(len(of_line) for of_line in sizes.values())
    positive = np.concatenate([v[np.isfinite(v) & (v > 0)] for one in sizes.values() for v in one.values()])
    if not len(positive):
        raise kl.Error("all step sizes are zero or not finite")
    low, high = np.quantile(positive, [0.001, 0.999])
    if high < 10 * low:  # a decade at least, so that equal ones look equal
        low, high = np.sqrt(low * high / 10), np.sqrt(low * high * 10)
    norm = LogNorm(low, high)
    said = f"distributions over all runs; every one of run {run}, or of all runs where a unit is alone"
    figure, grid = rows_frame("Step sizes", said, len(sizes), [1.3] + [1] * layers, right=0.92)
    for row, (label, of_line) in enumerate(sizes.items()):
        _histogram(figure.add_subplot(grid[row, 0]), label, of_line, low, high)
        for column, (layer, values) in enumerate(of_line.items(), 1):
            axes = figure.add_subplot(grid[row, column])
            alone = values.shape[1] == 1
            image = axes.imshow(
                values[:, 0] if alone else values[run], aspect="auto", norm=norm, interpolation="nearest"
            )
            axes.set_title(f"layer {layer}" if layer.isdigit() else layer)
            if not np.isfinite(values if alone else values[run]).any():
                axes.set_title(f"{axes.get_title()}: not finite")
            for axis, count in ((axes.xaxis, values.shape[2]), (axes.yaxis, values.shape[0 if alone else 1])):
                several = MaxNLocator(min(6, count), integer=True)
                axis.set_major_locator(several if count > 1 else FixedLocator([0]))
            axes.set_xlabel("weight")
            if column == 1 or alone:
                axes.set_ylabel("run" if alone else "unit")
            axes.grid(False)
    height = figure.get_figheight()
    bar = figure.add_axes((0.935, 0.5 / height, 0.012, 1 - 1.35 / height))
    figure.colorbar(image, cax=bar)
    log_ticks(bar.yaxis, low, high)
    return figure


def _histogram(axes: Axes, label: str, of_line: Mapping[str, Array], low: float, high: float) -> None:
    """The share of each layer's weights over the step size, on a logarithmic axis."""
    edges = np.geomspace(low, high, 41)
    for (layer, values), colour in zip(of_line.items(), PALETTE * len(of_line), strict=False):
        there = values[np.isfinite(values)]
        count, _ = np.histogram(np.clip(there, edges[0], edges[-1]), edges)
        axes.stairs(count / max(there.size, 1), edges, color=colour, label=f"layer {layer}", linewidth=1.4)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, low, high)
    axes.set_ylim(bottom=0)
    axes.set_title("\n".join(textwrap.wrap(label, 24)))
    axes.set_xlabel("step size")
    axes.set_ylabel("share of weights")
    if len(of_line) > 1:
        axes.legend(frameon=False, fontsize=8)
