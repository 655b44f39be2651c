"""The figure of a stream of tasks: accuracy on each new one, and what became of the units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klopf._core import Error
from klopf.experiments.drawing import (
    FAINT,
    FEW,
    Look,
    binned_interval,
    draw,
    draw_level,
    frame,
    level_line,
    marks,
    panels_of,
    recall_panels,
    units_panels,
)
from klopf.experiments.published import curves, published_curve
from klopf.experiments.statistics import Summary, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST_TASKS = FEW
PUBLISHED_BIN = 50


def imagenet_figure(looks: list[Look], interval: Summary, bin: int | None, published: bool) -> Figure:
    """looks: lines of one or several results, of Continual ImageNet or of permuted images."""
    online = looks[0].line.name == "permuted"
    if published and online:
        raise Error("--published: there are curves of Continual ImageNet and of Ant only")
    tasks = max(look.line.values["accuracy"].shape[1] for look in looks)
    width = bin or _bin_width(tasks)
    deep = [look for look in looks if look.line.method != "linear"]  # that appears as a horizontal line only
    panels = panels_of(deep, *recall_panels("accuracy", " (%)", 100.0), UNIT_PANELS)
    labels = [look.label for look in looks] + ([f"published ({curves()['runs']} runs)"] if published else [])
    remark = (
        f"beyond the first {FIRST_TASKS} tasks in bins of {width}"
        if width > 1 and tasks > FIRST_TASKS
        else ""
    )
    title = f"{'Online accuracy' if online else 'Accuracy'} on each new task of the stream"
    figure, grid = frame(title, remark, looks, labels, interval, len(panels))
    long = tasks > FIRST_TASKS
    accuracy = grid[0].subgridspec(1, 1 + long, width_ratios=[1, 2.1][: 1 + long], wspace=0.06)
    first = figure.add_subplot(accuracy[0], label="first_tasks" if long else "accuracy")
    _accuracy(first, looks, interval, 1, FIRST_TASKS, published)
    first.set_title(f"first {min(tasks, FIRST_TASKS)} tasks" if tasks > 1 else "first task")
    first.set_ylabel("online accuracy (%)" if online else "test accuracy (%)")
    if long:
        whole = figure.add_subplot(accuracy[1], sharey=first, label="accuracy")
        _accuracy(whole, looks, interval, width, tasks, published)
        whole.set_title(f"all {tasks:,} tasks")
        whole.tick_params(labelleft=False)
    if panels:
        units_panels(figure, grid[1], deep, panels, width, interval, lambda axes, _: _task_axis(axes, tasks))
    return figure


UNIT_PANELS = (
    ("dormant_rate", "dormant units (%)", 100.0),
    ("backbone_share", "units in the backbone (%)", 100.0),
    ("effective_rank", "effective rank of the last hidden layer", 1.0),
    ("weight_magnitude", "mean weight magnitude", 1.0),
)


def _accuracy(
    axes: Axes, looks: list[Look], interval: Summary, width: int, tasks: int, published: bool
) -> None:
    """Test accuracy in percent over the first `tasks` tasks."""
    drawn = min(tasks, max(look.line.values["accuracy"].shape[1] for look in looks))
    for look in looks:
        values = 100 * look.line.values["accuracy"][:, :tasks]
        if look.line.method == "linear":
            draw_level(axes, look, interval(mean(100 * look.line.values["accuracy"], axis=1)))
        else:
            draw(axes, look, *binned_interval(look, values, width, interval))
    if published:
        _overlay(axes, looks, drawn)
    _task_axis(axes, drawn)


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
            axes.plot(list(points), list(points.values()), **marks(look.colour), zorder=4)
    for level in published_curve("linear", {}).values():
        level_line(axes, level, f"published linear {level:.1f}", FAINT)
