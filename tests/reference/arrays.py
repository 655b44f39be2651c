"""The one array type of the reference, and the error measure used in every tolerance."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


def mean(x: Array, axis: int) -> Array:
    """The mean over one axis."""
    return np.asarray(x.mean(axis=axis))


def total(x: Array, axis: int) -> Array:
    """The sum over one axis."""
    return np.asarray(x.sum(axis=axis))


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference over the largest expected magnitude of the array: max|a - b| / max|b|.

    Equal shapes are required. An all-zero expectation is only met by zeros (otherwise infinite), and anything
    that is not finite on one side alone counts as an infinite error.
    """
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"[relative_error] expected shape {b.shape}, got {a.shape}")
    if a.size == 0 or np.array_equal(a, b):
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    largest = float(np.abs(b).max())
    difference = float(np.abs(a - b).max())
    return difference / largest if largest > 0.0 else float("inf")
