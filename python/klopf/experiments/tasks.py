"""Streams of classification tasks, learned by R networks in lockstep.

for each task of the stream
    for each line (a method with its settings; all runs of it in lockstep)
        what the method does between two tasks
        train on the task, in slices
        accuracy, and metrics of the units
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import metrics
from klopf.data.source import ImageSource, open_source
from klopf.experiments import plan as plans
from klopf.experiments.events import EventLog
from klopf.experiments.lines import Line
from klopf.experiments.methods import IMAGE_METHODS, PROFILES, SPELLED, ImageMethod, NetworkSize
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import Folder, Table
from klopf.experiments.session import Session
from klopf.experiments.settings import option, option_of
from klopf.experiments.statistics import mean
from klopf.experiments.stream import Task, probe_images
from klopf.experiments.supervised import OwnMetrics, Supervised, kept_in_mind, own_files, with_own

Values = NDArray[np.float64]
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Settings(Supervised):
    """What all streams of images have."""

    method: tuple[str, ...] = option(
        ("bp", "cbp"), "methods, one line each", choices=tuple(IMAGE_METHODS.kinds), spelled=SPELLED
    )
    profile: str = option("authors", "where unset options of the methods come from", choices=tuple(PROFILES))

    data: str = option("synthetic", "images packed by `klopf data pack`, or synthetic", placeholder="FILE")
    size: int | None = option(None, "height and width of synthetic images (default: 32)", minimum=1)
    data_seed: int | None = option(None, "chooses the world of synthetic classes (default: 0)", minimum=0)

    metrics_every: int = option(1, "tasks from one measurement of the units to the next", minimum=1)
    probe_images: int = option(1000, "images that units are measured on", minimum=1)


UNITS = (
    "dormant_rate",  # this and the following on the probe images, see klopf.metrics
    "dead_units",
    "backbone_share",
    "effective_rank",
    "weight_magnitude",
    "diverged",  # 1 from the task on at which loss or weights were no longer finite
)


@dataclass(frozen=True)
class Plan(plans.Plan[Any, ImageMethod]):
    """measured: columns of the results but for one's own; the first is the accuracy, the last are UNITS."""

    measured: ClassVar[tuple[str, ...]]

    source: ImageSource

    @property
    def told(self) -> tuple[str, ...]:
        """Columns but for one's own: what is measured, and what the settings ask for beside."""
        return self.measured

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the results."""
        return with_own(self.told, self.settings.metric)

    @property
    def table(self) -> Table:
        """One row a task."""
        return Table(self.columns)

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return int(self.settings.tasks)

    def more(self) -> dict[str, Any]:
        return {"data": self.source.describe(), **own_files(self.settings.metric)}

    @classmethod
    def rest(cls, described: Mapping[str, Any]) -> dict[str, Any]:
        return {"source": open_source(described["data"])}


def source_of(
    settings: Settings, classes: int | None, images: int, refused: Sequence[str] = ("size", "data_seed")
) -> ImageSource:
    """The images that settings ask for; synthetic ones in so many classes of so many images.

    refused: options that packed images do not have.  Raises kl.Error for one of them, or unreadable images.
    """
    if settings.data == "synthetic":
        asked = {"classes": classes, "size": settings.size, "seed": settings.data_seed}
        given = {name: value for name, value in asked.items() if value is not None}
        return open_source({"kind": "synthetic", "images_per_class": images, **given})
    if any(getattr(settings, name) is not None for name in refused):
        *flags, last = map(option_of, refused)
        raise kl.Error(
            f"{', '.join(flags)} and {last} are options of synthetic data, got --data {settings.data}"
        )
    return open_source(settings.data)


def refuse_single_images(lines: Sequence[Line[ImageMethod]], batch_size: int, images: Iterable[int]) -> None:
    """kl.Error where a line would normalise over a batch of one image.

    images: how many there are in an epoch of each task.
    """
    for line in lines:
        if getattr(line.method, "normalisation", "none") == "batchnorm":
            for count in images:
                if batch_size == 1 or count % batch_size == 1:
                    raise kl.Error(
                        f"{line.label}: batch normalisation needs at least 2 images in every batch, "
                        f"got --batch-size {batch_size} for {count} images"
                    )


# --- the experiment -----------------------------------------------------------------------------------------


class Experiment(ABC, Generic[Shown]):
    """The loop over tasks and lines, from wherever the record stands.

    new_heads: whether heads begin anew, at zero, with every task.  counter: what a task is called.
    Raises kl.Error where the network does not fit the images.
    """

    new_heads: ClassVar[bool] = False
    counter: ClassVar[str] = "task"

    def __init__(self, plan: Plan, network: NetworkSize, shape: tuple[int, ...], steps: int) -> None:
        """steps: what a task takes, in slices of which `train` learns it.  shape: of an image."""
        self.plan, self.settings, self.source, self.steps = plan, plan.settings, plan.source, steps
        where = (self.settings.device, self.settings.precision)
        self.own = OwnMetrics(self.settings.metric, plan.told)
        self.parts = [
            line.method.build(network, shape, plan.seeds, *where, events=events)
            for line, events in zip(plan.lines, kept_in_mind(plan.lines, self.settings.events), strict=True)
        ]
        self.record = Record()

    @cached_property
    def pixels(self) -> dict[str, Any]:
        """How pixels become inputs: scale and offset of each channel."""
        return {"scale": self.source.scale, "offset": self.source.offset}

    @abstractmethod
    def task(self, task: int) -> Shown:
        """What the lines are shown of a task."""

    @abstractmethod
    def train(self, learner: kl.Learner, shown: Shown, first: int, count: int) -> None:
        """So many of a task's steps, from number `first` on; however they are cut, the same bits."""

    @abstractmethod
    def tested(self, learner: kl.Learner, shown: Shown) -> dict[str, Any]:
        """What is measured at the end of a task beside UNITS, by name, [R] each."""

    @abstractmethod
    def probe(self, shown: Shown) -> NDArray[np.uint8]:
        """The images to look at the units with, [B, C, H, W] or [R, B, C, H, W]."""

    def on_device(self, learner: kl.Learner, shown: Shown) -> Shown:
        """What is shown, where the learner is; once a task, not again for every slice."""
        return shown

    @property
    def arithmetic(self) -> str:
        return self.parts[0].net._arithmetic

    def progress(self) -> Progress:
        record, lines = self.record, len(self.parts)
        done = (record.task * lines + record.line) * self.steps + record.done
        return Progress(self.counter, self.plan.tasks, lines * self.steps, done, self.settings.quiet)

    def run(self, folder: Folder, session: Session) -> None:
        """Everything that is left to do."""
        for task in range(self.record.task, self.plan.tasks):
            with session.timed("data"):
                shown = self.task(task)
            if not self.record.rows and self.record.done == 0:  # before hours of learning
                self.own.measure(self.parts[0], self.probe(shown), self.pixels)
            for index in range(self.record.line, len(self.plan.lines)):
                if self.record.done == 0:
                    self.plan.lines[index].method.begin_task(self.parts[index], task, self.new_heads)
                log = EventLog(self.parts[index], self.settings.events, self.record)
                values = self.learn(task, index, shown, session, log)
                folder.add_results(len(self.record.rows), values)
                log.write(folder)
                self.record.finish_line(values, len(self.plan.lines))
                session.serve()

    def seen(self, index: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """What a line's units are measured on in its latest task, and how pixels become inputs."""
        return self.probe(self.task(self.record.latest(index))), self.pixels

    def learn(self, task: int, index: int, shown: Shown, session: Session, log: EventLog) -> Values:
        """One line learns one task, or the rest of it: what is measured at its end [R, columns]."""
        line, learner, record = self.plan.lines[index], self.parts[index], self.record
        alive = learner.alive.copy()
        there = self.on_device(learner, shown)
        while record.done < self.steps:
            count = session.slice(index, self.steps - record.done)
            with session.training(index, line.label, count):
                self.train(learner, there, record.done, count)
                log.look()
            record.done += count
            if record.done < self.steps:
                session.serve()
        values = self.measure(task, learner, shown, session)
        for run in np.flatnonzero(alive & ~learner.alive):
            session.progress.note(f"{line.label}: run {run} diverged in {self.counter} {task + 1}")
        session.progress.measured(line.label, self._said(values))
        return values

    def measure(self, task: int, learner: kl.Learner, shown: Shown, session: Session) -> Values:
        """Accuracy, and every so many tasks the metrics: [R, columns], NaN where not measured."""
        with session.timed("evaluate"):
            found = {**self.tested(learner, shown), "diverged": ~learner.alive}
        if task % self.settings.metrics_every == 0 or task == self.plan.tasks - 1:
            with session.timed("metrics"):
                probe = self.probe(shown)
                found |= metrics.measure(learner.net, probe, **self.pixels)
                found |= self.own.measure(learner, probe, self.pixels)
        measured = self.plan.columns
        values = np.full((self.settings.runs, len(measured)), np.nan)
        for column, name in enumerate(measured):
            if name in found:
                values[:, column] = found[name]
                if name != "diverged":
                    values[~learner.alive, column] = np.nan
        return values

    def _said(self, values: Values) -> dict[str, str]:
        """For the progress: mean accuracy and dormant share over the runs that have them."""
        accuracy, dormant = (
            float(mean(values[:, self.plan.columns.index(name)])) for name in ("accuracy", "dormant_rate")
        )
        said = {"accuracy": f"{accuracy:.1%}" if accuracy == accuracy else "diverged"}
        if dormant == dormant:
            said["dormant"] = f"{dormant:.0%} dormant"
        return said


class InEpochs(Experiment[Task]):
    """Tasks that are learned in many epochs, and tested on images of their own.  A step is an epoch."""

    def on_device(self, learner: kl.Learner, shown: Task) -> Task:
        if learner.net.device == "cpu":
            return shown
        images: Any = learner.net.to_device(shown.train)
        return shown._replace(train=images)

    def train(self, learner: kl.Learner, shown: Task, first: int, count: int) -> None:
        history = learner.run(
            shown.train,
            shown.train_labels,
            batch_size=self.settings.batch_size,
            epochs=count,
            shuffle=True,
            **self.pixels,
        )
        loss = np.asarray(history.loss[:, -1], dtype=np.float64)  # waits for a GPU
        self.record.carried["train_loss"] = loss

    def tested(self, learner: kl.Learner, shown: Task) -> dict[str, Any]:
        result = learner.evaluate(shown.test, shown.test_labels, **self.pixels)
        return {"accuracy": result.accuracy, "train_loss": self.record.carried["train_loss"]}

    @cached_property
    def _probe(self) -> NDArray[np.uint8]:
        return probe_images(self.source, self.settings.probe_images)

    def probe(self, shown: Task) -> NDArray[np.uint8]:
        """The same for all tasks and runs."""
        return self._probe
