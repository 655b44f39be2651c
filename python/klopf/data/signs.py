"""By what each layout of a folder is recognised."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sign:
    """What to look for. words: for messages. found: says so from the names of files and those of folders."""

    words: str
    found: Callable[[set[str], set[str]], bool]


def _any(pattern: str) -> Callable[[set[str], set[str]], bool]:
    return lambda files, folders: any(re.fullmatch(pattern, name) for name in files)


SIGNS: dict[str, Sign] = {
    "tree": Sign("class folders of JPEGs", lambda files, folders: bool(folders)),
    "arrays": Sign("a .npy for each class", _any(r".*\.npy")),
    "imagenet-batches": Sign("train_data_batch_1 to 10", _any(r"(train_data_batch_\d+|val_data)(\.npz)?")),
    "cifar-10": Sign("data_batch_1 to 5", _any(r"data_batch_\d+|test_batch|batches\.meta")),
    "cifar-100": Sign("train, test and meta", _any("train|test|meta")),
}


def recognised(folder: Path) -> list[str]:
    """The layouts of which `folder` has a sign; hidden entries are none. Raises OSError."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    folders = {entry.name for entry in entries if entry.is_dir()}
    files = {entry.name for entry in entries} - folders
    return [name for name, sign in SIGNS.items() if sign.found(files, folders)]
