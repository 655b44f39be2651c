"""What the packer needs of images, in whatever layout they lie: classes, and parts to be read one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageClass:
    """One class: the name that the images' folder or file has for it, and a human name (or the id again)."""

    id: str
    name: str


class Part(Protocol):
    """Images that lie together, of one class or of several: a folder, or a file."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The number of each image's class [N]."""
        ...

    def images(self, rows: NDArray[np.int64], size: int) -> Generator[NDArray[np.uint8], None, None]:
        """The images of these rows (ascending) in pieces [n, 3, size, size] of a few megabytes."""
        ...

    def stamps(self) -> Iterator[str]:
        """Lines that are the same only where the images are: names, sizes and times of files."""
        ...


@dataclass(frozen=True)
class Collection:
    """Classes and their images. In a class the images of earlier parts come first.

    shape: height and width of all images; None where they differ.
    """

    classes: list[ImageClass]
    parts: list[Part]
    shape: tuple[int, int] | None

    def available(self) -> NDArray[np.int64]:
        """The number of images of each class [classes]."""
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for part in self.parts:
            counts += np.bincount(part.labels, minlength=len(counts))
        return counts

    def placed(self, count: int) -> Iterator[tuple[Part, NDArray[np.int64], NDArray[np.int64]]]:
        """Each part, its rows that are among the first `count` images of their classes, and their places:
        class * count + number within the class.
        """
        before = np.zeros(len(self.classes), dtype=np.int64)
        for part in self.parts:
            labels = part.labels
            order = np.argsort(labels, kind="stable")
            counts = np.bincount(labels, minlength=len(before))
            first = np.cumsum(counts) - counts  # where each class begins in that order
            numbers = np.empty_like(order)
            numbers[order] = np.arange(len(labels)) - first[labels[order]]
            numbers += before[labels]
            rows = np.flatnonzero(numbers < count)
            yield part, rows, labels[rows] * count + numbers[rows]
            before += counts


def file_stamps(paths: Iterable[Path]) -> Iterator[str]:
    """Name, size and time of change of each file; raises OSError where there is none."""
    for path in paths:
        about = path.stat()
        yield f"{path.absolute()} {about.st_size} {about.st_mtime_ns}"
