"""Slowly changing regression: a target network of which the learner sees a part that changes now and then.

Random bits and a constant; some of the bits are held, and every so many examples one of them flips, or all
are drawn anew.  The target is a network of linear threshold units with weights of +1 and -1.
Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024), and its public
code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import metrics
from klopf.experiments import learners, online, stepping, unit_rules
from klopf.experiments.decentralised import Decentralised
from klopf.experiments.lines import Line, Methods
from klopf.experiments.results import read_results
from klopf.experiments.room import WithRoom
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.supervised import Supervised
from klopf.experiments.tables import end_of_run

Floats = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Linear(stepping.Sgd, learners.OnlineMethod):
    """A linear unit: the baseline that has no features to lose."""

    name: ClassVar[str] = "linear"


@dataclass(frozen=True)
class Deep(WithRoom, learners.OnlineMethod):
    """A network with hidden layers."""

    normalisation: str = option(
        "none", "of what hidden units sum up, before their ReLU", choices=("none", "layernorm")
    )
    dropout: float = option(0.0, "probability of a hidden unit to be left out", minimum=0)

    def layers(self, hidden: Sequence[int]) -> list[Any]:
        """The layers, input side first."""
        made: list[Any] = []
        for units in hidden:
            made += [self.linear(units), *([kl.LayerNorm()] if self.normalisation == "layernorm" else [])]
            made += [kl.ReLU(), *([kl.Dropout(self.dropout)] if self.dropout > 0 else [])]
        return [*made, kl.Linear(1)]


# Backprop by other names: none was published for this stream, their settings are ours.
NAMED: dict[str, dict[str, Any]] = {
    "l2": {"weight_decay": 1e-4},
    "l2-init": {"weight_decay": 1e-4, "decay_to": "initial"},
    "layernorm": {"normalisation": "layernorm"},
    "layernorm+l2": {"normalisation": "layernorm", "weight_decay": 1e-4},
    "dropout": {"dropout": 0.1},
}
KINDS: dict[str, type[learners.OnlineMethod]] = {
    **stepping.combinations(Deep, stepping.OPTIMIZERS),
    **{name: stepping.combined(name, Deep, stepping.Sgd) for name in NAMED},
    "snp": stepping.combined("snp", Deep, stepping.Sgd, unit_rules.WithNoise),
    "decentralised": stepping.combined("decentralised", Deep, Decentralised),
    "linear": Linear,
}
SPELLED = stepping.spelled(
    ["linear", "bp", *NAMED, "snp", "decentralised", *(rule.short for rule in unit_rules.RULES)]
)
PUBLISHED: dict[str, dict[str, Any]] = {
    "bp": {"step_size": 0.01},
    **{name: {"step_size": 0.01, **own} for name, own in NAMED.items()},
    "snp": {"step_size": 0.01, "weight_decay": 1e-4, "noise": 1e-5},
    "cbp": {"step_size": 0.01, "replacement_rate": 1e-4},
    # None was published for IDBD: the best of four (0.003 and 0.01, with theta 0.001 and 0.01) on six runs of
    # 600,000 examples, one bit flipping.
    **{name: {"step_size": 0.01} for name in KINDS if name.split("+")[0] == "idbd"},
}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {"authors": {}, "paper": {}}
METHODS = Methods(KINDS, PUBLISHED, PROFILES)
# Of the stream, where text and code differ.
STREAMS: dict[str, dict[str, Any]] = {
    "paper": {"flip": "one", "examples": 3_000_000, "target_threshold": "paper"},
    "authors": {"flip": "all", "examples": 1_000_000, "target_threshold": "authors"},
}


@dataclass(frozen=True)
class Settings(Supervised):
    """Slowly changing regression."""

    method: tuple[str, ...] = option(
        ("bp", "cbp"), "methods, one line each", choices=tuple(KINDS), spelled=SPELLED
    )
    profile: str = option(
        "authors", "where --flip, --examples and --target-threshold come from", choices=tuple(PROFILES)
    )

    examples: int | None = option(
        None, "examples of the stream (authors: 1000000; paper: 3000000)", minimum=1
    )
    flip: str | None = option(
        None,
        "held bits that change (authors: all, drawn anew; paper: one)",
        choices=("one", "all"),
    )
    target_threshold: str | None = option(
        None,
        "of the target's units (default: the profile's)",
        choices=tuple(STREAMS),
    )
    flip_every: int = option(10_000, "examples from one change to the next", minimum=1)
    bits: int = option(20, "random bits of an example, beside a constant", minimum=1, maximum=53)
    held: int = option(15, "bits, the first ones, that are held between changes", minimum=0)
    target_units: int = option(100, "units of the target network", minimum=1)

    hidden: tuple[int, ...] = option((5,), "units of each hidden layer of the learner", minimum=1)
    init: str = option("kaiming", "how the learner's weights are drawn", choices=kl.initialisers)
    measure_every: int = option(20_000, "examples from one measurement to the next", minimum=1)


@dataclass(frozen=True)
class Bits:
    """The stream."""

    settings: Settings
    seeds: Sequence[int]

    @cached_property
    def _targets(self) -> list[_Target]:
        return [_Target(self.settings, seed) for seed in self.seeds]

    @cached_property
    def _held(self) -> list[NDArray[np.int8]]:
        """The held bits of every run in all periods [periods, held]."""
        s = self.settings
        assert s.examples is not None
        periods = -(-s.examples // s.flip_every)
        found = []
        for seed in self.seeds:
            generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 3]))
            if s.flip == "all":
                found.append(generator.integers(2, size=(periods, s.held), dtype=np.int8))
                continue
            changes = np.zeros((periods, s.held), np.int8)
            changes[0] = generator.integers(2, size=s.held)
            changes[np.arange(1, periods), generator.integers(s.held, size=periods - 1)] = 1
            found.append(np.cumsum(changes, axis=0) % 2)
        return found

    def examples(self, first: int, count: int) -> tuple[Floats, Floats]:
        """As `online.Stream`."""
        s = self.settings
        x = np.empty((len(self.seeds), count, s.bits), np.float32)
        y = np.empty((len(self.seeds), count, 1), np.float32)
        period = np.arange(first, first + count) // s.flip_every
        for run, seed in enumerate(self.seeds):
            free = online.drawn(
                seed, 1, first, count, lambda g, n: g.integers(2, size=(n, s.bits - s.held), dtype=np.uint8)
            )
            x[run, :, : s.held] = self._held[run][period]
            x[run, :, s.held :] = free
            y[run, :, 0] = self._targets[run](x[run])
        return x, y


class _Target:
    """The network of one run's targets, of linear threshold units."""

    def __init__(self, settings: Settings, seed: int) -> None:
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 4]))
        signs = generator.choice(
            np.array([-1.0, 1.0], np.float32), size=(settings.target_units, settings.bits + 2)
        )
        self._weights, bias, self._out = signs[:, :-2], signs[:, -2], signs[:, -1]
        inputs = settings.bits + 1  # the constant is one
        if settings.target_threshold == "paper":
            negative = (self._weights < 0).sum(axis=1) + (bias < 0)
        else:
            negative = (settings.bits - self._weights.sum(axis=1) + bias) / 2
        self._above = 0.7 * inputs - negative - bias

    def __call__(self, x: Floats) -> Floats:
        """Targets [N] of inputs [N, bits]; equal ones, of which a stretch has many, are computed once."""
        codes = x @ np.exp2(np.arange(x.shape[1])).astype(np.float64)
        _, first, which = np.unique(codes, return_index=True, return_inverse=True)
        active = (x[first] @ self._weights.T > self._above).astype(np.float32)
        values: Floats = active @ self._out
        return values[which]


class Plan(online.Plan):
    name, kind, methods, loss = "regression", Settings, METHODS, "mse"
    measured = (
        "error",  # mean squared error over the stretch, each example before it is learned
        "dormant_rate",  # this and the following on the stretch's last 1,000 examples, see klopf.metrics
        "backbone_share",
        "weight_magnitude",
        "diverged",
    )

    def stream(self) -> Bits:
        return Bits(self.settings, self.seeds)

    def learner(self, method: learners.OnlineMethod, events: int) -> kl.Learner:
        return learner_of(self, method, self.settings.bits, events)

    def measure(
        self, method: learners.OnlineMethod, learner: kl.Learner, learned: online.Learned
    ) -> Mapping[str, Any]:
        found = metrics.measure(learner.net, learned.x[:, -online.PROBE :])
        return {"error": learned.errors, **{name: found[name] for name in self.measured[1:-1]}}


def learner_of(plan: online.Plan, method: learners.OnlineMethod, inputs: int, events: int) -> kl.Learner:
    """A network with the hidden layers of the settings where the method has some, else a linear unit."""
    s = plan.settings
    layers = method.layers(s.hidden) if isinstance(method, Deep) else [kl.Linear(1)]
    return method.build(layers, inputs, plan.seeds, plan.loss, s.init, s.device, s.precision, events)


def check_hidden(given: Mapping[str, Any], lines: Sequence[Line[Any]]) -> None:
    """Raises kl.Error where hidden layers are asked for and no line has any."""
    if "hidden" in given and all(isinstance(line.method, Linear) for line in lines):
        raise kl.Error("--hidden is an option of networks, got only linear")


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    unset = {
        name: value for name, value in STREAMS[settings.profile].items() if getattr(settings, name) is None
    }
    settings = dataclasses.replace(settings, **unset)
    if settings.held > settings.bits:
        raise kl.Error(f"--held must be at most --bits, got {settings.held} and {settings.bits}")
    if settings.flip == "one" and settings.held == 0:
        raise kl.Error("--flip one needs a bit that is held, got --held 0")
    lines = METHODS.lines(settings.method, settings.profile, of_methods)
    check_hidden(given, lines)
    return Plan(settings, lines, list(command))


def command(arguments: Sequence[str]) -> None:
    """`klopf regression`."""
    parser = Plan.parser(
        "Slowly changing regression: do networks learn its millionth example like its first?"
    )
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(end_of_run(read_results(path)))
    print(report(path))
