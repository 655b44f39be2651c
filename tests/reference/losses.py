"""The losses: each returns its value and dL/dy for outputs y [B, O]."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Integers

Loss: TypeAlias = Callable[[Array, NDArray[Any]], tuple[float, Array]]


def cross_entropy(y: Array, labels: Integers) -> tuple[float, Array]:
    """-log softmax(y)[label], mean over the batch; labels [B]."""
    shifted = y - y.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    target = np.eye(y.shape[1])[labels]
    return float(-(log_probability * target).sum(axis=1).mean()), (np.exp(log_probability) - target) / len(y)


def mse(y: Array, target: Array) -> tuple[float, Array]:
    """(y - target)^2, mean over batch and outputs; target [B, O]."""
    error = y - target
    return float((error**2).mean()), 2.0 * error / error.size


def squared_error(y: Array, target: Array) -> tuple[float, Array]:
    """Half the sum of (y - target)^2 over the outputs, mean over the batch; target [B, O]."""
    error = y - target
    return float(0.5 * (error**2).sum(axis=1).mean()), error / len(y)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "squared_error": squared_error}
