"""Units that choose their wires: the weakest mature ones are dropped, and others tried."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor

import numpy as np

from .arrays import Array, Integers
from .layers import Layer
from .optimizers import Optimizer
from .units import UnitGroup


@dataclass
class Rewire:
    """Options and their names as in the engine.  tried(group, unit): wires [I] that the unit now has."""

    tried: Callable[[int, int], Array]
    replacement_rate: float = 1e-4
    maturity: int = 1000
    reset_optimizer_state: bool = True
    age: dict[int, Array] = field(default_factory=dict)  # [U, I]
    carry: dict[int, Array] = field(default_factory=dict)  # [U]

    def apply(
        self, layers: list[Layer], groups: list[UnitGroup], replaced: list[Integers], optimizer: Optimizer
    ) -> int:
        """One step; how many wires were dropped."""
        dropped = 0
        for i, group in enumerate(groups):
            wires = layers[group.first].buffers.get("wires")
            if wires is None:
                continue
            age = self.age.setdefault(i, np.zeros_like(wires))
            carry = self.carry.setdefault(i, np.zeros(group.size))
            weight = layers[group.first].weights["weight"]
            for unit in range(group.size):
                if unit in replaced[i] or not group.living[unit]:
                    age[unit], carry[unit] = 0.0, 0.0
                    continue
                age[unit] += wires[unit]
                order = inputs_in_order(layers[group.first - 1], wires.shape[1])
                mature = order[((wires[unit] > 0) & (age[unit] > self.maturity))[order]]
                carry[unit] += self.replacement_rate * len(mature)
                count = min(floor(carry[unit]), len(mature), int((wires[unit] == 0).sum()))
                carry[unit] -= count
                if count == 0:
                    continue
                dropped += count
                gone = mature[np.argsort(np.abs(weight[unit, mature]), kind="stable")[:count]]
                new = np.flatnonzero((self.tried(i, unit) > 0) & (wires[unit] == 0))
                wires[unit, gone], wires[unit, new] = 0.0, 1.0
                for places in (gone, new):
                    age[unit, places], weight[unit, places] = 0.0, 0.0
                    if self.reset_optimizer_state:
                        optimizer.reset(f"{group.first}.weight", (np.full(len(places), unit), places))
        return dropped


def inputs_in_order(before: Layer, count: int) -> Integers:
    """Inputs as the engine has them, which tells equal weights apart: of flattened images pixel by pixel."""
    shape: tuple[int, ...] = getattr(before, "x_shape", (0, count))[1:]
    return np.moveaxis(np.arange(count).reshape(shape), 0, -1).ravel()
