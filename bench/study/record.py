"""What every run achieved, as CSV: small enough to keep, and all that the tables are made from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.measures import over_part
from klopf.experiments.results import LineResults, read_results
from klopf.files import atomic_write
from study.comparison import Comparison
from study.plan import SECOND_HALF, Options
from study.stages import folder_of, swept

Row = dict[str, str | int]


def write(of: Comparison, out: str) -> None:
    """A row a run: `<stream>.csv` (not of the first question: `<stream>-<question>.csv`), and trials."""
    trials = folder_of(of.name, out)
    _write(Path(f"{folder_of(of.name, out, of.question)}.csv"), _compared(of))
    _write(Path(f"{trials}-trials.csv"), _trials(of, trials / "trials"))


def said(options: Options) -> str:
    """Options as words of the command line."""
    return " ".join(" ".join((option, *given)) for option, given in options.items())


def _compared(of: Comparison) -> Iterator[Row]:
    for line in of.lines:
        role = f"{line.role} for {line.tuned_for}" if line.tuned_for else line.role
        first: Row = {"line": line.name, "role": role, "options": said(line.options)}
        yield from _rows(first, of.results(line), {name: of.values(line, name) for name in of.shown})


def _trials(of: Comparison, folder: Path) -> Iterator[Row]:
    for method, grid in of.stream.trials.items():
        for trial in read_results(folder / method):
            options = {option: [f"{value:g}"] for option, value in swept(trial, grid).items()}
            first: Row = {"line": method, "options": said(options)}
            yield from _rows(first, trial, {name: over_part(trial, name, SECOND_HALF) for name in of.shown})


def _rows(first: Row, line: LineResults, found: dict[str, NDArray[np.float64]]) -> Iterator[Row]:
    for run, seed in enumerate(line.seeds):
        values = {name: f"{of_runs[run]:.6g}" for name, of_runs in found.items()}
        yield {**first, "seed": seed, **values, "lost": int(run in line.lost)}


def _write(path: Path, rows: Iterable[Row]) -> None:
    all_rows = list(rows)
    with atomic_write(path, "w") as file:
        table = csv.DictWriter(file, list(all_rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(all_rows)
