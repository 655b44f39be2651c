"""Class-incremental learning: a few classes more at every step, and one network that is to tell all apart.

    for each step
        some classes arrive
        for each line (a method with its settings; all runs of it in lockstep)
            train on the images of all classes so far, for so many epochs
            test accuracy on all classes so far, and metrics of the units

A network from scratch at every step, the method `scratch`, is what the others are compared with.
Protocol: "Class-incremental CIFAR-100" of Dohare et al., "Loss of plasticity in deep continual learning",
Nature 632 (2024), and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import klopf as kl
from klopf.experiments import tables as words
from klopf.experiments import tasks
from klopf.experiments.methods import IMAGE_METHODS, OURS, SPELLED, NetworkSize
from klopf.experiments.results import LineResults, Table, read_results
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.statistics import Summary
from klopf.experiments.stream import GrowingStream, Task
from klopf.experiments.tables import Cell, cell_of, footing

# Weight decay, noise and replacement are the published ones; the step size is ours, as the network is.
DECAY = {"weight_decay": 5e-4}
PUBLISHED: dict[str, dict[str, Any]] = {
    **OURS,
    "l2": DECAY,
    "snp": {**DECAY, "noise": 1e-5},
    "cbp": {
        **DECAY,
        "replacement_rate": 1e-5,
        "maturity": 1000,
        "utility": "contribution",
        "utility_decay": 0.99,
        "replacement_init": "network",
    },
    "scratch": DECAY,
}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "authors": {"cbp": {"count_from": "all", "reset_optimizer_state": False}},
    "paper": {"cbp": {"count_from": "eligible", "reset_optimizer_state": True}},
}
CHUNK = 1000  # images that are tested together
METHODS = IMAGE_METHODS.under({"init": "kaiming", "momentum": 0.9}, PUBLISHED, PROFILES)


@dataclass(frozen=True)
class Settings(tasks.Settings):
    """Class-incremental learning; the defaults are the published protocol, on another network."""

    method: tuple[str, ...] = option(
        ("l2", "cbp", "scratch"), "methods, one line each", choices=tuple(METHODS.kinds), spelled=SPELLED
    )

    classes: int = option(100, "classes that arrive in all; each run draws its own order", minimum=2)
    classes_per_step: int = option(5, "classes that arrive at every step", minimum=1)
    train_on: str = option(
        "all", "images to train on: of all classes so far, or of new ones", choices=("all", "new")
    )
    epochs: int = option(200, "passes over the training images at every step", minimum=1)
    batch_size: int = option(90, "images of a minibatch", minimum=1)
    train_images: int = option(450, "training images of a class, its first ones", minimum=1)
    test_images: int = option(100, "test images of a class, its last ones", minimum=1)

    channels: tuple[int, ...] = option((32, 64, 128), "filters of each convolution", minimum=1)
    kernels: tuple[int, ...] = option((5, 3, 3), "height and width of each convolution's filters", minimum=1)
    hidden: tuple[int, ...] = option((128, 128), "units of each hidden linear layer", minimum=1)


class Plan(tasks.Plan):
    name, kind, methods = "incremental", Settings, METHODS
    measured = (
        "accuracy",  # share of the test images of all classes so far that are told apart from each other
        "train_loss",  # mean over the last epoch
        *tasks.UNITS,
    )

    @property
    def table(self) -> Table:
        """One row a step, which says how many classes there are."""
        return Table(self.columns, "classes", self.settings.classes_per_step, self.settings.classes)

    @property
    def tasks(self) -> int:
        return int(-(-self.settings.classes // self.settings.classes_per_step))

    def learned(self, step: int) -> int:
        """How many classes a step trains on."""
        every, classes = self.settings.classes_per_step, self.settings.classes
        seen: int = min((step + 1) * every, classes)
        return seen if self.settings.train_on == "all" else seen - step * every

    def experiment(self) -> Experiment:
        return Experiment(self)


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    if settings.classes_per_step > settings.classes:
        raise kl.Error(
            "--classes-per-step must be at most --classes, "
            f"got {settings.classes_per_step} and {settings.classes}"
        )
    lines = METHODS.lines(settings.method, settings.profile, of_methods)
    images = settings.train_images + settings.test_images
    return Plan(settings, lines, list(command), tasks.source_of(settings, settings.classes, images))


# --- the experiment -----------------------------------------------------------------------------------------


class Experiment(tasks.InEpochs):
    """Raises kl.Error where there are too few classes or images, or the network does not fit the images."""

    counter = "increment"
    plan: Plan

    def __init__(self, plan: Plan) -> None:
        s = plan.settings
        self.stream = GrowingStream(
            plan.source,
            plan.seeds,
            classes=s.classes,
            classes_per_step=s.classes_per_step,
            train_images=s.train_images,
            test_images=s.test_images,
        )
        learned = [plan.learned(step) * s.train_images for step in range(plan.tasks)]
        tasks.refuse_single_images(plan.lines, s.batch_size, learned)
        network = NetworkSize(s.channels, s.kernels, s.hidden, s.classes)
        super().__init__(plan, network, (3, plan.source.size, plan.source.size), s.epochs)

    def task(self, task: int) -> Task:
        images = self.stream.task(task)
        latest = self.plan.learned(task) * self.settings.train_images
        return images._replace(
            train=np.ascontiguousarray(images.train[:, -latest:]),
            train_labels=images.train_labels[:, -latest:],
        )

    def tested(self, learner: kl.Learner, shown: Task) -> dict[str, Any]:
        """Outputs of classes that are yet to come do not count."""
        seen = shown.test_labels.max() + 1
        correct = np.zeros(self.settings.runs)
        for first in range(0, shown.test.shape[1], CHUNK):
            images = np.ascontiguousarray(shown.test[:, first : first + CHUNK])
            guesses = learner.net(images, **self.pixels)[..., :seen].argmax(axis=2)
            correct += (guesses == shown.test_labels[:, first : first + CHUNK]).sum(axis=1)
        return {
            "accuracy": correct / shown.test.shape[1],
            "train_loss": self.record.carried["train_loss"],
        }


# --- the command --------------------------------------------------------------------------------------------


def scratch_of(line: LineResults, lines: Sequence[LineResults]) -> LineResults | None:
    """The line from scratch that a line is compared with: of the same settings, where there are several."""
    scratch = [one for one in lines if one.method == "scratch"]
    same = [one for one in scratch if one.label == line.label.replace(line.method, "scratch", 1)]
    chosen = same if len(scratch) > 1 else scratch
    comparable = line.method != "scratch" and len(chosen) == 1
    return (
        chosen[0]
        if comparable and len(chosen[0].values["accuracy"]) == len(line.values["accuracy"])
        else None
    )


def table(lines: Sequence[LineResults]) -> str:
    """Each line's accuracy at the first and at the last step, in percent, and that less scratch's."""
    summary = Summary()
    made = words.Table(
        "accuracy (%)", [], lines, [[] for _ in lines], summary, remark=footing(lines, summary)
    )
    for step in (0, -1):
        values = [100 * line.values["accuracy"][:, step] for line in lines]
        made.add(f"{lines[0].at[step]} classes", [cell_of(one, "{:.1f}".format, summary) for one in values])
    made.add("less scratch's", [_less_scratch(line, lines, summary) for line in lines])
    return str(made)


def _less_scratch(line: LineResults, lines: Sequence[LineResults], summary: Summary) -> Cell:
    scratch = scratch_of(line, lines)
    if scratch is None:
        return Cell("")
    step = min(line.at.size, scratch.at.size) - 1  # of an experiment that goes on
    change = 100 * (line.values["accuracy"][:, step] - scratch.values["accuracy"][:, step])
    return cell_of(change, "{:.1f}".format, summary)


def command(arguments: Sequence[str]) -> None:
    """`klopf incremental`."""
    parser = Plan.parser(
        "Class-incremental learning: does it help or harm to have learned fewer classes before?"
    )
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(table(read_results(path)))
    print(report(path))
