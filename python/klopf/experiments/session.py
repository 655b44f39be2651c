"""One sitting of an experiment: between slices of training, the person and the disk are served."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import klopf as kl
from klopf.experiments.progress import Progress
from klopf.experiments.record import Record
from klopf.experiments.results import CHECKPOINT, Folder
from klopf.experiments.stop import Stopped, StopSignals

SLICE_SECONDS = 1.0  # about how long training goes on before anything else is served


class Session:
    """Signals, progress, checkpoints and timings of one sitting; leaving it well writes the last checkpoint.

    program: what the person has to type, with --resume FOLDER, to go on after a stop.
    checkpoint_every: seconds between checkpoints.
    """

    def __init__(
        self,
        folder: Folder,
        record: Record,
        learners: Sequence[kl.Learner],
        progress: Progress,
        stop: StopSignals,
        *,
        program: str,
        checkpoint_every: float,
    ) -> None:
        self.progress, self._stop = progress, stop
        self._folder, self._record, self._learners = folder, record, learners
        self._program, self._checkpoint_every = program, checkpoint_every
        self._pace: dict[int, float] = {}  # seconds an epoch takes, by line
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
        """Write a checkpoint if it is time to; after a signal write it in any case and raise Stopped."""
        if self._stop.received is not None:
            self._checkpoint()
            self.progress.close()
            name = signal.Signals(self._stop.received).name
            raise Stopped(
                f"stopped ({name}); resume with {self._program} --resume {self._folder.path}",
                self._stop.received,
            )
        if time.monotonic() - self._saved > self._checkpoint_every:
            self._checkpoint()

    def slice(self, line: int, left: int) -> int:
        """How many of the epochs that are left to train a line before the next `serve`."""
        if line not in self._pace:
            return 1
        return max(1, min(left, int(SLICE_SECONDS / max(self._pace[line], 1e-9))))

    @contextmanager
    def training(self, line: int, label: str, epochs: int) -> Iterator[None]:
        """Around so many epochs of one line."""
        begin = time.monotonic()
        with self.timed(f"train {label}"):
            yield
        self._pace[line] = (time.monotonic() - begin) / epochs
        self.progress.advance(epochs)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Around anything whose seconds belong into the timings."""
        begin = time.monotonic()
        yield
        self._seconds[what] = self._seconds.get(what, 0.0) + time.monotonic() - begin

    def _checkpoint(self) -> None:
        with self.timed("checkpoint"):
            self._record.save(self._folder / CHECKPOINT, self._learners)
        now = time.monotonic()
        self._seconds["all"] = self._seconds.get("all", 0.0) + now - self._begin
        self._begin = self._saved = now
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        self._folder.write_timings({"seconds": seconds, "threads": kl.get_threads()})
