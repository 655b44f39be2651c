"""Any environment of Gymnasium's, or of klopf's, for R runs: vectors in, vectors out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.envs import NAMES
from klopf.envs.needed import gymnasium
from klopf.envs.vector import MujocoVectorEnv

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def identifier(name: str) -> str:
    """What Gymnasium calls an environment of this name."""
    return f"klopf/{name}-v0" if name in NAMES else name


@contextmanager
def explained(name: str) -> Iterator[Any]:
    """Gymnasium, whose complaints about an environment become one line."""
    if name.startswith("MinAtar/"):
        _register_minatar(name)
    try:
        yield gymnasium
    except gymnasium.error.UnregisteredEnv as error:
        raise Error(f"[env] {error} (klopf's own: {', '.join(NAMES)})") from None
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        raise Error(f"[env] {name} cannot be made: {error}") from None


def _register_minatar(name: str) -> None:
    """MinAtar's games do not make themselves known to Gymnasium."""
    try:
        from minatar.gym import register_envs
    except ImportError:
        raise Error(
            f"[env] {name} needs MinAtar, which is not installed: pip install 'klopf[minatar]'"
        ) from None
    if not any(known.startswith("MinAtar/") for known in gymnasium.registry):
        register_envs()


def flattened(space: Any, observation: Any) -> Array:
    """An observation of a Box or Discrete space as numbers."""
    flat: Any = gymnasium.spaces.flatten(space, observation)
    return np.asarray(flat, dtype=np.float64).ravel()


def _image(space: Any) -> tuple[int, int, int] | None:
    """Channels, height and width, where observations are images; the channels are the shortest side."""
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3:
        return None
    first, middle, last = space.shape
    return (first, middle, last) if first < last else (last, first, middle)


class World:
    """R environments of one name, each of its own seed.

    A run whose environment gives a number that is not finite is marked in `failed`, and stands still from
    then on, at reward 0; the others go on.

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
        for what, space in (("observations", observed), ("actions", acted)):
            if not isinstance(space, (spaces.Box, spaces.Discrete)):
                self._env.close()
                raise Error(f"[{name}] {what} must be a Box or Discrete, got {type(space).__name__}")
        self._observed, self._acted = observed, acted
        self.discrete = isinstance(acted, spaces.Discrete)  # actions are an index
        spec = self._env.spec or self._env.envs[0].spec
        self.time_limit: int | None = spec.max_episode_steps  # of an episode
        self._first = int(acted.start) if isinstance(acted, spaces.Discrete) else 0
        self.observations = int(spaces.flatdim(observed))  # numbers of one
        self.image = _image(observed)
        self.actions = int(spaces.flatdim(acted))  # numbers of one, or how many there are
        self._batch: MujocoVectorEnv | None = (
            self._env.unwrapped if isinstance(self._env.unwrapped, MujocoVectorEnv) else None
        )
        self.failed: Flags = np.zeros(len(seeds), dtype=bool)
        self._steps = 0
        self._began_anew = False  # after a stop, and nobody was told yet
        self._reset(self._seeds)

    @staticmethod
    def _made(name: str, runs: int, threads: int, options: dict[str, Any]) -> Any:
        with explained(name):
            if name in NAMES:
                return gymnasium.make_vec(identifier(name), num_envs=runs, threads=threads, **options)
            make = functools.partial(gymnasium.make, name, disable_env_checker=True, **options)
            mode = gymnasium.vector.AutoresetMode.SAME_STEP
            return gymnasium.vector.SyncVectorEnv([make] * runs, autoreset_mode=mode)

    @property
    def friction(self) -> Array:
        """Of the floor, where it changes [R]; else NaN."""
        frictions = self._batch.frictions if self._batch is not None else []
        return np.array([each.value for each in frictions] or [np.nan] * len(self._seeds))

    def _reset(self, seeds: Sequence[int]) -> None:
        observed, _ = self._env.reset(seed=list(seeds))
        self.now = self._flat(observed)  # observations [R, I]

    def step(self, actions: NDArray[Any]) -> tuple[Array, Flags, Flags, Array]:
        """Rewards, terminated and truncated [R], and what the step led to, before any reset [R, I]."""
        if self._began_anew:
            self._began_anew = False
            warnings.warn(
                f"{self.name} cannot be saved: its episodes begin anew, and results will differ from those "
                "without a stop",
                stacklevel=2,
            )
        if self.discrete:
            actions = actions + self._first
        else:
            actions = actions.reshape(len(actions), *(self._acted.shape or ()))
        before = self.now
        observed, rewards, terminated, truncated, info = self._env.step(actions)
        self._steps += 1
        self.now = final = self._flat(observed)
        ended = terminated | truncated
        if ended.any():
            final = final.copy()
            for run in np.flatnonzero(ended):
                final[run] = self._flat([info["final_obs"][run]])[0]
        if self._batch is not None:
            self.failed = self._batch.failed.copy()
            return rewards, terminated, truncated, final
        sound = np.isfinite(final).all(axis=1) & np.isfinite(self.now).all(axis=1) & np.isfinite(rewards)
        self.failed = self.failed | ~sound
        if self.failed.any():
            final, rewards = final.copy(), rewards.copy()
            terminated, truncated = terminated & ~self.failed, truncated & ~self.failed
            final[self.failed] = self.now[self.failed] = before[self.failed]
            rewards[self.failed] = 0
        return rewards, terminated, truncated, final

    def clipped(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions within their bounds."""
        low, high = (np.ravel(bound) for bound in (self._acted.low, self._acted.high))
        return np.asarray(np.clip(actions, low, high))

    def _flat(self, observed: Sequence[Any] | NDArray[Any]) -> Array:
        if isinstance(self._observed, gymnasium.spaces.Box):
            numbers = np.array(observed, dtype=np.float64)
            if self.image and self.image != numbers.shape[1:]:
                numbers = np.moveaxis(numbers, -1, 1)
            return numbers.reshape(len(observed), -1)
        return np.stack([flattened(self._observed, one) for one in observed])

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next steps depend on; where an environment cannot tell, how many were made."""
        if self._batch is not None:
            return self._batch.state()
        return {"steps": np.array([self._steps]), "failed": self.failed}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> bool:
        """What `state()` gave, back in place; or False where all episodes begin anew, of which the next step
        warns."""
        if self._batch is not None:
            self._batch.load_state(state)
            self.now = self._flat(state["observations"])
            self.failed = self._batch.failed.copy()
            return True
        self._steps, self.failed = int(state["steps"][0]), state["failed"].copy()
        words = (np.random.SeedSequence([seed, self._steps]).generate_state(1) for seed in self._seeds)
        self._reset([int(word[0]) for word in words])
        self._began_anew = True
        return False

    def close(self) -> None:
        """The environments are no longer needed."""
        self._env.close()
