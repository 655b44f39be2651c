"""Gradients by central differences in float64."""

from collections.abc import Callable

import numpy as np

from .arrays import Array


def central_difference(score: Callable[[], float], w: Array, step: float = 1e-6) -> Array:
    """d score / d w, by moving every element of w, in place, up and down by `step` and back."""
    gradient = np.zeros_like(w)
    for index in np.ndindex(*w.shape):
        held = w[index]
        w[index] = held + step
        above = score()
        w[index] = held - step
        below = score()
        w[index] = held
        gradient[index] = (above - below) / (2.0 * step)
    return gradient
