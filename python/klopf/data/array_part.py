"""Images that lie in one stored array, with a label for each."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.collection import file_stamps
from klopf.data.pictures import resized
from klopf.data.stored import StoredArray


@dataclass(frozen=True)
class ArrayPart:
    """The images of an array [N, ...] in a file.

    labels: their classes [N]. shape: height and width. channels_last: the array's images are [H, W, 3], not
    [3, H, W] or that in one row.
    """

    file: Path
    array: StoredArray
    labels: NDArray[np.int64]
    shape: tuple[int, int]
    channels_last: bool = False

    def images(self, rows: NDArray[np.int64], size: int) -> Generator[NDArray[np.uint8], None, None]:
        """The images of these rows; `klopf.Error` where the file cannot be read."""
        height, width = self.shape
        for chunk in self.array.chunks(rows):
            if self.channels_last:
                yield resized(chunk.transpose(0, 3, 1, 2), size)
            else:
                yield resized(chunk.reshape(-1, 3, height, width), size)

    def stamps(self) -> Iterator[str]:
        """Name, size and time of the file."""
        return file_stamps([self.file])


def same_shape(parts: list[ArrayPart]) -> tuple[int, int]:
    """Height and width of the images of all parts; `klopf.Error` where they differ."""
    for part in parts:
        if part.shape != parts[0].shape:
            first, other = ("{} x {}".format(*one.shape) for one in (parts[0], part))
            raise Error(
                f"[data pack] expected images of {first}, as in {parts[0].file}, got {other} in {part.file}"
            )
    return parts[0].shape
