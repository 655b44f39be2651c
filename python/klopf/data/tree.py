"""Trees of JPEGs, a folder for each class, as image collections come in them.

ILSVRC          train/n01440764/*.JPEG
Tiny ImageNet   train/n01443537/images/*.JPEG, and val/images/*.JPEG with val/val_annotations.txt
plain           a folder of class folders: n01440764/*.JPEG
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.collection import Collection, ImageClass, file_stamps
from klopf.data.names import natural_order, text_lines
from klopf.data.pictures import decoded, pillow
from klopf.data.signs import recognised

_JPEG = (".jpeg", ".jpg")
_AT_ONCE = 256  # images that are decoded before they are handed on


@dataclass(frozen=True)
class JpegPart:
    """The JPEGs of one class in one folder, in order; names rather than paths, which take far more memory."""

    label: int
    folder: Path
    names: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class's number, for each image [N]."""
        return np.full(len(self.names), self.label)

    def images(self, rows: NDArray[np.int64], size: int) -> Generator[NDArray[np.uint8], None, None]:
        """The images of these rows, decoded on all cores; `klopf.Error` where one cannot be."""
        with _Decoders() as pool:
            for start in range(0, len(rows), _AT_ONCE):
                files = [self.folder / self.names[row] for row in rows[start : start + _AT_ONCE]]
                yield np.stack(list(pool.map(partial(decoded, size=size), files)))

    def stamps(self) -> Iterator[str]:
        """Name, size and time of every file."""
        return file_stamps(self.folder / name for name in self.names)


class _Decoders(ThreadPoolExecutor):
    """A thread for each core this process may use (decoding runs outside the interpreter's lock).

    When the block ends early, by an error or an interrupt, images not yet begun are not decoded.
    """

    def __init__(self) -> None:
        affinity = getattr(os, "sched_getaffinity", None)
        super().__init__(len(affinity(0)) if affinity else os.cpu_count())

    def __exit__(self, *exception: Any) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def read_tree(root: Path) -> Collection:
    """All classes under `root`, sorted by id; files in natural order (2 before 10), validation images last.

    A validation folder without val_annotations.txt is not used. Raises `klopf.Error` where a class has no
    JPEG, or an annotation names a class or a file that is not there; OSError where something cannot be read.
    """
    pillow()
    folder = root / "train" if (root / "train").is_dir() else root
    ids = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not ids:
        raise Error(f"[data pack] expected class folders in {folder}, got none")
    parts = [_training_images(number, folder / id) for number, id in enumerate(ids)]
    names = _human_names(root / "words.txt")
    classes = [ImageClass(id, names.get(id, id)) for id in ids]
    return Collection(classes, [*parts, *_validation_images(root / "val", ids)], None)


def _training_images(label: int, folder: Path) -> JpegPart:
    """The JPEGs of one class folder, or of the folder `images` in it, in natural order."""
    inner = folder / "images" if (folder / "images").is_dir() else folder
    names = [name for name in os.listdir(inner) if name.lower().endswith(_JPEG) and name[0] != "."]
    if not names:
        nested = (folder / "train").is_dir() or [name for name in recognised(folder) if name != "tree"]
        hint = f": did you mean {folder}?" if nested else ""
        raise Error(f"[data pack] expected JPEG files in {folder}, got none{hint}")
    return JpegPart(label, inner, sorted(names, key=natural_order))


def _validation_images(folder: Path, ids: list[str]) -> list[JpegPart]:
    """The validation images of Tiny ImageNet by class, where the folder has annotations."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        return []
    present = set(os.listdir(folder / "images"))
    found: dict[str, list[str]] = {id: [] for id in ids}
    for number, line in enumerate(text_lines(annotations), start=1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise Error(
                f"[data pack] expected FILE<tab>CLASS in {annotations}, line {number}, got {line[:80]!r}"
            )
        if fields[1] not in found:
            raise Error(f"[data pack] {annotations}, line {number}: there is no class folder {fields[1]!r}")
        if fields[0] not in present:
            raise Error(
                f"[data pack] {annotations}, line {number}: there is no file {folder / 'images' / fields[0]}"
            )
        found[fields[1]].append(fields[0])
    return [
        JpegPart(label, folder / "images", sorted(found[id], key=natural_order))
        for label, id in enumerate(ids)
    ]


def _human_names(words: Path) -> dict[str, str]:
    """The human name of each class id from words.txt (ID<tab>NAME), none where there is no such file."""
    if not words.is_file():
        return {}
    pairs = (line.split("\t", 1) for line in text_lines(words))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and pair[1].strip()}
