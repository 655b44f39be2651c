"""What the environments ask of their bodies: observations, rewards and ends of episodes, of many at once.

The rules and the names of the options are Gymnasium's (version 5).  Arrays have a row for each simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rewards = dict[str, NDArray[Any]]  # the parts of a reward, by the names that they have in an info


@dataclass(frozen=True)
class Bodies:
    """Simulations after a step: positions, velocities, and Ant's contact forces where they are computed."""

    qpos: Array
    qvel: Array
    cfrc_ext: Array | None = None


@dataclass(frozen=True)
class Task:
    """What all have in common."""

    xml: ClassVar[str]
    frames: ClassVar[int]  # simulation steps of one of the environment's
    skipped: ClassVar[int] = 1  # positions that are not observed
    normal_velocities: ClassVar[bool] = False  # at a reset; else uniform
    follows_body: ClassVar[int | None] = None  # whose x and y tell how fast it is; else the first position

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-3
    reset_noise_scale: float = 5e-3
    exclude_current_positions_from_observation: bool = True

    @property
    def contacts(self) -> bool:
        """Whether contact forces have to be computed."""
        return False

    def observe(self, bodies: Bodies) -> Array:
        """[n, observations]"""
        first = self.skipped if self.exclude_current_positions_from_observation else 0
        return np.concatenate((bodies.qpos[:, first:], self.velocities(bodies)), axis=1)

    def velocities(self, bodies: Bodies) -> Array:
        return np.clip(bodies.qvel, -10, 10)

    def rewards(self, bodies: Bodies, x_velocity: Array, actions: NDArray[Any]) -> Rewards:
        """What is gained by moving and what it costs."""
        return {
            "reward_forward": self.forward_reward_weight * x_velocity,
            "reward_ctrl": -(self.ctrl_cost_weight * np.sum(np.square(actions), axis=1)),
        }

    def judge(
        self, bodies: Bodies, x_velocity: Array, actions: NDArray[Any]
    ) -> tuple[Rewards, NDArray[np.bool_]]:
        """The parts of the reward, and which episodes terminate, each [n]."""
        return self.rewards(bodies, x_velocity, actions), np.zeros(len(bodies.qpos), dtype=bool)


@dataclass(frozen=True)
class HalfCheetah(Task):
    """Gymnasium's HalfCheetah-v5."""

    xml: ClassVar[str] = "half_cheetah.xml"
    frames: ClassVar[int] = 5
    normal_velocities: ClassVar[bool] = True

    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1

    def velocities(self, bodies: Bodies) -> Array:
        return bodies.qvel


@dataclass(frozen=True)
class Healthy(Task):
    """One that gets a reward for being healthy, and ends where it is not."""

    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True

    def is_healthy(self, bodies: Bodies) -> NDArray[np.bool_]:
        """[n]"""
        raise NotImplementedError

    def judge(
        self, bodies: Bodies, x_velocity: Array, actions: NDArray[Any]
    ) -> tuple[Rewards, NDArray[np.bool_]]:
        healthy = self.is_healthy(bodies)
        parts = self.rewards(bodies, x_velocity, actions) | {"reward_survive": healthy * self.healthy_reward}
        return parts, ~healthy if self.terminate_when_unhealthy else np.zeros_like(healthy)


def _inside(values: Array, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (limits[0] < values) & (values < limits[1])


@dataclass(frozen=True)
class Walker2d(Healthy):
    """Gymnasium's Walker2d-v5."""

    xml: ClassVar[str] = "walker2d_v5.xml"
    frames: ClassVar[int] = 4

    healthy_z_range: tuple[float, float] = (0.8, 2.0)
    healthy_angle_range: tuple[float, float] = (-1.0, 1.0)

    def is_healthy(self, bodies: Bodies) -> NDArray[np.bool_]:
        z, angle = bodies.qpos[:, 1], bodies.qpos[:, 2]
        return _inside(z, self.healthy_z_range) & _inside(angle, self.healthy_angle_range)


@dataclass(frozen=True)
class Hopper(Walker2d):
    """Gymnasium's Hopper-v5."""

    xml: ClassVar[str] = "hopper.xml"

    healthy_z_range: tuple[float, float] = (0.7, float("inf"))
    healthy_angle_range: tuple[float, float] = (-0.2, 0.2)
    healthy_state_range: tuple[float, float] = (-100.0, 100.0)

    def is_healthy(self, bodies: Bodies) -> NDArray[np.bool_]:
        state = np.concatenate((bodies.qpos[:, 2:], bodies.qvel), axis=1)
        return super().is_healthy(bodies) & _inside(state, self.healthy_state_range).all(axis=1)


@dataclass(frozen=True)
class Ant(Healthy):
    """Gymnasium's Ant-v5, by default without contact forces, as in the published experiment in effect."""

    xml: ClassVar[str] = "ant.xml"
    frames: ClassVar[int] = 5
    skipped: ClassVar[int] = 2
    normal_velocities: ClassVar[bool] = True
    follows_body: ClassVar[int | None] = 1

    ctrl_cost_weight: float = 0.5
    reset_noise_scale: float = 0.1
    healthy_z_range: tuple[float, float] = (0.2, 1.0)
    contact_cost_weight: float = 0.0
    contact_force_range: tuple[float, float] = (-1.0, 1.0)
    include_cfrc_ext_in_observation: bool = False

    @property
    def contacts(self) -> bool:
        return self.include_cfrc_ext_in_observation or self.contact_cost_weight != 0

    def velocities(self, bodies: Bodies) -> Array:
        if not self.include_cfrc_ext_in_observation:
            return bodies.qvel
        forces = self._forces(bodies)[:, 1:]
        return np.concatenate((bodies.qvel, forces.reshape(len(forces), -1)), axis=1)

    def rewards(self, bodies: Bodies, x_velocity: Array, actions: NDArray[Any]) -> Rewards:
        parts = super().rewards(bodies, x_velocity, actions)
        if self.contacts:
            squares = np.square(self._forces(bodies))
            parts["reward_contact"] = -(self.contact_cost_weight * squares.sum(axis=(1, 2)))
        return parts

    def is_healthy(self, bodies: Bodies) -> NDArray[np.bool_]:
        finite = np.isfinite(bodies.qpos).all(axis=1) & np.isfinite(bodies.qvel).all(axis=1)
        z, (low, high) = bodies.qpos[:, 2], self.healthy_z_range
        return finite & (low <= z) & (z <= high)

    def _forces(self, bodies: Bodies) -> Array:
        assert bodies.cfrc_ext is not None
        return np.clip(bodies.cfrc_ext, *self.contact_force_range)
