"""The goal to be listened to, by perturbation: units learn from their reward alone."""

from dataclasses import dataclass, field

import numpy as np

from . import philox
from .arrays import Array, Integers, Mask, total
from .layers import Layer
from .units import UnitGroup, bias_corrected

GOAL_PERTURBATION = 13  # what numbers are for


@dataclass
class Perturbation:
    """What one group's units know, and what is in their weights beside their own."""

    group: UnitGroup  # with the goal's own statistics of activity
    inputs: tuple[
        int, ...
    ]  # of a unit, as its layer has them: (I,), (C, KH, KW), or (C, H, W) before it was flat
    reward: Array = field(init=False)  # [U]
    compared: Array = field(init=False)
    baseline: Array = field(init=False)
    square: Array = field(init=False)
    scale: Array = field(init=False)
    perturbation: Array = field(init=False)  # [U, fan_in + 1], the bias's last
    trace: Array = field(init=False)

    def __post_init__(self) -> None:
        units, row = self.group.size, int(np.prod(self.inputs)) + 1
        self.reward, self.compared, self.baseline, self.square, self.scale = (
            np.zeros(units) for _ in range(5)
        )
        self.perturbation, self.trace = np.zeros((units, row)), np.zeros((units, row))

    def of_engine(self, rows: Array) -> Array:
        """Rows in the engine's order, channels last, as weights [U, I] in the layer's, and the bias."""
        if len(self.inputs) == 1:
            return rows
        channels, height, width = self.inputs
        weights = rows[:, :-1].reshape(len(rows), height, width, channels)
        return np.concatenate([weights.transpose(0, 3, 1, 2).reshape(len(rows), -1), rows[:, -1:]], axis=1)

    def draw(self, seed: int, key: int, step: int) -> Array:
        """New perturbations of all units."""
        count = self.perturbation.size
        normals = philox.normals(seed, GOAL_PERTURBATION, key, step, count)
        return self.of_engine(normals.reshape(self.perturbation.shape))

    def find_rewards(self, before: Array, now: Array, counts: Mask, told: Mask) -> None:
        """From outgoing weights [K, U, Q]; counts [K] are successors that are asked, told units that vary."""
        growth = total((np.abs(now) - np.abs(before))[counts], (0, 2))
        self.reward = np.where(told, growth / np.sqrt(np.where(told, self.group.variance, 1.0)), 0.0)

    def advantages(self, follows: Mask, decay: float) -> Array:
        """Of all units, over peers and what each is used to; zeros for those that do not follow."""
        usual = self.reward[follows].mean() if follows.sum() > 1 else 0.0
        more = np.where(follows, self.reward - usual - self.baseline, 0.0)
        self.compared += follows
        share = np.where(follows, (1.0 - decay) / (1.0 - decay ** np.maximum(self.compared, 1.0)), 0.0)
        self.square += share * (more**2 - self.square)
        self.baseline += share * more
        return more / np.sqrt(np.where(self.square > 0, self.square, 1.0))

    def forget(self, units: Integers) -> None:
        """Units that begin anew: their weights are their own."""
        self.group.forget(units)
        for known in (self.reward, self.compared, self.baseline, self.square, self.scale):
            known[units] = 0.0
        self.perturbation[units] = self.trace[units] = 0.0

    def move(
        self,
        layer: Layer,
        advantage: Array,
        follows: Mask,
        drawn: Array,
        due: bool,
        rates: tuple[float, float, float],
    ) -> None:
        """Old perturbations out of the weights, a step, new ones into them; rates: step, noise, trace decay.

        Where new ones are not due, units that have one hold it.
        """
        step_size, noise, trace_decay = rates
        weight, bias = layer.weights["weight"], layer.weights["bias"]
        own = np.concatenate([weight.reshape(len(bias), -1), bias[:, None]], axis=1)
        if "wires" in layer.buffers:
            there = np.concatenate([layer.buffers["wires"], np.ones((len(bias), 1))], axis=1)
            self.perturbation, self.trace = self.perturbation * there, self.trace * there
            drawn = drawn * there
        own = own - self.scale[:, None] * self.perturbation
        size = np.sqrt(total(own**2, 1) / own.shape[1])
        self.trace = np.where(follows[:, None], trace_decay * self.trace + self.perturbation, 0.0)
        moved = own + (step_size * advantage * size)[:, None] * self.trace
        norm = np.sqrt(total(moved**2, 1) / own.shape[1])
        moved *= (size / np.where(norm > 0, norm, 1.0))[:, None]
        own[follows] = moved[follows]
        now = np.where((due | (self.scale == 0.0))[:, None], drawn, self.perturbation)
        self.perturbation = np.where(follows[:, None], now, 0.0)
        self.scale = np.where(follows, noise * size, 0.0)
        own += self.scale[:, None] * self.perturbation
        weight[...], bias[...] = own[:, :-1].reshape(weight.shape), own[:, -1]


def inputs_of(group: UnitGroup, groups: list[UnitGroup], index: int, layers: list[Layer]) -> tuple[int, ...]:
    """The shape of a unit's incoming weights; of a flattened image, its own."""
    shape = layers[group.first].weights["weight"].shape[1:]
    if index > 0 and len(shape) == 1:
        return groups[index - 1].shape
    return tuple(shape)


def varies(known: UnitGroup, decay: float) -> Mask:
    """Units whose activity is not constant, but for rounding."""
    result: Mask = known.variance > 1e-6 * bias_corrected(known.activity_trace, known.age, decay) ** 2
    return result
