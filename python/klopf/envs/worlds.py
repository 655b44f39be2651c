"""Any environment of Gymnasium's, or of klopf's, for R runs: vectors in, vectors out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.envs import NAMES
from klopf.envs.needed import gymnasium
from klopf.envs.vector import MujocoVectorEnv

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def flattened(space: Any, observation: Any) -> Array:
    """An observation of a Box or Discrete space as numbers."""
    flat: Any = gymnasium.spaces.flatten(space, observation)
    return np.asarray(flat, dtype=np.float64).ravel()


class World:
    """R environments of one name, each of its own seed.

    name: one of `klopf.envs.NAMES`, or an id that Gymnasium knows, with Box or Discrete spaces.
    threads: of MuJoCo's batch; 0: all processors.
    options: of the environment.

    Raises kl.Error for an unknown name, other spaces, an option that does not fit.
    """

    def __init__(self, name: str, seeds: Sequence[int], threads: int = 0, **options: Any) -> None:
        self.name, self._seeds = name, list(seeds)
        self._env = self._made(name, len(seeds), threads, options)
        observed, acted = self._env.single_observation_space, self._env.single_action_space
        spaces = gymnasium.spaces
        if not isinstance(observed, (spaces.Box, spaces.Discrete)):
            raise Error(f"[{name}] observations must be a Box or Discrete, got {type(observed).__name__}")
        if not isinstance(acted, (spaces.Box, spaces.Discrete)):
            raise Error(f"[{name}] actions must be a Box or Discrete, got {type(acted).__name__}")
        self._observed, self._acted = observed, acted
        self._first = int(acted.start) if isinstance(acted, spaces.Discrete) else 0
        self.discrete = isinstance(acted, spaces.Discrete)  # actions are an index
        self.observations = int(spaces.flatdim(observed))  # numbers of one
        self.actions = int(spaces.flatdim(acted))  # numbers of one, or how many there are
        self._batch: MujocoVectorEnv | None = (
            self._env.unwrapped if isinstance(self._env.unwrapped, MujocoVectorEnv) else None
        )
        self.failed: Flags = np.zeros(len(seeds), dtype=bool)  # those that stand still since
        self.reset()

    @staticmethod
    def _made(name: str, runs: int, threads: int, options: dict[str, Any]) -> Any:
        try:
            if name in NAMES:
                return gymnasium.make_vec(f"klopf/{name}-v0", num_envs=runs, threads=threads, **options)
            make = functools.partial(gymnasium.make, name, disable_env_checker=True, **options)
            mode = gymnasium.vector.AutoresetMode.SAME_STEP
            return gymnasium.vector.SyncVectorEnv([make] * runs, autoreset_mode=mode)
        except gymnasium.error.Error as error:
            raise Error(f"[env] {error}; klopf's own are {', '.join(NAMES)}") from None
        except (TypeError, ImportError) as error:
            raise Error(f"[env] {name} cannot be made: {error}") from None

    @property
    def friction(self) -> Array:
        """Of the floor, where it changes [R]; else NaN."""
        frictions = self._batch.frictions if self._batch is not None else []
        return np.array([each.value for each in frictions] or [np.nan] * len(self._seeds))

    def reset(self) -> None:
        """New episodes of all, from the seeds."""
        observed, _ = self._env.reset(seed=self._seeds)
        self.now = self._flat(observed)  # observations [R, I]

    def step(self, actions: NDArray[Any]) -> tuple[Array, Flags, Flags, Array]:
        """Rewards, terminated and truncated [R], and what the step led to, before any reset [R, I]."""
        if self.discrete:
            actions = actions + self._first
        else:
            actions = actions.reshape(len(actions), *(self._acted.shape or ()))
        observed, rewards, terminated, truncated, info = self._env.step(actions)
        self.now = final = self._flat(observed)
        ended = terminated | truncated
        if ended.any():
            final = final.copy()
            for run in np.flatnonzero(ended):
                final[run] = flattened(self._observed, info["final_obs"][run])
        if self._batch is not None:
            self.failed = self._batch.failed.copy()
        elif not (np.isfinite(final).all() and np.isfinite(rewards).all()):
            first = int(np.argmin(np.isfinite(final).all(axis=1) & np.isfinite(rewards)))
            raise Error(f"[{self.name}] run {first} gave an observation or reward that is not finite")
        return rewards, terminated, truncated, final

    def _flat(self, observed: NDArray[Any]) -> Array:
        if isinstance(self._observed, gymnasium.spaces.Box):
            return np.asarray(observed, dtype=np.float64).reshape(len(observed), -1)
        return np.stack([flattened(self._observed, one) for one in observed])

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next steps depend on; nothing where an environment cannot tell."""
        return self._batch.state() if self._batch is not None else {}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """What `state()` gave, back in place; new episodes, and a warning, where that was nothing."""
        if self._batch is None:
            warnings.warn(
                f"{self.name} cannot be saved: its episodes begin anew, and results will differ from those "
                "without a stop",
                stacklevel=2,
            )
            return
        self._batch.load_state(state)
        self.now = self._flat(state["observations"])
        self.failed = self._batch.failed.copy()

    def close(self) -> None:
        self._env.close()
