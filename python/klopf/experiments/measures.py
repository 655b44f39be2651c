"""What an experiment is about: the column that counts, whether more of it is better, and its table.

Tables, sensitivity curves and the choice of settings all ask here; so do those who want other columns, over
another part of the stream, or errors over those of a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.experiments.results import LineResults, total_of
from klopf.experiments.retention import LAGS, RECALL, REFIT
from klopf.experiments.settings import suggestion, written
from klopf.experiments.statistics import interquartile_mean, mean

Array = NDArray[np.float64]
Form = Callable[[Any], str]
Of = Callable[[LineResults], Array]
Part = tuple[float, float]  # of the stream: from after the one share of it up to the other

FIRST_TENTH, LAST_TENTH, LAST_THIRD, WHOLE = (0.0, 0.1), (0.9, 1.0), (2 / 3, 1.0), (0.0, 1.0)
SECOND_HALF = (0.5, 1.0)
MANY = 12  # runs of which not every one is told
CONSTANT = "constant"  # the column of what a constant's error is on the latest task


@dataclass(frozen=True)
class Column:
    """A column of an experiment's table.

    title: empty where the statistic's name is enough.  of: the values of a line's runs [R].
    form: how a value is written.  text: how all of them are, where the column is no statistic with an
    interval.
    """

    title: str
    of: Of
    form: Form
    text: Callable[[Array], str] | None = None


@dataclass(frozen=True)
class Measure:
    """The column of the results that an experiment is judged by.

    higher: whether more is better.  title: of tables and axes.  factor: from the results to what is shown.
    weights: the column that says how many of what is measured a value is the mean of.
    part: of the stream, that methods are compared on; part_said: the same in words.
    beside: other columns that tell this experiment from others.  columns: of its table; the first whose title
    is `part_said`, empty, or that of the measure, is what is compared.  also: titles of others that are.
    back: columns of the results about tasks of before, in its table.
    """

    column: str
    higher: bool
    title: str
    columns: tuple[Column, ...]
    part: Part = LAST_TENTH
    part_said: str = "last tenth"
    remark: str = ""
    factor: float = 1.0
    weights: str | None = None
    beside: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    back: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[Column, ...]:
        """The columns of its table that methods are compared by."""
        first = next(one for one in self.columns if one.title in (self.part_said, "", self.title))
        return first, *(one for one in self.columns if one.title in self.also)

    def of(self, line: LineResults, part: Part | None = None) -> Array:
        """What each run of a line achieved over a part of the stream [R]; NaN where nothing is there."""
        found = over_part(line, self.column, part or self.part, self.weights)
        return np.asarray(self.factor * found, dtype=np.float64)


def over_part(line: LineResults, column: str, part: Part, weights: str | None = None) -> Array:
    """A column's mean of each run over a part of the stream [R], weighted where it has weights.

    The part is of what was measured so far; the row that it ends in where it has no row of its own.
    """
    last = int(line.at[-1])
    begin, end = (round(share * last, 6) for share in part)
    rows = (line.at > begin) & (line.at <= end)
    if not rows.any():
        rows[int(np.flatnonzero(line.at >= end)[0])] = True
    values = line.values[column][:, rows]
    if weights is None:
        return mean(values, axis=1)
    share = np.where(np.isfinite(values), line.values[weights][:, rows], 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values * share, axis=1) / share.sum(axis=1), dtype=np.float64)


def _over(column: str, part: Part, factor: float = 1.0, weights: str | None = None) -> Of:
    return lambda line: np.asarray(factor * over_part(line, column, part, weights))


def _early_and_late(column: str, change: str, factor: float, form: Form) -> tuple[Column, ...]:
    early, late = (_over(column, part, factor) for part in (FIRST_TENTH, LAST_TENTH))
    return (
        Column("first tenth", early, form),
        Column("last tenth", late, form),
        Column(change, lambda line: np.asarray(late(line) - early(line)), form),
    )


def _percent(value: Any) -> str:
    return f"{value:.1f}"


def _error(value: Any) -> str:
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.3g}"


def _short(value: Any) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _middle(values: Array) -> str:
    return _short(interquartile_mean(values)) if np.isfinite(values).any() else "-"


def _each(values: Array) -> str:
    each = np.sort(values[np.isfinite(values)])
    spread = each if len(each) <= MANY else each[[0, -1]]
    return ("  " if len(each) <= MANY else " to ").join(map(_short, spread))


def _at_the_end(column: str) -> Of:
    return lambda line: line.values[column][:, -1]


_returns = _over("return", LAST_TENTH, weights="episodes")
_BACK = (*RECALL, REFIT[-1])


def _back(part: Part, factor: float, form: Form) -> tuple[Column, ...]:
    """Columns about tasks of before."""
    titles = [f"{lag} back" for lag in LAGS]
    titles.append(f"{titles[-1]}, refitted")
    return tuple(
        Column(title, _over(name, part, factor), form) for title, name in zip(titles, _BACK, strict=True)
    )


# The first that has what was measured.
MEASURES = (
    Measure(
        "error",
        False,
        "error",
        (
            Column("error", _over("error", LAST_THIRD), "{:.2f}".format),
            Column("step size, relevant", _at_the_end("step_size_relevant"), "{:.4f}".format),
            Column("irrelevant", _at_the_end("step_size_irrelevant"), "{:.4f}".format),
        ),
        part=LAST_THIRD,
        part_said="last third",
        remark="errors over the last third; ",
        beside=("step_size_relevant", "step_size_irrelevant"),
    ),
    Measure(
        "error",
        False,
        "error",
        (
            Column("error", _over("error", SECOND_HALF), _error),
            *_back(SECOND_HALF, 1.0, _error),
        ),
        part=SECOND_HALF,
        part_said="second half",
        remark="errors over the second half; ",
        beside=_BACK[-2:],
        also=("20 back",),
        back=_BACK,
    ),
    Measure("error", False, "error", _early_and_late("error", "rise", 1.0, _error)),
    Measure(
        "accuracy",
        True,
        "accuracy (%)",
        (*_early_and_late("accuracy", "change", 100.0, _percent), *_back(LAST_TENTH, 100.0, _percent)),
        remark="tasks of before over the last tenth; ",
        factor=100.0,
        beside=_BACK[-2:],
        also=("20 back",),
        back=_BACK,
    ),
    Measure(
        "accuracy",
        True,
        "accuracy (%)",
        _early_and_late("accuracy", "change", 100.0, _percent),
        factor=100.0,
    ),
    Measure(
        "return",
        True,
        "return",
        (
            Column("", _returns, _short),
            Column("middle half", _returns, _short, _middle),
            Column("of each run", _returns, _short, _each),
        ),
        remark="returns over the last tenth; ",
        weights="episodes",
    ),
)


def measure_of(line: LineResults) -> Measure:
    """What the experiment of a line is judged by.  Raises kl.Error for one that is not known here."""
    for measure in MEASURES:
        if all(name in line.values for name in (measure.column, *measure.beside)):
            return measure
    raise Error(f"expected results that have one of {_known()}, got {', '.join(line.values)}")


def _known() -> str:
    return ", ".join(dict.fromkeys(measure.column for measure in MEASURES))


# --- what is asked for --------------------------------------------------------------------------------------


def part_of(given: Sequence[float] | None) -> Part | None:
    """From and to which share of the stream.  Raises kl.Error where there is none such."""
    if given is None:
        return None
    if len(given) != 2 or not 0 <= given[0] < given[1] <= 1:
        raise Error(f"--part must be two numbers from 0 to 1, the first below, got {written(list(given))}")
    return float(given[0]), float(given[1])


def said_of_part(lines: Sequence[LineResults], part: Part) -> str:
    """Which part of the stream it is, in what results count, where all lines are as far."""
    ends = {int(line.at[-1]) for line in lines}
    if len(ends) > 1:
        return f"part from {part[0]:.4g} to {part[1]:.4g}"
    begin, end = (int(round(share * max(ends), 6)) for share in part)
    return f"{total_of(lines[0].counter)} {begin + 1:,} to {max(begin + 1, end):,}"


def columns_asked(
    line: LineResults, names: Sequence[str], part: Part | None, flag: str = "--columns"
) -> tuple[Column, ...]:
    """Columns of the results over a part of the stream.

    names: of the results; none: what the experiment's table is about.  part: None: the one that is compared.
    flag: the option that names them.  Raises kl.Error where a column is not there.
    """
    measure, known = measure_of(line), list(line.values)[:-1]
    found = []
    for name in names or (measure.column, *measure.back):
        if name not in known:
            raise Error(
                f"{flag}: there is no column {name}{suggestion(name, known)}; there are {', '.join(known)}"
            )
        alike = name in (measure.column, CONSTANT, *RECALL, *REFIT)  # in the units of the measure
        factor, form = (measure.factor, measure.columns[0].form) if alike else (1.0, "{:.3g}".format)
        weights = measure.weights if name == measure.column else None
        title = f"{name} (%)" if factor == 100 else name
        found.append(Column(title, _over(name, part or measure.part, factor, weights), form))
    return tuple(found)


def relative(line: LineResults) -> LineResults:
    """The same with errors over that of the best constant on the same task, whose own is then 1.

    Raises kl.Error where it is not known.
    """
    if CONSTANT not in line.values:
        raise Error(f"--relative: {line.label} has no errors of a constant, as results of klopf recall have")
    constant = np.where(line.values[CONSTANT] > 0, line.values[CONSTANT], np.nan)
    values = {**line.values, "error": line.values["error"] / constant, CONSTANT: constant / constant}
    for lag, *names in zip(LAGS, RECALL, REFIT, strict=True):
        of_then = np.full_like(constant, np.nan)
        of_then[:, lag:] = constant[:, :-lag]
        values.update({name: line.values[name] / of_then for name in names})
    return line._replace(values=values)


def is_relative(line: LineResults, column: str = "error") -> bool:
    """Whether it is what `relative` gives, and a column of it is an error that it divides."""
    if column not in ("error", CONSTANT, *RECALL, *REFIT):
        return False
    constant = line.values.get(CONSTANT, np.empty(0))
    there = constant[np.isfinite(constant)]
    return there.size > 0 and bool((there == 1).all())
