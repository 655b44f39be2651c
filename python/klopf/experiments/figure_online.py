"""The figure of a stream learned example by example: error, that on tasks of before, and what became of units
or step sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klopf._core import Error
from klopf.experiments.drawing import (
    Look,
    binned_interval,
    count_axis,
    draw,
    frame,
    panels_of,
    recall_panels,
    units_panels,
)
from klopf.experiments.measures import is_relative
from klopf.experiments.results import total_of
from klopf.experiments.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 100  # of a curve, where there are more measurements

_ROWS = (
    *recall_panels("error"),
    (
        ("step_size_relevant", "step sizes of inputs that matter", 1.0),
        ("step_size_irrelevant", "of those that do not", 1.0),
        ("dormant_rate", "dormant units (%)", 100.0),
        ("backbone_share", "units in the backbone (%)", 100.0),
        ("weight_magnitude", "mean weight magnitude", 1.0),
    ),
)
_TITLES = {"track": "Error as a target drifts", "recall": "Error on each new task of the stream"}


def online_figure(looks: list[Look], summary: Summary, bin: int | None, published: bool) -> Figure:
    """looks: lines of one or several results."""
    if published:
        raise Error("--published: there are curves of Continual ImageNet and of Ant only")
    rows = max(len(look.line.at) for look in looks)
    last = max(int(look.line.at[-1]) for look in looks)
    width = bin or max(1, round(rows / POINTS))
    panels = panels_of(looks, *_ROWS)
    counted = total_of(looks[0].line.counter)
    title = _TITLES.get(looks[0].line.name, "Error on each stretch of the stream")
    remark = f"means over {width} {'task' if counted == 'tasks' else 'measurement'}{'s' if width > 1 else ''}"
    labels = [look.label for look in looks]
    figure, grid = frame(title, remark, looks, labels, summary, len(panels))
    axes = figure.add_subplot(grid[0], label="error")
    for look in looks:
        draw(axes, look, *binned_interval(look, look.line.values["error"], width, summary))
    relative = is_relative(looks[0].line)
    axes.set_ylabel("error relative to a constant's" if relative else "mean squared error")
    axes.set_ylim(bottom=0)
    count_axis(axes, last, counted)
    if panels:

        def finish(axes: Axes, name: str) -> None:
            if name.startswith("step_size"):
                axes.set_yscale("log")
            elif name.startswith(("recall", "refit")):
                axes.set_ylim(bottom=0)
            count_axis(axes, last, counted)

        units_panels(figure, grid[1], looks, panels, width, summary, finish)
    return figure
