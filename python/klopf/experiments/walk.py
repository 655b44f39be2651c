"""Agents in their environments: one line of a reinforcement learning experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import metrics
from klopf.checkpoint import within

if TYPE_CHECKING:  # it needs MuJoCo, and the command's help does not
    from klopf.envs.worlds import World

Array = NDArray[np.float64]

MEASURED = (
    "return",  # mean over the episodes that ended since the last row; NaN where none did
    "length",  # of these episodes, in steps
    "episodes",  # how many
    "dormant_rate",  # this and the following of the policy on its latest observations, see klopf.metrics
    "effective_rank",
    "stable_rank_99",
    "weight_magnitude",
    "value_dormant_rate",  # and the same of the value network
    "value_effective_rank",
    "value_stable_rank_99",
    "value_weight_magnitude",
    "policy_loss",  # mean over the last epoch of the last update
    "value_loss",
    "clipped",  # share of samples, likewise
    "friction",  # of the floor, where it changes
    "failed",  # 1 from when on a run no longer learns: its simulator or its numbers gave out
)
_OF_UNITS = ("dormant_rate", "effective_rank", "stable_rank_99", "weight_magnitude")
_OF_UPDATES = ("policy_loss", "value_loss", "clipped")


class Walk:
    """R agents, each with an environment.

    probe: how many of the latest observations units are measured on.
    """

    def __init__(self, agent: kl.PPO, world: World, probe: int) -> None:
        self.agent, self.world, self._probe = agent, world, probe
        runs = agent.runs
        self._kept = {  # of the episodes under way, and of those since the last row
            name: np.zeros(runs) for name in ("return", "length", "returns", "lengths", "episodes")
        } | {name: np.full(runs, np.nan) for name in _OF_UPDATES}

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs no longer learn [R]."""
        return self.world.failed | ~self.agent.alive

    def advance(self, steps: int) -> None:
        """So many steps of every run, learning included."""
        agent, world, kept = self.agent, self.world, self._kept
        for _ in range(steps):
            actions = agent.act(world.now)
            rewards, terminated, truncated, final = world.step(actions)
            agent.observe(rewards, terminated, truncated, final)
            kept["return"] += rewards
            kept["length"] += 1
            ended = terminated | truncated
            if ended.any():
                for one in ("return", "length"):
                    kept[f"{one}s"][ended] += kept[one][ended]
                    kept[one][ended] = 0
                kept["episodes"][ended] += 1
            if agent.full:
                update = agent.learn()
                for name in _OF_UPDATES:
                    kept[name] = getattr(update, name)[:, -1]

    def measure(self) -> Array:
        """What the last row says [R, MEASURED]; the next begins."""
        kept = self._kept
        episodes = np.where(kept["episodes"] > 0, kept["episodes"], np.nan)
        found = {
            "return": kept["returns"] / episodes,
            "length": kept["lengths"] / episodes,
            "episodes": kept["episodes"].copy(),
            "friction": self.world.friction,
            **{name: kept[name] for name in _OF_UPDATES},
        }
        probe = self.agent.recent(self._probe)
        for prefix, net in (("", self.agent.policy), ("value_", self.agent.value)):
            units = metrics.measure(net, probe)
            found |= {prefix + name: units[name] for name in _OF_UNITS}
        for name in ("returns", "lengths", "episodes"):
            kept[name][:] = 0
        found["failed"] = self.failed.astype(np.float64)
        values = np.stack([found[name] for name in MEASURED], axis=1)
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
            self.agent.cut()
            self._kept["return"][:] = self._kept["length"][:] = 0
