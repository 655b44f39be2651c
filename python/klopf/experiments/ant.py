"""PPO in MuJoCo: it learns to walk, then collapses under prolonged training, and what cures that.

    for each stretch of steps
        for each line (a method with its settings; all runs of it in lockstep)
            act, step the simulators, remember; when the buffer is full, learn
            returns of the episodes that ended, and metrics of the units

Protocol: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import plan as plans
from klopf.experiments.agents import AGENTS, KINDS, PROFILES, Ppo
from klopf.experiments.lines import Line
from klopf.experiments.plan import Running
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import Folder, Table
from klopf.experiments.session import Session, carry_out, report
from klopf.experiments.settings import option, option_of
from klopf.experiments.statistics import mean
from klopf.experiments.walk import MEASURED, Walk
from klopf.experiments.watch import Watching, watch

Values = NDArray[np.float64]
FRICTION = ("friction_every", "friction_of")  # options of SlipperyAnt alone


@dataclass(frozen=True)
class Settings(Running):
    """PPO in MuJoCo; the defaults are the published experiment."""

    method: tuple[str, ...] = option(("ppo", "continual-ppo"), "methods, one line each", choices=tuple(KINDS))
    profile: str = option("authors", "where unset options of the methods come from", choices=tuple(PROFILES))

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
    probe: int = option(
        1000, "latest observations that units are measured on, at most a buffer of them", minimum=2
    )


class Plan(plans.Plan[Settings, Ppo]):
    name, kind, methods = "ant", Settings, AGENTS

    @property
    def table(self) -> Table:
        """One row a stretch of steps."""
        return Table(MEASURED, "step", self.every, self.settings.steps)

    @property
    def every(self) -> int:
        """Steps from one measurement to the next."""
        return self.settings.measure_every or min(20_480, -(-self.settings.steps // 50))

    def experiment(self) -> Experiment:
        return Experiment(self)

    def packages(self) -> dict[str, str]:
        from klopf.envs.needed import gymnasium, mujoco

        return {"gymnasium": gymnasium.__version__, "mujoco": mujoco.__version__}


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    command: the words of the command line, for the settings file.  Raises kl.Error where options do not fit
    together.
    """
    settings, of_methods = Plan.sort_out(given)
    short = settings.env.removeprefix("klopf/").removesuffix("-v0")
    if settings.env == f"klopf/{short}-v0":  # by its name at Gymnasium
        settings = dataclasses.replace(settings, env=short)
    if settings.env != "SlipperyAnt":
        for name in FRICTION:
            if getattr(settings, name) is not None:
                raise kl.Error(f"{option_of(name)} is an option of SlipperyAnt, got --env {settings.env}")
    if settings.env not in ("Ant", "SlipperyAnt"):
        of_methods.setdefault("first_fan_in", [0])  # the profile's is Ant's
    lines = AGENTS.lines(settings.method, settings.profile, of_methods)
    for line in lines:
        limits = {"minibatch": "buffer", "buffer": "steps"}  # or nothing would be learned from
        sizes = {**dataclasses.asdict(line.method), "steps": settings.steps}
        for small, large in limits.items():
            if sizes[small] > sizes[large]:
                given_sizes = f"{sizes[small]} and {sizes[large]}"
                raise kl.Error(f"{option_of(small)} must be at most {option_of(large)}, got {given_sizes}")
    return Plan(settings, lines, list(command))


# --- the experiment -----------------------------------------------------------------------------------------


class Experiment:
    """The loop over stretches of steps and lines, from wherever the record stands.

    Raises kl.Error where the environment is not known or has other spaces.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        self.plan, self.settings = plan, settings
        self.parts = [_walk(plan, line) for line in plan.lines]
        self.record = Record()

    @property
    def arithmetic(self) -> str:
        return self.parts[0].agent.policy._arithmetic

    def _first(self, stretch: int) -> int:
        """The step that a stretch begins with."""
        return min(stretch * self.plan.every, self.settings.steps)

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
        session.progress.measured(line.label, _said(values))
        return values


def _walk(plan: Plan, line: Line[Ppo]) -> Walk:
    from klopf.envs.worlds import World, options_of

    settings = plan.settings
    world = World(settings.env, plan.seeds, settings.threads or kl.get_threads(), **options_of(settings))
    agent = line.method.build(
        world.observations, world.actions, world.discrete, plan.seeds, settings.device, settings.precision
    )
    return Walk(agent, world, settings.probe)


def _said(values: Values) -> dict[str, str]:
    """For the progress: mean return and dormant share over the runs that have them."""
    said = {}
    returned, dormant = (float(mean(values[:, MEASURED.index(name)])) for name in ("return", "dormant_rate"))
    if returned == returned:
        said["return"] = f"return {returned:,.0f}"
    if dormant == dormant:
        said["dormant"] = f"{dormant:.0%} dormant"
    return said or {"return": "failed"}


def _watch(given: dict[str, Any]) -> None:
    own = [field.name for field in dataclasses.fields(Watching)]
    if "watch" not in given:
        asked = next(name for name in own if name in given)
        hint = "; did you mean --runs?" if asked == "run" else ""
        raise kl.Error(f"{option_of(asked)} is an option of --watch FOLDER{hint}")
    others = [name for name in given if name not in own]
    if others:
        raise kl.Error(f"--watch takes the settings from its folder, got {option_of(others[0])} as well")
    path, total, steps = watch(Watching(**given))
    print(f"return {total:,.0f} in {steps} steps: {path}")


# --- the command --------------------------------------------------------------------------------------------


def command(arguments: Sequence[str]) -> None:
    """`klopf ant`."""
    parser = Plan.parser("PPO in MuJoCo: agents that learn to walk, for longer than PPO can.", Watching)
    given = parser.parse(arguments)
    if any(field.name in given for field in dataclasses.fields(Watching)):
        return _watch(given)
    print(report(carry_out(Plan.name, given, arguments, plan, Plan.read)))
