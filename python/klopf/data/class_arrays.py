"""A folder with a .npy for each class, named after it: uint8 [N, 3, H, W] or [N, H, W, 3]."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from klopf._core import Error
from klopf.data.array_part import ArrayPart, same_shape
from klopf.data.collection import Collection, ImageClass
from klopf.data.names import natural_order
from klopf.data.stored import npy_array


def read_class_arrays(root: Path) -> Collection:
    """A class for each .npy in `root`, in natural order of their names.

    The axis of length 3 is that of the colours. Raises `klopf.Error` where a file is no array of images, or
    says of two axes that they are the colours; OSError where the folder cannot be read.
    """
    files = [file for file in root.glob("*.npy") if not file.name.startswith(".")]
    if not files:
        raise Error(f"[data pack] expected a .npy for each class in {root}, got none")
    files.sort(key=lambda file: natural_order(file.stem))
    parts = [_part(label, file) for label, file in enumerate(files)]
    classes = [ImageClass(file.stem, file.stem) for file in files]
    return Collection(classes, list(parts), same_shape(parts))


def _part(label: int, file: Path) -> ArrayPart:
    array = npy_array(file)
    shape = array.shape
    if array.dtype != np.uint8:
        raise Error(f"[data pack] expected uint8 in {file}, got {array.dtype!s:.100}")
    colours = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] == 3]
    if not colours or min(shape) < 1:
        raise Error(
            f"[data pack] expected the shape [N, 3, H, W] or [N, H, W, 3] in {file}, got {list(shape)!s:.100}"
        )
    if len(colours) > 1:
        raise Error(f"[data pack] expected one axis of 3 colours in {file}, got two: {list(shape)!s:.100}")
    labels = np.full(shape[0], label)
    if colours == [1]:
        return ArrayPart(file, array, labels, (shape[2], shape[3]))
    return ArrayPart(file, array, labels, (shape[1], shape[2]), channels_last=True)
