"""The methods that learn to walk: proximal policy optimisation, and what is done about its collapse.

Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024), and its public
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.lines import Methods
from klopf.experiments.replacing import Replacing
from klopf.experiments.settings import option

TRUNCATIONS = ("bootstrap", "terminal")


@dataclass(frozen=True)
class Ppo:
    """Proximal policy optimisation: policy and value have a network each."""

    name: ClassVar[str] = "ppo"

    step_size: float = option(1e-4, "step size of Adam", above=0)
    beta1: float = option(0.9, "decay of Adam's first moment", minimum=0)
    beta2: float = option(0.999, "decay of Adam's second moment", minimum=0)
    epsilon: float = option(1e-8, "Adam's epsilon", minimum=0)
    buffer: int = option(2048, "steps between two updates", minimum=2)
    passes: int = option(10, "passes over the buffer in an update", minimum=1)
    minibatch: int = option(128, "steps of a minibatch", minimum=1)
    discount: float = option(0.99, "gamma", minimum=0)
    trace_decay: float = option(0.95, "lambda of the advantage estimates", minimum=0)
    clip: float = option(0.2, "how far from 1 the ratio of probabilities still matters", minimum=0)
    entropy: float = option(0.0, "weight of the entropy bonus", minimum=0)
    truncation: str = option(
        "bootstrap", "what follows where an episode is cut short: its value, or nothing", choices=TRUNCATIONS
    )
    max_gradient_norm: float = option(
        0.0, "length that each network's gradient is cut down to; 0: no limit", minimum=0
    )
    normalise_observations: bool = option(False, "by running means and deviations")
    normalise_rewards: bool = option(False, "by the deviation of their discounted sum")
    hidden: tuple[int, ...] = option((256, 256), "units of each hidden layer of both networks", minimum=1)
    activation: str = option("ReLU", "of hidden units", choices=("ReLU", "Tanh", "LeakyReLU", "Sigmoid"))
    init: str = option("lecun", "how weights are drawn", choices=kl.initialisers)
    first_fan_in: int = option(
        0, "inputs that the initialiser counts in the first layer; 0: those there are", minimum=0
    )

    def optimizer(self) -> Any:
        """The step-size rule of both networks."""
        return kl.Adam(step_size=self.step_size, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)

    def rules(self) -> list[Any]:
        """The unit rules of both networks."""
        return []

    def layers(self, outputs: int, *last: Any) -> list[Any]:
        """The layers of a network, input side first."""
        made: list[Any] = []
        for index, units in enumerate(self.hidden):
            made += [
                kl.Linear(units, fan_in=0 if index else self.first_fan_in),
                getattr(kl, self.activation)(),
            ]
        return [*made, kl.Linear(outputs), *last]

    def build(
        self,
        observations: int,
        actions: int,
        discrete: bool,
        seeds: Sequence[int],
        device: str = "cpu",
        precision: str = "float32",
    ) -> kl.PPO:
        """Agents, one for each seed.

        observations: numbers of one.  actions: numbers of one, or how many there are.  discrete: which.
        """

        def network(outputs: int, stream: int, *last: Any) -> kl.Network:
            return kl.Network(
                self.layers(outputs, *last),
                input_shape=(observations,),
                runs=len(seeds),
                seeds=list(seeds),
                init=self.init,
                device=device,
                precision=precision,
                stream=stream,
            )

        return kl.PPO(
            network(actions, 0, *([] if discrete else [kl.LogStd()])),
            network(1, 1),
            loss=kl.ClippedPolicy(
                distribution="categorical" if discrete else "gaussian", clip=self.clip, entropy=self.entropy
            ),
            optimizer=self.optimizer(),
            rules=self.rules(),
            steps=self.buffer,
            epochs=self.passes,
            batch_size=self.minibatch,
            discount=self.discount,
            trace_decay=self.trace_decay,
            truncation=self.truncation,
            max_gradient_norm=self.max_gradient_norm or None,
            normalise_observations=self.normalise_observations,
            normalise_rewards=self.normalise_rewards,
        )


@dataclass(frozen=True)
class PpoTunedAdam(Ppo):
    """Adam with equal decays of both moments, which keeps updates from becoming too large."""

    name: ClassVar[str] = "ppo-tuned-adam"

    beta2: float = option(0.99, "decay of Adam's second moment", minimum=0)
    beta1: float = option(0.99, "decay of Adam's first moment", minimum=0)


@dataclass(frozen=True)
class PpoL2(PpoTunedAdam):
    """The same with L2 regularisation: the decay is part of the gradient, biases and log sigma included."""

    name: ClassVar[str] = "ppo-l2"

    weight_decay: float = option(0.0, "L2 regularisation: gradient += weight_decay * weight", minimum=0)

    def optimizer(self) -> Any:
        return kl.Adam(
            step_size=self.step_size,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class ContinualPpo(Replacing, PpoL2):
    """PPO whose mature units of least utility are replaced by new ones, a few at a time, in both networks."""

    name: ClassVar[str] = "continual-ppo"

    replacement_rate: float = option(1e-4, "share of the counted units replaced at each step", minimum=0)
    maturity: int = option(10_000, "age in steps of learning up to which a unit is protected", minimum=0)

    def rules(self) -> list[Any]:
        return [self.replacement()]


@dataclass(frozen=True)
class PpoRedo(PpoL2):
    """PPO whose dormant units are replaced every so many updates, in both networks."""

    name: ClassVar[str] = "ppo-redo"

    threshold: float = option(0.1, "activity over the layer's mean up to which a unit is dormant", minimum=0)
    period: int = option(100, "updates from one look at the units to the next", minimum=1)
    reset_optimizer_state: bool = option(False, "whether a new unit's weights begin with fresh moments")

    def rules(self) -> list[Any]:
        return [
            kl.ReDo(
                threshold=self.threshold,
                period=self.period,
                reset_optimizer_state=self.reset_optimizer_state,
            )
        ]


KINDS: dict[str, type[Ppo]] = {
    method.name: method for method in (Ppo, PpoTunedAdam, PpoL2, ContinualPpo, PpoRedo)
}
# What paper and code agree on, beside what is every method's default above.
PUBLISHED: dict[str, dict[str, Any]] = {
    "ppo-l2": {"weight_decay": 1e-3},
    "continual-ppo": {"weight_decay": 1e-4},
    "ppo-redo": {"weight_decay": 1e-4},
}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    # The code's Ant has 111 observations, 84 of them always zero.
    "authors": {name: {"first_fan_in": 111} for name in KINDS},
    "paper": {},
}
PROFILES["authors"]["continual-ppo"]["count_mode"] = "bernoulli"

AGENTS = Methods(KINDS, PUBLISHED, PROFILES)
