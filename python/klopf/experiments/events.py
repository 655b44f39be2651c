"""events.csv: one row for each unit that was replaced, in the order of tasks, lines, runs and steps."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.record import Record
from klopf.experiments.results import EVENTS, Folder
from klopf.files import reason

Array = NDArray[np.float64]

COLUMNS = ("layer", "unit", "step", "age", "utility", "cause")
_KEPT = ("run", *COLUMNS)  # in a checkpoint, the cause by its place among the learner's rules
_KINDS: tuple[Any, ...] = (*[np.int64] * 5, np.float64, np.str_)


class EventLog:
    """Of one line while it learns one task: looks at its learner, and keeps what it saw in the record.

    capacity: replacements that the learner keeps in mind; with 0 nothing is looked at.
    """

    def __init__(self, learner: kl.Learner, capacity: int, record: Record) -> None:
        self._learner, self._capacity, self._record = learner, capacity, record
        self._before = learner.events_counted

    def look(self) -> None:
        """Keep what was replaced since the last time.  Raises kl.Error where that is more than capacity."""
        if self._capacity == 0:
            return
        counted = self._learner.events_counted
        fresh, self._before = counted - self._before, counted
        if fresh.max() > self._capacity:
            run = int(fresh.argmax())
            raise kl.Error(
                f"--events {self._capacity} is too few: run {run} replaced {fresh[run]} units from one look "
                "to the next; give a larger number, with --resume where there is a checkpoint"
            )
        found: dict[str, Any] = self._learner.events()
        found["cause"] = [self._causes.index(name) for name in found["cause"]]
        rows = np.column_stack([np.asarray(found[name], np.float64) for name in _KEPT])
        ends = np.cumsum(np.minimum(counted, self._capacity))  # of each run's rows
        before = self._record.carried.get("events", rows[:0])
        new = [rows[end - count : end] for end, count in zip(ends, fresh, strict=True)]
        self._record.carried["events"] = np.concatenate([before, *new])

    def write(self, folder: Folder) -> None:
        """Write all that the task has brought, run by run: so the file does not tell when was looked."""
        if self._capacity == 0:
            return
        kept = self._record.carried["events"]
        rows = [
            [*map(int, whole), repr(utility), self._causes[int(cause)]]
            for *whole, utility, cause in kept[np.argsort(kept[:, 0], kind="stable")].tolist()
        ]
        self._record.events = folder.add_events(len(self._record.rows), rows)

    @property
    def _causes(self) -> list[str]:
        return [type(rule).__name__ for rule in self._learner.rules]


class Replaced(NamedTuple):
    """What one line replaced, each an array [N]."""

    run: NDArray[np.int64]
    layer: NDArray[np.int64]
    unit: NDArray[np.int64]
    step: NDArray[np.int64]
    age: NDArray[np.int64]
    utility: Array
    cause: NDArray[np.str_]


def read_events(folder: str | Path) -> dict[str, Replaced]:
    """By line's label; lines that replaced nothing are left out.

    Raises kl.Error where there is no events.csv, or something else in it.
    """
    path = Path(folder) / EVENTS
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise kl.Error(
            f"{folder} has no events: cannot read {path}: {reason(error)} (see --events)"
        ) from error
    except UnicodeDecodeError as error:
        raise kl.Error(f"expected text in {path}, got something else") from error
    header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines() or [""])
    if header[:1] != ["line"] or tuple(header[-len(COLUMNS) :]) != COLUMNS or "run" not in header:
        raise kl.Error(f"expected the columns {', '.join(COLUMNS)} in {path}, got {','.join(header)[:80]}")
    places = [header.index(name) for name in _KEPT]
    found: dict[str, list[list[str]]] = {}
    try:
        for row in rows:
            found.setdefault(row[0], []).append([row[place] for place in places])
        return {
            label: Replaced(
                *(
                    np.array(column, kind)
                    for column, kind in zip(zip(*kept, strict=True), _KINDS, strict=True)
                )
            )
            for label, kept in found.items()
        }
    except (ValueError, IndexError) as error:
        raise kl.Error(f"expected numbers in {path}, got something else: {error}") from error
