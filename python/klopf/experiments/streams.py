"""The streaming agents: actor-critics, Q(lambda) and SARSA(lambda), with every optimizer and unit rule.

Source: Elsayed, Vasan and Mahmood, "Streaming deep reinforcement learning finally works" (2024), and its
public code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.decentralised import Decentralised
from klopf.experiments.lines import Methods
from klopf.experiments.settings import option
from klopf.experiments.stepping import (
    BEGIN,
    Adam,
    AdamW,
    AdaptiveObgd,
    Autostep,
    Idbd,
    Intentional,
    MetaOptimize,
    Obgd,
    Sgd,
    Upgd,
    added,
    combinations,
    combined,
)
from klopf.experiments.unit_rules import EVERY_UNIT


@dataclass(frozen=True)
class Place:
    """Where agents live: what they see and do, and for how long.

    observations: numbers of one.  actions: numbers of one, or how many there are.  discrete: which.
    steps: that they will take.  time_limit: of an episode, in steps; None: it has none.
    image: channels, height and width of an observation; None: it is none.
    """

    observations: int
    actions: int
    discrete: bool
    seeds: Sequence[int]
    steps: int
    time_limit: int | None = None
    image: tuple[int, int, int] | None = None
    device: str = "cpu"
    precision: str = "float32"


@dataclass(frozen=True)
class Streaming:
    """What every agent has."""

    name: ClassVar[str]
    agent: ClassVar[str]  # the name's first word

    discount: float = option(0.99, "gamma", minimum=0)
    trace_decay: float = option(0.8, "lambda", minimum=0)
    truncation: str = option(
        "terminal",
        "what follows where an episode is cut short: nothing, or its value",
        choices=("terminal", "bootstrap"),
    )
    normalise_observations: bool = option(True, "by running means and deviations")
    scale_rewards: bool = option(True, "by the deviation of their discounted sum")
    reward_trace: str = option(
        "reference",
        "the sum that the reward which ends an episode counts in: the next episode's, or its own",
        choices=("reference", "episode"),
    )
    time_feature: bool | None = option(
        None, "observations say how much of the longest episode has passed (default: yes, of images no)"
    )
    channels: tuple[int, ...] | None = option(
        None, "filters of each convolution of 3x3 that images go through first (default: 16)", minimum=1
    )
    hidden: tuple[int, ...] = option((128, 128), "units of each hidden layer", minimum=1)
    init: str = option("sparse", "how weights are drawn", choices=kl.initialisers)

    def optimizer(self) -> Any:
        """The step-size rule; of actor-critics that of the policy."""
        raise NotImplementedError

    def value_optimizer(self) -> Any:
        """That of values."""
        return self.optimizer()

    def rules(self) -> list[Any]:
        """The unit rules of all networks."""
        return []

    def network(self, place: Place, outputs: int, stream: int) -> kl.Network:
        """Of images convolutions; then linear layers.  Each is normalised, with leaky ReLU."""
        if getattr(self, "growth_period", 0):
            raise kl.Error("--growth-period: units of agents cannot come and go, their layers are normalised")
        layers: list[Any] = []
        if place.image:
            for filters in self.channels or (16,):
                layers += [kl.Conv2d(filters, 3), kl.LayerNorm(affine=False), kl.LeakyReLU(0.01)]
            layers.append(kl.Flatten())
        elif self.channels:
            raise kl.Error("--channels is an option of images, and observations are none")
        for units in self.hidden:
            layers += [kl.Linear(units), kl.LayerNorm(affine=False), kl.LeakyReLU(0.01)]
        return kl.Network(
            [*layers, kl.Linear(outputs)],
            input_shape=place.image or (place.observations + self.timed(place),),
            runs=len(place.seeds),
            seeds=list(place.seeds),
            init=self.init,
            device=place.device,
            precision=place.precision,
            stream=stream,
        )

    def timed(self, place: Place) -> bool:
        """Whether the time follows an observation.  Raises kl.Error where it cannot."""
        asked = place.image is None if self.time_feature is None else self.time_feature
        if asked and (place.image or place.time_limit is None):
            why = "observations that are no images" if place.image else "episodes of limited time"
            raise kl.Error(f"--time-feature needs {why}: --time-feature no")
        return asked

    def settings(self, place: Place) -> dict[str, Any]:
        """Of the agent, whatever its kind."""
        return {
            "value_optimizer": self.value_optimizer(),
            "rules": self.rules(),
            "discount": self.discount,
            "trace_decay": self.trace_decay,
            "truncation": self.truncation,
            "normalise_observations": self.normalise_observations,
            "scale_rewards": self.scale_rewards,
            "reward_trace": self.reward_trace,
            "time_limit": place.time_limit if self.timed(place) else 0,
        }

    def build(self, place: Place) -> kl.StreamAgent:
        """Agents, one for each seed.  Raises kl.Error where they do not go with such actions."""
        raise NotImplementedError


@dataclass(frozen=True)
class StreamAC(Streaming):
    """AC(lambda): actions are drawn from a policy, Gaussian or categorical."""

    agent: ClassVar[str] = "ac"

    entropy: float = option(0.01, "weight of the policy's entropy, times the error's sign", minimum=0)

    def build(self, place: Place) -> kl.StreamAgent:
        return kl.StreamAgent(
            self.network(place, place.actions if place.discrete else 2 * place.actions, 1),
            self.network(place, 1, 0),
            method=self.agent,
            distribution="categorical" if place.discrete else "softplus",
            optimizer=self.optimizer(),
            entropy=self.entropy,
            **self.settings(place),
        )


@dataclass(frozen=True)
class Greedy(Streaming):
    """The best action is chosen, or now and then any."""

    epsilon: float = option(1.0, "share of random actions at first", minimum=0)
    last_epsilon: float = option(0.01, "and after exploration", minimum=0)
    exploration: float | None = option(
        None, "share of the steps in which epsilon falls (default: 0.05, of images 0.2)", above=0
    )

    def build(self, place: Place) -> kl.StreamAgent:
        if not place.discrete:
            raise kl.Error(f"--agent {self.agent} chooses among actions; these are continuous: --agent ac")
        exploration = self.exploration or (0.2 if place.image else 0.05)
        return kl.StreamAgent(
            None,
            self.network(place, place.actions, 0),
            method=self.agent,
            epsilon=self.epsilon,
            last_epsilon=self.last_epsilon,
            exploration_steps=max(1, round(exploration * place.steps)),
            **self.settings(place),
        )


@dataclass(frozen=True)
class StreamSarsa(Greedy):
    """SARSA(lambda): learns about what is done, the best action, or now and then any."""

    agent: ClassVar[str] = "sarsa"

    first_action: str = option(
        "kept",
        "an episode's: the one drawn where the last episode ended, or one for its first observation",
        choices=("kept", "drawn"),
    )

    def settings(self, place: Place) -> dict[str, Any]:
        return {**super().settings(place), "first_action": self.first_action}


@dataclass(frozen=True)
class StreamQ(Greedy):
    """Q(lambda): learns about the best action."""

    agent: ClassVar[str] = "q"

    trace_cut: str = option(
        "reference",
        "traces end after the update of an action that is not the best, or before it",
        choices=("reference", "watkins"),
    )

    def settings(self, place: Place) -> dict[str, Any]:
        return {**super().settings(place), "trace_cut": self.trace_cut}


@dataclass(frozen=True)
class OfActor:
    """The bounds of policy and value have a kappa each."""

    kappa: float = option(3.0, "ObGD's kappa; of actor-critics the policy's", minimum=0)
    kappa_value: float = option(2.0, "and the value's", minimum=0)

    def value_optimizer(self) -> Any:
        """That of values."""
        return dataclasses.replace(self, kappa=self.kappa_value).optimizer()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ActorObgd(OfActor, Obgd):
    """Overshooting-bounded gradient descent."""


@dataclass(frozen=True)
class ActorAdaptiveObgd(OfActor, AdaptiveObgd):
    """ObGD along the gradient over the root of its mean square."""


@dataclass(frozen=True)
class ActorIntentional(Intentional):
    """Updates that go a certain way, of the policy, or take away a share of the value's error."""

    step_size: float = option(0.05, BEGIN, above=0)
    step_size_value: float = option(0.5, "the value's share of an error, of ac+intentional", above=0)

    def optimizer(self) -> Any:
        """That of the policy."""
        return kl.Intentional(
            step_size=self.step_size,
            beta2=self.beta2,
            clip=self.clip,
            normalise_error=True,
            scope=self.scope,
        )

    def value_optimizer(self) -> Any:
        """That of values."""
        return Intentional(self.step_size_value, self.beta2, self.clip, self.scope).optimizer()


@dataclass(frozen=True)
class GreedyIntentional(Intentional):
    """Updates that take away a share of the error."""

    step_size: float = option(0.25, BEGIN, above=0)


AGENTS: dict[str, type[Streaming]] = {kind.agent: kind for kind in (StreamAC, StreamQ, StreamSarsa)}
_OTHERS = (Sgd, Adam, AdamW, Upgd, Idbd, Autostep, MetaOptimize)
_RULES = (None, *EVERY_UNIT)  # without SNR, which needs ReLU
KINDS: dict[str, type[Streaming]] = {
    **combinations(StreamAC, (ActorObgd, ActorAdaptiveObgd, ActorIntentional, *_OTHERS), _RULES, "ac"),
    **combinations(StreamQ, (Obgd, AdaptiveObgd, GreedyIntentional, *_OTHERS), _RULES, "q"),
    **combinations(StreamSarsa, (Obgd, AdaptiveObgd, GreedyIntentional, *_OTHERS), _RULES, "sarsa"),
    **{
        f"{agent}+decentralised": combined(f"{agent}+decentralised", kind, Decentralised)
        for agent, kind in AGENTS.items()
    },
}
_ADDED = added((AdaptiveObgd, Intentional, *_OTHERS, Decentralised))
SPELLED = f"{', '.join(AGENTS)}; alone, with {_ADDED}; with {added(EVERY_UNIT)}; or both"
STREAMS = Methods(KINDS, {}, {"authors": {}})
