"""What was run of a stream, and how its lines compare: paired differences, and what they tell."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.measures import over_part
from klopf.experiments.paired import differences
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.statistics import bootstrap_interval
from study.plan import QUESTIONS, SECOND_HALF, STREAMS
from study.stages import Line, NotRun, complete, folder_of, lines

Array = NDArray[np.float64]


class Difference(NamedTuple):
    """How much better one line is than another, run by run: the mean and its 95% interval."""

    mean: float
    low: float
    high: float


class Told(NamedTuple):
    """The rivals that a line is better than, not told from, and worse than."""

    better: list[str]
    unclear: list[str]
    worse: list[str]


class Comparison:
    """Of one stream.

    name, stream, question: which.  lines: those that were run to their end.
    criteria: columns that are compared.  shown: these, and retention with a refitted head.
    """

    def __init__(self, name: str, out: str, question: str) -> None:
        self.name, self.stream, folder = name, STREAMS[name], folder_of(name, out, question)
        self.question, self._whole = question, QUESTIONS[question].whole
        self.lines = [
            line
            for line in lines(name, out, question)
            if (folder / line.folder / "settings.json").exists() and complete(folder / line.folder)
        ]
        if not self.lines:
            raise NotRun(f"{name}: nothing was run for the {question} question")
        self._results = {line: read_results(folder / line.folder)[0] for line in self.lines}
        self.criteria = self.stream.criteria
        self.shown = (*self.criteria, *(("refit_20",) if len(self.criteria) > 1 else ()))
        self.difference = cache(self._difference)

    @property
    def whole(self) -> Line | None:
        """The line that all others are compared with, where it was run."""
        return next((line for line in self.lines if line.name == self._whole), None)

    @property
    def line_of_whole(self) -> Line:
        """The same.  Raises NotRun where it was not run."""
        if self.whole is None:
            raise NotRun(f"{self.name}: the line that all others are compared with was not run")
        return self.whole

    def results(self, line: Line) -> LineResults:
        """All that a line measured."""
        return self._results[line]

    def values(self, line: Line, column: str) -> Array:
        """Of each run over the second half of the stream [R]."""
        return over_part(self._results[line], column, SECOND_HALF)

    def _difference(self, line: Line, other: Line, column: str) -> Difference:
        sign = 1.0 if self.stream.higher else -1.0
        pair = (self._results[line], self._results[other])
        runs = sign * differences(*pair, self.values(line, column), self.values(other, column))
        interval = bootstrap_interval(runs)
        return Difference(float(interval.centre), float(interval.low), float(interval.high))

    def rivals(self, column: str) -> list[Line]:
        """Those that were tuned for a column, or for what is nearest to it."""
        tuned = self.stream.tuned_for
        tuned_for = column if column in tuned else tuned[-1]
        return [line for line in self.lines if line.role == "rival" and line.tuned_for == tuned_for]

    def others(self, column: str) -> list[Line]:
        """All that the whole is compared with: rivals, what is taken out or put in, controls."""
        return [
            *self.rivals(column),
            *(line for line in self.lines if line.role != "rival" and line.name != self._whole),
        ]

    def told(self, line: Line, column: str) -> Told:
        """What the intervals say of a line against every rival."""
        told = Told([], [], [])
        for rival in self.rivals(column):
            _, low, high = self.difference(line, rival, column)
            (told.better if low > 0 else told.worse if high < 0 else told.unclear).append(rival.name)
        return told
