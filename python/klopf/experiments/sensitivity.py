"""Sensitivity curves: what a method achieves over a part of the stream, drawn over one of its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from klopf._core import Error
from klopf.experiments.drawing import draw, draw_level, frame, looks_of
from klopf.experiments.measures import Part, columns_asked, is_relative, measure_of
from klopf.experiments.results import LineResults
from klopf.experiments.settings import frozen, suggestion, written
from klopf.experiments.statistics import Interval, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """Lines that differ in one setting only, by its value; None: of methods that do not have it."""

    label: str
    lines: dict[Any, LineResults]

    @property
    def level(self) -> bool:
        """Whether it is the same everywhere."""
        return None in self.lines

    @property
    def name(self) -> str:
        """With the number of runs that gave out."""
        lost = sum(len(line.lost) for line in self.lines.values())
        flag = list(next(iter(self.lines.values())).values)[-1]
        return f"{self.label} ({lost} {flag})" if lost else self.label


def sensitivity_figure(
    lines: Sequence[LineResults], over: str, part: Part | None, summary: Summary, column: str | None = None
) -> Figure:
    """One curve for each method and each combination of its other settings that were swept.

    over: a setting of methods, or of the experiment where several folders are drawn.
    part: of the stream; None: the one that the experiment's table compares.  column: of the results; None:
    what the experiment is judged by.  Raises kl.Error where there are not two values of the setting, or
    several lines with the same one.
    """
    measure = measure_of(lines[0])
    (judged,) = columns_asked(lines[0], [column or measure.column], part, "--column")
    name = measure.title if column is None else judged.title
    if is_relative(lines[0], column or measure.column):
        name += ", relative to a constant's"
    curves = curves_over(lines, over)
    axis = _Axis([value for curve in curves if not curve.level for value in curve.lines])
    first = [next(iter(curve.lines.values()))._replace(label=curve.label) for curve in curves]
    if not any(np.isfinite(judged.of(line)).any() for line in lines):
        raise Error(f"--column {judged.title}: it was not measured in this part of the stream")
    looks = [
        dataclasses.replace(look, label=curve.name)
        for look, curve in zip(looks_of(first), curves, strict=True)
    ]
    said = measure.part_said if part is None else f"part from {part[0]:.4g} to {part[1]:.4g}"
    title = f"{name[0].upper()}{name[1:]} over {over.replace('_', ' ')}"
    labels = [look.label for look in looks]
    figure, grid = frame(title, f"{said} of the stream", looks, labels, summary, False)
    axes = figure.add_subplot(grid[0], label=over)
    for look, curve in zip(looks, curves, strict=True):
        places = sorted(curve.lines, key=axis.place)
        found = [summary(judged.of(curve.lines[value])) for value in places]
        if curve.level:
            draw_level(axes, look, found[0])
        else:
            whole = Interval(*(np.array(column) for column in zip(*found, strict=True)))
            draw(axes, look, np.array([axis.place(value) for value in places]), whole)
    axes.set_ylabel(name)
    axes.set_xlabel(over.replace("_", " "))
    axis.finish(axes)
    if not axis.numbers:  # the file says words, not places
        figure.panels[over] = [
            drawn if drawn.x is None else drawn._replace(x=[axis.values[int(place)] for place in drawn.x])
            for drawn in figure.panels[over]
        ]
    return figure


def curves_over(lines: Sequence[LineResults], over: str) -> list[Curve]:
    """The lines sorted into curves.  Raises kl.Error as `sensitivity_figure` does."""
    having = [line for line in lines if _value(line, over) is not None]
    if not having:
        known = {*lines[0].settings, *lines[0].experiment}
        raise Error(f"--over {over}: no line has such a setting{suggestion(over, sorted(known))}")
    if len({_value(line, over) for line in having}) < 2:
        raise Error(f"--over {over}: every line has {written(_value(having[0], over))}, and no other value")
    curves: dict[tuple[Any, ...], Curve] = {}
    for line in lines:
        own = [one for one in lines if one.method == line.method]
        others = [
            name
            for name in line.settings
            if name != over and len({frozen(one.settings.get(name)) for one in own}) > 1
        ]
        fixed = [(name, frozen(line.settings[name])) for name in others]
        label = ", ".join(
            [line.method, *(f"{name.replace('_', ' ')} {written(value)}" for name, value in fixed)]
        )
        curve = curves.setdefault((line.method, *fixed), Curve(label, {}))
        value = _value(line, over)
        if value in curve.lines:
            raise Error(
                f"--over {over}: {curve.lines[value].label} and {line.label} differ in something else"
            )
        curve.lines[value] = line
    return list(curves.values())


def _value(line: LineResults, over: str) -> Any:
    """Of the setting; None where the line does not have it."""
    return frozen(line.settings.get(over, line.experiment.get(over)))


class _Axis:
    """Where values lie: numbers where they are, words side by side."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(dict.fromkeys(values))
        self.numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in self.values)
        if self.numbers:
            self.values.sort()

    def place(self, value: Any) -> float:
        """On the axis."""
        if value is None:
            return 0.0
        return float(value) if self.numbers else float(self.values.index(value))

    def finish(self, axes: Axes) -> None:
        """Scale and ticks: a logarithm where numbers are spread more evenly by it."""
        from matplotlib.ticker import NullLocator

        positive = [value for value in self.values if self.numbers and value > 0]
        if self.numbers and self.values[0] >= 0 and geometric(positive):
            if self.values[0] == 0:
                axes.set_xscale("symlog", linthresh=positive[0])
            else:
                axes.set_xscale("log")
        places = [self.place(value) for value in self.values]
        axes.set_xticks(places, [written(value) for value in self.values])
        axes.xaxis.set_minor_locator(NullLocator())


def geometric(values: Sequence[float]) -> bool:
    """Whether ascending positive numbers are spread more evenly by ratio than by difference.

    Of two: whether they lie a factor of three apart.
    """
    if len(values) < 3:
        return len(values) == 2 and values[1] >= 3 * values[0]
    steps, ratios = np.diff(values), np.diff(np.log(values))
    return bool(np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps))
