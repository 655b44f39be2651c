"""Agents that learn from every step once, and save themselves."""

from __future__ import annotations

from os import PathLike
from typing import Any

from klopf import _core, checkpoint
from klopf.arguments import explain_arguments
from klopf.network import Network
from klopf.own_rules import expect_compiled
from klopf.specs import Optimizer, PerRun, Rule, describe, describe_network, made, made_network, plain

_FORMAT = "klopf stream 1"
# Options that some methods have: which, and their values where none is given.
_OPTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "distribution": (("ac",), "softplus"),
    "entropy": (("ac",), 0.01),
    "epsilon": (("q", "sarsa"), 1.0),
    "last_epsilon": (("q", "sarsa"), 0.01),
    "exploration_steps": (("q", "sarsa"), 1),
    "trace_cut": (("q",), "reference"),
    "first_action": (("sarsa",), "drawn"),
}


class StreamAgent(_core.StreamAgent):
    __doc__ = _core.StreamAgent.__doc__

    def __init__(
        self,
        policy: Network | None,
        value: Network,
        *,
        method: str = "ac",
        distribution: str | None = None,
        optimizer: Optimizer | None = None,
        value_optimizer: Optimizer | None = None,
        rules: list[Rule] | None = None,
        discount: PerRun = 0.99,
        trace_decay: PerRun = 0.8,
        entropy: PerRun | None = None,
        epsilon: float | None = None,
        last_epsilon: float | None = None,
        exploration_steps: int | None = None,
        trace_cut: str | None = None,
        first_action: str | None = None,
        truncation: str = "terminal",
        reward_trace: str = "reference",
        time_limit: int = 0,
        normalise_observations: bool = True,
        scale_rewards: bool = True,
    ) -> None:
        settings: dict[str, Any] = {
            "method": method,
            "discount": discount,
            "trace_decay": trace_decay,
            "truncation": truncation,
            "reward_trace": reward_trace,
            "time_limit": time_limit,
            "normalise_observations": normalise_observations,
            "scale_rewards": scale_rewards,
        }
        given = {
            "distribution": distribution,
            "entropy": entropy,
            "epsilon": epsilon,
            "last_epsilon": last_epsilon,
            "exploration_steps": exploration_steps,
            "trace_cut": trace_cut,
            "first_action": first_action,
        }
        for name, (methods, default) in _OPTIONS.items():
            if given[name] is None:
                given[name] = default
            elif method not in methods:
                raise _core.Error(
                    f'[stream] {name} is an option of {", ".join(methods)}, got method="{method}"'
                )
            if method in methods:
                settings[name] = given[name]
        if policy is None and optimizer is not None:
            raise _core.Error("[stream] optimizer is the policy's, and there is none: give value_optimizer")
        self.optimizer = optimizer or _core.ObGD(kappa=3.0)
        self.value_optimizer = value_optimizer or _core.ObGD(kappa=2.0)
        self.rules = list(rules or [])
        expect_compiled("stream", [self.optimizer, self.value_optimizer, *self.rules])
        super().__init__(
            policy,  # type: ignore[arg-type]  # the stub does not know that it may be None
            value,
            optimizer=self.optimizer,
            value_optimizer=self.value_optimizer,
            rules=self.rules,
            **{**given, **settings},
        )
        self.policy, self.value = policy, value
        self._settings = settings

    def save(self, path: str | PathLike[str]) -> None:
        """Writes everything to one safetensors file, atomically: exact resume with `StreamAgent.load`.

        Raises:
            klopf.Error: the file cannot be written.
        """
        settings = {
            "format": _FORMAT,
            "arithmetic": self.value._arithmetic,
            "policy": self.policy and describe_network(self.policy),
            "value": describe_network(self.value),
            "optimizer": describe(self.optimizer),
            "value_optimizer": describe(self.value_optimizer),
            "rules": [describe(rule) for rule in self.rules],
            "settings": {name: plain(value) for name, value in self._settings.items()},
        }
        checkpoint.write(path, self.state(), settings)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu", precision: str = "float32") -> StreamAgent:
        """Agents that go on exactly where the saved ones stood, as `Learner.load` does.

        Raises:
            klopf.Error: missing, truncated or corrupt file; a file of something else.
        """
        arrays, settings = checkpoint.read_saved(path, _FORMAT, "a streaming agent")
        policy, value = (
            settings[name] and made_network(settings[name], device, precision) for name in ("policy", "value")
        )
        agent = cls(
            policy,
            value,
            optimizer=made(settings["optimizer"]) if policy else None,
            value_optimizer=made(settings["value_optimizer"]),
            rules=[made(rule) for rule in settings["rules"]],
            **settings["settings"],
        )
        agent.load_state(arrays)
        checkpoint.warn_of_other_arithmetic(path, settings["arithmetic"], value._arithmetic)
        return agent


explain_arguments(StreamAgent, "stream", ("__init__", "begin", "step", "learn", "load_state"))
