"""Images from arrays of one's own."""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klopf._core import Error
from klopf.data.collection import Collection, ImageClass
from klopf.data.pack import write_packed
from klopf.data.packed import PackedImages
from klopf.data.pixels import PixelSums
from klopf.data.source import ImageSource, check_class_index

Images = NDArray[np.uint8]


class ArrayImages(ImageSource):
    """Square colour images that are in memory, as a source for experiments and for `save`.

    images: uint8 [classes, N, 3, size, size]; or a sequence of arrays [N, 3, size, size], one a class; or a
    mapping of such from the names of classes. Of each class the first images are used, as many as the
    smallest has. names: one a class; the numbers of the classes where None. Arrays are not copied: leave them
    as they are.

    Raises `klopf.Error` where an array has another type or shape, images differ in size, there are none, or
    names are not one a class.
    """

    def __init__(
        self,
        images: ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike],
        names: Sequence[str] | None = None,
    ) -> None:
        if isinstance(images, Mapping):
            if names is not None:
                raise Error("[data] expected names as keys or as names, got both")
            names = [str(name) for name in images]
            images = list(images.values())
        arrays = [_checked(one) for one in _each(images)]
        if not arrays:
            raise Error("[data] expected images of at least one class, got none")
        sizes = sorted({one.shape[2] for one in arrays})
        if len(sizes) > 1:
            raise Error(f"[data] expected images of one size, got {' and '.join(map(str, sizes))}")
        self.class_names: list[str] = _names(names, len(arrays))
        count = min(len(one) for one in arrays)
        self._arrays = [one[:count] for one in arrays]

    @classmethod
    def from_labels(
        cls, images: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None
    ) -> ArrayImages:
        """Images [N, 3, size, size] with a label each [N]: the classes are the labels that occur, in order.

        names: one for each of these classes; the labels themselves where None. Images are copied. Raises
        `klopf.Error` where there is not one whole number for each image, and as the class itself does.
        """
        pixels, numbers = _checked(images), _array("labels", labels)
        if numbers.dtype.kind not in "iu" or numbers.shape != (len(pixels),):
            raise Error(
                f"[data] expected labels to be whole numbers [{len(pixels)}], "
                f"got {numbers.dtype} {list(numbers.shape)}"
            )
        found = np.unique(numbers).tolist()
        return cls(
            [pixels[numbers == label] for label in found],
            [str(label) for label in found] if names is None else names,
        )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self._arrays)

    @property
    def images_per_class(self) -> int:
        """Number of images of every class."""
        return len(self._arrays[0])

    @property
    def size(self) -> int:
        """Height and width of every image, in pixels."""
        return int(self._arrays[0].shape[2])

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel [3], in units of [0, 1], over all images."""
        return self._sums.mean()

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each channel [3], in units of [0, 1], over all images.

        Raises `klopf.Error` where all pixels of a channel have one value, which cannot be standardised.
        """
        deviation = self._sums.deviation()
        if deviation.min() == 0:
            raise Error("[data] expected images that differ, got one value throughout a channel")
        return deviation

    def images(self, class_index: int) -> Images:
        """A copy of all images of one class [N, 3, size, size]."""
        check_class_index(class_index, self.classes)
        return np.array(self._arrays[class_index])

    def describe(self) -> dict[str, Any]:
        """Kind, sizes and a checksum. The images are not in it: `open_source` cannot open them again."""
        return {
            "kind": "arrays",
            "classes": self.classes,
            "images_per_class": self.images_per_class,
            "size": self.size,
            "checksum": self._checksum,
        }

    def save(self, path: str | os.PathLike[str]) -> PackedImages:
        """Write the images as `klopf data pack` does, for `klopf imagenet --data` and `open_source`.

        path: that of the .npy; a JSON file lies beside it. Older files are replaced when all went well.
        Raises `klopf.Error` where they cannot be written, or all pixels of a channel have one value.
        """
        classes = [ImageClass(name, name) for name in self.class_names]
        parts = [_Given(label, array) for label, array in enumerate(self._arrays)]
        return write_packed(
            Collection(classes, list(parts), (self.size, self.size)), path, None, None, "arrays"
        )

    @cached_property
    def _sums(self) -> PixelSums:
        sums = PixelSums()
        for one in self._arrays:
            sums.add(one)
        return sums

    @cached_property
    def _checksum(self) -> int:
        checksum = 0
        for one in self._arrays:
            checksum = zlib.crc32(np.ascontiguousarray(one).data, checksum)
        return checksum


@dataclass(frozen=True)
class _Given:
    """A class's array, as the packer reads it."""

    label: int
    array: Images

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.full(len(self.array), self.label)

    def images(self, rows: NDArray[np.int64], size: int) -> Generator[Images, None, None]:
        for some in np.array_split(rows, len(rows) // 256 + 1):
            yield self.array[some]

    def stamps(self) -> Iterator[str]:
        yield str(zlib.crc32(np.ascontiguousarray(self.array).data))


def _each(images: Any) -> list[Any]:
    """One array a class."""
    if isinstance(images, np.ndarray) and images.ndim != 5:
        raise Error(
            f"[data] expected images to have the shape [classes, N, 3, size, size], got {list(images.shape)}"
        )
    if not isinstance(images, np.ndarray | Sequence):
        raise Error(f"[data] expected images to be arrays, got {type(images).__name__}")
    return list(images)


def _checked(images: Any) -> Images:
    """Images [N, 3, size, size]."""
    array = _array("images", images)
    if array.dtype != np.uint8:
        raise Error(f"[data] expected images to be uint8, got {array.dtype}")
    if array.ndim != 4 or array.shape[1] != 3 or array.shape[2] != array.shape[3] or min(array.shape) < 1:
        raise Error(f"[data] expected images of a class [N, 3, size, size], got {list(array.shape)}")
    return array


def _array(name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise Error(f"[data] expected {name} to be an array, got something else") from error


def _names(names: Sequence[str] | None, classes: int) -> list[str]:
    found = [str(number) for number in range(classes)] if names is None else list(names)
    if len(found) != classes or not all(isinstance(name, str) for name in found):
        raise Error(f"[data] expected {classes} names, one a class, got {found}")
    return found
