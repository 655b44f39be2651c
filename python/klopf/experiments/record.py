"""How far an experiment is and what it has measured: all that a checkpoint holds, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import checkpoint
from klopf.experiments.results import SETTINGS

if TYPE_CHECKING:
    from klopf.experiments.plan import Plan

Array = NDArray[np.float64]

_POSITION = ("task", "line", "done", "events")


class Part(Protocol):
    """What learns on one line of an experiment."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that it goes on from."""

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """What `state` gave, back in place."""


class Recorded(Protocol):
    """An experiment, as far as its record needs to know it."""

    @property
    def plan(self) -> Plan[Any, Any]: ...
    @property
    def parts(self) -> Sequence[Part]:
        """What learns on each line."""

    @property
    def arithmetic(self) -> str:
        """What decides about the last bits of results."""


@dataclass
class Record:
    """The position in the loop over tasks and lines, and the measurements of all that lies before it.

    task: number of the task, or of the stretch of an endless one, from 0.
    done: what the current line has done of it, in epochs or steps; 0 where it has not begun.
    events: size of events.csv in bytes, 0 where there is none.
    carried: what the current line carries from one slice to the next.
    kept: what lines want to know later, by line and name.
    rows: one array [R, measured] for each finished task and line, in order.
    """

    task: int = 0
    line: int = 0
    done: int = 0
    events: int = 0
    carried: dict[str, Array] = field(default_factory=dict)
    kept: dict[int, dict[str, NDArray[Any]]] = field(default_factory=dict)
    rows: list[Array] = field(default_factory=list)

    def kept_by(self, line: int) -> dict[str, NDArray[Any]]:
        """What a line keeps."""
        return self.kept.setdefault(line, {})

    def latest(self, line: int) -> int:
        """The task that a line has begun last; 0 where it has not begun any."""
        begun = line < self.line or (line == self.line and self.done > 0)
        return max(0, self.task - (not begun))

    def finish_line(self, measured: Array, lines: int) -> None:
        """Keep what was measured at the end of the current task and move to the next line or task."""
        self.rows.append(measured)
        self.done = 0
        self.carried.clear()
        self.line += 1
        if self.line == lines:
            self.task, self.line = self.task + 1, 0

    def save(self, path: Path, experiment: Recorded) -> None:
        """Write everything, what learns included, to `path` at once or not at all."""
        arrays = {f"carried/{name}": array for name, array in self.carried.items()}
        if self.rows:
            arrays["rows"] = np.stack(self.rows)
        for index, part in enumerate(experiment.parts):
            for name, array in part.state().items():
                arrays[f"line{index}/{name}"] = array
            for name, array in self.kept_by(index).items():
                arrays[f"kept{index}/{name}"] = array
        about = {
            **{name: getattr(self, name) for name in _POSITION},
            "arithmetic": experiment.arithmetic,
            "version": kl.__version__,
            "plan": experiment.plan.decides(),
        }
        checkpoint.write(path, arrays, about)

    def load(self, path: Path, experiment: Recorded) -> None:
        """Go back to what `save` wrote, with a warning where that was at another instruction-set
        level or on another device.

        Raises kl.Error where the file is damaged, or was written under another plan.
        """
        arrays, meta = checkpoint.read(path)
        try:
            self.rows = list(arrays.get("rows", ()))
            for name in _POSITION:
                setattr(self, name, int(meta[name]))
            before, plan = str(meta["arithmetic"]), dict(meta["plan"])
        except (KeyError, ValueError, TypeError) as error:
            raise kl.Error(f"{path} is not the checkpoint of an experiment: {error} is missing") from error
        self.carried = checkpoint.within(arrays, "carried/")
        for name, was, now in _differences(plan, experiment.plan.decides()):
            if name.startswith("metric_files."):
                file = name.removeprefix("metric_files.")
                raise kl.Error(f"--metric: {file} is not what it was when {path.parent} was begun")
            raise kl.Error(f"{path} was written where {name} was {was}, and {SETTINGS} beside it says {now}")
        for index, part in enumerate(experiment.parts):
            state = checkpoint.within(arrays, f"line{index}/")
            if "events.step" in state:  # of which there may be room for more now; all were written
                mine = part.state()
                anew = [
                    name
                    for name in state
                    if name.startswith("events.") and state[name].shape != mine[name].shape
                ]
                state |= {name: mine[name] for name in anew}
            self.kept[index] = checkpoint.within(arrays, f"kept{index}/")
            try:
                part.load_state(state)
            except kl.Error as error:
                raise kl.Error(f"{path} does not belong to the settings beside it: {error}") from None
        checkpoint.warn_of_other_arithmetic(path, before, experiment.arithmetic)


def _differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two things that JSON can hold differ: a name, and what each has there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{name}[{index}]")
    elif one != other:
        yield name, json.dumps(one), json.dumps(other)
