"""What experiments in supervised learning have in common: an event log, and metrics of one's own."""

from __future__ import annotations

import hashlib
import runpy
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.lines import Line
from klopf.experiments.plan import Running
from klopf.experiments.settings import option
from klopf.files import reason


@dataclass(frozen=True)
class Supervised(Running):
    """Options of every such experiment."""

    metric: tuple[str, ...] = option(
        (),
        "more columns, each named after a function of one's own: function(learner, inputs, **pixels), a "
        "number for each run",
        placeholder="FILE:FUNCTION",
    )
    events: int = option(
        0,
        "write every replacement of a unit to events.csv; of each run so many are kept in mind from one "
        "look to the next, about a second later (10000 is plenty)",
        minimum=0,
        maximum=1 << 24,
    )


class OwnMetrics:
    """Functions that `--metric` names, by column: they see a learner, and inputs as `klopf.metrics` do.

    Raises kl.Error where a file or its function is not there, and for a column that there is already.
    """

    def __init__(self, named: Sequence[str], columns: Sequence[str]) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._paths: dict[str, str] = {}
        for word in named:
            path, _, name = word.rpartition(":")
            if not path or not name.isidentifier():
                raise kl.Error(f"--metric: expected FILE:FUNCTION, got '{word}'")
            if name in columns or name in self._functions:
                raise kl.Error(f"--metric: there is a column {name} already")
            _content(path)
            with _failing(path, path):
                function = runpy.run_path(path).get(name)
            if not callable(function):
                raise kl.Error(f"--metric: {path} has no function {name}")
            self._functions[name], self._paths[name] = function, path

    def measure(
        self, learner: kl.Learner, inputs: NDArray[Any], pixels: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float64]]:
        """What they say [R] each.  Raises kl.Error for anything but a number a run."""
        found, runs = {}, learner.net.runs
        for name, function in self._functions.items():
            with _failing(name, self._paths[name]):
                said = function(learner, inputs, **pixels)
            try:
                if said is None or np.iscomplexobj(said):
                    raise TypeError
                found[name] = np.asarray(said, dtype=np.float64)
            except (TypeError, ValueError):
                raise kl.Error(f"--metric: {name} must give numbers, got {type(said).__name__}") from None
            if found[name].shape != (runs,):
                raise kl.Error(f"--metric: {name} must have shape [{runs}], got {list(found[name].shape)}")
        return found


@contextmanager
def _failing(what: str, path: str) -> Iterator[None]:
    """Whatever a file of one's own raises becomes one line, which says where."""
    try:
        yield
    except kl.Error:
        raise
    except Exception as error:
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == path]
        where = f" in line {lines[-1]} of {path}" if lines else ""
        raise kl.Error(f"--metric: {what} failed{where}: {type(error).__name__}: {error}") from error


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise kl.Error(f"--metric: cannot read {path}: {reason(error)}") from error


def own_files(own: Sequence[str]) -> dict[str, Any]:
    """For settings.json: checksums of the files that metrics of one's own are in.  An experiment does not go
    on with other ones."""
    paths = filter(None, dict.fromkeys(word.rpartition(":")[0] for word in own))
    found = {path: hashlib.sha256(_content(path)).hexdigest() for path in paths}
    return {"metric_files": found} if found else {}


def with_own(measured: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """The columns of the results: the flag stays last."""
    return (*measured[:-1], *map(named_after, own), measured[-1])


def named_after(word: str) -> str:
    """The column that FILE:FUNCTION gives."""
    return word.rpartition(":")[2]


def kept_in_mind(lines: Sequence[Line[Any]], events: int) -> list[int]:
    """How many events each line's learner keeps.  Raises kl.Error where some are asked for and no line
    replaces units."""
    kept = [
        events if any(not isinstance(rule, kl.ShrinkAndPerturb) for rule in line.method.rules()) else 0
        for line in lines
    ]
    if events and not any(kept):
        raise kl.Error("--events: none of the methods replaces units")
    return kept
