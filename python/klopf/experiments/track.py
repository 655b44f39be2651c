"""Tracking a target that drifts: a linear unit whose step sizes find out which inputs matter.

Twenty inputs, normal and independent; the target is the sum of five of them, each with a sign, one of which,
drawn at random, changes every twenty examples.  Source: Sutton, "Adapting bias by gradient descent: an
incremental version of delta-bar-delta", AAAI (1992).  klopf's unit has a bias beside its twenty weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import learners, online, stepping
from klopf.experiments.lines import Methods
from klopf.experiments.results import read_results
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.statistics import mean
from klopf.experiments.supervised import Supervised
from klopf.experiments.tables import end_of_run

Floats = NDArray[np.float32]
Values = NDArray[np.float64]


class Lms(stepping.Sgd):
    """The delta rule with one step size."""

    short: ClassVar[str] = "lms"


_KINDS = stepping.combinations(learners.OnlineMethod, (Lms, *stepping.OPTIMIZERS[1:]), rules=(None,))
METHODS = Methods(_KINDS, {"lms": {"step_size": 0.03}}, {"paper": {}})


@dataclass(frozen=True)
class Settings(Supervised):
    """The tracking task of 1992."""

    method: tuple[str, ...] = option(
        ("lms", "idbd", "autostep"), "methods, one line each", choices=tuple(_KINDS)
    )
    examples: int = option(30_000, "examples of the stream", minimum=1)
    measure_every: int = option(1000, "examples from one measurement to the next", minimum=1)
    inputs: int = option(20, "inputs of the unit", minimum=1)
    relevant: int = option(5, "inputs, the first ones, that the target is of", minimum=1)
    flip_every: int = option(20, "examples after which one sign changes", minimum=1)


@dataclass(frozen=True)
class Drift:
    """The stream."""

    settings: Settings
    seeds: Sequence[int]

    def examples(self, first: int, count: int) -> tuple[Floats, Floats]:
        """As `online.Stream`."""
        s = self.settings
        x = np.empty((len(self.seeds), count, s.inputs), np.float32)
        y = np.empty((len(self.seeds), count, 1), np.float32)
        for run, seed in enumerate(self.seeds):
            signs = self._signs(seed, first + count)[first // s.flip_every :]
            x[run] = online.drawn(
                seed, 1, first, count, lambda g, n: g.standard_normal((n, s.inputs), dtype=np.float32)
            )
            now = np.repeat(signs, s.flip_every, axis=0)[first % s.flip_every :][:count]
            y[run, :, 0] = (now * x[run, :, : s.relevant]).sum(axis=1)
        return x, y

    def _signs(self, seed: int, examples: int) -> NDArray[np.int8]:
        """Of all periods up to so many examples [periods, relevant]."""
        periods = -(-examples // self.settings.flip_every)
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 2]))
        changes = np.ones((periods, self.settings.relevant), np.int8)
        which = generator.integers(self.settings.relevant, size=periods)
        changes[np.arange(1, periods), which[1:]] = -1
        return np.cumprod(changes, axis=0, dtype=np.int8)


class Plan(online.Plan):
    name, kind, methods, loss = "track", Settings, METHODS, "squared_error"
    measured = (
        "error",  # mean squared error over the stretch, each example before it is learned
        "step_size_relevant",  # mean over the weights of inputs that matter, at the end of the stretch
        "step_size_irrelevant",  # and of those that do not
        "diverged",
    )

    def stream(self) -> Drift:
        return Drift(self.settings, self.seeds)

    def learner(self, method: learners.OnlineMethod, events: int) -> kl.Learner:
        s = self.settings
        learner = method.build(
            [kl.Linear(1)], s.inputs, self.seeds, self.loss, "kaiming", s.device, s.precision, events
        )
        learner.net.reset([-1], to="zero")
        return learner

    def measure(
        self, method: learners.OnlineMethod, learner: kl.Learner, learned: online.Learned
    ) -> Mapping[str, Any]:
        sizes = np.full((len(learned.errors), self.settings.inputs), np.nan)
        if isinstance(method, stepping.Sgd):
            sizes[:] = method.step_size
        elif not isinstance(method, stepping.Adam | stepping.Upgd):
            sizes[:] = learner.step_sizes()["0.weight"][:, 0]
        relevant = self.settings.relevant
        return {
            "error": learned.errors,
            "step_size_relevant": sizes[:, :relevant].mean(axis=1),
            "step_size_irrelevant": mean(sizes[:, relevant:], axis=1),
        }


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    if settings.relevant > settings.inputs:
        raise kl.Error(f"--relevant must be at most --inputs, got {settings.relevant} and {settings.inputs}")
    return Plan(settings, METHODS.lines(settings.method, "paper", of_methods), list(command))


def command(arguments: Sequence[str]) -> None:
    """`klopf track`."""
    parser = Plan.parser("Tracking a target that drifts: do step sizes find out which inputs matter?")
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(end_of_run(read_results(path)))
    print(report(path))
