"""Continual backprop: utilities of all groups, then all selections, then replacement, input side first.

Runs after the weight update, with the activities of the forward pass before it and the weights after it.
"""

from dataclasses import dataclass
from math import floor
from typing import Protocol

import numpy as np

from .arrays import Array, Integers, Mask
from .layers import Layer
from .optimizers import Optimizer
from .units import UnitGroup, bias_corrected, fed_inputs
from .utilities import MEASURES, NOT_AVERAGED


class Chance(Protocol):
    """Everything that is drawn at random."""

    def new_incoming(self, group: int, units: Integers) -> Array:
        """Incoming weights [n, ...] for these n units of a group."""

    def new_wires(self, group: int, units: Integers) -> Array:
        """Which inputs these n units listen to [n, I], where that is not all."""

    def utility(self, group: int) -> Array:
        """The utilities [U] of the measure "random"."""

    def coin(self, group: int) -> float:
        """A number in [0, 1)."""


@dataclass
class Settings:
    """Options and their names as in the engine."""

    replacement_rate: float = 1e-4
    utility: str = "contribution"
    utility_decay: float = 0.99  # eta
    maturity: int = 100
    count_from: str = "eligible"
    count_mode: str = "accumulate"
    transfer_mean_to_bias: bool = False
    reset_optimizer_state: bool = True


class ContinualBackprop:
    """Replaces the least useful mature units, a fraction `replacement_rate` of them a step."""

    def __init__(self, settings: Settings, chance: Chance) -> None:
        self.settings, self.chance = settings, chance
        self.utilities: list[Array] = []  # bias-corrected, of the last step, before its replacement

    def apply(
        self, layers: list[Layer], groups: list[UnitGroup], activities: list[Array], optimizer: Optimizer
    ) -> list[Integers]:
        """One step; activities [B, *group.shape]. The replaced units of every group, least useful first."""
        indices = range(len(groups))
        self.utilities = [self.update(i, groups[i], layers, activities[i]) for i in indices]
        chosen = [self.choose(i, groups[i], self.utilities[i]) for i in indices]
        for i in indices:
            if len(chosen[i]):
                self.replace(i, groups[i], chosen[i], layers, optimizer)
        return chosen

    def update(self, index: int, group: UnitGroup, layers: list[Layer], activity: Array) -> Array:
        """Ages, mean activity and utility; returns the bias-corrected utility [U]."""
        eta = self.settings.utility_decay
        mean = group.watch(activity, eta)
        if self.settings.utility == "random":
            return self.chance.utility(index)
        now = MEASURES[self.settings.utility](group.observe(layers, activity, mean))
        if self.settings.utility in NOT_AVERAGED:
            return now
        group.utility_trace[...] = eta * group.utility_trace + (1.0 - eta) * now
        return bias_corrected(group.utility_trace, group.age, eta)

    def choose(self, index: int, group: UnitGroup, utility: Array) -> Integers:
        """The units that go now."""
        eligible = (group.age > self.settings.maturity) & group.living
        coin, everybody = self.chance.coin(index), int(group.living.sum())
        due, group.carry = replacements_due(self.settings, eligible, everybody, group.carry, coin)
        return select(utility, eligible, due)

    def replace(
        self, index: int, group: UnitGroup, units: Integers, layers: list[Layer], optimizer: Optimizer
    ) -> None:
        """New incoming weights; zero bias, outgoing weights and statistics; state forgotten if asked."""
        if self.settings.transfer_mean_to_bias:
            transfer_mean(group, units, layers, self.settings.utility_decay)
        incoming, outgoing = layers[group.first].weights, layers[group.next].weights
        fed = fed_inputs(group, units, layers)
        incoming["weight"][units] = self.chance.new_incoming(index, units)
        incoming["bias"][units] = 0.0
        if "wires" in layers[group.first].buffers:
            layers[group.first].buffers["wires"][units] = self.chance.new_wires(index, units)
        outgoing["weight"][:, fed] = 0.0
        between = range(group.first + 1, group.next)
        begun = {at: layers[at].begin(units, group.size) for at in between}
        group.forget(units)
        group.living[units] = True
        if self.settings.reset_optimizer_state:
            optimizer.reset(f"{group.first}.weight", units)
            optimizer.reset(f"{group.first}.bias", units)
            optimizer.reset(f"{group.next}.weight", (slice(None), fed))
            for at, names in begun.items():
                for name, numbers in names:
                    shape = layers[at].weights[name].shape
                    optimizer.reset(f"{at}.{name}", np.unravel_index(numbers, shape))


def replacements_due(
    settings: Settings, eligible: Mask, everybody: int, carry: float, coin: float
) -> tuple[int, float]:
    """(how many units go now, the carry that is left).

    accumulate: the carry grows by rate * units; its integer part goes, if eligible; the rest stays.
    bernoulli: rate * units rounded down above one, below one a coin in [0, 1) is less than it; no carry.
    """
    mature = int(eligible.sum())
    if mature == 0:
        return 0, carry
    due = settings.replacement_rate * (mature if settings.count_from == "eligible" else everybody)
    if settings.count_mode == "bernoulli":
        count = int(coin < due) if due < 1.0 else floor(due)
        return min(count, mature), carry
    carry += due
    count = min(floor(carry), mature)
    return count, carry - count


def select(utility: Array, eligible: Mask, count: int) -> Integers:
    """The `count` eligible units of lowest utility: equal ones in the order of their index, NaN last."""
    candidates = np.flatnonzero(eligible)
    order = np.argsort(utility[candidates], kind="stable")  # NumPy sorts NaN last
    chosen: Integers = candidates[order[:count]]
    return chosen


def transfer_mean(group: UnitGroup, units: Integers, layers: list[Layer], decay: float) -> None:
    """next bias += outgoing weights * f: what the units contributed on average stays."""
    mean = bias_corrected(group.activity_trace, group.age, decay)[units]
    following = layers[group.next].weights
    w = following["weight"]
    per_output = w.reshape(len(w), group.size, -1).sum(axis=2)  # [K, U], over positions or kernel elements
    following["bias"] += per_output[:, units] @ mean
