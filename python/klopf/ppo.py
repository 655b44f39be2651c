"""Agents that learn by proximal policy optimisation, and save themselves."""

from __future__ import annotations

from os import PathLike
from typing import Any

from klopf import _core, checkpoint
from klopf.arguments import explain_arguments
from klopf.network import Network
from klopf.own_rules import expect_compiled
from klopf.specs import Optimizer, PerRun, Rule, describe, describe_network, made, made_network, plain

_FORMAT = "klopf ppo 1"


class PPO(_core.PPO):
    __doc__ = _core.PPO.__doc__

    def __init__(
        self,
        policy: Network,
        value: Network,
        *,
        loss: _core.ClippedPolicy | None = None,
        optimizer: Optimizer | None = None,
        rules: list[Rule] | None = None,
        steps: int = 2048,
        epochs: int = 10,
        batch_size: int = 128,
        discount: PerRun = 0.99,
        trace_decay: PerRun = 0.95,
        truncation: str = "bootstrap",
        max_gradient_norm: PerRun | None = None,
        normalise_observations: bool = False,
        normalise_rewards: bool = False,
    ) -> None:
        settings: dict[str, Any] = {
            "steps": steps,
            "epochs": epochs,
            "batch_size": batch_size,
            "discount": discount,
            "trace_decay": trace_decay,
            "truncation": truncation,
            "max_gradient_norm": max_gradient_norm,
            "normalise_observations": normalise_observations,
            "normalise_rewards": normalise_rewards,
        }
        loss = loss or _core.ClippedPolicy()
        optimizer = optimizer or _core.Adam(step_size=1e-4)
        expect_compiled("ppo", [optimizer, *(rules or [])])
        super().__init__(policy, value, loss=loss, optimizer=optimizer, rules=rules or [], **settings)
        self.policy, self.value = policy, value
        self.loss, self.optimizer, self.rules = loss, optimizer, list(rules or [])
        self._settings = settings

    def save(self, path: str | PathLike[str]) -> None:
        """Writes everything, the buffer included, to one safetensors file, atomically: exact resume with
        `PPO.load`.

        Raises:
            klopf.Error: the file cannot be written.
        """
        settings = {
            "format": _FORMAT,
            "arithmetic": self.policy._arithmetic,
            "policy": describe_network(self.policy),
            "value": describe_network(self.value),
            "loss": describe(self.loss),
            "optimizer": describe(self.optimizer),
            "rules": [describe(rule) for rule in self.rules],
            "settings": {name: plain(value) for name, value in self._settings.items()},
        }
        checkpoint.write(path, self.state(), settings)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu", precision: str = "float32") -> PPO:
        """Agents that go on exactly where the saved ones stood, as `Learner.load` does.

        Raises:
            klopf.Error: missing, truncated or corrupt file; a file of something else.
        """
        arrays, settings = checkpoint.read_saved(path, _FORMAT, "a PPO agent")
        policy, value = (made_network(settings[name], device, precision) for name in ("policy", "value"))
        agent = cls(
            policy,
            value,
            loss=made(settings["loss"]),
            optimizer=made(settings["optimizer"]),
            rules=[made(rule) for rule in settings["rules"]],
            **settings["settings"],
        )
        agent.load_state(arrays)
        checkpoint.warn_of_other_arithmetic(path, settings["arithmetic"], policy._arithmetic)
        return agent


explain_arguments(PPO, "ppo", ("__init__", "act", "choose", "observe", "recent", "learn", "load_state"))
