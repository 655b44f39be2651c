"""A large file that is written in any order, and gone on with where a killed process left it.

Until OUT is whole, there lie beside it `.OUT.part` with the bytes so far, and `.OUT.journal`, a JSON file:

    format, version   "klopf packing", 1
    plan              a digest of all that the bytes depend on
    file              the number (inode) of the part, so that no other file is taken for it
    done              images that are on the disk
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from klopf.files import StrPath, atomic_write, clear_errors, flush_folder, open_alone, refuse_what_is_no_file

SECONDS = 5.0  # between entries in the journal: what a kill loses at most

_HEAD = {"format": "klopf packing", "version": 1}


class Partial:
    """The part, open: `done` is the number of images that it holds."""

    def __init__(self, descriptor: int, journal: str, length: int, plan: str) -> None:
        self._descriptor, self._journal = descriptor, journal
        self._entry = {**_HEAD, "plan": plan, "file": os.fstat(descriptor).st_ino}
        self._written = time.monotonic()
        self.done = self._earlier(length)
        if not self.done:
            with suppress(FileNotFoundError):
                os.remove(journal)  # before the bytes that it speaks of
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, length)

    def write(self, data: memoryview, place: int) -> None:
        """Put bytes at a place of the file; raises OSError where the disk is full.

        Not through a memory map: on a full disk that kills the process.
        """
        while data:
            count = os.pwrite(self._descriptor, data, place)
            data, place = data[count:], place + count

    def read(self, count: int, place: int) -> bytes:
        """The bytes at a place of the file; `count` of them, as long as the file has so many."""
        pieces = []
        while count and (piece := os.pread(self._descriptor, count, place)):
            pieces.append(piece)
            count, place = count - len(piece), place + len(piece)
        return b"".join(pieces)

    def reached(self, done: int) -> None:
        """Note that so many images are written; now and then this is put on the disk, after the images."""
        self.done = done
        if time.monotonic() - self._written >= SECONDS:
            self.flush()
            with atomic_write(self._journal, "w") as file:
                json.dump({**self._entry, "done": done}, file)
            self._written = time.monotonic()

    def flush(self) -> None:
        """Wait until all is on the disk."""
        os.fsync(self._descriptor)

    def _earlier(self, length: int) -> int:
        """How many images an earlier process has left in this file, none where it was about others."""
        try:
            with open(self._journal, encoding="utf-8") as file:
                entry: Any = json.load(file)
        except (OSError, ValueError, RecursionError):
            return 0
        whole = os.fstat(self._descriptor).st_size == length
        ours = isinstance(entry, dict) and {**entry, **self._entry} == entry
        done = entry.get("done") if ours else None
        return done if whole and isinstance(done, int) and done > 0 else 0


@contextmanager
def partial_file(path: StrPath, length: int, plan: str) -> Iterator[Partial]:
    """Open the part of `path`, `length` bytes; it takes the place of `path` when the block ends well.

    An error of the block removes it. An interruption (a kill, or an exception such as KeyboardInterrupt)
    leaves part and journal, and the next call with the same `plan` and `length` goes on with them; a call
    with another begins anew. Raises `klopf.Error` as `atomic_write` does.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    part, journal = (os.path.join(folder, f".{name}.{end}") for end in ("part", "journal"))
    with clear_errors(path, ours=(part, journal, target)):
        refuse_what_is_no_file(target)
        descriptor = open_alone(part)
        try:
            partial = Partial(descriptor, journal, length, plan)
            yield partial
            partial.flush()
            os.replace(part, target)  # while still locked, so that nobody else can take the part
            _remove(journal)
        except BaseException as error:
            if isinstance(error, Exception) or not os.path.exists(journal):
                _remove(journal, part)
            raise
        finally:
            os.close(descriptor)
    flush_folder(folder)


def _remove(*paths: str) -> None:
    for path in paths:
        with suppress(OSError):
            os.remove(path)
