"""Which JPEG belongs to which class, in the folder layouts that image collections come in.

ILSVRC          train/n01440764/*.JPEG
Tiny ImageNet   train/n01443537/images/*.JPEG, and val/images/*.JPEG with val/val_annotations.txt
plain           a folder of class folders: n01440764/*.JPEG
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from klopf._core import Error
from klopf.files import reason

_JPEG = (".jpeg", ".jpg")


@dataclass(frozen=True)
class ImageClass:
    """One class: the name of its folder, a human name (or the id again), and its files in order."""

    id: str
    name: str
    files: list[Path]


def find_classes(source: str | os.PathLike[str]) -> list[ImageClass]:
    """All classes under `source`, sorted by id; files in natural order (2 before 10), validation images last.

    A validation folder without val_annotations.txt is not used. Raises `klopf.Error` where a folder or a file
    cannot be read, a class has no JPEG, or an annotation names a class or a file that is not there.
    """
    root = Path(source)
    try:
        folder = root / "train" if (root / "train").is_dir() else root
        files = {entry.name: _training_images(entry) for entry in _sub_folders(folder)}
        _refuse_missing(root, folder, files)
        _add_validation_images(root / "val", files)
        names = _human_names(root / "words.txt")
    except OSError as error:
        raise Error(f"[data pack] cannot read {error.filename or root}: {reason(error)}") from error
    return [ImageClass(id, names.get(id, id), files[id]) for id in sorted(files)]


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key under which digits count as numbers: a2 before a10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _sub_folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _training_images(folder: Path) -> list[Path]:
    """The JPEGs of one class folder, or of the folder `images` in it, in natural order."""
    inner = folder / "images"
    entries = (inner if inner.is_dir() else folder).iterdir()
    jpegs = [entry for entry in entries if entry.suffix.lower() in _JPEG and not entry.name.startswith(".")]
    return sorted(jpegs, key=lambda entry: natural_order(entry.name))


def _refuse_missing(root: Path, folder: Path, files: dict[str, list[Path]]) -> None:
    if not files:
        raise Error(f"[data pack] expected class folders in {folder}, got none")
    for id in sorted(files):
        if not files[id]:
            hint = f": did you mean {root / id}?" if (root / id / "train").is_dir() else ""
            raise Error(f"[data pack] expected JPEG files in {folder / id}, got none{hint}")


def _add_validation_images(folder: Path, files: dict[str, list[Path]]) -> None:
    """Append the validation images of Tiny ImageNet to their classes, where the folder has annotations."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        return
    validation: dict[str, list[Path]] = {}
    for number, line in enumerate(_lines(annotations), start=1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise Error(
                f"[data pack] expected FILE<tab>CLASS in {annotations}, line {number}, got {line[:80]!r}"
            )
        if fields[1] not in files:
            raise Error(f"[data pack] {annotations}, line {number}: there is no class folder {fields[1]!r}")
        file = folder / "images" / fields[0]
        if not file.is_file():
            raise Error(f"[data pack] {annotations}, line {number}: there is no file {file}")
        validation.setdefault(fields[1], []).append(file)
    for id, added in validation.items():
        files[id] += sorted(added, key=lambda entry: natural_order(entry.name))


def _human_names(words: Path) -> dict[str, str]:
    """The human name of each class id from words.txt (ID<tab>NAME), none where there is no such file."""
    if not words.is_file():
        return {}
    pairs = (line.split("\t", 1) for line in _lines(words))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and pair[1].strip()}


def _lines(file: Path) -> list[str]:
    """The non-empty lines of a text file."""
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Error(f"[data pack] expected UTF-8 text in {file}, got other bytes") from error
