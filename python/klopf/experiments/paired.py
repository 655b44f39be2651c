"""Paired comparison: differences between runs of the same seed, which saw the same stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.experiments.place import OPERATIONAL
from klopf.experiments.results import LineResults
from klopf.experiments.settings import option_of, suggestion
from klopf.experiments.tables import Cell, Table, cell_of, number_of_runs

Array = NDArray[np.float64]

# Settings of an experiment in which lines may differ that are compared run by run: they change what learns,
# or how it is looked at, and not the stream.
_OWN = {
    *("runs", "seed", "method", "agent", "profile", "device", "precision", *OPERATIONAL),
    *("channels", "kernels", "hidden", "init"),
    *("measure_every", "metrics_every", "probe", "probe_images", "metric", "events", "recall"),
}


def compare(table: Table, name: str) -> None:
    """Add columns: how far every other line is above the one that `name` is of, run by run.

    name: a method, or a line's label.  Raises kl.Error where it is of no line or of several, or where runs
    have no seeds in common, or did not see the same stream.
    """
    base = line_of(table.lines, name)
    if len(table.lines) == 1:
        raise Error(f"--against {name}: there is no other line to compare it with")
    for column in table.compared:
        cells, counts = [], []
        for line in table.lines:
            if line is base:
                cells.append(Cell(""))
                continue
            found = differences(line, base, column.of(line), column.of(base))
            counts.append(len(found))
            cells.append(cell_of(found, column.form, table.summary))
        table.add(f"{column.title or table.summary.said}, against {base.label}", cells)
    table.remark += f"; against {base.label}: differences of {number_of_runs(counts)} of equal seed"


def line_of(lines: Sequence[LineResults], name: str) -> LineResults:
    """The line of that label, or the only one of that method."""
    for line in lines:
        if line.label == name:
            return line
    found = [line for line in lines if line.method == name]
    if not found:
        known = list(dict.fromkeys([line.label for line in lines] + [line.method for line in lines]))
        raise Error(
            f"--against {name}: there is no such line{suggestion(name, known)}; "
            f"there are {'; '.join(line.label for line in lines)}"
        )
    if len(found) > 1:
        labels = "; ".join(f"'{line.label}'" for line in found)
        raise Error(f"--against {name}: several lines are of it, name one of {labels}")
    return found[0]


def differences(line: LineResults, base: LineResults, values: Array, others: Array) -> Array:
    """What runs of `line` have more than runs of `base` of the same seed [common seeds].

    values, others: of each run [R].  Raises kl.Error where there are no such runs, or streams differ.
    """
    for name in sorted({*line.experiment, *base.experiment} - _OWN):
        one, other = line.experiment.get(name), base.experiment.get(name)
        if one != other:
            raise Error(
                f"--against {base.label}: runs of {line.label} saw another stream, "
                f"{option_of(name)} was {one} there and {other} here"
            )
    common = [seed for seed in line.seeds if seed in base.seeds]
    if not common:
        raise Error(
            f"--against {base.label}: {line.label} has no seed in common with it, "
            f"{_seeds(line)} and {_seeds(base)}"
        )
    where, there = ([one.seeds.index(seed) for seed in common] for one in (line, base))
    return np.asarray(values[where] - others[there], dtype=np.float64)


def _seeds(line: LineResults) -> str:
    return f"{line.seeds[0]} to {line.seeds[-1]}" if line.seeds else "none"
