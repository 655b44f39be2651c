"""How far an experiment is and what it has measured: all that a checkpoint holds, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import checkpoint

Array = NDArray[np.float64]

_POSITION = ("task", "line", "done")


class Part(Protocol):
    """What learns on one line of an experiment."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that it goes on from."""

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """What `state` gave, back in place."""


@dataclass
class Record:
    """The position in the loop over tasks and lines, and the measurements of all that lies before it.

    task: number of the task, or of the stretch of an endless one, from 0.
    done: what the current line has done of it, in epochs or steps; 0 where it has not begun.
    carried: what the current line carries from one slice to the next.
    rows: one array [R, measured] for each finished task and line, in order.
    """

    task: int = 0
    line: int = 0
    done: int = 0
    carried: dict[str, Array] = field(default_factory=dict)
    rows: list[Array] = field(default_factory=list)

    def finish_line(self, measured: Array, lines: int) -> None:
        """Keep what was measured at the end of the current task and move to the next line or task."""
        self.rows.append(measured)
        self.done = 0
        self.carried.clear()
        self.line += 1
        if self.line == lines:
            self.task, self.line = self.task + 1, 0

    def save(self, path: Path, parts: Sequence[Part], arithmetic: str) -> None:
        """Write everything, what learns included, to `path` at once or not at all."""
        arrays = {f"carried/{name}": array for name, array in self.carried.items()}
        if self.rows:
            arrays["rows"] = np.stack(self.rows)
        for index, part in enumerate(parts):
            for name, array in part.state().items():
                arrays[f"line{index}/{name}"] = array
        position = {name: getattr(self, name) for name in _POSITION}
        checkpoint.write(path, arrays, {**position, "arithmetic": arithmetic, "version": kl.__version__})

    def load(self, path: Path, parts: Sequence[Part], arithmetic: str) -> None:
        """Go back to what `save` wrote, with a warning where that was at another instruction-set
        level or on another device.

        Raises kl.Error where the file is damaged or belongs to another experiment.
        """
        arrays, meta = checkpoint.read(path)
        try:
            self.rows = list(arrays.get("rows", ()))
            for name in _POSITION:
                setattr(self, name, int(meta[name]))
            before = str(meta["arithmetic"])
        except (KeyError, ValueError, TypeError) as error:
            raise kl.Error(f"{path} is not the checkpoint of an experiment: {error} is missing") from error
        self.carried = checkpoint.within(arrays, "carried/")
        for index, part in enumerate(parts):
            try:
                part.load_state(checkpoint.within(arrays, f"line{index}/"))
            except kl.Error as error:
                raise kl.Error(f"{path} does not belong to the settings beside it: {error}") from None
        checkpoint.warn_of_other_arithmetic(path, before, arithmetic)
