"""How plastic a network still is, measured on a fixed batch of probe inputs: one number a run.

Several of these words have several definitions in the literature; the one used is named in each docstring.
Every result is float64 [R] and NaN for a run whose activities or weights are not all finite. Each run is
computed by itself, so that the number of runs never changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from klopf import backbone
from klopf._core import Error
from klopf.backbone import PROBE_CHUNK as PROBE_CHUNK
from klopf.backbone import Observable as Measurable
from klopf.backbone import Observed, extent

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIGNED_LEVEL = 1e-2  # a unit of signed activity is active where |y| exceeds this
BACKBONE_TOLERANCE = 1e-2  # of `backbone_share` among all metrics
_UNSIGNED = ("ReLU", "Sigmoid")  # activations whose outputs are never negative
_NORMALISING = ("LayerNorm", "BatchNorm1d", "BatchNorm2d")
_PARAMETRIC = ("Conv2d", "Linear")


def dormant_rate(
    activities: Sequence[Array],
    threshold: float = 0.01,
    signed: bool | Sequence[bool] = False,
    living: Sequence[Mask] | None = None,
) -> FloatArray:
    """Share [R] of all hidden units that are active on at most `threshold` of the probe (Dohare et al. 2024).

    `activities` holds one array per unit group, [R, B, U] or [R, B, U, H, W]. A unit is active on an input
    where y > 0, or |y| > 0.01 where `signed` (one answer for all groups, or one per group); a filter where
    any of its positions is. `living`: which units there are, of each group [R, U]; None: all.
    """
    signs = _per_group(signed, activities)
    counts = [_counts(extent(activity), sign)[0] for activity, sign in zip(activities, signs, strict=True)]
    return _dormant_share(counts, activities[0].shape[1], threshold, living or _everybody(counts))


def dead_units(activities: Sequence[Array], living: Sequence[Mask] | None = None) -> FloatArray:
    """Share [R] of all hidden units that are exactly zero, at every position, on every input of the probe.

    `activities` holds one array per unit group, [R, B, U] or [R, B, U, H, W]; `living` as in `dormant_rate`.
    """
    _per_group(False, activities)
    counts = [_counts(extent(activity), False)[1] for activity in activities]
    return _dead_share(counts, living or _everybody(counts))


def redo_dormant(
    activities: Sequence[Array], threshold: float = 0.1, living: Sequence[Mask] | None = None
) -> FloatArray:
    """Share [R] of all hidden units whose mean |y| on the probe, over the mean of their layer, is at most
    `threshold` (Sokar et al. 2023).

    `activities` holds one array per unit group, [R, B, U] or [R, B, U, H, W]; `living` as in `dormant_rate`.
    In a layer that is silent as a whole all units count.
    """
    _per_group(False, activities)
    magnitudes = [_magnitudes(activity) for activity in activities]
    return _redo_share(magnitudes, threshold, living or _everybody(magnitudes))


def _magnitudes(activity: Array) -> FloatArray:
    """Each unit's mean |y| [R, U], NaN in runs where one is not finite."""
    axes = (1, *range(3, activity.ndim))
    mean = np.abs(activity).mean(axis=axes, dtype=np.float64)
    return np.where(np.isfinite(mean).all(axis=1, keepdims=True), mean, np.nan)


def _redo_share(magnitudes: Sequence[FloatArray], threshold: float, living: Sequence[Mask]) -> FloatArray:
    chosen = [
        each * there.sum(axis=1, keepdims=True) <= threshold * each.sum(axis=1, keepdims=True)
        for each, there in zip(magnitudes, living, strict=True)
    ]
    return _share(np.concatenate(chosen, axis=1), np.concatenate(magnitudes, axis=1), living)


def _everybody(of_units: Sequence[Array]) -> list[Mask]:
    """That every unit lives [R, U]."""
    return [np.ones(each.shape[:2], np.bool_) for each in of_units]


def _per_group(signed: bool | Sequence[bool], activities: Sequence[Array]) -> list[bool]:
    """One `signed` for each group, after a look at the shapes."""
    if len(activities) == 0:
        raise Error("[metrics] expected activities of at least one unit group, got none")
    first = activities[0].shape
    for activity in activities:
        if activity.ndim not in (3, 5) or activity.shape[:2] != first[:2] or 0 in activity.shape:
            raise Error(
                "[metrics] expected activities [R, B, U] or [R, B, U, H, W], the same R and B in all groups, "
                f"got {list(activity.shape)} beside {list(first)}"
            )
    if isinstance(signed, bool):
        return [signed] * len(activities)
    if len(signed) != len(activities):
        raise Error(
            f"[metrics] expected one signed flag for each of {len(activities)} groups, got {len(signed)}"
        )
    return [bool(sign) for sign in signed]


def _counts(extents: tuple[Array, Array], signed: bool) -> tuple[FloatArray, FloatArray]:
    """On how many inputs each unit is active, and is not zero: [R, U] each, NaN where not finite.

    extents: as `backbone.extent` has them.
    """
    low, high = extents
    broken = ~(np.isfinite(low) & np.isfinite(high)).all(axis=(1, 2))
    active = (np.maximum(high, -low) > SIGNED_LEVEL) if signed else (high > 0)
    nonzero = (high != 0) | (low != 0)
    counts = active.sum(axis=1).astype(np.float64), nonzero.sum(axis=1).astype(np.float64)
    for count in counts:
        count[broken] = np.nan
    return counts


def _dormant_share(
    counts: Sequence[FloatArray], inputs: int, threshold: float, living: Sequence[Mask]
) -> FloatArray:
    """The dormant rate [R] from the number of inputs [R, U] on which each unit of each group is active."""
    every = np.concatenate(counts, axis=1) / inputs
    return _share(every <= threshold, every, living)


def _dead_share(counts: Sequence[FloatArray], living: Sequence[Mask]) -> FloatArray:
    """The dead share [R] from the number of inputs [R, U] on which each unit of each group is not zero."""
    every = np.concatenate(counts, axis=1)
    return _share(every == 0, every, living)


def _share(chosen: Mask, counts: FloatArray, living: Sequence[Mask]) -> FloatArray:
    there = np.concatenate(living, axis=1)
    with np.errstate(invalid="ignore"):  # of nobody
        share = (chosen & there).sum(axis=1) / there.sum(axis=1)
    return np.where(np.isnan(counts).any(axis=1), np.nan, share)


def effective_rank(features: Array) -> FloatArray:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007) of each run's features.

    `features` is [R, B, U], the activities of the last hidden layer ([R, B, U, H, W] counts every position as
    a column). Returns [R], between 1 and min(B, U); 0 where every feature is zero.
    """
    return _of_singular_values(features, _effective_rank)


def stable_rank(features: Array) -> FloatArray:
    """Squared Frobenius norm over squared largest singular value of each run's features: [R, B, U] -> [R].

    0 where every feature is zero.
    """
    return _of_singular_values(features, _stable_rank)


def stable_rank_99(features: Array) -> FloatArray:
    """The least number of singular values that sum to 99% of all: [R, B, U] -> [R].

    Called "stable rank" by the reference implementation of continual backprop. 0 where every feature is zero.
    """
    return _of_singular_values(features, _stable_rank_99)


def _effective_rank(values: FloatArray) -> float:
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _stable_rank(values: FloatArray) -> float:
    return float((values**2).sum())  # the largest is 1


def _stable_rank_99(values: FloatArray) -> float:
    cumulative = np.cumsum(values)
    return float(np.argmax(cumulative >= 0.99 * cumulative[-1]) + 1)


def _of_singular_values(features: Array, *measures: Callable[[FloatArray], float]) -> FloatArray:
    """Apply measures to every run's singular values over the largest: [R], or [measures, R] for several."""
    if features.ndim < 3 or 0 in features.shape:
        raise Error(f"[metrics] expected features [R, B, U], got {list(features.shape)}")
    results = np.full((len(measures), features.shape[0]), np.nan)
    # The matrices are small: on busy cores the linear algebra library's threads wait for each other far
    # longer than the work takes.
    with threadpool_limits(1):
        for run, matrix in enumerate(features):
            if not np.isfinite(matrix).all():
                continue
            largest = np.abs(matrix).max()
            if largest == 0:
                results[:, run] = 0
                continue
            scaled = matrix.reshape(matrix.shape[0], -1).astype(np.float64) / np.float64(largest)
            values = np.linalg.svd(scaled, compute_uv=False)
            results[:, run] = [measure(values / values[0]) for measure in measures]
    return results[0] if len(measures) == 1 else results


def weight_magnitude(state_dict: Mapping[str, Array]) -> FloatArray:
    """Mean |w| [R] over all connection weights of all layers together (biases and normalisation scales left
    out, and those that are not there: of units that do not live, and of wires that units do not have).

    `state_dict` is that of a network: "0.weight" [R, O, I, ...], "0.bias" [R, O], ...
    """
    weights = _connection_weights(state_dict)
    sums = sum(_absolute_sums(weight) for weight in weights.values())
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / sum(_existing(state_dict, weights).values()))


def layer_weight_magnitude(state_dict: Mapping[str, Array]) -> dict[str, FloatArray]:
    """Mean |w| [R] of each layer's connection weights, by the name they have in `state_dict`."""
    weights = _connection_weights(state_dict)
    counts = _existing(state_dict, weights)
    with np.errstate(invalid="ignore"):
        return {name: _absolute_sums(weight) / counts[name] for name, weight in weights.items()}


def _existing(state_dict: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, FloatArray]:
    """How many of each layer's weights there are [R]."""
    if not any(name.endswith((".vacant", ".wires")) for name in state_dict):
        return {name: np.full(len(w), w[0].size, np.float64) for name, w in weights.items()}
    places = [int(name.partition(".")[0]) for name in weights]
    found, before = {}, None
    for place, (name, w) in zip(places, weights.items(), strict=True):
        there = state_dict.get(f"{place}.wires", np.ones_like(w)) != 0
        (living,) = backbone.living_of(state_dict, [place])
        by_unit = there.reshape(*w.shape[:2], before.shape[1] if before is not None else 1, -1)
        by_unit = by_unit & living[:, :, None, None]
        if before is not None:
            by_unit &= before[:, None, :, None]
        found[name] = by_unit.sum(axis=(1, 2, 3)).astype(np.float64)
        before = living
    return found


def _connection_weights(state_dict: Mapping[str, Array]) -> dict[str, Array]:
    weights = {
        name: array
        for name, array in state_dict.items()
        if name.split(".")[-1] == "weight" and array.ndim >= 3 and array.size > 0
        if not _is_gain(array, state_dict.get(name.removesuffix("weight") + "bias"))
    }
    if not weights:
        raise Error(
            f"[metrics] expected weights [R, O, I, ...] in the state, got the names {list(state_dict)}"
        )
    return weights


def _is_gain(weight: Array, bias: Array | None) -> bool:
    """Whether it scales, as a normalisation's weights do: there are as many as biases."""
    return bias is not None and weight.shape == bias.shape


def _absolute_sums(weight: Array) -> FloatArray:
    """Sum of |w| of each run, [R, ...] -> [R]; NaN where one is not finite."""
    sums = np.array([np.abs(one.astype(np.float64)).ravel().sum() for one in weight])
    return np.where(np.isfinite(sums), sums, np.nan)


def backbone_share(
    net: Measurable,
    probe: Array,
    tolerance: float = BACKBONE_TOLERANCE,
    scale: Any = None,
    offset: Any = None,
) -> FloatArray:
    """Share [R] of all hidden units that the outputs on the probe depend on (`Network.backbone`).

    `probe`, `scale` and `offset` as in `measure`, `tolerance` as in `Network.backbone`.
    """
    backbone.checked_tolerance(tolerance, "metrics")
    observed = backbone.observe(net, probe, scale, offset, "metrics")
    strengths = observed.strengths()
    return backbone.share(strengths, tolerance, observed.living()) if strengths else np.full(net.runs, np.nan)


def measure(net: Measurable, probe: Array, scale: Any = None, offset: Any = None) -> dict[str, FloatArray]:
    """Every metric of this module, [R] each, on the probe inputs; the network is left as it was.

    `probe` is [B, ...] (the same for all runs) or [R, B, ...], as in `Network.activities`; `scale` and
    `offset` standardise uint8 images. Ranks are those of the last hidden layer, shares are of units that
    live; without hidden units all but the weights' magnitude are NaN.
    """
    axis = backbone.inputs_of(net, probe, "metrics")
    counts: list[list[tuple[FloatArray, FloatArray]]] = []  # by chunk and group
    sizes: list[list[FloatArray]] = []  # sums of |y|, likewise
    last: list[Array] = []
    observed = Observed(net)
    for chunk in backbone.chunks_of(probe, axis):
        activities = net.activities(chunk, scale, offset)
        if not activities:
            break
        signs = _per_group(_signed_groups(net.layers, len(activities)), activities)
        extents = [extent(activity) for activity in activities]
        counts.append([_counts(each, sign) for each, sign in zip(extents, signs, strict=True)])
        sizes.append([_magnitudes(activity) * activity.shape[1] for activity in activities])
        last.append(activities[-1])
        observed.add(chunk, scale, offset, activities, extents)
    of_units = ("dormant_rate", "redo_dormant", "dead_units", "backbone_share", *_RANKS)
    result = {name: np.full(net.runs, np.nan) for name in of_units}
    if last:
        totals = [np.sum(group, axis=0) for group in zip(*counts, strict=True)]  # [2, R, U] of each group
        active, nonzero = ([total[k] for total in totals] for k in (0, 1))
        living = observed.living()
        result["dormant_rate"] = _dormant_share(active, probe.shape[axis], 0.01, living)
        result["redo_dormant"] = _redo_share(
            [np.sum(group, axis=0) for group in zip(*sizes, strict=True)], 0.1, living
        )
        result["dead_units"] = _dead_share(nonzero, living)
        result["backbone_share"] = backbone.share(observed.strengths(), BACKBONE_TOLERANCE, living)
        ranks = _of_singular_values(np.concatenate(last, axis=1), *_RANKS.values())
        result.update(zip(_RANKS, ranks, strict=True))
    result["weight_magnitude"] = weight_magnitude(net.state_dict())
    return result


_RANKS = {"effective_rank": _effective_rank, "stable_rank": _stable_rank, "stable_rank_99": _stable_rank_99}


def _signed_groups(layers: Sequence[Any], groups: int) -> list[bool]:
    """Whether the activity of each hidden layer can be negative, by the activation after it."""
    signed: list[bool] = []
    for layer in layers:
        name = type(layer).__name__
        if name in _PARAMETRIC:
            signed.append(True)
        elif name in (*_UNSIGNED, *_NORMALISING) and signed:
            signed[-1] = name in _NORMALISING
    return signed[:groups]
