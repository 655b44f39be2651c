"""The stream of permuted images: every task shows the same ones, their pixels in an order of its own.

Any task can be made at any time, as those of stream.py.
Source: "Online Permuted MNIST" of Dohare et al., Nature 632 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error, permutation
from klopf.data.source import ImageSource

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

# Streams of the counter-based permutations; stream.py has the others.
PIXELS, CHOICE, ORDER = 5, 6, 7


class Permuted(NamedTuple):
    """One task: the order of pixels [R, H W], and which images it shows [R, examples]."""

    task: int
    pixels: Indices
    chosen: Indices


class PermutedStream:
    """Images whose pixels every task puts into a new order, drawn for each run from its seed alone.

    A pixel moves with all its channels.  images: so many of each class, the first ones.  examples: how many
    of them a task shows, None for all.
    Raises kl.Error where the source has fewer classes or images, or a task would show more than there are.
    """

    def __init__(
        self,
        source: ImageSource,
        seeds: Sequence[int],
        *,
        classes: int,
        images: int,
        examples: int | None = None,
        grey: bool = False,
    ) -> None:
        for asked, there, what in (
            (classes, source.classes, "classes"),
            (images, source.images_per_class, "images of a class"),
            (examples or 0, classes * images, "images to show examples of"),
        ):
            if asked > there:
                raise Error(f"[stream] expected at least {asked} {what}, got {there}")
        self.source, self.seeds = source, list(seeds)
        self.classes, self.images, self.grey = classes, images, grey
        self.examples = examples or classes * images
        self.shape = (1 if grey else 3, source.size, source.size)
        self._order: tuple[tuple[int, int], Indices] | None = None

    @cached_property
    def all(self) -> Images:
        """The images, class after class [N, C, H W]."""
        channels, pixels = self.shape[0], self.source.size**2
        found = np.empty((self.classes, self.images, channels, pixels), np.uint8)
        for which in range(self.classes):
            images = self.source.images(which)[: self.images]
            if self.grey:
                images = np.rint(images.mean(axis=1, keepdims=True)).astype(np.uint8)
            found[which] = images.reshape(self.images, channels, pixels)
        return found.reshape(-1, channels, pixels)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each channel [C] over all images, where pixels go from 0 to 1."""
        histogram = np.zeros((self.shape[0], 256))
        for images in np.split(self.all, self.classes):
            histogram += [np.bincount(images[:, c].ravel(), minlength=256) for c in range(self.shape[0])]
        share, values = histogram / histogram[0].sum(), np.arange(256) / 255
        mean = share @ values
        deviation = np.sqrt(share @ values**2 - mean**2)
        return mean, np.where(deviation > 0, deviation, 1)

    def task(self, task: int) -> Permuted:
        """A task, counted from 0; the first one is permuted too."""
        count = self.classes * self.images
        pixels = [permutation(seed, PIXELS, task, self.source.size**2) for seed in self.seeds]
        chosen = [permutation(seed, CHOICE, task, count)[: self.examples] for seed in self.seeds]
        return Permuted(task, np.stack(pixels), np.stack(chosen))

    def shown(self, task: Permuted, images: Indices) -> Images:
        """Images of these numbers [R, n], as the task shows them [R, n, C, H, W]."""
        parts = [
            np.take(self.all[numbers], pixels, axis=2)
            for numbers, pixels in zip(images, task.pixels, strict=True)
        ]
        return np.stack(parts).reshape(*images.shape, *self.shape)

    def examples_of(self, task: Permuted, epoch: int, first: int, count: int) -> tuple[Images, Indices]:
        """So many of an epoch from number `first` on, or all that are left.

        Returns images [R, n, C, H, W] and labels [R, n].
        """
        key = task.task, epoch
        if self._order is None or self._order[0] != key:
            orders = [permutation(seed, ORDER, epoch, self.examples) for seed in self.seeds]
            self._order = key, np.take_along_axis(task.chosen, np.stack(orders), axis=1)
        numbers = self._order[1][:, first : first + count]
        return self.shown(task, numbers), numbers // self.images
