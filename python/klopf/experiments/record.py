"""How far an experiment is and what it has measured: all that a checkpoint holds, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf import checkpoint

Array = NDArray[np.float64]

_POSITION = ("task", "line", "epoch")


@dataclass
class Record:
    """The position in the loop over tasks and lines, and the measurements of all that lies before it.

    epoch: epochs of the current task that the current line has done; 0 where it has not begun.
    train_loss: mean training loss of that line's latest epoch [R].
    rows: one array [R, results.MEASURED] for each finished task and line, in order.
    """

    train_loss: Array
    task: int = 0
    line: int = 0
    epoch: int = 0
    rows: list[Array] = field(default_factory=list)

    def finish_line(self, measured: Array, lines: int) -> None:
        """Keep what was measured at the end of the current task and move to the next line or task."""
        self.rows.append(measured)
        self.epoch = 0
        self.train_loss = np.full_like(self.train_loss, np.nan)
        self.line += 1
        if self.line == lines:
            self.task, self.line = self.task + 1, 0

    def save(self, path: Path, learners: Sequence[kl.Learner]) -> None:
        """Write everything, learners included, to `path` at once or not at all."""
        arrays = {"train_loss": self.train_loss}
        if self.rows:
            arrays["rows"] = np.stack(self.rows)
        for index, learner in enumerate(learners):
            for name, array in learner.state().items():
                arrays[f"line{index}/{name}"] = array
        position = {name: getattr(self, name) for name in _POSITION}
        checkpoint.write(
            path, arrays, {**position, "arithmetic": _arithmetic(learners), "version": kl.__version__}
        )

    def load(self, path: Path, learners: Sequence[kl.Learner]) -> None:
        """Go back to what `save` wrote, with a warning where that was at another instruction-set
        level or on another device.

        Raises kl.Error where the file is damaged or belongs to another experiment.
        """
        arrays, meta = checkpoint.read(path)
        try:
            self.train_loss = arrays["train_loss"]
            self.rows = list(arrays.get("rows", ()))
            for name in _POSITION:
                setattr(self, name, int(meta[name]))
            before = str(meta["arithmetic"])
        except (KeyError, ValueError, TypeError) as error:
            raise kl.Error(f"{path} is not the checkpoint of an experiment: {error} is missing") from error
        for index, learner in enumerate(learners):
            prefix = f"line{index}/"
            learner.load_state(
                {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            )
        checkpoint.warn_of_other_arithmetic(path, before, _arithmetic(learners))


def _arithmetic(learners: Sequence[kl.Learner]) -> str:
    return learners[0].net._arithmetic if learners else ""
