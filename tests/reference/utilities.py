"""The utility measures: what one step says about the usefulness of every unit of a group.

A unit has P positions: P = 1 in a fully connected layer, H * W for a filter. Its consumers see `activity`
[B, U, P] through `outgoing` weights [U, Q, K], K at a position: Q = P where every position has its own
(a filter before a flattened linear layer), Q = 1 where all share them. `incoming` weights [U, I], no bias.
`mean_activity` [U] is f, the bias-corrected running mean of the activity, the current batch included, and
`variance` [U] is over all positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arrays import Array, mean, total


@dataclass
class Observation:
    """What a utility measure may look at."""

    activity: Array  # [B, U, P]
    mean_activity: Array  # [U]
    variance: Array  # [U], running
    incoming: Array  # [U, I]
    outgoing: Array  # [U, Q, K]


def outgoing_magnitude(seen: Observation) -> Array:
    """sum_k |w_k| at every position: [U, Q]."""
    return total(np.abs(seen.outgoing), axis=2)


def incoming_magnitude(seen: Observation) -> Array:
    """Mean absolute incoming weight: [U]."""
    return mean(np.abs(seen.incoming), axis=1)


def magnitude(seen: Observation) -> Array:
    """Batch mean of |y|: [U, P]."""
    return mean(np.abs(seen.activity), axis=0)


def deviation(seen: Observation) -> Array:
    """Batch mean of |y - f|: [U, P]."""
    return mean(np.abs(seen.activity - seen.mean_activity[:, None]), axis=0)


def contribution(seen: Observation) -> Array:
    return mean(outgoing_magnitude(seen) * magnitude(seen), axis=1)


def zero_contribution(seen: Observation) -> Array:
    return mean(outgoing_magnitude(seen) * deviation(seen), axis=1)


def adaptable_contribution(seen: Observation) -> Array:
    return quotient(zero_contribution(seen), incoming_magnitude(seen))


def weight(seen: Observation) -> Array:
    return mean(outgoing_magnitude(seen), axis=1)


def adaptation(seen: Observation) -> Array:
    return quotient(np.ones(len(seen.incoming)), incoming_magnitude(seen))


def feature_by_input(seen: Observation) -> Array:
    return quotient(mean(deviation(seen), axis=1), incoming_magnitude(seen))


def variance_contribution(seen: Observation) -> Array:
    return np.asarray(seen.variance * (seen.outgoing**2).sum(axis=(1, 2)))


def quotient(numerator: Array, denominator: Array) -> Array:
    """Zero where there is nothing to divide by: a unit that hears nothing is of no use."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), 0.0)


# "random" is missing here: it looks at nothing and is drawn by the rule at every step.
MEASURES: dict[str, Callable[[Observation], Array]] = {
    "contribution": contribution,
    "zero_contribution": zero_contribution,
    "adaptable_contribution": adaptable_contribution,
    "weight": weight,
    "adaptation": adaptation,
    "feature_by_input": feature_by_input,
    "variance_contribution": variance_contribution,
}
NOT_AVERAGED = ("random", "variance_contribution")
