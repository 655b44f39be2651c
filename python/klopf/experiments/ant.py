"""PPO in MuJoCo: it learns to walk, then collapses under prolonged training, and what cures that.

    for each stretch of steps
        for each line (a method with its settings; all runs of it in lockstep)
            act, step the simulators, remember; when the buffer is full, learn
            returns of the episodes that ended, and metrics of the units

Protocol: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024).
"""

from __future__ import annotations

import dataclasses
import platform
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.agents import AGENTS, KINDS, PROFILES, Ppo
from klopf.experiments.lines import Line
from klopf.experiments.place import Where
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import FIGURE, Folder, Table, read_settings
from klopf.experiments.session import Session, carry_out
from klopf.experiments.settings import Parser, frozen, option, option_of
from klopf.experiments.statistics import mean
from klopf.experiments.walk import MEASURED, Walk
from klopf.experiments.watch import Watching, watch

Values = NDArray[np.float64]
FRICTION = ("friction_every", "friction_of")  # options of SlipperyAnt alone


@dataclass(frozen=True)
class Settings:
    """PPO in MuJoCo; the defaults are the published experiment."""

    method: tuple[str, ...] = option(("ppo", "continual-ppo"), "methods, one line each", choices=tuple(KINDS))
    profile: str = option("authors", "where unset options of the methods come from", choices=tuple(PROFILES))

    env: str = option("Ant", "Ant, SlipperyAnt, Hopper, Walker2d, HalfCheetah, or an id that Gymnasium knows")
    steps: int = option(50_000_000, "steps of every run", minimum=1)
    runs: int = option(
        30, "independent runs, each with its own environment and weights", minimum=1, maximum=100_000
    )
    seed: int = option(0, "seed of the first run; the others count on from it", minimum=0)
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

    checkpoint_every: float = option(60.0, "seconds between checkpoints", above=0)
    threads: int = option(0, "threads; 0: KLOPF_NUM_THREADS, or one a core", minimum=0)
    device: str = option("cpu", "where the networks live, see `klopf info`")
    precision: str = option(
        "float32", "of dense products; tf32 for a GPU's tensor cores", choices=("float32", "tf32")
    )
    figure: bool = option(True, "draw the figure at the end")
    quiet: bool = option(False, "show no progress")


@dataclass(frozen=True)
class Plan:
    """Everything that decides the results."""

    settings: Settings
    lines: list[Line[Ppo]]
    command: list[str]

    @property
    def seeds(self) -> list[int]:
        """One seed a run."""
        return [self.settings.seed + run for run in range(self.settings.runs)]

    @property
    def table(self) -> Table:
        """One row a stretch of steps."""
        return Table(MEASURED, "step", self.every, self.settings.steps)

    @property
    def every(self) -> int:
        """Steps from one measurement to the next."""
        return self.settings.measure_every or min(20_480, -(-self.settings.steps // 50))

    def experiment(self) -> Experiment:
        """It, at its beginning."""
        return Experiment(self)

    def describe(self) -> dict[str, Any]:
        """What settings.json holds; `planned` reads it back."""
        return {
            "experiment": "ant",
            "command": shlex.join(["klopf", *self.command]),
            "settings": dataclasses.asdict(self.settings),
            "lines": [line.describe() for line in self.lines],
            "seeds": self.seeds,
            "table": self.table.describe(),
            "versions": {
                "klopf": kl.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                **_simulators(),
            },
            "isa": kl.isa(),
        }


def _simulators() -> dict[str, str]:
    from klopf.envs.needed import gymnasium, mujoco

    return {"gymnasium": gymnasium.__version__, "mujoco": mujoco.__version__}


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    command: the words of the command line, for the settings file.  Raises kl.Error where options do not fit
    together.
    """
    names = {field.name for field in dataclasses.fields(Settings)}
    settings = Settings(**{name: frozen(value) for name, value in given.items() if name in names})
    short = settings.env.removeprefix("klopf/").removesuffix("-v0")
    if settings.env == f"klopf/{short}-v0":  # by its name at Gymnasium
        settings = dataclasses.replace(settings, env=short)
    if settings.env != "SlipperyAnt":
        for name in FRICTION:
            if getattr(settings, name) is not None:
                raise kl.Error(f"{option_of(name)} is an option of SlipperyAnt, got --env {settings.env}")
    whole = {name for name, one in AGENTS.options().items() if one.several}  # several numbers, one value
    of_methods = {
        name: [tuple(value)] if name in whole else value for name, value in given.items() if name not in names
    }
    if settings.env not in ("Ant", "SlipperyAnt"):
        of_methods.setdefault("first_fan_in", [0])  # the profile's is Ant's
    lines = AGENTS.lines(settings.method, settings.profile, of_methods)
    for line in lines:
        if line.method.buffer > settings.steps:
            raise kl.Error(
                f"--buffer must be at most --steps for anything to be learned, got {line.method.buffer} "
                f"and {settings.steps}"
            )
    return Plan(settings, lines, list(command))


def planned(folder: str | Path, changed: Mapping[str, Any]) -> Plan:
    """The plan of a results folder.  changed: options of `place.OPERATIONAL` that are to differ this time."""
    described = read_settings(folder)
    try:
        settings = Settings(**{name: frozen(value) for name, value in described["settings"].items()})
        chosen = [AGENTS.line_of(line) for line in described["lines"]]
        command = shlex.split(described["command"])[1:]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise kl.Error(f"{folder} is not the results folder of this version: {error}") from error
    return Plan(dataclasses.replace(settings, **changed), chosen, command)


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
    parser = Parser("klopf ant", "PPO in MuJoCo: agents that learn to walk, for longer than PPO can.")
    parser.add_settings(Where)
    parser.add_settings(Settings)
    parser.add_settings(Watching)
    group = parser.add_argument_group("settings of the methods (with several values: one line each)")
    for asked in AGENTS.options().values():
        parser.add_option(group, asked, AGENTS.defaults_text(asked.name), several=not asked.several or None)
    given = parser.parse(arguments)
    if any(field.name in given for field in dataclasses.fields(Watching)):
        return _watch(given)
    path = carry_out("ant", given, arguments, plan, planned)
    figure = (Path(path) / f"{FIGURE}.png").exists()
    print(f"results{' and figure' if figure else ''} in {path}")
