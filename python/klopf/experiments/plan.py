"""Plans: everything that decides the results of an experiment, and how settings.json holds it."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

import klopf as kl
from klopf.experiments.lines import Line, Method, Methods
from klopf.experiments.place import OPERATIONAL, Where
from klopf.experiments.results import SETTINGS, Table, read_settings, total_of
from klopf.experiments.settings import Parser, frozen, option, restored
from klopf.experiments.tune import Tuning, checked

if TYPE_CHECKING:
    from klopf.experiments.session import Experiment


@dataclass(frozen=True)
class Running:
    """How it runs."""

    runs: int = option(30, "independent runs, each with its own seed", minimum=1, maximum=100_000)
    seed: int = option(0, "seed of the first run; the others count on from it", minimum=0)
    checkpoint_every: float = option(60.0, "seconds between checkpoints", above=0)
    threads: int = option(0, "threads; 0: KLOPF_NUM_THREADS, or one a core", minimum=0)
    device: str = option("cpu", "where the networks live, see `klopf info`")
    precision: str = option(
        "float32", "of dense products; tf32 for a GPU's tensor cores", choices=("float32", "tf32")
    )
    figure: bool = option(True, "draw the figure at the end")
    quiet: bool = option(False, "show no progress")


Asked = TypeVar("Asked", bound=Running)
Made = TypeVar("Made", bound="Plan[Any, Any]")


@dataclass(frozen=True)
class Plan(ABC, Generic[Asked, Method]):
    """Everything that decides the results.

    name: of the experiment, which is its command's.  kind: of the settings.  methods: that it knows.
    command: the words of the command line, for the settings file.
    tuning: of a first stage, where it ends and what comes next; selection: of a second, how its lines were
    chosen; see `tune`.
    """

    name: ClassVar[str]
    kind: ClassVar[type[Any]]
    methods: ClassVar[Methods[Any]]

    settings: Asked
    lines: list[Line[Method]]
    command: list[str]
    tuning: dict[str, Any] | None = field(default=None, kw_only=True)
    selection: dict[str, Any] | None = field(default=None, kw_only=True)

    @property
    def seeds(self) -> list[int]:
        """One seed a run."""
        return [self.settings.seed + run for run in range(self.settings.runs)]

    @property
    def length(self) -> int:
        """Of the whole stream, in what the table counts."""
        return int(getattr(self.settings, total_of(self.table.counter)))

    @property
    def until(self) -> int | None:
        """After how many rows, of all lines together, a first stage ends."""
        return None if self.tuning is None else int(self.tuning["rows"]) * len(self.lines)

    def _stages(self) -> dict[str, Any]:
        """Entries of settings.json where settings are chosen first."""
        stages = {"tuning": self.tuning, "selection": self.selection}
        return {name: entry for name, entry in stages.items() if entry is not None}

    @property
    @abstractmethod
    def table(self) -> Table:
        """What is measured, and when."""

    @abstractmethod
    def experiment(self) -> Experiment:
        """It, at its beginning."""

    def more(self) -> dict[str, Any]:
        """Entries of settings.json beside those of every experiment."""
        return {}

    def packages(self) -> dict[str, str]:
        """Versions of packages that take part, by name."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What settings.json holds; `read` reads it back."""
        return {
            "experiment": self.name,
            "command": shlex.join(["klopf", *self.command]),
            "settings": dataclasses.asdict(self.settings),
            "lines": [line.describe() for line in self.lines],
            "seeds": self.seeds,
            "table": self.table.describe(),
            **self.more(),
            **self._stages(),
            "versions": {
                "klopf": kl.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                **self.packages(),
            },
            "isa": kl.isa(),
        }

    def decides(self) -> dict[str, Any]:
        """What a checkpoint and the settings beside it must agree on, as JSON holds it."""
        settings = {
            name: value
            for name, value in dataclasses.asdict(self.settings).items()
            if name not in (*OPERATIONAL, "device", "precision")
        }
        lines = [line.describe() for line in self.lines]
        whole = {
            "settings": settings,
            "lines": lines,
            "table": self.table.describe(),
            **self.more(),
            **self._stages(),
        }
        decided: dict[str, Any] = json.loads(json.dumps(whole))
        return decided

    @classmethod
    def read(cls: type[Made], folder: str | PathLike[str], changed: Mapping[str, Any]) -> Made:
        """The plan of a results folder.  changed: options of `place.OPERATIONAL` that are to differ now.

        Raises kl.Error where its settings are not such an experiment's.
        """
        described = read_settings(folder)
        name = described.get("experiment")
        if name != cls.name:
            raise kl.Error(f"{folder} is a folder of klopf {name}, not of klopf {cls.name}")
        try:
            settings = restored(cls.kind, described["settings"])
            lines = [cls.methods.line_of(line) for line in described["lines"]]
            command = shlex.split(described["command"])[1:]
            rest = cls.rest(described)
            for stage in ("tuning", "selection"):
                if stage in described:
                    rest[stage] = checked(described[stage]) if stage == "tuning" else described[stage]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise kl.Error(f"{folder} is not the results folder of this version: {error}") from error
        if "events" in changed and (settings.events == 0) != (changed["events"] == 0):
            raise kl.Error(f"--events: {folder} was begun {'with' if settings.events else 'without'} it")
        made = cls(dataclasses.replace(settings, **changed), lines, command, **rest)
        if described["seeds"] != made.seeds:
            raise kl.Error(f"the seeds in {folder}/{SETTINGS} are not those that its settings give")
        return made

    @classmethod
    def rest(cls, described: Mapping[str, Any]) -> dict[str, Any]:
        """What `more` wrote, as what the plan is made of."""
        return {}

    @classmethod
    def sort_out(cls, given: Mapping[str, Any]) -> tuple[Any, dict[str, Sequence[Any]]]:
        """The settings, and the options of the methods with a list of values each, among given options."""
        names = {field.name for field in dataclasses.fields(cls.kind)}
        settings = cls.kind(**{name: frozen(value) for name, value in given.items() if name in names})
        whole = {name for name, one in cls.methods.options().items() if one.several}  # a tuple is one value
        of_methods = {
            name: [tuple(value)] if name in whole else value
            for name, value in given.items()
            if name not in names
        }
        return settings, of_methods

    @classmethod
    def parser(cls, description: str, *others: type) -> Parser:
        """The command line.  others: settings dataclasses beside the plan's."""
        parser = Parser(f"klopf {cls.name}", description)
        running = [field.name for field in dataclasses.fields(Running)]
        parser.add_settings(Where)
        parser.add_settings(cls.kind, leave_out=running)
        for kind in (Running, Tuning, *others):
            parser.add_settings(kind)
        group = parser.add_argument_group("settings of the methods (with several values: one line each)")
        for asked in cls.methods.options().values():
            several = not asked.several or None
            parser.add_option(group, asked, cls.methods.defaults_text(asked.name), several=several)
        return parser
