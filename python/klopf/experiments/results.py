"""The results folder: settings.json, results.csv, events.csv where it is asked for, timings.json,
checkpoint.safetensors and the figure.

results.csv has one row for each task (or stretch of steps), line and run, in this order: a file that was cut
short by a crash is written anew from the checkpoint, so that resuming gives the same bytes as never having
stopped.  Floats are written by `repr`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.files import atomic_write, check_writable, reason

try:
    import fcntl
except ImportError:  # not a POSIX system: two processes in one folder are then not kept apart
    fcntl = None  # type: ignore[assignment]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The columns that tell what was measured, and when.

    measured: their names; the last is a flag, 1 from when on a run no longer learns.
    counter: "task", "step", "example" or "classes".  every: so many from one row of a run to its next.
    last: of the last row, where it comes early.
    """

    measured: tuple[str, ...]
    counter: str = "task"
    every: int = 1
    last: int | None = None

    def at(self, index: int) -> int:
        """What the counter says in the index-th row of a run."""
        count = (index + 1) * self.every
        return count if self.last is None else min(count, self.last)

    def describe(self) -> dict[str, Any]:
        """For the settings file."""
        return asdict(self)


SETTINGS, RESULTS, EVENTS, TIMINGS = "settings.json", "results.csv", "events.csv", "timings.json"
CHECKPOINT = "checkpoint.safetensors"
FIGURE = "figure"


def total_of(counter: str) -> str:
    """The option that says how many there are of what a table counts."""
    return counter if counter.endswith("s") else f"{counter}s"


class Growing:
    """A text file that is added to; klopf.Error where the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._file = open(path, "ab")  # noqa: SIM115

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Error(f"cannot write {self._path}: {reason(error)}") from error

    def add(self, text: str, *, sync: bool = False) -> int:
        """Behind all there is; the size of the file then, in bytes.  sync: wait until the disk has it."""
        with self._errors():
            self._file.write(text.encode())
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
            return self._file.tell()

    def cut(self, size: int) -> None:
        """Leave so many bytes.  Raises Error where there are fewer."""
        with self._errors():
            there = os.fstat(self._file.fileno()).st_size
            if there < size:
                raise Error(f"{self._path} has {there} bytes, where the checkpoint beside it expects {size}")
            self._file.truncate(size)
            self._file.seek(size)

    def close(self) -> None:
        """What could not be written was reported when it was tried."""
        with suppress(OSError):
            self._file.close()


class Folder:
    """A results folder that this process writes; nobody else may at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = -1
        self._results: Growing | None = None
        self._events: Growing | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def refuse_results(self, *stages: Path) -> None:
        """Error where an experiment was begun here, or a stage of it in its folder."""
        places = (self.path, *stages)
        if any((place / name).exists() for place in places for name in (SETTINGS, RESULTS)):
            raise Error(
                f"{self.path} already has results; choose another --out, go on with --resume {self.path}, "
                "or give --overwrite"
            )

    def create(self, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder and write the settings; Error where it cannot be written or has results already."""
        check_writable(self.path)
        self.lock()
        if not overwrite:
            self.refuse_results()
        figures = [path.name for path in sorted(self.path.glob(f"{FIGURE}-*.csv"))]
        figures += [f"{FIGURE}.{kind}" for kind in ("png", "svg", "pdf")]
        for name in (CHECKPOINT, RESULTS, EVENTS, TIMINGS, *figures, SETTINGS):
            with suppress(FileNotFoundError):
                (self / name).unlink()
        self._write_json(SETTINGS, settings)

    def discard(self) -> None:
        """Take away what was written, where nothing has been measured yet."""
        for name in (CHECKPOINT, RESULTS, EVENTS, TIMINGS, SETTINGS):
            with suppress(OSError):
                (self / name).unlink()

    def has_rows(self) -> bool:
        """Whether results.csv holds more than its header."""
        try:
            return (self / RESULTS).read_bytes().count(b"\n") > 1
        except OSError:
            return False

    def lock(self) -> None:
        """Keep other processes out as long as this one lives; Error where one is already in."""
        if fcntl is None or self._lock >= 0:
            return
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Error(f"another process is writing into {self.path}") from error
        except OSError:
            pass  # a file system without locks

    def settings(self) -> dict[str, Any]:
        """The settings that `create` wrote."""
        return read_settings(self.path)

    def begin_results(
        self, table: Table, lines: Sequence[dict[str, Any]], seeds: Sequence[int], rows: Sequence[Array]
    ) -> None:
        """Write results.csv with everything measured so far (see `add_results`) and keep it open for more.

        lines: as in the settings file.  rows: one [R, measured] for each task and line, in order.
        """
        self._writer = _Rows(table, lines, seeds)
        with atomic_write(self / RESULTS, "w") as file:
            file.write(self._writer.header())
            for index, measured in enumerate(rows):
                file.write(self._writer.rows(index, measured))
        self._results = Growing(self / RESULTS)

    def add_results(self, index: int, measured: Array) -> None:
        """Append the values [R, measured] of task index // lines and line index % lines."""
        assert self._results is not None
        self._results.add(self._writer.rows(index, measured))

    def begin_events(self, columns: Sequence[str], size: int) -> None:
        """Keep events.csv open for more, cut to the size that it had; 0: begin it.  After `begin_results`.

        Raises Error where it is shorter.
        """
        if size == 0:
            with atomic_write(self / EVENTS, "w") as file:
                file.write(self._writer.header(columns))
        self._events = Growing(self / EVENTS)
        if size > 0:
            self._events.cut(size)

    def add_events(self, index: int, rows: Sequence[Sequence[Any]]) -> int:
        """Append rows, each a run's number and the columns, as `add_results` does; the file's new size."""
        assert self._events is not None
        return self._events.add(self._writer.events(index, rows), sync=True)  # checkpoints count on it

    def write_timings(self, timings: dict[str, Any]) -> None:
        """How long things took: the only file that differs between two equal runs."""
        self._write_json(TIMINGS, timings)

    def read_timings(self) -> dict[str, Any]:
        """What was written last, or nothing where there is none that can be read."""
        try:
            timings = json.loads((self / TIMINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return timings if isinstance(timings, dict) else {}

    def close(self) -> None:
        """Close the files and let others in."""
        for file in (self._results, self._events):
            if file is not None:
                file.close()
        self._results = self._events = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        with atomic_write(self / name, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")


def free_folder(stem: str) -> str:
    """`stem`, or the first of stem-2, stem-3, ... that does not exist."""
    return next(name for name in _numbered(stem) if not Path(name).exists())


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """settings.json of a results folder; Error where it is missing or not what was written."""
    path = Path(folder) / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Error(f"{folder} is no results folder: cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise Error(f"expected JSON in {path}, got something else: {error}") from error
    whole = isinstance(settings, dict) and all(
        isinstance(settings.get(name), kind) for name, kind in _PARTS.items()
    )
    if not whole or not settings["lines"] or not settings["seeds"]:
        raise Error(f"expected the settings of an experiment in {path}, got something else")
    return settings


_PARTS = {"settings": dict, "lines": list, "seeds": list, "table": dict}


def table_of(folder: str | os.PathLike[str], settings: dict[str, Any]) -> Table:
    """What its results are; Error where the settings do not say so."""
    try:
        described = dict(settings["table"])
        table = Table(tuple(described.pop("measured")), **described)
        words, numbers = (*table.measured, table.counter), (table.every, table.last or 1)
        if not all(isinstance(one, str) for one in words) or not all(isinstance(one, int) for one in numbers):
            raise TypeError
        return table
    except (KeyError, TypeError, ValueError) as error:
        raise Error(f"expected a table in {Path(folder) / SETTINGS}, got {settings['table']}") from error


# --- rows ---------------------------------------------------------------------------------------------------


class _Rows:
    """Rows of results.csv as text."""

    def __init__(self, table: Table, lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> None:
        self.table, self.lines, self.seeds = table, lines, seeds
        self.swept = list(dict.fromkeys(name for line in lines for name in line["swept"]))

    def header(self, columns: Sequence[str] = ()) -> str:
        """columns: behind those that say what a row is about; by default what was measured."""
        about = ["line", "method", *self.swept, "run", "seed", self.table.counter]
        return _text([[*about, *(columns or self.table.measured)]])

    def rows(self, index: int, measured: Array) -> str:
        """The rows of all runs of one task and line; tasks and steps are counted from 1, runs from 0."""
        about = self._about(index)
        return _text(
            [*about(run), *(repr(value) for value in values[:-1]), int(values[-1])]
            for run, values in enumerate(measured.tolist())
        )

    def events(self, index: int, rows: Sequence[Sequence[Any]]) -> str:
        """Rows of which each says first which run it is about."""
        about = self._about(index)
        return _text([*about(run), *rest] for run, *rest in rows)

    def _about(self, index: int) -> Callable[[int], list[Any]]:
        """What the rows of a run begin with."""
        task, which = divmod(index, len(self.lines))
        line, count = self.lines[which], self.table.at(task)
        start = [line["label"], line["method"], *(line["swept"].get(name, "") for name in self.swept)]
        return lambda run: [*start, run, self.seeds[run], count]


def _text(rows: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


class LineResults(NamedTuple):
    """What one line measured.

    values: for each column an array [R, T], NaN where missing.  at: what the counter said [T].
    experiment: the settings that all lines have.  seeds: one a run.  name: of the experiment.
    counter: what `at` counts.
    """

    label: str
    method: str
    settings: dict[str, Any]
    values: dict[str, Array]
    at: NDArray[np.int64]
    experiment: dict[str, Any]
    seeds: tuple[int, ...] = ()
    name: str = ""
    counter: str = ""

    @property
    def whole(self) -> int:
        """What the counter says at the end of the whole stream; where that is not known, of what there is."""
        return int(self.experiment.get(total_of(self.counter), self.at[-1]))

    @property
    def lost(self) -> list[int]:
        """Runs that no longer learned at the end."""
        flags = list(self.values.values())[-1]
        return [int(run) for run in np.flatnonzero(flags[:, -1])]


def read_results(folder: str | os.PathLike[str]) -> list[LineResults]:
    """Every line of a results folder, finished or not; Error where the files are not what was written."""
    settings = read_settings(folder)
    lines, runs, common = settings["lines"], len(settings["seeds"]), settings["settings"]
    table = table_of(folder, settings)
    measured = table.measured
    path = Path(folder) / RESULTS
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Error(f"{folder} has no results yet: cannot read {path}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise Error(f"expected text in {path}, got something else") from error
    header, *rows = text[: text.rfind("\n") + 1].splitlines() or [""]
    if not header.endswith(",".join(measured)):
        raise Error(f"expected the columns {', '.join(measured)} in {path}, got {header[:80]}")
    whole = len(rows) // runs * runs  # the rows of one task and line are there together, or left out
    if whole == 0:
        raise Error(f"{folder} has no results yet: nothing was measured")
    columns = header.count(",") + 1
    try:
        numbers = np.loadtxt(
            rows[:whole],
            delimiter=",",
            quotechar='"',
            usecols=range(columns - len(measured), columns),
            ndmin=2,
        )
    except ValueError as error:
        raise Error(f"expected numbers in {path}, got something else: {error}") from error
    blocks = numbers.reshape(-1, runs, len(measured))
    found = []
    for index, line in enumerate(lines):
        own = blocks[index :: len(lines)].transpose(2, 1, 0)
        values = {name: np.ascontiguousarray(own[column]) for column, name in enumerate(measured)}
        at = np.array([table.at(k) for k in range(own.shape[2])])
        about = line["label"], line["method"], line["settings"]
        seeds, name = tuple(settings["seeds"]), str(settings.get("experiment", ""))
        found.append(LineResults(*about, values, at, common, seeds, name, table.counter))
    return [line for line in found if line.at.size]


def read_together(folders: Sequence[str | os.PathLike[str]]) -> list[LineResults]:
    """Every line of several results folders, with labels that tell them apart.

    Error where the folders are not of one kind of experiment; what acts may be compared, however it learns.
    """
    counters, names = set(), set()
    for folder in folders:
        settings = read_settings(folder)
        counters.add(table_of(folder, settings).counter)
        names.add(settings.get("experiment", "something else"))
    if len(counters) > 1 or (counters != {"step"} and len(names) > 1):
        raise Error(f"expected folders of one kind of experiment, got {' and '.join(sorted(names))}")
    found = [(Path(folder).name, line) for folder in folders for line in read_results(folder)]
    labels = [line.label for _, line in found]
    return [
        line if labels.count(line.label) == 1 else line._replace(label=f"{line.label} ({name})")
        for name, line in found
    ]
