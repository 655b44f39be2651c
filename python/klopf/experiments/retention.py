"""What is left of tasks of before: their heads as they were, and new ones for what hidden units say now.

After a task, those of so many tasks back are asked for: with the head that was stored when they ended, and
with one that ridge regression fits to examples of them.  The first says whether an old head still fits the
units below it, the second whether the units still say what the task needs.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import klopf as kl

Array = NDArray[Any]
Floats = NDArray[np.float32]
Values = NDArray[np.float64]

LAGS = (1, 5, 20)  # tasks back that are asked for
RECALL, REFIT = ([f"{name}_{lag}" for lag in LAGS] for name in ("recall", "refit"))  # columns, by lag
RIDGE = 1e-3  # of the fit, times the mean square of what the head sees


def seen_by_head(net: kl.Network, x: Array, pixels: Mapping[str, Any] | None = None) -> Floats:
    """What the last layer sees of inputs [R, B, ...], and a one for its bias [R, B, units + 1].

    pixels: of images, scale and offset of each channel.
    """
    units = net.activities(x, **(pixels or {}))
    seen = units[-1] if units else standardised(x, pixels) if pixels else x
    seen = seen.reshape(*seen.shape[:2], -1)
    return np.concatenate([seen, np.ones_like(seen[..., :1])], axis=2)


def standardised(images: Array, pixels: Mapping[str, Any]) -> Floats:
    """As the network sees them, float32; scale and offset are one number or [C]."""
    scale, offset = (np.asarray(pixels[name], np.float32).reshape(-1, 1, 1) for name in ("scale", "offset"))
    return np.asarray(images * scale + offset, np.float32)


def heads_of(net: kl.Network) -> Array:
    """Weights and biases of the last layer [R, units + 1, outputs]."""
    learned = [a for name, a in net.state_dict().items() if name.rpartition(".")[2] in ("weight", "bias")]
    weight, bias = learned[-2:]
    return np.concatenate([weight.swapaxes(1, 2), bias[:, None]], axis=1)


def stored(kept: MutableMapping[str, Array], heads: Array) -> Array:
    """Heads of the tasks so far that may still be asked for, the latest last [R, units + 1, outputs, tasks].

    kept: where a line keeps them.  heads: of the task that has just ended.
    """
    latest = heads[..., None]
    kept["heads"] = np.concatenate([kept.get("heads", latest[..., :0]), latest], axis=3)[..., -LAGS[-1] - 1 :]
    return kept["heads"]


def refitted(seen: Floats, target: Values) -> Values:
    """New heads [R, units + 1, outputs], by ridge regression; of a run that is not finite NaN.

    seen: by heads, of examples to learn from [R, N, units + 1].  target: of each [R, N, outputs].
    """
    heads = np.full((len(seen), seen.shape[2], target.shape[2]), np.nan)
    with threadpool_limits(1):  # as in klopf.metrics: small matrices, each run by itself
        for run in _finite(seen):
            heads[run] = _ridge(seen[run].astype(np.float64), target[run])
    return heads


def _ridge(known: Values, target: Values) -> Values:
    """[units + 1, outputs] of [N, units + 1] and [N, outputs]; the smaller of two systems is solved."""
    size = known.shape[1]
    if len(known) >= size:
        square = known.T @ known
        square += RIDGE * np.trace(square) / size * np.eye(size)
        return np.linalg.solve(square, known.T @ target)
    square = known @ known.T
    square += RIDGE * np.trace(square) / size * np.eye(len(known))
    return np.asarray(known.T @ np.linalg.solve(square, target))


def said(seen: Floats, heads: Array) -> Values:
    """Outputs [R, N, outputs] of heads [R, units + 1, outputs]; of a run that is not finite NaN.

    seen: by heads [R, N, units + 1].
    """
    outputs = np.full((*seen.shape[:2], heads.shape[2]), np.nan)
    with threadpool_limits(1):
        for run in _finite(seen):
            outputs[run] = seen[run].astype(np.float64) @ heads[run].astype(np.float64)
    return outputs


def _finite(seen: Floats) -> Sequence[int]:
    return [run for run, one in enumerate(seen) if np.isfinite(one).all()]
