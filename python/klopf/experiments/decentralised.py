"""The method `decentralised`: units with step sizes of their own, a backbone, a fringe, and goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.settings import option
from klopf.experiments.stepping import BEGIN, DECAY, SCOPES, Autostep
from klopf.experiments.unit_rules import WithRecruitment

GOALS = ("none", "active", "unit_variance", "decorrelated", "listened")
BY = ("gradient", "perturbation")


@dataclass(frozen=True)
class Decentralised(WithRecruitment, Autostep):
    """Autostep with a step size for each unit, replacement in the fringe alone, and a goal of units' own.

    Each piece can be taken out: --scope network --bound network, --meta-step-size 0, --replacement-rate 0.
    """

    short: ClassVar[str] = "decentralised"

    step_size: float = option(0.01, BEGIN, above=0)
    meta_step_size: float = option(0.1, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    scope: str = option("unit", "who owns a step size, or ObGD's bound", choices=SCOPES)
    minimum_step_size: float = option(
        0.001, "the least that step sizes of IDBD and Autostep fall to", minimum=0
    )
    maximum_step_size: float | None = option(0.1, "the most that they rise to (default: no limit)", above=0)
    output_step_size: float | None = option(
        0.005, "a fixed one for the last layer (default: learned like others)", minimum=0
    )
    weight_decay: float = option(3e-4, DECAY, minimum=0)
    goal: str = option("none", "what units want beside the network's loss", choices=GOALS)
    goal_step_size: float | None = option(None, "how fast they follow their goal (default: 0.001)", minimum=0)
    listened_by: str | None = option(
        None, "how units find out what makes them listened to (default: gradient)", choices=BY
    )
    listened_noise: float | None = option(
        None,
        "norm of perturbations, where that of a unit's incoming weights is 1 (default: 0.3)",
        above=0,
    )

    def rules(self) -> list[Any]:
        """The unit rules."""
        listened = self.goal == "listened"
        self.belongs(listened, "--goal listened", "listened_by")
        self.belongs(self.listened_by == "perturbation", "--listened-by perturbation", "listened_noise")
        self.belongs(self.goal != "none", "a --goal", "goal_step_size")
        if self.goal == "none":
            return super().rules()
        goal = kl.Goal(
            self.goal,
            step_size=1e-3 if self.goal_step_size is None else self.goal_step_size,
            units="fringe" if listened else "all",
            by=self.listened_by,
            noise=self.listened_noise,
        )
        return [*super().rules(), goal]
