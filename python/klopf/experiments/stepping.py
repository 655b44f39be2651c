"""Optimizers and unit rules with their options, and methods that are made of both.

Every optimizer goes with every rule, on top of what an experiment needs of a method: `idbd`, `idbd+cbp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import klopf as kl
from klopf.experiments.settings import option
from klopf.experiments.unit_rules import RULES

CLIP = (
    "of intentional updates, whose step size is the share of an error that a step takes away: errors count "
    "for at most so many times their root mean square"
)
BEGIN = "where step sizes begin; of SGD and Adam the one there is"
DECAY = (
    "gradient += weight_decay * weight; beside the gradient of AdamW, UPGD, MetaOptimize, IDBD and Autostep"
)
TO = "where weight decay leads to: zero, or the initial weights"
DECAYS = ("zero", "initial")
SCOPES = ("network", "layer", "unit", "weight")


# --- optimizers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sgd:
    """Gradient descent; on a linear unit the LMS rule."""

    short: ClassVar[str] = "bp"

    step_size: float = option(0.01, BEGIN, above=0)
    momentum: float = option(0.0, "momentum of SGD", minimum=0)
    weight_decay: float = option(0.0, DECAY, minimum=0)
    decay_to: str = option("zero", TO, choices=DECAYS)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.SGD(
            step_size=self.step_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_to=self.decay_to,
        )


@dataclass(frozen=True)
class Adam:
    """Adam."""

    short: ClassVar[str] = "adam"
    kind: ClassVar[Any] = kl.Adam

    step_size: float = option(0.001, BEGIN, above=0)
    beta1: float = option(0.9, "decay of the first moment", minimum=0)
    beta2: float = option(0.999, "decay of the second moment", minimum=0)
    weight_decay: float = option(0.0, DECAY, minimum=0)
    decay_to: str = option("zero", TO, choices=DECAYS)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return self.kind(
            step_size=self.step_size,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            decay_to=self.decay_to,
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose weights decay beside the gradient."""

    short: ClassVar[str] = "adamw"
    kind: ClassVar[Any] = kl.AdamW

    weight_decay: float = option(0.01, DECAY, minimum=0)


@dataclass(frozen=True)
class Upgd:
    """Utility-based perturbed gradient descent: weights of little utility change most."""

    short: ClassVar[str] = "upgd"

    step_size: float = option(0.01, BEGIN, above=0)
    weight_decay: float = option(0.0, DECAY, minimum=0)
    weight_utility_decay: float = option(0.999, "decay of UPGD's running utility of weights", minimum=0)
    gradient_noise: float = option(0.001, "deviation of the noise that UPGD adds to gradients", minimum=0)
    upgd_factor: float = option(1.0, "of UPGD's step: published experiments 1, library 2", above=0)
    upgd_maximum: str = option(
        "uncorrected",
        "of which utilities UPGD takes the maximum that it divides by",
        choices=("uncorrected", "corrected"),
    )

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.UPGD(
            step_size=self.step_size,
            weight_decay=self.weight_decay,
            utility_decay=self.weight_utility_decay,
            noise=self.gradient_noise,
            factor=self.upgd_factor,
            maximum=self.upgd_maximum,
        )


@dataclass(frozen=True)
class Limited:
    """What is done to step sizes beside learning them."""

    step_size: float = option(0.01, BEGIN, above=0)
    minimum_step_size: float = option(
        0.0, "the least that step sizes of IDBD and Autostep fall to", minimum=0
    )
    maximum_step_size: float | None = option(None, "the most that they rise to (default: no limit)", above=0)
    newcomer_step_size: float | None = option(
        None, "where those of replaced units begin (default: where all do)", above=0
    )
    output_step_size: float | None = option(
        None, "a fixed one for the last layer (default: learned like others)", minimum=0
    )
    weight_decay: float = option(0.0, DECAY, minimum=0)

    def limits(self) -> dict[str, Any]:
        """As the optimizers take them.  Raises kl.Error where step sizes would begin outside of them."""
        begin = self.step_size
        if begin < self.minimum_step_size:
            raise kl.Error(
                f"--step-size must be at least --minimum-step-size {self.minimum_step_size:g}, got {begin:g}"
            )
        if self.maximum_step_size is not None and begin > self.maximum_step_size:
            raise kl.Error(
                f"--step-size must be at most --maximum-step-size {self.maximum_step_size:g}, got {begin:g}"
            )
        return {
            "minimum_step_size": self.minimum_step_size,
            "maximum_step_size": self.maximum_step_size,
            "newcomer_step_size": self.newcomer_step_size,
            "output_step_size": self.output_step_size,
            "weight_decay": self.weight_decay,
        }


@dataclass(frozen=True)
class Idbd(Limited):
    """Incremental delta-bar-delta."""

    short: ClassVar[str] = "idbd"

    step_size: float = option(0.05, BEGIN, above=0)
    meta_step_size: float = option(0.01, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    scope: str = option("weight", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.IDBD(
            step_size=self.step_size,
            meta_step_size=self.meta_step_size,
            scope=self.scope,
            **self.limits(),
        )


@dataclass(frozen=True)
class Autostep(Limited):
    """Autostep."""

    short: ClassVar[str] = "autostep"

    step_size: float = option(0.01, BEGIN, above=0)
    meta_step_size: float = option(0.01, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    time_constant: float = option(1e4, "tau of Autostep's normaliser, in examples", minimum=1)
    scope: str = option("weight", "who owns a step size, or ObGD's bound", choices=SCOPES)
    bound: str = option("unit", "whose step Autostep keeps from overshooting", choices=SCOPES[:-1])

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.Autostep(
            step_size=self.step_size,
            meta_step_size=self.meta_step_size,
            time_constant=self.time_constant,
            scope=self.scope,
            bound=self.bound,
            **self.limits(),
        )


@dataclass(frozen=True)
class Obgd:
    """Overshooting-bounded gradient descent."""

    short: ClassVar[str] = "obgd"

    step_size: float = option(1.0, BEGIN, above=0)
    kappa: float = option(2.0, "ObGD's kappa", minimum=0)
    scope: str = option("network", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.ObGD(step_size=self.step_size, kappa=self.kappa, scope=self.scope)


@dataclass(frozen=True)
class AdaptiveObgd(Obgd):
    """ObGD along the gradient over the root of its mean square."""

    short: ClassVar[str] = "adaptive-obgd"

    beta2: float = option(0.999, "decay of the second moment", minimum=0)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.AdaptiveObGD(step_size=self.step_size, kappa=self.kappa, beta2=self.beta2, scope=self.scope)


@dataclass(frozen=True)
class MetaOptimize:
    """AdamW whose step sizes are chosen for later losses."""

    short: ClassVar[str] = "meta-optimize"

    step_size: float = option(0.001, BEGIN, above=0)
    meta_step_size: float = option(0.001, "step size of step sizes: theta, or Autostep's mu", minimum=0)
    beta1: float = option(0.9, "decay of the first moment", minimum=0)
    beta2: float = option(0.999, "decay of the second moment", minimum=0)
    weight_decay: float = option(0.0, DECAY, minimum=0)
    meta_discount: float = option(0.9999, "gamma of later losses, of MetaOptimize", minimum=0)
    scope: str = option("network", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.MetaOptimize(
            step_size=self.step_size,
            meta_step_size=self.meta_step_size,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            discount=self.meta_discount,
            scope=self.scope,
        )


OPTIMIZERS: tuple[Any, ...] = (Sgd, Adam, AdamW, Upgd, Idbd, Autostep, Obgd, AdaptiveObgd, MetaOptimize)


@dataclass(frozen=True)
class Intentional:
    """Updates that take away a share of the error; of streaming agents alone."""

    short: ClassVar[str] = "intentional"

    step_size: float = option(0.5, BEGIN, above=0)
    beta2: float = option(0.999, "decay of the second moment", minimum=0)
    clip: float = option(20.0, CLIP, minimum=0)
    scope: str = option("network", "who owns a step size, or ObGD's bound", choices=SCOPES)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return kl.Intentional(step_size=self.step_size, beta2=self.beta2, clip=self.clip, scope=self.scope)


# --- methods ------------------------------------------------------------------------------------------------

Base = TypeVar("Base")


def combined(name: str, base: type[Base], optimizer: Any, rule: Any = None) -> type[Base]:
    """The method of all: the base has `optimizer()` and `rules()`, which the others say."""
    parts = (optimizer,) if rule is None else (rule, optimizer)
    made = type(name, (*parts, base), {"name": name, "__doc__": " ".join(part.__doc__ for part in parts)})
    return dataclass(frozen=True)(made)


def combinations(
    base: type[Base],
    optimizers: Sequence[Any],
    rules: Sequence[Any] = (None, *RULES),
    first: str = "",
) -> dict[str, type[Base]]:
    """Every optimizer with every rule, by name; the first optimizer goes without saying.

    first: what all names begin with.
    """
    found: dict[str, type[Base]] = {}
    for rule in rules:
        for optimizer in optimizers:
            words = [first, "" if optimizer is optimizers[0] else optimizer.short, rule.short if rule else ""]
            name = "+".join(filter(None, words)) or optimizer.short
            found[name] = combined(name, base, optimizer, rule)
    return found


def spelled(alone: Sequence[str], optimizers: Sequence[Any] = OPTIMIZERS[1:]) -> str:
    """For the help: names of methods, and what may be added to them."""
    others = ", ".join(one.short for one in optimizers)
    return f"{', '.join(alone)}; or of {others}, alone or with {added(RULES)}"


def added(kinds: Sequence[Any]) -> str:
    """As they are added to a name."""
    return ", ".join(f"+{kind.short}" for kind in kinds)
