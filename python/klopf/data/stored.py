"""Arrays that stay in their files (.npy, .npz, pickles) until some of their rows are asked for."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.npy import read_head
from klopf.files import reason

CHUNK = 32 << 20  # bytes of an array that are read at a time


@dataclass(frozen=True)
class StoredArray:
    """An array in C order inside a file.

    name: what errors call it. open: gives a stream that can seek, in which the first value lies at `start`.
    """

    name: str
    open: Callable[[], IO[bytes]]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """The bytes of one row, which is all of the array that its first axis leaves."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """These rows (ascending) in pieces [n, ...], for each of which at most `CHUNK` bytes are read.

        Raises `klopf.Error` where the file cannot be read, is truncated or damaged.
        """
        at_once = max(1, CHUNK // max(1, self.row_bytes))
        with self._opened() as file:
            for some in np.split(rows, np.flatnonzero(np.diff(rows // at_once)) + 1):
                if len(some):
                    first = int(some[0])
                    yield self._read(file, first, int(some[-1]) + 1 - first)[some - first]

    def whole(self) -> NDArray[Any]:
        """All of the array, which should be a small one; `klopf.Error` as for `chunks`."""
        if not self.shape or self.shape[0] * self.row_bytes > CHUNK:
            raise Error(f"[data pack] expected at most {CHUNK} bytes of numbers in {self.name}")
        with self._opened() as file:
            return self._read(file, 0, self.shape[0])

    def _opened(self) -> IO[bytes]:
        try:
            return self.open()
        except Exception as error:  # what zipfile raises for a damaged file has many types
            raise _unreadable(self.name, error) from error

    def _read(self, file: IO[bytes], first: int, count: int) -> NDArray[Any]:
        try:
            file.seek(self.start + first * self.row_bytes)
            data = file.read(count * self.row_bytes)
        except Exception as error:
            raise _unreadable(self.name, error) from error
        if len(data) != count * self.row_bytes:
            raise Error(f"[data pack] expected {count * self.row_bytes} more bytes in {self.name}: truncated")
        return np.frombuffer(data, dtype=self.dtype).reshape(count, *self.shape[1:])


def npy_array(path: Path) -> StoredArray:
    """The array of a .npy file; `klopf.Error` where it is none in C order, or truncated."""
    try:
        with open(path, "rb") as file:
            return _array(file, str(path), lambda: open(path, "rb"), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise Error(f"[data pack] cannot read {path}: {reason(error)}") from error


def npz_arrays(path: Path, names: tuple[str, ...]) -> dict[str, StoredArray]:
    """The arrays of these names in a .npz file, compressed or not; `klopf.Error` where it has no such."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                member = f"{name}.npy"
                if member not in archive.namelist():
                    raise Error(
                        f"[data pack] expected the arrays {', '.join(names)} in {path}, got no {name}"
                    )
                length = archive.getinfo(member).file_size
                with archive.open(member) as file:
                    found[name] = _array(file, f"{path}, {name}", partial(_member, path, member), length)
    except Error:
        raise
    except Exception as error:  # what zipfile raises for a damaged file has many types
        raise _unreadable(str(path), error) from error
    return found


def _member(path: Path, member: str) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:  # closed for good when the member is
        return archive.open(member)


def _array(file: IO[bytes], name: str, opener: Callable[[], IO[bytes]], length: int) -> StoredArray:
    """The array of an open .npy file of `length` bytes."""
    shape, fortran, dtype = read_head(file, name, "data pack")
    if dtype.hasobject:
        raise Error(f"[data pack] expected numbers in {name}, got Python objects")
    if fortran and len(shape) > 1:
        raise Error(f"[data pack] expected C order in {name}, got Fortran order")
    array = StoredArray(name, opener, file.tell(), shape, dtype)
    expected = array.start + math.prod(shape) * dtype.itemsize
    if length != expected:
        state = "truncated" if length < expected else "too long"
        raise Error(f"[data pack] expected {expected} bytes in {name}, got {length}: {state}")
    return array


def _unreadable(name: str, error: Exception) -> Error:
    words = reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__
    return Error(f"[data pack] cannot read {name}: {' '.join(words.split())[:200]}")
