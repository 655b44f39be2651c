"""The figure of agents that go on learning: return over steps, and what became of the units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.experiments.drawing import (
    FAINT,
    FEW,
    Look,
    binned_interval,
    count_axis,
    draw,
    frame,
    marks,
    panels_of,
    units_panels,
)
from klopf.experiments.published import curves, published_points
from klopf.experiments.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 100  # of a curve, where there are more measurements
_PANELS = (
    ("dormant_rate", "dormant units of the network that acts (%)", 100.0),
    ("backbone_share", "its units in the backbone (%)", 100.0),
    ("effective_rank", "effective rank of its last hidden layer", 1.0),
    ("weight_magnitude", "its mean weight magnitude", 1.0),
)


def ant_figure(looks: list[Look], summary: Summary, bin: int | None, published: bool) -> Figure:
    """looks: lines of one or several results."""
    rows = max(len(look.line.at) for look in looks)
    steps = max(int(look.line.at[-1]) for look in looks)
    width = bin or max(1, round(rows / POINTS))
    panels = panels_of(looks, _PANELS)
    labels = [look.label for look in looks]
    if published:
        if not any(_published("ant_return", look, steps) for look in looks):
            raise Error("--published: the curves are of Ant, and begin at 3 million steps")
        labels.append(f"published ({curves()['runs']} runs, an earlier Ant)")
    worlds = sorted({str(look.line.experiment.get("env")) for look in looks})
    title = f"Return on {', '.join(worlds)}, as agents go on learning"
    remark = f"means over {width} measurement{'s' if width > 1 else ''}"
    figure, grid = frame(title, remark, looks, labels, summary, len(panels))
    axes = figure.add_subplot(grid[0], label="return")
    for look in looks:
        draw(axes, look, *binned_interval(look, _latest_returns(look), width, summary))
    _mark_frictions(axes, looks)
    axes.set_ylabel("return of an episode")
    _finish(axes, "ant_return", looks, steps, published)
    if panels:

        def finish(axes: Axes, name: str) -> None:
            _finish(axes, "ant_dormant_percent" if name == "dormant_rate" else "", looks, steps, published)

        units_panels(figure, grid[1], looks, panels, width, summary, finish)
    return figure


def _latest_returns(look: Look) -> NDArray[np.float64]:
    """[R, T]: where no episode ended, the return before, so that a mean is of the same runs everywhere."""
    returns: NDArray[np.float64] = look.line.values["return"].copy()
    failed = look.line.values["failed"] != 0
    for at in range(1, returns.shape[1]):
        missing = np.isnan(returns[:, at]) & ~failed[:, at]
        returns[missing, at] = returns[missing, at - 1]
    return returns


def _published(kind: str, look: Look, steps: int) -> dict[float, float]:
    """The points of its method, on the environment that they are of."""
    if look.line.experiment.get("env") != "Ant":
        return {}
    return {at: value for at, value in published_points(kind, look.line.method) if at <= steps}


def _finish(axes: Axes, kind: str, looks: list[Look], steps: int, published: bool) -> None:
    """The axis of steps, and the published points that it reaches."""
    if published and kind:
        for look in looks:
            points = _published(kind, look, steps)
            axes.plot(list(points), list(points.values()), **marks(look.colour), zorder=4)
    count_axis(axes, steps, "steps")


def _mark_frictions(axes: Axes, looks: list[Look]) -> None:
    """Where a run's friction changed: with its value where that is one run's and seldom, else a stroke."""
    changes: list[tuple[int, float]] = []
    for look in looks:
        frictions = look.line.values["friction"]
        for run in frictions:
            new = np.flatnonzero((run[1:] != run[:-1]) & np.isfinite(run[1:])) + 1
            changes += [(int(look.line.at[k]), float(run[k])) for k in new]
    if not changes:
        return
    across: Any = axes.get_xaxis_transform()
    one = len(looks) == 1 and looks[0].runs == 1 and len(changes) <= FEW
    for at, friction in changes:
        axes.plot([at, at], [0, 1 if one else 0.04], color=FAINT, linewidth=0.8, alpha=0.6, transform=across)
        if one:
            axes.annotate(f" friction {friction:.2g}", (at, 0.97), xycoords=across, fontsize=7.5, color=FAINT)
    if not one:
        axes.annotate(
            "friction of a run changes",
            (0.004, 0.05),
            xycoords="axes fraction",
            fontsize=7.5,
            color=FAINT,
        )
