"""The figure of class-incremental learning: accuracy on all classes so far, and less that of scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klopf._core import Error
from klopf.experiments.drawing import FAINT, Look, binned_interval, draw, frame, panels_of, units_panels
from klopf.experiments.figure_imagenet import UNIT_PANELS
from klopf.experiments.incremental import scratch_of
from klopf.experiments.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def incremental_figure(looks: list[Look], interval: Summary, bin: int | None, published: bool) -> Figure:
    """looks: lines of one or several results."""
    if published:
        raise Error("--published: there are curves of Continual ImageNet and of Ant only")
    width = bin or 1
    pairs = [(look, scratch_of(look.line, [other.line for other in looks])) for look in looks]
    compared = [(look, scratch) for look, scratch in pairs if scratch is not None]
    panels = panels_of(looks, UNIT_PANELS)
    remark = f"means over {width} steps" if width > 1 else ""
    labels = [look.label for look in looks]
    figure, grid = frame("Accuracy on all classes so far", remark, looks, labels, interval, len(panels))
    above = grid[0].subgridspec(1, 1 + bool(compared), wspace=0.2)
    axes = figure.add_subplot(above[0], label="accuracy")
    for look in looks:
        draw(axes, look, *binned_interval(look, 100 * look.line.values["accuracy"], width, interval))
    axes.set_title("test accuracy (%)")
    _class_axis(axes)
    if compared:
        axes = figure.add_subplot(above[1], label="less_scratch")
        axes.axhline(0, color=FAINT, linestyle=":", linewidth=1.2, zorder=1.5)
        for look, scratch in compared:
            values, other = look.line.values["accuracy"], scratch.values["accuracy"]
            steps = min(values.shape[1], other.shape[1])  # of an experiment that goes on
            change = 100 * (values[:, :steps] - other[:, :steps])
            draw(axes, look, *binned_interval(look, change, width, interval))
        axes.set_title("less that of a network from scratch, run by run (points)")
        _class_axis(axes)
    if panels:
        units_panels(figure, grid[1], looks, panels, width, interval, lambda axes, _: _class_axis(axes))
    return figure


def _class_axis(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("classes")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
