"""The picture of a network: its backbone and fringe, how useful and old units are, who listens to whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.drawing import FAINT
from klopf.experiments.society import SINGLE, Layer, Society, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BACKBONE, FRINGE, OTHER = "#56B4E9", "#E69F00", "#D0D0D0"
WITHIN, BESIDE = "#0072B2", "#808080"  # lines between units of the backbone, and others
YOUNG, OLD = 0.88, 0.0  # grey of a ring
FEW = 120  # units of two layers, of which each has two lines in each direction; of more, one
WIDE, HIGH, BELOW = 5.3, 3.5, 0.42  # of the picture, in inches, and of the names below
PITCH, ROWS = 0.34, (16, 24)  # inches from one unit to the next; how many are above each other
ROOM = 0.5  # of the width, for units
MARGIN = 0.42


class Column(NamedTuple):
    """The units of one layer, or inputs, or outputs: where they are [U], in inches.

    said: what is written below.  bar: height of the bar that stands for many.
    """

    x: Array
    y: Array
    said: str
    bar: float = 0.0


def lines_of_network(society: Society) -> list[Mask]:
    """Which of the weights that are shown are drawn."""
    return [strongest(weights, 2 if sum(weights.shape) <= FEW else 1) for weights in society.shown]


def draw_network(axes: Axes, society: Society, lines: Sequence[Mask]) -> None:
    """Units from the input side to the outputs, and the lines that are chosen."""
    axes.set_axis_off()
    axes.set_xlim(0, WIDE)
    axes.set_ylim(-BELOW, HIGH)
    columns, pitch = columns_of(society)
    belongs = [layer.backbone for layer in society.layers]
    ends = [np.ones(len(columns[0].x), bool), *belongs, np.ones(len(columns[-1].x), bool)]
    for index, (weights, chosen) in enumerate(zip(society.shown, lines, strict=True)):
        both = np.logical_and.outer(ends[index], ends[index + 1])
        _lines(axes, columns[index], columns[index + 1], weights, chosen, both)
    for column, layer in zip(columns[1:-1], society.layers, strict=True):
        _units(axes, column, layer, society.updates, pitch)
    for column in (columns[0], columns[-1]):
        if column.bar:
            axes.bar(column.x, column.bar, 0.07, column.y - column.bar / 2, color=OTHER, zorder=3)
        else:
            axes.scatter(
                column.x, column.y, 14, OTHER, marker="s", edgecolors=BESIDE, linewidths=0.6, zorder=3
            )
    aligned = [("right", 0.1), *[("center", 0.0)] * len(society.layers), ("left", -0.1)]
    for column, (side, beside) in zip(columns, aligned, strict=True):
        where = column.x.mean() + beside, -0.1
        axes.text(*where, column.said, ha=side, va="top", fontsize=letters(society), color=FAINT)


def columns_of(society: Society) -> tuple[list[Column], float]:
    """Places of inputs, units and outputs, and inches between units."""
    sizes = [layer.size for layer in society.layers]
    pitch = pitch_of(sizes)
    broad = [-(-size // _rows(size, pitch)) * pitch for size in sizes]
    gap = (WIDE - sum(broad) - 2 * MARGIN) / (len(sizes) + 1)
    inputs, outputs = len(society.weights[0]), society.weights[-1].shape[1]
    kind = "channel" if len(society.input_shape) == 3 and inputs == society.input_shape[0] else "input"
    left, columns = MARGIN, [_ends(MARGIN, inputs, kind)]
    for layer, width in zip(society.layers, broad, strict=True):
        left += gap
        said = f"layer {layer.place}\n{_counted(int(layer.living.sum()), 'unit', ' ')}"
        columns.append(Column(*_block(layer, left + width / 2, pitch), said))
        left += width
    return [*columns, _ends(left + gap, outputs, "output")], pitch


def pitch_of(sizes: Sequence[int]) -> float:
    """Inches from one unit to the next: the most that leaves room for lines between layers."""
    least, most = ROWS
    rows = min(max(sizes), min(most, max(least, -(-max(sizes) // 3))))
    while True:
        pitch = min(PITCH, HIGH / rows)
        if sum(-(-size // rows) for size in sizes) * pitch <= ROOM * WIDE:
            return pitch
        rows += 1 + rows // 20


def letters(society: Society) -> float:
    """Size of those that name layers: smaller where there are many."""
    return min(8.0, 48 / (len(society.layers) + 1))


def by_utility(layer: Layer) -> NDArray[np.int64]:
    """Units from the most useful one on; places without one come last."""
    return np.lexsort((-layer.utility, ~layer.living))


def greys(ages: Array, updates: int) -> list[str]:
    """Of rings, on a logarithmic scale."""
    share = np.log1p(ages) / np.log1p(max(updates, 1))
    return [f"{grey:.3f}" for grey in YOUNG + (OLD - YOUNG) * np.clip(share, 0, 1)]


def _rows(size: int, pitch: float) -> int:
    """How many units of a layer are above each other: as many in each file."""
    files = -(-size // int(HIGH / pitch + 1e-9))
    return -(-size // files)


def _block(layer: Layer, middle: float, pitch: float) -> tuple[Array, Array]:
    """Places of a layer's units: the most useful in the middle, one row after the other above and below."""
    size, rows = layer.size, _rows(layer.size, pitch)
    files = -(-size // rows)
    place = np.empty(size, np.int64)
    place[by_utility(layer)] = np.arange(size)
    row, file = place // files, place % files
    wide = np.minimum(files, size - row * files)  # of the outermost row there may be less
    away = (row + 1) // 2 * np.where(row % 2, 1, -1)
    shift = 0.25 * np.where(away % 2, 1, -1) if files > 1 else 0.0
    x = middle + (file - (wide - 1) / 2 + shift) * pitch
    y = HIGH / 2 + (away - (0.5 if rows % 2 == 0 else 0)) * pitch
    return x.astype(np.float64), y.astype(np.float64)


def _ends(x: float, count: int, kind: str) -> Column:
    """Inputs or outputs, one by one or as a bar."""
    said = _counted(count, kind, "\n")
    if count > SINGLE:
        return Column(np.array([x]), np.array([HIGH / 2]), said, 0.6 * HIGH)
    pitch = min(0.2, 0.9 * HIGH / count)
    y: Array = HIGH / 2 + ((count - 1) / 2 - np.arange(count, dtype=np.float64)) * pitch
    return Column(np.full(count, x), y, said)


def _counted(count: int, kind: str, between: str) -> str:
    return f"{count:,}{between}{kind}{'s' if count != 1 else ''}"


def _lines(axes: Axes, here: Column, there: Column, weights: Array, chosen: Mask, both: Mask) -> None:
    """Lines between two columns, the strongest above the others; both: of the backbone at both ends."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    i, j = np.nonzero(chosen)
    if not len(i):
        return
    order = np.argsort(weights[i, j], kind="stable")
    i, j = i[order], j[order]
    share = weights[i, j] / weights[i[-1], j[-1]]
    many = min(1.0, np.sqrt(60 / len(i)))  # the more, the lighter, so that units remain to be seen
    colours = np.where(both[i, j][:, None], to_rgb(WITHIN), to_rgb(BESIDE))
    ends = np.stack([np.column_stack([here.x[i], here.y[i]]), np.column_stack([there.x[j], there.y[j]])], 1)
    axes.add_collection(
        LineCollection(
            list(ends),
            colors=np.column_stack([colours, many * (0.08 + 0.8 * share**1.5)]),
            linewidths=(0.4 + 0.6 * many) * (0.3 + 1.9 * share),
            zorder=2,
        )
    )


def _units(axes: Axes, column: Column, layer: Layer, updates: int, pitch: float) -> None:
    """Circles of a layer's units, and dots where there is none."""
    there = layer.living
    widest = 72 * pitch * 0.88
    share = np.sqrt(np.clip(layer.utility / max(layer.utility.max(), 1e-300), 0, 1))
    axes.scatter(
        column.x[there],
        column.y[there],
        (widest * (0.25 + 0.75 * share[there])) ** 2,
        np.where(layer.backbone[there], BACKBONE, FRINGE),
        edgecolors=greys(layer.age[there], updates),
        linewidths=min(1.6, max(0.4, 0.09 * widest)),
        zorder=3,
    )
    axes.scatter(column.x[~there], column.y[~there], min(2.0, (0.3 * widest) ** 2), OTHER, zorder=3)
