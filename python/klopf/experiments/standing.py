"""What learns in an experiment, as its last checkpoint has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.plan import Plan
from klopf.experiments.results import CHECKPOINT, read_settings
from klopf.experiments.settings import option_of


class Standing(NamedTuple):
    """One line.  seen: gives the inputs that its units were measured on last, [B, ...] or [R, B, ...], and
    what pixels need on their way into the network."""

    label: str
    learner: Any  # a `kl.Learner` or a `kl.StreamAgent`
    seen: Callable[[], tuple[NDArray[Any], dict[str, Any]]]


def expect_run(name: str, run: int, runs: int) -> None:
    """Raises kl.Error for a run that is not there, asked for by an option of this name."""
    if run >= runs:
        raise kl.Error(f"{option_of(name)} must be below {runs}, the number of runs, got {run}")


def plans() -> dict[str, type[Plan[Any, Any]]]:
    """Of experiments whose lines can be looked at, by name."""
    from klopf.experiments import imagenet, incremental, permuted, recall, regression, stream_agents, track

    modules = (imagenet, permuted, incremental, regression, recall, track, stream_agents)
    return {one.Plan.name: one.Plan for one in modules}


def lines_of(folder: str | Path, what: str) -> Iterator[Standing]:
    """Each line of a results folder.

    what: is looked for, in words.  Raises kl.Error where the folder is of another experiment, or has no
    checkpoint.
    """
    name = read_settings(folder).get("experiment")
    if name not in plans():
        raise kl.Error(f"{what} are those of {', '.join(plans())}, got a folder of {name}")
    plan = plans()[name].read(folder, {})
    experiment = plan.experiment()
    experiment.record.load(Path(folder) / CHECKPOINT, experiment)
    for index, (line, part) in enumerate(zip(plan.lines, experiment.parts, strict=True)):
        yield Standing(line.label, getattr(part, "agent", part), partial(experiment.seen, index))


def learners_of(folder: str | Path, what: str) -> Iterator[tuple[str, Any]]:
    """Each line's label and what learns there; as `lines_of`."""
    for line in lines_of(folder, what):
        yield line.label, line.learner
