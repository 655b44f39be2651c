"""The picture of units: how old each is over time, how many are replaced, and how long they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.drawing import FAINT, PALETTE, band, rows_frame
from klopf.experiments.events import Replaced, read_events
from klopf.experiments.standing import learners_of
from klopf.experiments.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40  # of time, that replacements are counted in
TIMES = 500  # that ages are drawn at


@dataclass(frozen=True)
class Population:
    """The units of one line.

    replaced: events of all runs; of age 0 where a unit was added to a place without one.  living: of each
    layer who lives at the end [R, U].  updates: how long they lived.
    """

    replaced: Replaced
    living: dict[int, NDArray[np.bool_]]
    updates: int

    @property
    def layers(self) -> dict[int, int]:
        """Name and number of places of each."""
        return {layer: living.shape[1] for layer, living in self.living.items()}

    @property
    def runs(self) -> int:
        """R."""
        return len(next(iter(self.living.values())))


def read_population(folder: str | Path) -> dict[str, Population]:
    """By line's label, of a results folder.  Raises kl.Error where nothing was replaced."""
    events = read_events(folder)
    found = {}
    for label, learner in learners_of(folder, "units"):
        if label in events:
            replaced = events[label]
            updates = max(learner._updates(), int(replaced.step.max()) + 1)
            living = {group.layer: group.living for group in learner.net.units}
            found[label] = Population(replaced, living, updates)
    if not found:
        raise kl.Error(f"no line of {folder} has replaced a unit")
    return found


def units_figure(populations: Mapping[str, Population], run: int, summary: Summary) -> Figure:
    """A row for each line: the age of every unit of a run over time; over all runs how many units were
    replaced, by layer; and how many outlive an age (Kaplan and Meier's estimate, which counts in those that
    live on)."""
    said = f"ages: run {run}; replaced: {summary.said} over runs, shaded: {summary.interval_said}"
    said += "; outlived: all runs together"
    figure, grid = rows_frame("Lives of units", said, len(populations), (1.5, 1.0, 1.0))
    for row, (label, units) in enumerate(populations.items()):
        _ages(figure.add_subplot(grid[row, 0]), label, units, run)
        _replacements(figure.add_subplot(grid[row, 1]), units, summary)
        _survival(figure.add_subplot(grid[row, 2]), units, row == 0)
    return figure


def ages(units: Population, run: int, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every unit, layer by layer, at some times, in updates [units, times]; NaN where none lived."""
    replaced, mine = units.replaced, units.replaced.run == run
    found = []
    for layer, living in units.living.items():
        for unit, lives in enumerate(living[run]):
            its = mine & (replaced.layer == layer) & (replaced.unit == unit)
            order = np.argsort(replaced.step[its], kind="stable")
            births, from_birth = replaced.step[its][order] + 1.0, lives
            if its.any():
                from_birth = replaced.age[its][order][0] > 0
            births = np.concatenate([[0.0 if from_birth else np.nan], births])
            found.append(times - births[np.searchsorted(births[1:], times, side="right")])
    return np.array(found)


def lifetimes(units: Population, layer: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of a layer's units over all runs: ages at which units were replaced, and ages of those that live."""
    replaced = units.replaced
    mine = replaced.layer == layer
    born = np.zeros((units.runs, units.layers[layer]), np.int64)
    np.maximum.at(born, (replaced.run[mine], replaced.unit[mine]), replaced.step[mine] + 1)
    return replaced.age[mine & (replaced.age > 0)], (units.updates - born)[units.living[layer]]


def _ages(axes: Axes, label: str, units: Population, run: int) -> None:
    from matplotlib.colors import LogNorm

    times = (np.arange(TIMES) + 0.5) / TIMES * units.updates
    image = axes.imshow(
        np.maximum(ages(units, run, times), 1),
        aspect="auto",
        norm=LogNorm(max(1, units.updates / 1e4), units.updates),
        interpolation="nearest",
        extent=(0, units.updates, sum(units.layers.values()), 0),
    )
    axes.grid(False)
    axes.set_title(f"{label}: age of units")
    borders = np.cumsum([0, *units.layers.values()])
    for border in borders[1:-1]:
        axes.axhline(border, color="white", linewidth=1.5)
    axes.set_yticks((borders[:-1] + borders[1:]) / 2, [f"layer {layer}" for layer in units.layers])
    _time_axis(axes, units.updates)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)


def _replacements(axes: Axes, units: Population, summary: Summary) -> None:
    edges = np.linspace(0, units.updates, min(BINS, units.updates) + 1)
    thousands = np.diff(edges) / 1000
    for (layer, size), colour in zip(units.layers.items(), PALETTE * len(units.layers), strict=False):
        mine = units.replaced.layer == layer
        counts, _, _ = np.histogram2d(
            units.replaced.run[mine], units.replaced.step[mine], [np.arange(units.runs + 1), edges]
        )
        band(axes, (edges[:-1] + edges[1:]) / 2, summary(100 * counts / size / thousands), colour)
    axes.set_ylim(bottom=0)
    began = "born" if (units.replaced.age == 0).any() else "replaced"
    axes.set_title(f"{began} in 1,000 updates (% of a layer)")
    _time_axis(axes, units.updates)


def _survival(axes: Axes, units: Population, legend: bool) -> None:
    from scipy.stats import CensoredData, ecdf

    for layer, colour in zip(units.layers, PALETTE * len(units.layers), strict=False):
        died, living = lifetimes(units, layer)
        alive = ecdf(CensoredData(uncensored=died, right=living)).sf
        axes.step(
            [1, *alive.quantiles, units.updates],
            [100, *100 * alive.probabilities, 100 * alive.probabilities[-1]],
            where="post",
            color=colour,
            label=f"layer {layer}",
        )
    axes.set_xscale("log")
    axes.set_xlim(1, units.updates)
    axes.set_ylim(0, 101)
    axes.set_title("units that outlive an age (%)")
    axes.set_xlabel("age in updates")
    if legend:
        axes.legend(frameon=False, fontsize=8, labelcolor=FAINT)


def _time_axis(axes: Axes, updates: int) -> None:
    from klopf.experiments.drawing import count_axis

    count_axis(axes, updates, "updates")
