"""Agents in their environments: one line of an experiment of agents that act."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klopf import metrics
from klopf.checkpoint import within

if TYPE_CHECKING:  # it needs MuJoCo, and the command's help does not
    from klopf.envs.worlds import World

Array = NDArray[np.float64]

EPISODES = (
    "return",  # mean over the episodes that ended since the last row; NaN where none did
    "length",  # of these episodes, in steps
    "episodes",  # how many
)
OF_UNITS = ("dormant_rate", "backbone_share", "effective_rank", "stable_rank_99", "weight_magnitude")


class Walk(ABC):
    """R agents, each with an environment.

    probe: how many of the latest observations units are measured on.
    """

    measured: ClassVar[tuple[str, ...]]
    carried: ClassVar[tuple[str, ...]] = ()  # of what is measured: what the agent said last

    def __init__(self, agent: Any, world: World, probe: int) -> None:
        self.agent, self.world, self._probe = agent, world, probe
        runs = agent.runs
        self._kept = {  # of the episodes under way, and of those since the last row
            name: np.zeros(runs) for name in ("return", "length", "returns", "lengths", "episodes")
        } | {name: np.full(runs, np.nan) for name in self.carried}

    @property
    @abstractmethod
    def arithmetic(self) -> str:
        """What decides about the last bits of results."""

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs no longer learn [R]."""
        return np.asarray(self.world.failed | ~self.agent.alive)

    @abstractmethod
    def _step(self) -> tuple[Array, NDArray[np.bool_]]:
        """One step of every run, learning included: rewards, and which episodes ended."""

    @abstractmethod
    def seen(self) -> NDArray[Any]:
        """The latest observations [R, B, ...], at most as many as units are measured on."""

    @abstractmethod
    def _units(self) -> dict[str, Array]:
        """Metrics of the networks' units."""

    def advance(self, steps: int) -> None:
        """So many steps of every run."""
        kept = self._kept
        for _ in range(steps):
            rewards, ended = self._step()
            kept["return"] += rewards
            kept["length"] += 1
            if ended.any():
                for one in ("return", "length"):
                    kept[f"{one}s"][ended] += kept[one][ended]
                    kept[one][ended] = 0
                kept["episodes"][ended] += 1

    def measure(self) -> Array:
        """What the last row says [R, measured]; the next begins."""
        kept = self._kept
        episodes = np.where(kept["episodes"] > 0, kept["episodes"], np.nan)
        found = {
            "return": kept["returns"] / episodes,
            "length": kept["lengths"] / episodes,
            "episodes": kept["episodes"].copy(),
            "friction": self.world.friction,
            **{name: kept[name] for name in self.carried},
            **self._units(),
        }
        for name in ("returns", "lengths", "episodes"):
            kept[name][:] = 0
        found["failed"] = self.failed.astype(np.float64)
        values = np.stack([found[name] for name in self.measured], axis=1)
        values[self.failed, :-1] = np.nan
        return values

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next steps depend on."""
        return {
            **{f"walk/{name}": array for name, array in self._kept.items()},
            **{f"world/{name}": array for name, array in self.world.state().items()},
            **{f"agent/{name}": array for name, array in self.agent.state().items()},
        }

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What `state` gave, back in place."""
        for name, array in within(arrays, "walk/").items():
            self._kept[name] = array.copy()
        self.agent.load_state(within(arrays, "agent/"))
        if not self.world.load_state(within(arrays, "world/")):
            self._cut()
            self._kept["return"][:] = self._kept["length"][:] = 0

    @abstractmethod
    def _cut(self) -> None:
        """Episodes begin anew, not where the agents stood."""


class PpoWalk(Walk):
    """Agents of `kl.PPO`."""

    measured = (
        *EPISODES,
        *OF_UNITS,  # of the policy on its latest observations, see klopf.metrics
        *(f"value_{name}" for name in OF_UNITS),  # and the same of the value network
        "policy_loss",  # mean over the last epoch of the last update
        "value_loss",
        "clipped",  # share of samples, likewise
        "friction",  # of the floor, where it changes
        "failed",  # 1 from when on a run no longer learns: its simulator or its numbers gave out
    )
    carried = ("policy_loss", "value_loss", "clipped")

    @property
    def arithmetic(self) -> str:
        return str(self.agent.policy._arithmetic)

    def _step(self) -> tuple[Array, NDArray[np.bool_]]:
        agent, world = self.agent, self.world
        actions = agent.act(world.now)
        rewards, terminated, truncated, final = world.step(actions)
        agent.observe(rewards, terminated, truncated, final)
        if agent.full:
            update = agent.learn()
            for name in self.carried:
                self._kept[name] = getattr(update, name)[:, -1]
        return rewards, terminated | truncated

    def seen(self) -> NDArray[Any]:
        return np.asarray(self.agent.recent(self._probe))

    def _units(self) -> dict[str, Array]:
        probe = self.seen()
        found: dict[str, Array] = {}
        for prefix, net in (("", self.agent.policy), ("value_", self.agent.value)):
            units = metrics.measure(net, probe)
            found |= {prefix + name: units[name] for name in OF_UNITS}
        return found

    def _cut(self) -> None:
        self.agent.cut()


class StreamWalk(Walk):
    """Agents of `kl.StreamAgent`."""

    measured = (
        *EPISODES,
        *OF_UNITS,  # of the network that acts on its latest observations, see klopf.metrics
        *(f"value_{name}" for name in OF_UNITS),  # and of an actor-critic's values
        "friction",  # of the floor, where it changes
        "failed",  # 1 from when on a run no longer learns: its simulator or its numbers gave out
    )

    def __init__(self, agent: Any, world: World, probe: int) -> None:
        super().__init__(agent, world, probe)
        self._seen = np.zeros((agent.runs, probe, agent.observation.shape[1]), np.float32)
        self._steps = 0
        self._actions = agent.begin(world.now)

    @property
    def arithmetic(self) -> str:
        return str(self.agent.value._arithmetic)

    def _step(self) -> tuple[Array, NDArray[np.bool_]]:
        agent, world = self.agent, self.world
        self._seen[:, self._steps % self._probe] = agent.observation
        self._steps += 1
        actions = self._actions if world.discrete else world.clipped(self._actions)
        rewards, terminated, truncated, final = world.step(actions)
        self._actions = agent.step(world.now, rewards, terminated, truncated, final)
        return rewards, terminated | truncated

    def seen(self) -> NDArray[Any]:
        seen = self._seen[:, : min(self._steps, self._probe)]
        return seen.reshape(*seen.shape[:2], *self.agent.value.input_shape)

    def _units(self) -> dict[str, Array]:
        probe = self.seen()
        found: dict[str, Array] = {}
        acts = self.agent.policy or self.agent.value
        for prefix, net in (("", acts), ("value_", self.agent.policy and self.agent.value)):
            units = metrics.measure(net, probe) if net else {}
            none = np.full(self.agent.runs, np.nan)
            found |= {prefix + name: units.get(name, none) for name in OF_UNITS}
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        """And what was seen, and the actions to be taken."""
        seen = self._seen[:, : min(self._steps, self._probe)]
        own = {"seen": seen, "steps": np.array([self._steps]), "actions": np.asarray(self._actions)}
        return {**super().state(), **{f"stream/{name}": array for name, array in own.items()}}

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What `state` gave, back in place."""
        own = within(arrays, "stream/")
        self._seen[:, : own["seen"].shape[1]], self._steps = own["seen"], int(own["steps"][0])
        self._actions = own["actions"].copy()
        super().load_state(arrays)

    def _cut(self) -> None:
        self._actions = self.agent.begin(self.world.now)
