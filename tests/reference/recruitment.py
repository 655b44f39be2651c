"""Recruitment: reputations of all groups, output side first, then selection and replacement in the fringe."""

from dataclasses import dataclass

import numpy as np

from .arrays import Array, Integers, Mask
from .continual_backprop import Chance, ContinualBackprop, Settings
from .layers import Layer
from .optimizers import Optimizer
from .units import UnitGroup


@dataclass
class RecruitmentSettings(Settings):
    """Options and their names as in the engine."""

    replacement_rate: float = 1e-3
    maturity: int = 1000
    threshold: float = 0.1
    utility_decay: float = 0.999
    reputation_decay: float = 0.99999
    utility: str = "reputation"


class Recruitment(ContinualBackprop):
    """Replaces mature units outside of the backbone, those of lowest reputation first."""

    settings: RecruitmentSettings

    def __init__(self, settings: RecruitmentSettings, chance: Chance) -> None:
        super().__init__(settings, chance)
        self.reputations: list[Array] = []
        self.backbone: list[Mask] = []
        self.promoted: list[Array] = []  # ages at which units first were of the backbone, 0 before

    def apply(
        self, layers: list[Layer], groups: list[UnitGroup], activities: list[Array], optimizer: Optimizer
    ) -> list[Integers]:
        """One step; activities [B, *group.shape]. The replaced units of every group."""
        if not self.reputations:
            self.reputations = [np.zeros(group.size) for group in groups]
            self.backbone = [np.zeros(group.size, bool) for group in groups]
            self.promoted = [np.zeros(group.size) for group in groups]
        heard: Mask | slice = slice(None)  # by which of the next layer's units [K]
        for i in reversed(range(len(groups))):
            self.judge(i, groups[i], layers, activities[i], heard)
            heard = self.backbone[i]
        self.utilities = [reputation.copy() for reputation in self.reputations]
        chosen = [self.choose(i, group, self.reputations[i]) for i, group in enumerate(groups)]
        for i, group in enumerate(groups):
            if len(chosen[i]):
                self.replace(i, group, chosen[i], layers, optimizer)
                self.reputations[i][chosen[i]] = self.promoted[i][chosen[i]] = 0.0
        return chosen

    def judge(
        self, index: int, group: UnitGroup, layers: list[Layer], activity: Array, heard: Mask | slice
    ) -> None:
        """One group's reputations and backbone."""
        group.watch(activity, self.settings.utility_decay)
        w = layers[group.next].weights["weight"]
        squares = w.reshape(len(w), group.size, -1) ** 2
        contribution = group.variance * squares[heard].sum(axis=(0, 2))
        eta, slow = self.settings.utility_decay, self.settings.reputation_decay
        reputation = self.reputations[index]
        if contribution.sum() > 0:
            share = contribution / contribution.sum()
            group.utility_trace[...] = eta * group.utility_trace + (1.0 - eta) * share
            lost = slow * reputation + (1.0 - slow) * group.utility_trace
            reputation[...] = np.where(group.utility_trace > reputation, group.utility_trace, lost)
        self.backbone[index] = reputation * group.size >= self.settings.threshold
        new = self.backbone[index] & (self.promoted[index] == 0)
        self.promoted[index] = np.where(new, group.age, self.promoted[index])

    def choose(self, index: int, group: UnitGroup, utility: Array) -> Integers:
        """The units that go now, none of the backbone."""
        mature = group.age
        group.age = np.where(self.backbone[index], -1.0, mature)
        chosen = super().choose(index, group, utility)
        group.age = mature
        return chosen
