"""Permuted images: every task shows the same images, their pixels in an order of its own.

    for each task of the stream
        a new order of the pixels, and of the images
        for each line (a method with its settings; all runs of it in lockstep)
            every minibatch, of one image as published, is classified and then learned, once
            online accuracy: the share that was classified correctly; metrics of the units

The network is fully connected, and the stream says nothing of tasks: heads go on like all else.
Protocol: "Online Permuted MNIST" of Dohare et al., "Loss of plasticity in deep continual learning", Nature
632 (2024), and its public code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

import klopf as kl
from klopf.experiments import tasks
from klopf.experiments.methods import IMAGE_METHODS, OTHERS, OURS, NetworkSize
from klopf.experiments.methods import METHODS as SGD_METHODS
from klopf.experiments.permuted_stream import Images, Permuted, PermutedStream
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.tables import table_of_lines

# What the public code compares all methods with, without momentum; of methods that it lacks they are ours.
PUBLISHED: dict[str, dict[str, Any]] = {
    **{name: {**values, "step_size": 0.003} for name, values in OURS.items()},
    **{name: {"replacement_rate": 1e-6, "maturity": 100} for name in OTHERS if name.endswith("+cbp")},
    "bp": {"step_size": 0.003},
    "l2": {"step_size": 0.003, "weight_decay": 1e-4},
    "snp": {"step_size": 0.003, "weight_decay": 1e-4, "noise": 1e-5},
    "cbp": {
        "step_size": 0.003,
        "replacement_rate": 1e-6,
        "maturity": 100,
        "utility_decay": 0.99,
        "count_from": "eligible",
        "replacement_init": "network",
    },
    "scratch": {"step_size": 0.003},
    "adam": {"step_size": 1e-4},
}
# The best of a few on two runs of the small stream.
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"step_size": 0.01} for name in SGD_METHODS},
    "l2": {"step_size": 0.01, "weight_decay": 1e-3},
    "snp": {"step_size": 0.01, "weight_decay": 1e-3, "noise": 1e-4},
    "cbp": {"step_size": 0.01, "replacement_rate": 1e-4, "utility": "contribution"},
}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "small": SMALL,
    "authors": {"cbp": {"utility": "adaptable_contribution"}},
    "paper": {"cbp": {"utility": "contribution"}},
}
METHODS = IMAGE_METHODS.under({"init": "kaiming", "momentum": 0.0}, PUBLISHED, PROFILES)
# Of the stream and the network; `small` is ours, for a core and a few minutes.
_PUBLISHED = {"size": 28, "images": 6000, "pixels": "unit", "tasks": 800, "hidden": (2000, 2000, 2000)}
STREAMS: dict[str, dict[str, Any]] = {
    "small": {"size": 16, "images": 300, "pixels": "standardised", "tasks": 200, "hidden": (100, 100, 100)},
    "authors": _PUBLISHED,
    "paper": _PUBLISHED,
}


@dataclass(frozen=True)
class Settings(tasks.Settings):
    """Permuted images, learned as they come."""

    profile: str = option(
        "small",
        "where unset options of stream, network and methods come from; small is ours",
        choices=tuple(PROFILES),
    )
    size: int | None = option(
        None, "height and width of synthetic images (default: 28; small: 16)", minimum=1
    )

    classes: int = option(10, "classes told apart; of packed images the first ones", minimum=2)
    images: int | None = option(None, "images of each class (default: 6000; small: 300)", minimum=1)
    grey: bool = option(False, "show the mean of the three channels")
    pixels: str | None = option(
        None,
        "shown from 0 to 1 (default), or standardised (small)",
        choices=("unit", "standardised"),
    )

    tasks: int | None = option(None, "tasks of the stream (default: 800; small: 200)", minimum=1)
    examples: int | None = option(None, "images shown of a task, drawn from all (default: all)", minimum=1)
    epochs: int = option(1, "how often a task shows them", minimum=1)
    batch_size: int = option(1, "images of a minibatch", minimum=1)
    hidden: tuple[int, ...] | None = option(
        None, "units of each hidden layer (default: 2000 2000 2000; small: 100 100 100)", minimum=1
    )


WORK = 2e9  # of a stretch, the examples that are learned in one call: about a second of a core's


# --- the experiment -----------------------------------------------------------------------------------------


class Plan(tasks.Plan):
    name, kind, methods = "permuted", Settings, METHODS
    measured = (
        "accuracy",  # share of the task's images that were classified correctly before they were learned
        *tasks.UNITS,
    )

    def experiment(self) -> Experiment:
        return Experiment(self)


class Experiment(tasks.Experiment[Permuted]):
    """A step is a stretch of examples, of whole minibatches, which only an epoch's end cuts short.

    Raises kl.Error where there are too few classes or images.
    """

    def __init__(self, plan: Plan) -> None:
        s = plan.settings
        self.stream = PermutedStream(
            plan.source,
            plan.seeds,
            classes=s.classes,
            images=s.images,
            examples=s.examples,
            grey=s.grey,
        )
        tasks.refuse_single_images(plan.lines, s.batch_size, [self.stream.examples])
        # Its length follows from the settings, never from the clock: learners count the calls.
        widths = [int(np.prod(self.stream.shape)), *s.hidden, s.classes]
        cost = 30 * widths[0] + sum(a * b for a, b in pairwise(widths))  # of making and learning an example
        batches = max(1, int(WORK / (s.runs * s.batch_size * cost)))
        self.stretch = batches * s.batch_size
        self.stretches = -(-self.stream.examples // self.stretch)  # of an epoch
        network = NetworkSize((), (), s.hidden, s.classes)
        super().__init__(plan, network, self.stream.shape, s.epochs * self.stretches)

    @cached_property
    def pixels(self) -> dict[str, Any]:
        mean, deviation = np.zeros(self.stream.shape[0]), np.ones(self.stream.shape[0])
        if self.settings.pixels == "standardised":
            mean, deviation = self.stream.moments()
        scale, offset = 1 / (255 * deviation), -mean / deviation
        return {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32)}

    def task(self, task: int) -> Permuted:
        return self.stream.task(task)

    def train(self, learner: kl.Learner, shown: Permuted, first: int, count: int) -> None:
        batch, carried = self.settings.batch_size, self.record.carried
        for number in range(first, first + count):
            epoch, stretch = divmod(number, self.stretches)
            x, y = self.stream.examples_of(shown, epoch, stretch * self.stretch, self.stretch)
            history = learner.run(x, y, batch_size=batch, epochs=1, shuffle=False, **self.pixels)
            correct = np.rint(history.accuracy[:, 0] * y.shape[1])  # a whole number, so that its sum is exact
            carried["correct"] = carried.get("correct", 0.0) + correct

    def tested(self, learner: kl.Learner, shown: Permuted) -> dict[str, Any]:
        presented = self.settings.epochs * self.stream.examples
        return {"accuracy": self.record.carried["correct"] / presented}

    def probe(self, shown: Permuted) -> Images:
        """The first images that the task shows, of every run its own."""
        return self.stream.shown(shown, shown.chosen[:, : self.settings.probe_images])


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    unset = {
        name: value for name, value in STREAMS[settings.profile].items() if getattr(settings, name) is None
    }
    if settings.data != "synthetic":
        unset.pop("size", None)
    settings = dataclasses.replace(settings, **unset)
    lines = METHODS.lines(settings.method, settings.profile, of_methods)
    source = tasks.source_of(settings, settings.classes, settings.images)
    return Plan(settings, lines, list(command), source)


def table(lines: Sequence[LineResults]) -> str:
    """Each line's online accuracy in the first and in the last tenth of the tasks, in percent."""
    made = table_of_lines(lines)
    made.title = "online accuracy (%)"
    return str(made)


def command(arguments: Sequence[str]) -> None:
    """`klopf permuted`."""
    parser = Plan.parser(
        "Permuted images: do networks still learn as fast when everything has changed often?"
    )
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(table(read_results(path)))
    print(report(path))
