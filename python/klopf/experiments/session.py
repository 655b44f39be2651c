"""One sitting of an experiment: between slices of training, the person and the disk are served."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import tune
from klopf.experiments.events import COLUMNS
from klopf.experiments.place import resumable, taken_from
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record, Recorded
from klopf.experiments.results import CHECKPOINT, FIGURE, Folder, free_folder
from klopf.experiments.stop import Stopped, StopSignals

if TYPE_CHECKING:
    from klopf.experiments.plan import Plan

SLICE_SECONDS = 1.0  # about how long training goes on before anything else is served


class Experiment(Recorded, Protocol):
    """The loop over tasks and lines, from wherever the record stands."""

    @property
    def record(self) -> Record: ...

    def progress(self) -> Progress:
        """Of what is left to do."""

    def run(self, folder: Folder, session: Session) -> None:
        """Everything that is left to do."""

    def seen(self, index: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """The inputs that a line's units were measured on last, [B, ...] or [R, B, ...], and what pixels need
        on their way into the network."""


class Enough(Exception):
    """What was to be done of an experiment is done."""


class Session:
    """Signals, progress, checkpoints and timings of one sitting; leaving it well writes the last checkpoint.

    program: what the person has to type, with --resume FOLDER, to go on after a stop.
    checkpoint_every: seconds between checkpoints.  until: rows of the record after which it is enough.
    """

    def __init__(
        self,
        folder: Folder,
        experiment: Experiment,
        progress: Progress,
        stop: StopSignals,
        *,
        program: str,
        checkpoint_every: float,
        until: int | None = None,
    ) -> None:
        self.progress, self._stop = progress, stop
        self._folder, self._experiment = folder, experiment
        self._program, self._checkpoint_every, self._until = program, checkpoint_every, until
        self._pace: dict[int, float] = {}  # seconds that an epoch or a step takes, by line
        before = folder.read_timings().get("seconds", {})
        self._seconds: dict[str, float] = {name: float(value) for name, value in before.items()}
        self._begin = self._saved = time.monotonic()

    def __enter__(self) -> Session:
        if not (self._folder / CHECKPOINT).exists():
            self._checkpoint()  # from now on there is always one to go on from
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        if kind is None:
            self._checkpoint()

    def serve(self) -> None:
        """Write a checkpoint if it is time to; after a signal write it in any case and raise Stopped.

        Raises Enough where no more is to be done.
        """
        if self._stop.received is not None:
            self._checkpoint()
            self.progress.close()
            name = signal.Signals(self._stop.received).name
            raise Stopped(
                f"stopped ({name}); resume with {self._program} --resume {self._folder.path}",
                self._stop.received,
            )
        if self._until is not None and len(self._experiment.record.rows) >= self._until:
            raise Enough
        if time.monotonic() - self._saved > self._checkpoint_every:
            self._checkpoint()

    def slice(self, line: int, left: int) -> int:
        """How many of the epochs or steps that are left to train a line before the next `serve`."""
        if line not in self._pace:
            return 1
        return max(1, min(left, int(SLICE_SECONDS / max(self._pace[line], 1e-9))))

    @contextmanager
    def training(self, line: int, label: str, count: int) -> Iterator[None]:
        """Around so many epochs or steps of one line."""
        begin = time.monotonic()
        with self.timed(f"train {label}"):
            yield
        self._pace[line] = (time.monotonic() - begin) / count
        self.progress.advance(count)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Around anything whose seconds belong into the timings."""
        begin = time.monotonic()
        yield
        self._seconds[what] = self._seconds.get(what, 0.0) + time.monotonic() - begin

    def _checkpoint(self) -> None:
        with self.timed("checkpoint"):
            experiment = self._experiment
            experiment.record.save(self._folder / CHECKPOINT, experiment)
        now = time.monotonic()
        self._seconds["all"] = self._seconds.get("all", 0.0) + now - self._begin
        self._begin = self._saved = now
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        self._folder.write_timings({"seconds": seconds, "threads": kl.get_threads()})


def hold(
    plan: Plan[Any, Any], path: str | Path, *, resume: bool = False, overwrite: bool = False, program: str
) -> None:
    """Do the experiment, or the rest of it, in the results folder `path`, and draw the figure.

    program: what the person has to type, with --resume, to go on.  Raises Stopped after SIGINT or SIGTERM,
    once the checkpoint is written, and kl.Error for what the person can mend.
    """
    settings, folder = plan.settings, Folder(path)
    if not resume and not overwrite:
        folder.refuse_results()
    if settings.threads:
        kl.set_threads(settings.threads)
    experiment = plan.experiment()
    record = experiment.record
    with StopSignals() as stop, closing(folder):
        if resume:
            folder.lock()
            if (folder / CHECKPOINT).exists():  # else it was killed before its first one, and begins again
                record.load(folder / CHECKPOINT, experiment)
            elif folder.has_rows():
                raise kl.Error(f"{path} has results but no {CHECKPOINT} to go on from; choose another --out")
        else:
            folder.create(plan.describe(), overwrite=overwrite)
        folder.begin_results(plan.table, [line.describe() for line in plan.lines], plan.seeds, record.rows)
        if getattr(settings, "events", 0):
            folder.begin_events(COLUMNS, record.events)
        every, until = settings.checkpoint_every, plan.until
        progress = experiment.progress()
        if plan.tuning is not None:
            rows = plan.tuning["rows"]
            progress.limit(plan.table.at(rows - 1) if plan.table.counter == "step" else rows)
        with Session(
            folder, experiment, progress, stop, program=program, checkpoint_every=every, until=until
        ) as session:
            before = len(record.rows)
            try:
                with suppress(Enough):
                    if until is None or before < until:
                        experiment.run(folder, session)
            except (kl.Error, MemoryError):
                if not resume and not record.rows and record.done == 0:
                    folder.discard()  # so that the same command, mended, finds the folder free
                raise
            if len(record.rows) == before and until is None:
                session.progress.note(f"{path} was finished: nothing is left to do")
    if settings.figure:
        from klopf.experiments.plot import plot

        plot([path], Path(path) / f"{FIGURE}.png")


def carry_out(
    name: str,
    given: dict[str, Any],
    arguments: Sequence[str],
    plan: Callable[[Mapping[str, Any], Sequence[str]], Plan[Any, Any]],
    planned: Callable[[str | Path, Mapping[str, Any]], Plan[Any, Any]],
) -> str:
    """The command of an experiment: begins it, or goes on; the results folder.

    given: the options that were given.  plan: for them and the words of the command line.
    planned: for a results folder and the options that are to differ.  Raises as `hold` does.
    """
    where, program = taken_from(given), f"klopf {name}"
    if where.resume is not None:
        changed = resumable(given, where)
        if not tune.going_on(where.resume, lambda inner: planned(inner, changed), hold, program):
            hold(planned(where.resume, changed), where.resume, resume=True, program=program)
        return where.resume
    tuning = tune.taken_from(given)
    path, whole = where.out or free_folder(f"results/{name}"), plan(given, [name, *arguments])
    if tuning is None:
        hold(whole, path, overwrite=where.overwrite, program=program)
    else:
        tune.begin(whole, tuning, path, hold, program, where.overwrite)
    return path


def report(path: str) -> str:
    """What a command says when it is done."""
    figure = (Path(path) / f"{FIGURE}.png").exists()
    return f"results{' and figure' if figure else ''} in {path}"
