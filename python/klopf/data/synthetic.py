"""The built-in procedural images: any number of classes of any size, drawn from a seed inside the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error, synthetic_images
from klopf.data.pixels import PixelSums
from klopf.data.source import ImageSource, check_class_index, check_options

_SAMPLE_CLASSES = 64  # mean and deviation are those of this many classes (spread evenly) ...
_SAMPLE_IMAGES = 8  # ... and of the first images of each


@dataclass(frozen=True)
class SyntheticImages(ImageSource):
    """Procedural images, the same for the same options on every machine; nothing is read or stored.

    classes: number of classes. images_per_class: images of each. size: height and width in pixels. seed:
    chooses another world of classes. An image depends on seed, class, its number and size alone, so that a
    source with more classes or images begins with those of a smaller one.
    """

    classes: int = 1000
    images_per_class: int = 700
    size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("classes", 1), ("images_per_class", 1), ("size", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise Error(
                    f"[synthetic images] expected {name} to be an integer from {least}, got {value!r}"
                )

    @staticmethod
    def from_description(options: Mapping[str, Any]) -> SyntheticImages:
        """The source with these options: those of `describe()` but the kind, or some of them."""
        check_options(options, tuple(field.name for field in fields(SyntheticImages)), "synthetic")
        return SyntheticImages(**options)

    def images(self, class_index: int) -> NDArray[np.uint8]:
        """All images of one class [N, 3, H, W], drawn anew."""
        check_class_index(class_index, self.classes)
        return self._draw(class_index, self.images_per_class)

    def describe(self) -> dict[str, Any]:
        """Kind and options, from which `open_source` opens the same images again."""
        return {"kind": "synthetic", **asdict(self)}

    @cached_property
    def _sample(self) -> PixelSums:
        sums = PixelSums()
        count = min(self.classes, _SAMPLE_CLASSES)
        for index in range(count):
            sums.add(self._draw(index * self.classes // count, min(self.images_per_class, _SAMPLE_IMAGES)))
        return sums

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel [3], in units of [0, 1], over a fixed sample of the images."""
        return self._sample.mean()

    @cached_property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each channel [3], in units of [0, 1], over the same sample."""
        return self._sample.deviation()

    def _draw(self, class_index: int, count: int) -> NDArray[np.uint8]:
        return synthetic_images(self.seed, class_index, 0, count, self.size)
