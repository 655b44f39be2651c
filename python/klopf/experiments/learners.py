"""Methods that learn examples one by one: an optimizer, and a unit rule or none, each with its own options.

Every optimizer goes with every rule: `idbd` alone, or `idbd+cbp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.replacing import Replacing
from klopf.experiments.settings import option

SCOPES = ("network", "layer", "unit", "weight")


@dataclass(frozen=True)
class OnlineMethod:
    """What every method has."""

    name: ClassVar[str]

    def optimizer(self) -> Any:
        """The step-size rule."""
        raise NotImplementedError

    def rules(self) -> list[Any]:
        """The unit rules that follow the optimizer."""
        return []

    def build(
        self,
        layers: Sequence[Any],
        inputs: int,
        seeds: Sequence[int],
        loss: str,
        init: str,
        device: str,
        precision: str,
    ) -> kl.Learner:
        """A learner with one run for each seed."""
        network = kl.Network(
            list(layers),
            input_shape=(inputs,),
            runs=len(seeds),
            seeds=list(seeds),
            init=init,
            device=device,
            precision=precision,
        )
        return kl.Learner(network, loss=loss, optimizer=self.optimizer(), rules=self.rules())


# --- optimizers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sgd(OnlineMethod):
    """Gradient descent; on a linear unit the LMS rule."""

    name: ClassVar[str] = "bp"

    step_size: float = option(0.01, "where step sizes begin; of SGD and Adam the one there is", above=0)
    momentum: float = option(0.0, "momentum of SGD", minimum=0)
    weight_decay: float = option(0.0, "L2 regularisation: gradient += weight_decay * weight", minimum=0)

    def optimizer(self) -> Any:
        return kl.SGD(step_size=self.step_size, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Adam(OnlineMethod):
    """Adam."""

    name: ClassVar[str] = "adam"

    step_size: float = option(0.001, "where step sizes begin; of SGD and Adam the one there is", above=0)
    beta1: float = option(0.9, "decay of Adam's first moment", minimum=0)
    beta2: float = option(0.999, "decay of the second moment, Adam's or AdaptiveObGD's", minimum=0)
    weight_decay: float = option(0.0, "L2 regularisation: gradient += weight_decay * weight", minimum=0)

    def optimizer(self) -> Any:
        return kl.Adam(
            step_size=self.step_size, beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class Idbd(OnlineMethod):
    """Incremental delta-bar-delta."""

    name: ClassVar[str] = "idbd"

    step_size: float = option(0.05, "where step sizes begin; of SGD and Adam the one there is", above=0)
    meta_step_size: float = option(0.01, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    scope: str = option("weight", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        return kl.IDBD(step_size=self.step_size, meta_step_size=self.meta_step_size, scope=self.scope)


@dataclass(frozen=True)
class Autostep(OnlineMethod):
    """Autostep."""

    name: ClassVar[str] = "autostep"

    step_size: float = option(0.01, "where step sizes begin; of SGD and Adam the one there is", above=0)
    meta_step_size: float = option(0.01, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    time_constant: float = option(1e4, "tau of Autostep's normaliser, in examples", minimum=1)
    scope: str = option("weight", "who owns a step size, or ObGD's bound", choices=SCOPES)
    bound: str = option("unit", "whose step Autostep keeps from overshooting", choices=SCOPES[:-1])

    def optimizer(self) -> Any:
        return kl.Autostep(
            step_size=self.step_size,
            meta_step_size=self.meta_step_size,
            time_constant=self.time_constant,
            scope=self.scope,
            bound=self.bound,
        )


@dataclass(frozen=True)
class Obgd(OnlineMethod):
    """Overshooting-bounded gradient descent."""

    name: ClassVar[str] = "obgd"

    step_size: float = option(1.0, "where step sizes begin; of SGD and Adam the one there is", above=0)
    kappa: float = option(2.0, "ObGD's kappa", minimum=0)
    scope: str = option("network", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        return kl.ObGD(step_size=self.step_size, kappa=self.kappa, scope=self.scope)


@dataclass(frozen=True)
class AdaptiveObgd(Obgd):
    """ObGD along the gradient over the root of its mean square."""

    name: ClassVar[str] = "adaptive-obgd"

    beta2: float = option(0.999, "decay of the second moment, Adam's or AdaptiveObGD's", minimum=0)

    def optimizer(self) -> Any:
        return kl.AdaptiveObGD(step_size=self.step_size, kappa=self.kappa, beta2=self.beta2, scope=self.scope)


OPTIMIZERS: tuple[type[OnlineMethod], ...] = (Sgd, Adam, Idbd, Autostep, Obgd, AdaptiveObgd)


# --- unit rules ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithContinualBackprop(Replacing):
    """Units of least utility are replaced."""

    short: ClassVar[str] = "cbp"

    replacement_rate: float = option(1e-4, "share of the counted units replaced at each step", minimum=0)
    maturity: int = option(10, "age in steps of learning up to which a unit is protected", minimum=0)

    def rules(self) -> list[Any]:
        """See `OnlineMethod`."""
        return [self.replacement()]


@dataclass(frozen=True)
class WithNoise:
    """Noise is added to every weight."""

    short: ClassVar[str] = "noise"

    noise: float = option(1e-5, "standard deviation of the noise added at every step", minimum=0)

    def rules(self) -> list[Any]:
        """See `OnlineMethod`."""
        return [kl.ShrinkAndPerturb(noise=self.noise)]


@dataclass(frozen=True)
class WithReDo:
    """Dormant units are replaced."""

    short: ClassVar[str] = "redo"

    threshold: float = option(0.1, "activity over the layer's mean up to which a unit is dormant", minimum=0)
    period: int = option(100, "steps from one look at the units to the next", minimum=1)

    def rules(self) -> list[Any]:
        """See `OnlineMethod`."""
        return [kl.ReDo(threshold=self.threshold, period=self.period)]


RULES: tuple[Any, ...] = (WithContinualBackprop, WithNoise, WithReDo)


def combined(optimizer: type[OnlineMethod], rule: Any) -> type[OnlineMethod]:
    """The method of both."""
    name = "cbp" if (optimizer.name, rule.short) == ("bp", "cbp") else f"{optimizer.name}+{rule.short}"
    made = type(name, (rule, optimizer), {"name": name, "__doc__": f"{optimizer.__doc__} {rule.__doc__}"})
    return dataclass(frozen=True)(made)


KINDS: dict[str, type[OnlineMethod]] = {method.name: method for method in OPTIMIZERS} | {
    made.name: made for rule in RULES for made in (combined(optimizer, rule) for optimizer in OPTIMIZERS)
}
