"""Batches: files with images of all classes, a row [3 * S * S] each, red, green and blue, and their labels.

ImageNet    train_data_batch_1 to train_data_batch_10 and, where it is there, val_data: ImageNet at 8, 16, 32
            or 64 pixels (Chrabaszcz, Loshchilov and Hutter 2017), as pickles or .npz; labels from 1 to 1000,
            whose names are in map_clsloc.txt, where it is there
CIFAR-10    data_batch_1 to data_batch_5, test_batch and batches.meta, as pickles
CIFAR-100   train, test and meta, as pickles
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.array_part import ArrayPart, same_shape
from klopf.data.collection import Collection, ImageClass
from klopf.data.names import text_lines
from klopf.data.pickles import read_pickle
from klopf.data.stored import StoredArray, npz_arrays

_IMAGENET_CLASSES = 1000
_IMAGENET_TRAINING = tuple(f"train_data_batch_{number}" for number in range(1, 11))


@dataclass(frozen=True)
class Cifar:
    """The files of one of the CIFAR collections, and the keys of labels and of their names."""

    training: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str


CIFAR_10 = Cifar(
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    "batches.meta",
    "labels",
    "label_names",
)
CIFAR_100 = Cifar(("train",), "test", "meta", "fine_labels", "fine_label_names")
CIFAR_100_COARSE = Cifar(("train",), "test", "meta", "coarse_labels", "coarse_label_names")


def read_imagenet(root: Path) -> Collection:
    """The classes that occur in the batches, in the order of their labels; validation images come last.

    Raises `klopf.Error` where a file is missing, or is not what it should be.
    """
    end = ".npz" if any((root / f"{name}.npz").exists() for name in _IMAGENET_TRAINING) else ""
    training = [root / f"{name}{end}" for name in _IMAGENET_TRAINING]
    _refuse_missing(training)
    files = [*training, *(file for file in [root / f"val_data{end}"] if file.exists())]
    parts = [_part(file, "labels", 1, _IMAGENET_CLASSES) for file in files]
    occurring = np.unique(np.concatenate([part.labels for part in parts]))
    known = _imagenet_classes(root / "map_clsloc.txt")
    classes = [known.get(label, ImageClass(str(label), str(label))) for label in (occurring + 1).tolist()]
    return Collection(
        classes,
        [replace(part, labels=np.searchsorted(occurring, part.labels)) for part in parts],
        same_shape(parts),
    )


def read_cifar(root: Path, cifar: Cifar) -> Collection:
    """All classes of CIFAR-10 or CIFAR-100 by number; test images come last.

    Raises `klopf.Error` where a file is missing, or is not what it should be.
    """
    files = [root / name for name in (*cifar.training, cifar.test)]
    _refuse_missing([*files, root / cifar.meta])
    names = _names(root / cifar.meta, cifar.names)
    parts = [_part(file, cifar.labels, 0, len(names) - 1) for file in files]
    classes = [ImageClass(str(number), name) for number, name in enumerate(names)]
    return Collection(classes, list(parts), same_shape(parts))


def _refuse_missing(files: list[Path]) -> None:
    for file in files:
        if not file.is_file():
            names = f"{files[0].name}, ..., {files[-1].name}"
            raise Error(f"[data pack] expected the files {names} in {file.parent}, got no {file.name}")


def _part(file: Path, key: str, first: int, last: int) -> ArrayPart:
    """The images of one file, whose labels `key` are `first` to `last`, from 0 on."""
    content: dict[str, Any]
    content = npz_arrays(file, ("data", key)) if file.suffix == ".npz" else read_pickle(file)
    data = content.get("data")
    if not isinstance(data, StoredArray) or data.dtype != np.uint8 or len(data.shape) != 2:
        got = f"{data.dtype} {list(data.shape)}" if isinstance(data, StoredArray) else type(data).__name__
        raise Error(f"[data pack] expected data to be uint8 [N, 3 * S * S] in {file}, got {got:.100}")
    count, values = data.shape
    size = math.isqrt(values // 3)
    if not count or not size or values != 3 * size * size:
        raise Error(f"[data pack] expected data to be uint8 [N, 3 * S * S] in {file}, got {[count, values]}")
    labels = _labels(file, content.get(key), key)
    if len(labels) != count:
        raise Error(f"[data pack] expected {count} {key} in {file}, as many as images, got {len(labels)}")
    outside = labels[(labels < first) | (labels > last)]
    if len(outside):
        raise Error(f"[data pack] expected {key} from {first} to {last} in {file}, got {outside[0]}")
    return ArrayPart(file, data, labels - first, (size, size))


def _labels(file: Path, found: Any, key: str) -> NDArray[np.int64]:
    """Whole numbers, from a list or an array."""
    if isinstance(found, StoredArray) and found.dtype.kind in "iu" and len(found.shape) == 1:
        return found.whole().astype(np.int64)
    if isinstance(found, list) and all(type(one) is int and abs(one) < 2**31 for one in found):
        return np.array(found, dtype=np.int64)
    raise Error(f"[data pack] expected {key} to be a list of whole numbers in {file}, got something else")


def _names(file: Path, key: str) -> list[str]:
    """The names of the classes, in their order."""
    found = read_pickle(file).get(key)
    if isinstance(found, list) and found and all(isinstance(one, str | bytes) for one in found):
        return [one.decode("latin1") if isinstance(one, bytes) else one for one in found]
    raise Error(f"[data pack] expected {key} to be a list of names in {file}, got something else")


def _imagenet_classes(file: Path) -> dict[int, ImageClass]:
    """The classes by label from lines such as "n02119789 1 kit_fox", none where there is no such file."""
    if not file.is_file():
        return {}
    found = {}
    for number, line in enumerate(text_lines(file), start=1):
        fields = line.split()
        if len(fields) < 3 or not re.fullmatch("[0-9]{1,4}", fields[1]):
            raise Error(f"[data pack] expected ID LABEL NAME in {file}, line {number}, got {line[:80]!r}")
        found[int(fields[1])] = ImageClass(fields[0], fields[2].replace("_", " "))
    return found
