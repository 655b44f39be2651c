"""Agents that act: R of each kind in lockstep, each in an environment of its own.

for each stretch of steps
    for each line (a method with its settings; all runs of it in lockstep)
        act, step the simulators, learn
        returns of the episodes that ended, and metrics of the units
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import plan as plans
from klopf.experiments.lines import Line, Method
from klopf.experiments.plan import Running
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import Folder, Table
from klopf.experiments.session import Session
from klopf.experiments.settings import option, option_of
from klopf.experiments.statistics import mean
from klopf.experiments.walk import Walk

Values = NDArray[np.float64]
FRICTION = ("friction_every", "friction_of")  # options of SlipperyAnt alone


@dataclass(frozen=True)
class Acting(Running):
    """Where agents act."""

    env: str = option("Ant", "Ant, SlipperyAnt, Hopper, Walker2d, HalfCheetah, or an id that Gymnasium knows")
    steps: int = option(50_000_000, "steps of every run", minimum=1)
    friction_every: int | None = option(
        None, "steps after which SlipperyAnt's friction changes (default: 2000000)", minimum=1
    )
    friction_of: str | None = option(
        None, "what SlipperyAnt's friction is of (default: floor)", choices=("floor", "all")
    )
    measure_every: int | None = option(
        None, "steps of a run from one measurement to the next (default: 20480, or a 50th of all)", minimum=1
    )
    probe: int = option(1000, "latest observations that units are measured on", minimum=2)


Asked = TypeVar("Asked", bound=Acting)


def with_env(settings: Asked) -> Asked:
    """With the environment by its short name.  Raises kl.Error for options that it does not have."""
    short = settings.env.removeprefix("klopf/").removesuffix("-v0")
    if settings.env == f"klopf/{short}-v0":  # by its name at Gymnasium
        settings = dataclasses.replace(settings, env=short)
    if settings.env != "SlipperyAnt":
        for name in FRICTION:
            if getattr(settings, name) is not None:
                raise kl.Error(f"{option_of(name)} is an option of SlipperyAnt, got --env {settings.env}")
    return settings


def options_of(settings: Acting) -> dict[str, Any]:
    """Those that the environment has."""
    return {name: getattr(settings, name) for name in FRICTION if getattr(settings, name) is not None}


class Plan(plans.Plan[Asked, Method]):
    walk: ClassVar[type[Walk]]

    @property
    def table(self) -> Table:
        """One row a stretch of steps."""
        return Table(self.walk.measured, "step", self.every, self.settings.steps)

    @property
    def every(self) -> int:
        """Steps from one measurement to the next."""
        return int(self.settings.measure_every or min(20_480, -(-self.settings.steps // 50)))

    def experiment(self) -> Experiment:
        return Experiment(self)

    def packages(self) -> dict[str, str]:
        from klopf.envs.needed import gymnasium, mujoco

        return {"gymnasium": gymnasium.__version__, "mujoco": mujoco.__version__}

    @abstractmethod
    def agent(self, line: Line[Method], world: Any) -> Any:
        """What acts and learns."""


class Experiment:
    """The loop over stretches of steps and lines, from wherever the record stands.

    Raises kl.Error where the environment is not known or has other spaces.
    """

    def __init__(self, plan: Plan[Any, Any]) -> None:
        settings = plan.settings
        self.plan, self.settings = plan, settings
        self.parts = [self._walk(line) for line in plan.lines]
        self.record = Record()

    @property
    def arithmetic(self) -> str:
        return self.parts[0].arithmetic

    def _first(self, stretch: int) -> int:
        """The step that a stretch begins with."""
        return int(min(stretch * self.plan.every, self.settings.steps))

    def progress(self) -> Progress:
        settings, record, lines = self.settings, self.record, len(self.parts)
        begin = self._first(record.task)
        done = begin * lines + record.line * (self._first(record.task + 1) - begin) + record.done
        return Progress("step", settings.steps, lines, done, settings.quiet)

    def run(self, folder: Folder, session: Session) -> None:
        """Everything that is left to do."""
        stretches = -(-self.settings.steps // self.plan.every)
        with ExitStack() as left:
            for part in self.parts:
                left.callback(part.world.close)
            for stretch in range(self.record.task, stretches):
                for index in range(self.record.line, len(self.parts)):
                    values = self.walk(stretch, index, session)
                    folder.add_results(len(self.record.rows), values)
                    self.record.finish_line(values, len(self.parts))
                    session.serve()

    def seen(self, index: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """What a line's units would be measured on now: its latest observations; for pixels, nothing."""
        return self.parts[index].seen(), {}

    def walk(self, stretch: int, index: int, session: Session) -> Values:
        """One line goes through one stretch: what is measured at its end [R, MEASURED]."""
        line, part, record = self.plan.lines[index], self.parts[index], self.record
        steps = self._first(stretch + 1) - self._first(stretch)
        before = part.failed
        while record.done < steps:
            count = session.slice(index, steps - record.done)
            with session.training(index, line.label, count):
                part.advance(count)
            record.done += count
            for run in np.flatnonzero(part.failed & ~before):
                session.progress.note(f"{line.label}: run {run} failed, and is left out from here on")
            before = part.failed
            if record.done < steps:
                session.serve()
        with session.timed("metrics"):
            values = part.measure()
        session.progress.measured(line.label, self._said(values))
        return values

    def _walk(self, line: Line[Any]) -> Walk:
        from klopf.envs.worlds import World

        settings, plan = self.settings, self.plan
        world = World(settings.env, plan.seeds, settings.threads or kl.get_threads(), **options_of(settings))
        return plan.walk(plan.agent(line, world), world, settings.probe)

    def _said(self, values: Values) -> dict[str, str]:
        """For the progress: mean return and dormant share over the runs that have them."""
        said, measured = {}, self.plan.walk.measured
        returned, dormant = (
            float(mean(values[:, measured.index(name)])) for name in ("return", "dormant_rate")
        )
        if returned == returned:
            said["return"] = f"return {returned:,.0f}"
        if dormant == dormant:
            said["dormant"] = f"{dormant:.0%} dormant"
        return said or {"return": "failed"}
