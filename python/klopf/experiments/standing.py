"""What learns in an experiment, as its last checkpoint has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import klopf as kl
from klopf.experiments.plan import Plan
from klopf.experiments.results import CHECKPOINT, read_settings


def plans() -> dict[str, type[Plan[Any, Any]]]:
    """Of experiments whose lines can be looked at, by name."""
    from klopf.experiments import imagenet, incremental, permuted, recall, regression, stream_agents, track

    modules = (imagenet, permuted, incremental, regression, recall, track, stream_agents)
    return {one.Plan.name: one.Plan for one in modules}


def learners_of(folder: str | Path, what: str) -> Iterator[tuple[str, Any]]:
    """Each line's label and what learns there, a `kl.Learner` or a `kl.StreamAgent`.

    what: is looked for, in words.  Raises kl.Error where the folder is of another experiment, or has no
    checkpoint.
    """
    name = read_settings(folder).get("experiment")
    if name not in plans():
        raise kl.Error(f"{what} are those of {', '.join(plans())}, got a folder of {name}")
    plan = plans()[name].read(folder, {})
    experiment = plan.experiment()
    experiment.record.load(Path(folder) / CHECKPOINT, experiment)
    for line, part in zip(plan.lines, experiment.parts, strict=True):
        yield line.label, getattr(part, "agent", part)
