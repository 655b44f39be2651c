"""Statistics over runs: means and interquartile means, their intervals, and bins of tasks.

Values carry the runs first, [R, ...]; a NaN is a value that is missing (a diverged run, a task not measured),
and each statistic is of those that are there.  Interquartile means and bootstrap intervals are SciPy's, which
is imported where it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.settings import option

Array = NDArray[np.float64]

LEVEL = 0.95  # of bootstrap intervals
RESAMPLES = 10_000
BLOCK = 16  # columns that are resampled together, which bounds the memory


class Interval(NamedTuple):
    """A statistic over runs with its interval, each of the shape of one run's values.

    runs: how many values are in it.
    """

    centre: Array
    low: Array
    high: Array
    runs: NDArray[np.int64]


def mean(values: Array, axis: int | tuple[int, ...] = 0) -> Array:
    """Mean of what is there along `axis`; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis), dtype=np.float64)


def interquartile_mean(values: Array) -> Array:
    """Mean over the middle half of the runs: a quarter of them, rounded down, is left out at either end.

    NaN where no run is.
    """
    from scipy.stats import trim_mean

    flat = values.reshape(len(values), -1)
    found = np.full(flat.shape[1], np.nan)
    for columns, there in _alike(flat):
        found[columns] = trim_mean(there, 0.25, axis=0)
    return found.reshape(values.shape[1:])


STATISTICS: dict[str, Callable[[Array], Array]] = {"mean": mean, "iqm": interquartile_mean}


def _alike(values: Array) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Columns of values [R, K] that have the same runs: which they are, and the values there [n, those]."""
    present = np.isfinite(values)
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for index, runs in enumerate(patterns.T):
        if runs.any():
            columns = np.flatnonzero(which.reshape(-1) == index)
            yield columns, values[runs][:, columns]


def standard_error(values: Array) -> Array:
    """Standard error of the mean over runs, the deviation taken with n - 1; 0 for a single run."""
    present = np.isfinite(values).sum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        deviation = np.nanstd(values, axis=0, ddof=1)
    error = np.where(present > 1, deviation / np.sqrt(np.maximum(present, 1)), 0.0)
    return np.asarray(np.where(present > 0, error, np.nan), dtype=np.float64)


def standard_error_interval(values: Array, statistic: str = "mean") -> Interval:
    """A statistic over runs, plus and minus one standard error; of what is no mean, its bootstrap's."""
    centre = STATISTICS[statistic](values)
    error = standard_error(values) if statistic == "mean" else _bootstrap(values, statistic)[2]
    return Interval(centre, centre - error, centre + error, _count(values))


def bootstrap_interval(
    values: Array, statistic: str = "mean", *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """A statistic over runs with a percentile bootstrap interval: runs are drawn with replacement, whole.

    For a paired comparison pass the differences run by run.  The seed is fixed, so the interval is
    reproducible; of a single run it is the run.
    """
    low, high, _ = _bootstrap(values, statistic, resamples=resamples, seed=seed)
    return Interval(STATISTICS[statistic](values), low, high, _count(values))


def _count(values: Array) -> NDArray[np.int64]:
    return np.asarray(np.isfinite(values).sum(axis=0), dtype=np.int64)


def _bootstrap(
    values: Array, statistic: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Ends of the intervals, and the standard errors, of the shape of one run's values."""
    from scipy.stats import bootstrap, trim_mean

    of_all: dict[str, Callable[..., Any]] = {
        "mean": np.mean,
        "iqm": lambda sample, axis: trim_mean(sample, 0.25, axis=axis),
    }
    flat = values.reshape(len(values), -1)
    found = np.full((3, flat.shape[1]), np.nan)
    for columns, there in _alike(flat):
        if len(there) == 1:
            found[:, columns] = there[0], there[0], np.zeros_like(there[0])
            continue
        for first in range(0, len(columns), BLOCK):
            drawn = bootstrap(
                (there[:, first : first + BLOCK],),
                of_all[statistic],
                axis=0,
                vectorized=True,
                n_resamples=resamples,
                confidence_level=LEVEL,
                method="percentile",
                rng=np.random.default_rng(seed),  # anew for each block: a column does not mind its neighbours
            )
            ends = drawn.confidence_interval
            found[:, columns[first : first + BLOCK]] = ends.low, ends.high, drawn.standard_error
    low, high, error = found.reshape(3, *values.shape[1:])
    return low, high, error


INTERVALS: dict[str, Callable[[Array, str], Interval]] = {
    "se": standard_error_interval,
    "bootstrap": bootstrap_interval,
}


@dataclass(frozen=True)
class Summary:
    """How the values of several runs become one, with an interval."""

    statistic: str = option("mean", "over runs; iqm is the interquartile mean", choices=tuple(STATISTICS))
    interval: str = option("se", "one standard error, or a 95% bootstrap interval", choices=tuple(INTERVALS))

    def __call__(self, values: Array) -> Interval:
        return INTERVALS[self.interval](values, self.statistic)

    @property
    def said(self) -> str:
        """The statistic in words."""
        return {"mean": "mean", "iqm": "interquartile mean"}[self.statistic]

    @property
    def interval_said(self) -> str:
        """The interval in words."""
        return {"se": "one standard error", "bootstrap": f"{LEVEL:.0%} bootstrap interval"}[self.interval]


def binned(values: Array, width: int) -> tuple[Array, Array]:
    """Means over bins of `width` consecutive tasks.

    values: [R, T].  Returns the middle of each bin as a task number counted from 1 [K], and the means [R, K];
    a last bin that is not full is kept where it is at least half full, or where it is the only one.
    """
    tasks = values.shape[1]
    full, rest = divmod(tasks, width)
    bins = full + (1 if 2 * rest >= width or full == 0 else 0)
    centres = np.array([(1 + k * width + min((k + 1) * width, tasks)) / 2 for k in range(bins)])
    means = [mean(values[:, k * width : (k + 1) * width], axis=1) for k in range(bins)]
    return centres, np.stack(means, axis=1)
