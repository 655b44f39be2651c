"""Continual ImageNet: a stream of classification tasks, and how well each method learns the latest one.

    for each task of the stream
        for each line (a method with its settings; all runs of it in lockstep)
            new heads, zero                          the rest of the network goes on
            train on the task for so many epochs
            test accuracy, and metrics of the units
            where it is asked for: test accuracy on tasks of before, with the heads stored then, and new ones

Protocol: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.backbone import chunks_of
from klopf.experiments import retention, tasks
from klopf.experiments.lines import Line
from klopf.experiments.methods import IMAGE_METHODS, ImageMethod, NetworkSize
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.retention import LAGS, RECALL, REFIT
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.stream import SPLITS, Task, TaskStream
from klopf.experiments.tables import end_of_run


@dataclass(frozen=True)
class Settings(tasks.Settings):
    """Continual ImageNet; the defaults are the published experiment."""

    classes: int | None = option(None, "number of synthetic classes (default: 1000)", minimum=1)

    tasks: int = option(2000, "tasks of the stream", minimum=1)
    epochs: int = option(250, "passes over the training images of a task", minimum=1)
    batch_size: int = option(100, "images of a minibatch", minimum=1)
    classes_per_task: int = option(2, "classes told apart in a task", minimum=2)
    train_images: int = option(600, "training images of a class", minimum=1)
    test_images: int = option(100, "test images of a class", minimum=1)
    split: str = option("fixed", "test images: the last ones of a class, or each run its own", choices=SPLITS)

    channels: tuple[int, ...] = option((32, 64, 128), "filters of each convolution", minimum=1)
    kernels: tuple[int, ...] = option((5, 3, 3), "height and width of each convolution's filters", minimum=1)
    hidden: tuple[int, ...] = option((128, 128), "units of each hidden linear layer", minimum=1)

    recall: bool = option(
        False, "test on the tasks 1, 5 and 20 back, too, with the heads stored then and with new ones"
    )


MEASURED = (
    "accuracy",  # share of the test images that are classified correctly, at the end of the task
    "train_loss",  # mean over the last epoch
    *tasks.UNITS,
)


class Plan(tasks.Plan):
    name, kind, methods, measured = "imagenet", Settings, IMAGE_METHODS, MEASURED

    @property
    def told(self) -> tuple[str, ...]:
        """With --recall, accuracy on the test images of the tasks so many back, too: with the heads stored at
        their ends, and with ones that are fitted to their training images."""
        if not self.settings.recall:
            return self.measured
        first = len(self.measured) - len(tasks.UNITS)
        return (*self.measured[:first], *RECALL, *REFIT, *self.measured[first:])

    def experiment(self) -> Experiment:
        return Experiment(self)


def plan(
    given: Mapping[str, Any], command: Sequence[str], chosen: Sequence[Line[ImageMethod]] | None = None
) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    command: the words of the command line, for the settings file.  chosen: the lines, where they do not
    follow from the options.  Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    if chosen is None:
        chosen = IMAGE_METHODS.lines(settings.method, settings.profile, of_methods)
    else:
        settings = dataclasses.replace(settings, method=tuple(line.method.name for line in chosen))
    images = settings.train_images + settings.test_images
    source = tasks.source_of(settings, settings.classes, images, ("size", "classes", "data_seed"))
    return Plan(settings, list(chosen), list(command), source)


class Experiment(tasks.InEpochs):
    """Raises kl.Error where there are too few classes or images, or the network does not fit the images."""

    new_heads = True

    def __init__(self, plan: Plan) -> None:
        s = plan.settings
        self.stream = TaskStream(
            plan.source,
            plan.seeds,
            classes_per_task=s.classes_per_task,
            train_images=s.train_images,
            test_images=s.test_images,
            split=s.split,
        )
        tasks.refuse_single_images(plan.lines, s.batch_size, [s.classes_per_task * s.train_images])
        network = NetworkSize(s.channels, s.kernels, s.hidden, s.classes_per_task)
        super().__init__(plan, network, (3, plan.source.size, plan.source.size), s.epochs)

    def task(self, task: int) -> Task:
        asked = [lag for lag in LAGS if lag <= task] if self.settings.recall else []
        self._before = {lag: self.stream.task(task - lag) for lag in asked}  # once for all lines
        return self.stream.task(task)

    def tested(self, learner: kl.Learner, shown: Task) -> dict[str, Any]:
        found = super().tested(learner, shown)
        return {**found, **self.recalled(learner.net)} if self.settings.recall else found

    def recalled(self, net: kl.Network) -> dict[str, Any]:
        """Of the tasks so many back, where there are such: the share of their test images that is right with
        the heads that the line had then, and with new ones, fitted to one-hot labels of training images."""
        heads = retention.stored(self.record.kept_by(self.record.line), retention.heads_of(net))
        found = {}
        for lag, asked in self._before.items():
            classes = np.eye(self.settings.classes_per_task)[asked.train_labels]
            new = retention.refitted(self._seen_by_head(net, asked.train), classes)
            seen = self._seen_by_head(net, asked.test)
            for name, which in ((f"recall_{lag}", heads[..., -1 - lag]), (f"refit_{lag}", new)):
                outputs = retention.said(seen, which)
                right = (outputs.argmax(axis=2) == asked.test_labels).mean(axis=1)
                found[name] = np.where(np.isnan(outputs).any(axis=(1, 2)), np.nan, right)
        return found

    def _seen_by_head(self, net: kl.Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A few images at a time: activities of all layers are large."""
        parts = [retention.seen_by_head(net, part, self.pixels) for part in chunks_of(images, 1)]
        return np.concatenate(parts, axis=1)


def table(lines: Sequence[LineResults]) -> str:
    """Each line's accuracy in the first and in the last tenth of the tasks, in percent."""
    return end_of_run(lines)


def command(arguments: Sequence[str]) -> None:
    """`klopf imagenet`."""
    parser = Plan.parser("Continual ImageNet: how well do networks still learn the latest of many tasks?")
    given = parser.parse(arguments)
    path = carry_out(Plan.name, given, arguments, plan, Plan.read)
    print(table(read_results(path)))
    print(report(path))
