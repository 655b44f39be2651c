"""The units of a network: what feeds them, what they feed, and the statistics that a rule keeps."""

from dataclasses import dataclass, field

import numpy as np

from .arrays import Array, Integers, Mask
from .layers import Layer
from .utilities import Observation


@dataclass
class UnitGroup:
    """The units of one hidden layer, from a parametric layer to the next one.

    `first` and `next` are the indices of those layers in the network. `shape` is the activity of one image as
    the next layer sees it, after activation and pooling but before flattening: (U,) or (U, H, W).
    """

    first: int
    next: int
    shape: tuple[int, ...]
    age: Array = field(init=False)  # [U] parameter updates since birth
    utility_trace: Array = field(init=False)  # [U] before bias correction
    activity_trace: Array = field(init=False)  # [U] before bias correction
    variance: Array = field(init=False)  # [U] of the activity, bias-corrected
    living: Mask = field(init=False)  # [U]
    carry: float = 0.0  # replacements that are due, with their fraction

    def __post_init__(self) -> None:
        self.age, self.utility_trace, self.activity_trace, self.variance = (
            np.zeros(self.size) for _ in range(4)
        )
        self.living = np.ones(self.size, bool)

    @property
    def size(self) -> int:
        return self.shape[0]

    def observe(self, layers: list[Layer], activity: Array, mean_activity: Array) -> Observation:
        """What the utility measures see; activity is [B, *shape], mean_activity [U]."""
        incoming = layers[self.first].weights["weight"].reshape(self.size, -1)
        return Observation(
            activity=activity.reshape(len(activity), self.size, -1),
            mean_activity=mean_activity,
            variance=self.variance,
            incoming=incoming,
            outgoing=np.moveaxis(self.outgoing(layers), 0, 2),
        )

    def watch(self, activity: Array, decay: float) -> Array:
        """One step older, with a batch of activities; the bias-corrected running mean [U]."""
        batch = activity.reshape(len(activity), self.size, -1)
        mean, before = batch.mean(axis=(0, 2)), bias_corrected(self.activity_trace, self.age, decay)
        self.age += 1.0
        share = (1.0 - decay) / (1.0 - decay**self.age)
        self.variance[...] = (1.0 - share) * (self.variance + share * (mean - before) ** 2)
        self.variance += share * batch.var(axis=(0, 2))
        self.activity_trace[...] = decay * self.activity_trace + (1.0 - decay) * mean
        return bias_corrected(self.activity_trace, self.age, decay)

    def forget(self, units: Integers) -> None:
        """What was known of these units."""
        for statistic in (self.age, self.utility_trace, self.activity_trace, self.variance):
            statistic[units] = 0.0

    def vacate(self, layers: list[Layer]) -> None:
        """Nothing is where no unit lives."""
        vacant = np.flatnonzero(~self.living)
        for array in layers[self.first].weights.values():
            array[vacant] = 0.0
        layers[self.next].weights["weight"][:, fed_inputs(self, vacant, layers)] = 0.0
        self.forget(vacant)

    def outgoing(self, layers: list[Layer]) -> Array:
        """Outgoing weights, to read: [K, U, Q] of a linear layer, [K * kernel^2, U, 1] of a convolution."""
        w = layers[self.next].weights["weight"]
        if w.ndim == 4:
            return np.moveaxis(w, 1, 3).reshape(-1, self.size)[:, :, None]
        return w.reshape(len(w), self.size, -1)


def fed_inputs(group: UnitGroup, units: Integers, layers: list[Layer]) -> Integers:
    """Indices on the input axis of the next layer's weight that read these units."""
    positions = layers[group.next].weights["weight"].shape[1] // group.size
    fed: Integers = units[:, None] * positions + np.arange(positions)
    return fed.ravel()


def bias_corrected(trace: Array, age: Array, decay: float) -> Array:
    """trace / (1 - decay^age), zero for a unit of age zero."""
    correction = 1.0 - decay**age
    return np.where(age > 0, trace / np.where(age > 0, correction, 1.0), 0.0)


def find_units(layers: list[Layer], input_shape: tuple[int, ...]) -> list[UnitGroup]:
    """One group for every parametric layer but the last, input side first."""
    for index, layer in enumerate(layers):
        if layer.parametric and "weight" not in layer.weights:
            raise ValueError(f"[find_units] expected loaded weights, got none in layer {index}")
    x = np.zeros((1, *input_shape))
    groups: list[UnitGroup] = []
    source: int | None = None
    shape: tuple[int, ...] = ()
    for index, layer in enumerate(layers):
        if layer.parametric:
            if source is not None:
                groups.append(UnitGroup(source, index, shape))
            source = index
        layer.training = False
        x = layer.forward(x)
        layer.training = True
        if x.ndim == 4 or layer.parametric:  # not flattened
            shape = x.shape[1:]
    return groups
