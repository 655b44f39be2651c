"""What an experiment needs of its images, wherever they come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error


class ImageSource(Protocol):
    """Square colour images in classes of equal size, wherever they are: in files, in memory, or your own."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def images_per_class(self) -> int:
        """Number of images of every class."""
        ...

    @property
    def size(self) -> int:
        """Height and width of every image, in pixels."""
        ...

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel [3], in units of [0, 1]."""
        ...

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each channel [3], in units of [0, 1]."""
        ...

    def images(self, class_index: int) -> NDArray[np.uint8]:
        """All images of one class [N, 3, H, W], the caller's own; the same at every call."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values, fit for JSON, from which `open_source` opens the same images again."""
        ...

    @property
    def scale(self) -> NDArray[np.float32]:
        """Per-channel factor [3] with which pixel * scale + offset is standardised."""
        return (1 / (255 * self.deviation)).astype(np.float32)

    @property
    def offset(self) -> NDArray[np.float32]:
        """Per-channel term [3] with which pixel * scale + offset is standardised."""
        return (-self.mean / self.deviation).astype(np.float32)


def open_source(spec: str | os.PathLike[str] | Mapping[str, Any]) -> ImageSource:
    """Open images: "synthetic", the path of a packed .npy, or what a source's `describe()` returned.

    Raises `klopf.Error` where there are none, or where they are no longer the images that were described.
    """
    from klopf.data.packed import PackedImages
    from klopf.data.synthetic import SyntheticImages

    if not isinstance(spec, Mapping):
        return SyntheticImages() if os.fspath(spec) == "synthetic" else PackedImages(spec)
    options = dict(spec)
    kind = options.pop("kind", None)
    if kind == "packed":
        return PackedImages.from_description(options)
    if kind == "synthetic":
        return SyntheticImages.from_description(options)
    if kind == "arrays":
        raise Error(
            "[data] expected images that are in a file, got those of arrays in memory: write them with "
            "ArrayImages.save and give the experiment that file"
        )
    raise Error(f'[data] expected a description of kind "packed" or "synthetic", got {kind!r}')


def check_class_index(class_index: int, classes: int) -> None:
    """Raise `klopf.Error` where there is no class of this number."""
    if not 0 <= class_index < classes:
        raise Error(f"[data] expected a class from 0 to {classes - 1}, got {class_index}")


def check_options(options: Mapping[str, Any], expected: tuple[str, ...], kind: str) -> None:
    """Raise `klopf.Error` where the options of a description have names other than those expected."""
    for name in options:
        if name not in expected:
            raise Error(f"[data] expected the options {', '.join(expected)} for {kind} images, got {name!r}")
