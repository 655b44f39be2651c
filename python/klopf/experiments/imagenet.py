"""Continual ImageNet: a stream of classification tasks, and how well each method learns the latest one.

    for each task of the stream
        for each line (a method with its settings; all runs of it in lockstep)
            new heads, zero                          the rest of the network goes on
            train on the task for so many epochs
            test accuracy, and metrics of the units

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
from klopf import metrics
from klopf.data.source import ImageSource, open_source
from klopf.experiments import plan as plans
from klopf.experiments.lines import Line
from klopf.experiments.methods import IMAGE_METHODS, PROFILES, SPELLED, ImageMethod, NetworkSize
from klopf.experiments.plan import Running
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import Folder, LineResults, Table, read_results
from klopf.experiments.session import Session, carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.statistics import mean
from klopf.experiments.stream import SPLITS, Task, TaskStream, probe_images
from klopf.experiments.tables import first_and_last

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Settings(Running):
    """Continual ImageNet; the defaults are the published experiment."""

    method: tuple[str, ...] = option(
        ("bp", "cbp"), "methods, one line each", choices=tuple(IMAGE_METHODS.kinds), spelled=SPELLED
    )
    profile: str = option("authors", "where unset options of the methods come from", choices=tuple(PROFILES))

    data: str = option("synthetic", "images packed by `klopf data pack`, or synthetic", placeholder="FILE")
    size: int | None = option(None, "height and width of synthetic images (default: 32)", minimum=1)
    classes: int | None = option(None, "number of synthetic classes (default: 1000)", minimum=1)
    data_seed: int | None = option(None, "chooses the world of synthetic classes (default: 0)", minimum=0)

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

    metrics_every: int = option(1, "tasks from one measurement of the units to the next", minimum=1)
    probe_images: int = option(1000, "images that units are measured on", minimum=1)


MEASURED = (
    "accuracy",  # share of the test images that are classified correctly, at the end of the task
    "train_loss",  # mean over the last epoch
    "dormant_rate",  # this and the following on the probe images, see klopf.metrics
    "dead_units",
    "effective_rank",
    "weight_magnitude",
    "diverged",  # 1 from the task on at which loss or weights were no longer finite
)


@dataclass(frozen=True)
class Plan(plans.Plan[Settings, ImageMethod]):
    name, kind, methods = "imagenet", Settings, IMAGE_METHODS

    source: ImageSource

    @property
    def table(self) -> Table:
        """One row a task."""
        return Table(MEASURED)

    def experiment(self) -> Experiment:
        return Experiment(self)

    def more(self) -> dict[str, Any]:
        return {"data": self.source.describe()}

    @classmethod
    def rest(cls, described: Mapping[str, Any]) -> dict[str, Any]:
        return {"source": open_source(described["data"])}


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
    return Plan(settings, list(chosen), list(command), _source(settings))


def _source(settings: Settings) -> ImageSource:
    synthetic = {"classes": settings.classes, "size": settings.size, "seed": settings.data_seed}
    asked = {name: value for name, value in synthetic.items() if value is not None}
    if settings.data == "synthetic":
        images = settings.train_images + settings.test_images
        return open_source({"kind": "synthetic", "images_per_class": images, **asked})
    if asked:
        raise kl.Error(
            "--size, --classes and --data-seed are options of synthetic data, got --data " + settings.data
        )
    return open_source(settings.data)


# --- the experiment -----------------------------------------------------------------------------------------


class Experiment:
    """The loop over tasks and lines, from wherever the record stands.

    Raises kl.Error where the data have too few classes or images, or the network does not fit the images.
    """

    def __init__(self, plan: Plan) -> None:
        settings, self.source = plan.settings, plan.source
        self.plan, self.settings = plan, settings
        self.stream = TaskStream(
            self.source,
            plan.seeds,
            classes_per_task=settings.classes_per_task,
            train_images=settings.train_images,
            test_images=settings.test_images,
            split=settings.split,
        )
        size = NetworkSize(settings.channels, settings.kernels, settings.hidden, settings.classes_per_task)
        shape = (3, self.source.size, self.source.size)
        where = (settings.device, settings.precision)
        self.parts = [line.method.build(size, shape, plan.seeds, *where) for line in plan.lines]
        self.record = Record()

    @property
    def arithmetic(self) -> str:
        return self.parts[0].net._arithmetic

    def progress(self) -> Progress:
        settings, record, lines = self.settings, self.record, len(self.parts)
        steps = lines * settings.epochs
        done = record.task * steps + record.line * settings.epochs + record.done
        return Progress("task", settings.tasks, steps, done, settings.quiet)

    def run(self, folder: Folder, session: Session) -> None:
        """Everything that is left to do."""
        self.pixels: dict[str, Any] = {"scale": self.source.scale, "offset": self.source.offset}
        self.probe = probe_images(self.source, self.settings.probe_images)
        for task in range(self.record.task, self.settings.tasks):
            with session.timed("data"):
                images = self.stream.task(task)
            for index in range(self.record.line, len(self.plan.lines)):
                values = self.learn(task, index, images, session)
                folder.add_results(len(self.record.rows), values)
                self.record.finish_line(values, len(self.plan.lines))
                session.serve()

    def learn(self, task: int, index: int, images: Task, session: Session) -> Values:
        """One line learns one task: what is measured at its end [R, MEASURED]."""
        line, learner, record = self.plan.lines[index], self.parts[index], self.record
        if record.done == 0:
            line.method.begin_task(learner, task)
        alive = learner.alive.copy()
        # Copied to a GPU once, not again for every slice.
        train = images.train if learner.net.device == "cpu" else learner.net.to_device(images.train)
        while record.done < self.settings.epochs:
            epochs = session.slice(index, self.settings.epochs - record.done)
            with session.training(index, line.label, epochs):
                history = learner.run(
                    train,
                    images.train_labels,
                    batch_size=self.settings.batch_size,
                    epochs=epochs,
                    shuffle=True,
                    **self.pixels,
                )
                record.carried["train_loss"] = np.asarray(
                    history.loss[:, -1], dtype=np.float64
                )  # waits for a GPU
            record.done += epochs
            if record.done < self.settings.epochs:
                session.serve()
        values = self.measure(task, learner, images, session)
        for run in np.flatnonzero(alive & ~learner.alive):
            session.progress.note(f"{line.label}: run {run} diverged in task {task + 1}")
        session.progress.measured(line.label, _said(values))
        return values

    def measure(self, task: int, learner: kl.Learner, images: Task, session: Session) -> Values:
        """Test accuracy, and every so many tasks the metrics: [R, MEASURED], NaN where not measured."""
        with session.timed("evaluate"):
            result = learner.evaluate(images.test, images.test_labels, **self.pixels)
        found = {
            "accuracy": result.accuracy,
            "train_loss": self.record.carried["train_loss"],
            "diverged": ~learner.alive,
        }
        if task % self.settings.metrics_every == 0 or task == self.settings.tasks - 1:
            with session.timed("metrics"):
                found |= metrics.measure(learner.net, self.probe, **self.pixels)
        values = np.full((self.settings.runs, len(MEASURED)), np.nan)
        for column, name in enumerate(MEASURED):
            if name in found:
                values[:, column] = found[name]
                if name != "diverged":
                    values[~learner.alive, column] = np.nan
        return values


def _said(values: Values) -> dict[str, str]:
    """For the progress: mean accuracy and dormant share over the runs that have them."""
    accuracy, dormant = (
        float(mean(values[:, MEASURED.index(name)])) for name in ("accuracy", "dormant_rate")
    )
    said = {"accuracy": f"{accuracy:.1%}" if accuracy == accuracy else "diverged"}
    if dormant == dormant:
        said["dormant"] = f"{dormant:.0%} dormant"
    return said


# --- the command --------------------------------------------------------------------------------------------


def table(lines: Sequence[LineResults]) -> str:
    """Each line's accuracy in the first and in the last tenth of the tasks, in percent."""
    return first_and_last(lines, "accuracy", "accuracy (%)", "change", lambda share: f"{100 * share:.1f}")


def command(arguments: Sequence[str]) -> None:
    """`klopf imagenet`."""
    parser = Plan.parser("Continual ImageNet: how well do networks still learn the latest of many tasks?")
    given = parser.parse(arguments)
    path = carry_out(Plan.name, given, arguments, plan, Plan.read)
    print(table(read_results(path)))
    print(report(path))
