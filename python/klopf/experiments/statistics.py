"""Statistics over runs: mean, standard error, paired bootstrap intervals, and bins of tasks.

Values carry the runs first, [R, ...]; a NaN is a value that is missing (a diverged run, a task not measured).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean over runs with its interval, each of the shape of one run's values."""

    mean: Array
    low: Array
    high: Array


def mean(values: Array, axis: int | tuple[int, ...] = 0) -> Array:
    """Mean of what is there along `axis`; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis), dtype=np.float64)


def standard_error(values: Array) -> Array:
    """Standard error of the mean over runs, the deviation taken with n - 1; 0 for a single run."""
    present = np.isfinite(values).sum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        deviation = np.nanstd(values, axis=0, ddof=1)
    error = np.where(present > 1, deviation / np.sqrt(np.maximum(present, 1)), 0.0)
    return np.asarray(np.where(present > 0, error, np.nan), dtype=np.float64)


def interquartile_mean(values: Array) -> Array:
    """Mean over the middle half of the runs: a quarter of them, rounded down, is left out at either end."""
    there = np.sort(values[np.isfinite(values)])
    cut = len(there) // 4
    return mean(there[cut : len(there) - cut])


def standard_error_interval(values: Array) -> Interval:
    """Mean over runs, plus and minus one standard error."""
    centre, error = mean(values), standard_error(values)
    return Interval(centre, centre - error, centre + error)


def bootstrap_interval(
    values: Array, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean over runs with a percentile bootstrap interval: runs are drawn with replacement, whole.

    For a paired comparison pass the differences run by run.  The seed is fixed, so the interval is
    reproducible.
    """
    runs = values.shape[0]
    drawn = np.random.default_rng(seed).integers(0, runs, size=(resamples, runs))
    weights = np.zeros((resamples, runs))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1.0)
    flat = values.reshape(runs, -1)
    low, high = np.empty(flat.shape[1]), np.empty(flat.shape[1])
    edges = [(1 - level) / 2, (1 + level) / 2]
    for first in range(0, flat.shape[1], 256):
        part = slice(first, first + 256)
        low[part], high[part] = _resampled(weights, flat[:, part], edges)
    shape = values.shape[1:]
    return Interval(mean(values), low.reshape(shape), high.reshape(shape))


def _resampled(weights: Array, values: Array, edges: list[float]) -> Any:
    """Quantiles [2, K] of the weighted means of values [R, K] over resamples [S, R]; NaN is left out."""
    present = np.isfinite(values)
    total = weights @ np.where(present, values, 0.0)
    count = weights @ present.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(np.where(count > 0, total / np.maximum(count, 1), np.nan), edges, axis=0)


INTERVALS = {"se": standard_error_interval, "bootstrap": bootstrap_interval}


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
