"""Streams of examples that are learned one by one, by R networks in lockstep.

for each stretch of examples
    for each line (a method with its settings)
        learn every example once, as it comes
        the mean error over the stretch, and what else there is to see
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import plan as plans
from klopf.experiments.events import EventLog
from klopf.experiments.learners import OnlineMethod
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import Folder, Table
from klopf.experiments.session import Session
from klopf.experiments.statistics import mean
from klopf.experiments.supervised import OwnMetrics, kept_in_mind, own_files, with_own

Floats = NDArray[np.float32]
Values = NDArray[np.float64]


class Stream(Protocol):
    """Examples for every run: a function of its seed and the example's number alone."""

    def examples(self, first: int, count: int) -> tuple[Floats, Floats]:
        """So many from number `first` on: inputs [R, count, I] and targets [R, count, 1]."""


BLOCK = 1000  # examples that are drawn together
PROBE = 1000  # the last examples of a stretch, that units are measured on


def drawn(
    seed: int, kind: int, first: int, count: int, draw: Callable[[np.random.Generator, int], NDArray[Any]]
) -> NDArray[Any]:
    """So many random examples from number `first` on, whatever stretch they are asked for in.

    kind: tells what is drawn apart.  draw: draws so many from a generator, [n, ...].
    """
    blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
    parts = [
        draw(np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, block, kind])), BLOCK)
        for block in blocks
    ]
    begin = first - blocks.start * BLOCK
    return np.concatenate(parts)[begin : begin + count]


class Learned(NamedTuple):
    """A stretch that a line has just learned.

    errors: mean squared errors over it [R].  x, y: its inputs and targets.  kept: what the line wants to know
    later, by name.
    """

    stretch: int
    errors: Values
    x: Floats
    y: Floats
    kept: MutableMapping[str, NDArray[Any]]


class Plan(plans.Plan[Any, OnlineMethod]):
    """settings: also have `examples`, how many there are, and `measure_every`; are `Supervised`.

    An experiment whose stretches are something else says so in `stretches` and `stretch`.
    """

    measured: ClassVar[tuple[str, ...]]
    loss: ClassVar[str]  # "mse", or "squared_error", half of it
    stretch_said: ClassVar[str] = "stretch"

    def more(self) -> dict[str, Any]:
        return own_files(self.settings.metric)

    @property
    def table(self) -> Table:
        """One row a stretch of examples."""
        columns = with_own(self.measured, self.settings.metric)
        return Table(columns, "example", self.settings.measure_every, self.settings.examples)

    @property
    def stretches(self) -> int:
        """How many there are."""
        return int(-(-self.settings.examples // self.settings.measure_every))

    def stretch(self, index: int) -> tuple[int, int]:
        """Its first example, and how many it has."""
        first = index * self.settings.measure_every
        return first, min(self.settings.measure_every, self.settings.examples - first)

    def begin(self, method: OnlineMethod, learner: kl.Learner, stretch: int) -> None:
        """What happens before a stretch."""

    def learn(self, method: OnlineMethod, learner: kl.Learner, stretch: int, x: Floats, y: Floats) -> Values:
        """Every example of a stretch once, as it comes: mean squared errors [R], each before it is
        learned."""
        losses = learner.run(x, y, batch_size=1, epochs=1, shuffle=False).loss[:, 0]
        return losses if self.loss == "mse" else 2 * losses

    def experiment(self) -> Experiment:
        return Experiment(self)

    @abstractmethod
    def stream(self) -> Stream:
        """What is learned."""

    @abstractmethod
    def learner(self, method: OnlineMethod, events: int) -> kl.Learner:
        """What learns, one run for each seed.  events: replacements that it keeps in mind."""

    @abstractmethod
    def measure(self, method: OnlineMethod, learner: kl.Learner, learned: Learned) -> Mapping[str, Any]:
        """What a row says, by name, values [R]."""


class Experiment:
    """The loop over stretches and lines, from wherever the record stands."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.settings = plan, plan.settings
        self.stream = plan.stream()
        self.own = OwnMetrics(self.settings.metric, plan.measured)
        kept = kept_in_mind(plan.lines, self.settings.events)
        self.parts = [plan.learner(line.method, n) for line, n in zip(plan.lines, kept, strict=True)]
        self.record = Record()

    @property
    def arithmetic(self) -> str:
        return self.parts[0].net._arithmetic

    def progress(self) -> Progress:
        """In stretches, so that a line counts when it is through one."""
        record, lines = self.record, len(self.parts)
        done = record.task * lines + record.line
        return Progress(self.plan.stretch_said, self.plan.stretches, lines, done, self.settings.quiet)

    def run(self, folder: Folder, session: Session) -> None:
        """Everything that is left to do."""
        for stretch in range(self.record.task, self.plan.stretches):
            with session.timed("data"):
                x, y = self.stream.examples(*self.plan.stretch(stretch))
            if not self.record.rows:
                self.own.measure(self.parts[0], x[:, -PROBE:], {})
            for index in range(self.record.line, len(self.parts)):
                log = EventLog(self.parts[index], self.settings.events, self.record)
                values = self.learn(stretch, index, x, y, session)
                folder.add_results(len(self.record.rows), values)
                log.look()
                log.write(folder)
                self.record.finish_line(values, len(self.parts))
                session.serve()

    def seen(self, index: int) -> tuple[Floats, dict[str, Any]]:
        """What a line's units were measured on last: the end of its latest stretch; for pixels, nothing."""
        x, _ = self.stream.examples(*self.plan.stretch(self.record.latest(index)))
        return x[:, -PROBE:], {}

    def learn(self, stretch: int, index: int, x: Floats, y: Floats, session: Session) -> Values:
        """One line learns one stretch: what is measured [R, measured]."""
        plan, line, learner = self.plan, self.plan.lines[index], self.parts[index]
        alive = learner.alive
        plan.begin(line.method, learner, stretch)
        with session.training(index, line.label, 1):
            errors = plan.learn(line.method, learner, stretch, x, y)
        with session.timed("metrics"):
            found = {
                **plan.measure(
                    line.method, learner, Learned(stretch, errors, x, y, self.record.kept_by(index))
                ),
                **self.own.measure(learner, x[:, -PROBE:], {}),
            }
        for run in np.flatnonzero(alive & ~learner.alive):
            session.progress.note(f"{line.label}: run {run} diverged")
        values = np.stack([np.asarray(found[name], np.float64) for name in plan.table.measured[:-1]], axis=1)
        values[~learner.alive] = np.nan
        error = float(mean(values[:, 0]))
        session.progress.measured(
            line.label, {"error": f"error {error:.3g}" if error == error else "diverged"}
        )
        return np.column_stack([values, ~learner.alive])
