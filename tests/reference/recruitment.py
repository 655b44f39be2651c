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
    dormancy: float = 0.0
    growth_period: int = 0
    candidates: int = 1
    tolerated_error: float = 0.0
    progress: float = 0.05
    backprop_in_fringe: bool = True
    utility: str = "reputation"


class Recruitment(ContinualBackprop):
    """Replaces mature units outside of the backbone, those of lowest reputation first."""

    settings: RecruitmentSettings
    loss: float  # of the step

    def __init__(self, settings: RecruitmentSettings, chance: Chance) -> None:
        super().__init__(settings, chance)
        self.reputations: list[Array] = []
        self.backbone: list[Mask] = []
        self.steps, self.running_error, self.last_error = 0, 0.0, 0.0
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
        if self.error_stays():
            for i, group in enumerate(groups):
                hears_somebody = i == 0 or groups[i - 1].living.any()
                wanted = (group.living & ~self.backbone[i]).sum() < self.settings.candidates
                if wanted and hears_somebody and not group.living.all():
                    chosen[i] = np.append(chosen[i], np.flatnonzero(~group.living)[0])
        for i, group in enumerate(groups):
            if len(chosen[i]):
                self.replace(i, group, chosen[i], layers, optimizer)
                self.reputations[i][chosen[i]] = self.promoted[i][chosen[i]] = 0.0
        return chosen

    def cut(self, layers: list[Layer], groups: list[UnitGroup]) -> None:
        """The loss says nothing to the fringe, as it was before the step, where that is asked for."""
        if self.settings.backprop_in_fringe:
            return
        for i, group in enumerate(groups):
            fringe = ~self.backbone[i] if self.backbone else np.ones(group.size, bool)
            for gradient in layers[group.first].gradients.values():
                gradient[fringe] = 0.0

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
            mean = group.variance.sum() / max(group.living.sum(), 1)
            dormant = group.variance < self.settings.dormancy * mean
            kept = np.where(dormant, eta, slow)
            lost = kept * reputation + (1.0 - kept) * group.utility_trace
            reputation[...] = np.where(group.utility_trace > reputation, group.utility_trace, lost)
        even = reputation * group.living.sum()
        self.backbone[index] = group.living & (even >= self.settings.threshold)
        new = self.backbone[index] & (self.promoted[index] == 0)
        self.promoted[index] = np.where(new, group.age, self.promoted[index])

    def error_stays(self) -> bool:
        """Whether the running loss is too high, and has not fallen enough since the last look."""
        eta, period = self.settings.utility_decay, self.settings.growth_period
        self.steps += 1
        self.running_error = eta * self.running_error + (1.0 - eta) * self.loss
        if period == 0 or self.steps % period > 0:
            return False
        error, last = self.running_error / (1.0 - eta**self.steps), self.last_error
        self.last_error = error
        return error > self.settings.tolerated_error and error >= (1.0 - self.settings.progress) * last

    def choose(self, index: int, group: UnitGroup, utility: Array) -> Integers:
        """The units that go now, none of the backbone."""
        mature = group.age
        group.age = np.where(self.backbone[index], -1.0, mature)
        chosen = super().choose(index, group, utility)
        group.age = mature
        return chosen
