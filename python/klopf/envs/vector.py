"""Environments for R runs in lockstep."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.envs import EPISODE_STEPS
from klopf.envs.needed import gymnasium, mujoco
from klopf.envs.simulators import BatchSimulators, Ids, ObjectSimulators
from klopf.envs.slippery import EVERY, RANGE, Friction, geoms_with, of_geoms
from klopf.envs.tasks import Ant, Array, Bodies, HalfCheetah, Hopper, Task, Walker2d

from gymnasium.envs.mujoco.mujoco_env import expand_model_path  # isort: skip
from gymnasium.utils import seeding  # isort: skip
from gymnasium.vector import AutoresetMode  # isort: skip
from gymnasium.vector.utils import batch_space  # isort: skip


class MujocoVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Simulations of one task, stepped together; each is what Gymnasium's environment would be by itself.

    An episode that ends is followed by the next within the same step: the observation is the next one's
    first, and the last one is in info["final_obs"].  A simulation that fails is marked in `failed` and stands
    still from then on, at reward 0; the others go on.

    num_envs: R.
    max_episode_steps: after which an episode is truncated.
    threads: of the simulator; 0: all processors.
    friction_every: with a number, the floor's friction changes after so many steps at least (`Friction`).
    friction_range: from which it is drawn; None: .02 to 2.
    friction_of: the "floor" (None), or "all": MuJoCo takes the larger one of two bodies in contact, and the
        ant's own is 1.

    Raises kl.Error where an option does not fit.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        *,
        max_episode_steps: int = EPISODE_STEPS,
        threads: int = 0,
        friction_every: int | None = None,
        friction_range: tuple[float, float] | None = None,
        friction_of: str | None = None,
    ) -> None:
        for option, given in (("friction_range", friction_range), ("friction_of", friction_of)):
            if friction_every is None and given is not None:
                raise Error(f"[{type(task).__name__}] {option} needs friction_every, or klopf/SlipperyAnt-v0")
        numbers = (
            ("num_envs", num_envs, 1),
            ("max_episode_steps", max_episode_steps, 1),
            ("threads", threads, 0),
        )
        for name, value, least in numbers:
            if value < least:
                raise Error(f"[{type(task).__name__}] {name} must be at least {least}, got {value}")
        if friction_range is not None and not 0 < friction_range[0] <= friction_range[1] < np.inf:
            limits = f"friction_range must be two rising numbers above 0, got {friction_range}"
            raise Error(f"[{type(task).__name__}] {limits}")
        self.task, self.num_envs = task, num_envs
        self._limit = max_episode_steps
        model = mujoco.MjModel.from_xml_path(expand_model_path(task.xml))
        # MuJoCo would put a body whose numbers gave out back to its start, and say nothing of it.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        simulators = ObjectSimulators if task.contacts else BatchSimulators
        self.simulators = simulators(model, num_envs, threads)
        self._start = np.array(model.qpos0), np.zeros(model.nv)
        self._seconds = model.opt.timestep * task.frames

        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.single_action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        observed = task.observe(self.bodies()).shape[1]
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (observed,), np.float64)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        self.failed = np.zeros(num_envs, dtype=bool)
        self.steps = np.zeros(num_envs, dtype=np.int64)  # of the episode so far
        self._before = np.zeros(num_envs)  # x, of which the velocity is the change
        self._observations = np.zeros((num_envs, observed))
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._geoms = geoms_with(friction_of or "floor", model)
        self.frictions: list[Friction] = []  # one a run where it changes
        if friction_every is not None:
            self.frictions = [
                Friction(None, friction_every, friction_range or RANGE) for _ in range(num_envs)
            ]

    def bodies(self, ids: Ids | slice = slice(None)) -> Bodies:
        """Positions, velocities and forces of some."""
        all_forces = self.simulators.cfrc_ext
        forces = None if all_forces is None else all_forces[ids]
        return Bodies(self.simulators.qpos[ids], self.simulators.qvel[ids], forces)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New episodes of all: observations [R, observations], and an info.

        seed: of the first run, the others' follow it; or one for each.
        """
        if isinstance(seed, Sequence):
            seeds = list(seed)
        else:
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise Error(
                f"[reset] seed must be one number or {self.num_envs}, one for each environment, "
                f"got {len(seeds)}"
            )
        for i, one in enumerate(seeds):
            if one is not None:
                self._generators[i] = seeding.np_random(one)[0]
        for i, (friction, one) in enumerate(zip(self.frictions, seeds, strict=False)):
            if one is None:
                friction.end_of_episode()
            else:
                friction.seed(one)
            self._set_friction(i)
        self.failed[:] = False
        self._begin(np.arange(self.num_envs))
        return self._observations.copy(), {}

    def _set_friction(self, run: int) -> None:
        self.simulators.set_friction(run, self._geoms, of_geoms(self.frictions[run].value))

    def _begin(self, ids: Ids) -> None:
        """New episodes of some."""
        scale = self.task.reset_noise_scale
        qpos, qvel = (np.tile(each, (len(ids), 1)) for each in self._start)
        for row, i in enumerate(ids):
            generator = self._generators[i]
            qpos[row] += generator.uniform(-scale, scale, qpos.shape[1])
            if self.task.normal_velocities:
                qvel[row] += scale * generator.standard_normal(qvel.shape[1])
            else:
                qvel[row] += generator.uniform(-scale, scale, qvel.shape[1])
        self.failed[self.simulators.reset(ids, qpos, qvel)] = True
        self.steps[ids] = 0
        self._before[ids] = self._positions()[ids]
        self._observations[ids] = self.task.observe(self.bodies(ids))

    def _positions(self) -> Array:
        body = self.task.follows_body
        return self.simulators.qpos[:, 0] if body is None else self.simulators.xpos[:, body, 0]

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Observations, rewards, terminated and truncated of all, and an info with the parts of the rewards.

        actions: [R, actions].
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            expected = list(self.action_space.shape or ())
            raise Error(f"[step] actions must have shape {expected}, got {list(actions.shape)}")
        ids = np.flatnonzero(~self.failed) if self.failed.any() else None
        moving: Ids | slice = slice(None) if ids is None else ids
        lost = self.simulators.step(ids, actions[moving], self.task.frames)
        if len(lost):
            self.failed[lost] = True
        for friction in self.frictions:
            friction.steps += 1
        self.steps += 1

        bodies = self.bodies()
        now = self._positions()
        velocities = (now - self._before) / self._seconds
        self._before = now.copy()
        parts, terminated = self.task.judge(bodies, velocities, actions)
        rewards = self._total(parts)
        truncated = self.steps >= self._limit
        observations = self.task.observe(bodies)
        # A number that is none: the simulation cannot go on.
        self.failed |= ~(np.isfinite(rewards) & np.isfinite(observations).all(axis=1))
        if self.failed.any():
            rewards[self.failed], terminated[self.failed], truncated[self.failed] = 0, False, False
            observations[self.failed] = self._observations[self.failed]
        self._observations = observations
        everyone = np.ones(self.num_envs, dtype=bool)
        info: dict[str, Any] = {"x_velocity": velocities, "_x_velocity": everyone}
        for name, part in parts.items():
            info |= {name: part, f"_{name}": everyone}
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            self._end(ended, info)
        return self._observations.copy(), rewards, terminated, truncated, info

    @staticmethod
    def _total(parts: dict[str, NDArray[Any]]) -> Array:
        """In Gymnasium's order of sums, whose bits this has: what is gained, then what it costs."""
        gained = parts["reward_forward"]
        if "reward_survive" in parts:
            gained = gained + parts["reward_survive"]
        costs = -parts["reward_ctrl"]
        if "reward_contact" in parts:
            costs = costs + -parts["reward_contact"]
        return np.asarray(gained - costs, dtype=np.float64)

    def _end(self, ended: Ids, info: dict[str, Any]) -> None:
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[ended] = True
        final = np.full(self.num_envs, None, dtype=object)
        for i in ended:
            final[i] = self._observations[i].copy()
            if self.frictions and self.frictions[i].end_of_episode():
                self._set_friction(int(i))
        info |= {"final_obs": final, "_final_obs": mask}
        self._begin(ended)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next steps depend on, arrays [R, ...]."""
        found = {
            "simulators": self.simulators.state.copy(),
            "steps": self.steps.copy(),
            "failed": self.failed.copy(),
            "before": self._before.copy(),
            "observations": self._observations.copy(),
            "generators": np.stack([_to_words(each) for each in self._generators]),
        }
        if self.frictions:
            found["frictions"] = np.array([[each.value, each.steps] for each in self.frictions])
            found["friction_generators"] = np.stack([_to_words(each.generator) for each in self.frictions])
        return found

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """What `state()` gave, back in place.

        Raises kl.Error where it belongs to another task or number of environments.
        """
        mine = self.state()
        for name, array in mine.items():
            if name not in state or state[name].shape != array.shape:
                raise Error(f"[load_state] {name} does not fit {self.num_envs} of {type(self.task).__name__}")
        self.simulators.load_state(state["simulators"])
        self.steps[:], self.failed[:] = state["steps"], state["failed"]
        self._before[:], self._observations[:] = state["before"], state["observations"]
        for generator, words in zip(self._generators, state["generators"], strict=True):
            _from_words(generator, words)
        for i, friction in enumerate(self.frictions):
            friction.value, friction.steps = float(state["frictions"][i, 0]), int(state["frictions"][i, 1])
            _from_words(friction.generator, state["friction_generators"][i])
            self._set_friction(i)

    def close_extras(self, **kwargs: Any) -> None:
        self.simulators.close()


def _to_words(generator: np.random.Generator) -> NDArray[np.uint64]:
    """All of a PCG64 generator's state."""
    about: Any = generator.bit_generator.state
    numbers = [about["state"]["state"], about["state"]["inc"]]
    words = [part for number in numbers for part in (number >> 64, number & (2**64 - 1))]
    return np.array([*words, about["has_uint32"], about["uinteger"]], dtype=np.uint64)


def _from_words(generator: np.random.Generator, words: NDArray[np.uint64]) -> None:
    high, low, inc_high, inc_low, has, value = (int(word) for word in words)
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has,
        "uinteger": value,
    }


def _make(kind: type[Task], changes: int | None, num_envs: int = 1, **options: Any) -> MujocoVectorEnv:
    own = {name: options.pop(name) for name in list(options) if name in kind.__dataclass_fields__}
    if changes is not None:
        options.setdefault("friction_every", changes)
    return MujocoVectorEnv(kind(**own), num_envs, **options)


make_Ant = functools.partial(_make, Ant, None)
make_SlipperyAnt = functools.partial(_make, Ant, EVERY)
make_Hopper = functools.partial(_make, Hopper, None)
make_Walker2d = functools.partial(_make, Walker2d, None)
make_HalfCheetah = functools.partial(_make, HalfCheetah, None)
