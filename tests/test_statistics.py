"""Means, standard errors and bootstrap intervals over runs, with missing values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from klopf.experiments.statistics import (
    binned,
    bootstrap_interval,
    interquartile_mean,
    mean,
    standard_error,
    standard_error_interval,
)


def test_mean_and_standard_error() -> None:
    values = np.array([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]])
    assert mean(values).tolist() == [4.0, 2.0]
    assert standard_error(values) == pytest.approx([np.std([1, 3, 8], ddof=1) / np.sqrt(3), 0.0])
    interval = standard_error_interval(values)
    assert interval.high - interval.centre == pytest.approx(standard_error(values))
    assert interval.centre - interval.low == pytest.approx(standard_error(values))


def test_a_missing_value_is_left_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [np.nan, np.nan, np.nan]])
    assert mean(values)[:2].tolist() == [2.0, 5.0]
    assert np.isnan(mean(values)[2])
    assert standard_error(values)[:2] == pytest.approx([1.0, 0.0])
    assert np.isnan(standard_error(values)[2])
    interval = bootstrap_interval(values)
    assert interval.low[1] == interval.high[1] == 5.0
    assert np.isnan(interval.low[2])


def test_interquartile_mean() -> None:
    assert interquartile_mean(np.array([9.0, 1, 3, np.nan, 2, 100, 4, 5, -50])) == pytest.approx(3.5)
    assert interquartile_mean(np.array([1.0, 5, 6])) == 4
    assert np.isnan(interquartile_mean(np.array([np.nan])))


def test_bootstrap_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3.0, 1.0, size=(30, 400))  # 400 experiments of 30 runs
    interval = bootstrap_interval(values, resamples=2000)
    covered = float(np.mean((interval.low <= 3.0) & (interval.high >= 3.0)))
    assert 0.88 <= covered <= 0.97
    half = (interval.high - interval.low) / 2
    assert float(half.mean()) == pytest.approx(1.96 / np.sqrt(30), rel=0.1)


def test_bootstrap_is_reproducible_and_does_not_mind_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=(5, 700))
    first, second = bootstrap_interval(values, resamples=200), bootstrap_interval(values, resamples=200)
    assert np.array_equal(first.low, second.low)
    assert bootstrap_interval(values[:, 3], resamples=200).low == pytest.approx(first.low[3])


def test_paired_intervals_ignore_what_runs_share() -> None:
    shared = np.array([0.0, 10.0, 20.0, 30.0])
    interval = bootstrap_interval((shared + 1.0) - shared)
    assert (interval.low, interval.centre, interval.high) == (1.0, 1.0, 1.0)


def test_bins() -> None:
    values = np.arange(1.0, 8.0)[None]
    centres, means = binned(values, 3)
    assert centres.tolist() == [2.0, 5.0]  # a last bin of one task out of three is dropped
    assert means.tolist() == [[2.0, 5.0]]
    centres, means = binned(values, 5)
    assert centres.tolist() == [3.0]
    centres, means = binned(values, 4)
    assert centres.tolist() == [2.5, 6.0]
    assert means.tolist() == [[2.5, 6.0]]
    centres, means = binned(values, 50)
    assert centres.tolist() == [4.0]
    assert binned(values, 1)[0].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_intervals_are_scipys() -> None:
    """Column by column, with those runs that are there; the statistic is that of closed forms."""
    values = np.random.default_rng(3).normal(size=(9, 40))
    values[2, ::3] = np.nan
    values[5:, 7] = np.nan
    functions = {"mean": np.mean, "iqm": lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis)}
    for name, function in functions.items():
        found, error = bootstrap_interval(values, name), standard_error_interval(values, name)
        for column in (0, 1, 7, 39):
            there = values[np.isfinite(values[:, column]), column]
            drawn = stats.bootstrap(
                (there,),
                function,
                axis=0,
                vectorized=True,
                n_resamples=10_000,
                method="percentile",
                rng=np.random.default_rng(0),
            )
            ends = drawn.confidence_interval
            assert (found.low[column], found.high[column]) == pytest.approx((ends.low, ends.high))
            assert found.runs[column] == len(there)
            cut = len(there) // 4 if name == "iqm" else 0
            assert found.centre[column] == pytest.approx(np.sort(there)[cut : len(there) - cut].mean())
            half = stats.sem(there) if name == "mean" else drawn.standard_error
            assert error.high[column] - error.centre[column] == pytest.approx(half)


def test_a_single_run_is_its_own_interval() -> None:
    for name in ("mean", "iqm"):
        for make in (bootstrap_interval, standard_error_interval):
            interval = make(np.array([[2.0, np.nan]]), name)
            assert interval.centre[0] == interval.low[0] == interval.high[0] == 2
            assert np.isnan(interval.centre[1]) and np.isnan(interval.low[1])
            assert interval.runs.tolist() == [1, 0]
