"""Ant on a floor whose friction changes now and then."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.utils import EzPickle

from klopf._core import Error

EVERY = 2_000_000
RANGE = (0.02, 2.0)


class Friction:
    """One run's: drawn at birth, and at the first end of an episode at least `every` steps after the last
    draw, log-uniformly from a range (Dohare et al. 2024).

    value: sliding friction.
    """

    def __init__(self, seed: int | None, every: int = EVERY, limits: tuple[float, float] = RANGE) -> None:
        self._every, self._limits = every, limits
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Begin anew."""
        self.generator = np.random.default_rng(None if seed is None else [seed, 1])
        self._draw()

    def _draw(self) -> None:
        low, high = np.log(self._limits)
        self.value = float(np.exp(self.generator.uniform(low, high)))
        self.steps = 0  # since then

    def end_of_episode(self) -> bool:
        """Whether it changes."""
        due = self.steps >= self._every
        if due:
            self._draw()
        return due


def geoms_with(friction_of: str, model: Any) -> Any:
    """The geoms whose friction changes: of the "floor", or "all".

    Raises kl.Error for other names.
    """
    if friction_of not in ("floor", "all"):
        raise Error(f'[SlipperyAnt] friction_of must be "floor" or "all", got "{friction_of}"')
    return slice(None) if friction_of == "all" else model.geom("floor").id


def of_geoms(value: float) -> tuple[float, float, float]:
    """Sliding, torsional and rolling friction."""
    return (value, 0.5, 0.5)


class SlipperyAntEnv(AntEnv):
    """Gymnasium's Ant-v5 on such a floor.

    friction_every: steps between changes, at least.
    friction_range: from which friction is drawn.
    friction_of: the "floor", or "all": MuJoCo takes the larger one of two bodies in contact, and the ant's
        own is 1.
    """

    def __init__(
        self,
        friction_every: int = EVERY,
        friction_range: tuple[float, float] = RANGE,
        friction_of: str = "floor",
        **options: Any,
    ) -> None:
        self.friction = Friction(None, friction_every, friction_range)
        super().__init__(**options)
        self._geoms = geoms_with(friction_of, self.model)
        # Not Ant's own.
        EzPickle.__init__(self, friction_every, friction_range, friction_of, **options)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self.friction.seed(seed)
        else:
            self.friction.end_of_episode()
        self.model.geom_friction[self._geoms] = of_geoms(self.friction.value)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.friction.steps += 1
        step: Any = super().step
        return step(action)
