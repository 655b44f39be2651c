"""The stream of tasks of Continual ImageNet: each task is to tell apart a few classes of images.

Every run has a stream of its own, keyed by its seed alone.  Any task can be made at any time, so resuming
needs no state.  Source: Dohare et al., Nature 632 (2024), section "Continual ImageNet".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error, permutation
from klopf.data.source import ImageSource

# Streams of the counter-based permutations; 0 orders the epochs of `Learner.run`.
PAIRING, SPLIT, PROBE, ARRIVAL = 1, 2, 3, 4  # permuted_stream.py has those from 5 on

SPLITS = ("fixed", "run")


class Task(NamedTuple):
    """The images of one task: uint8 [R, N, 3, H, W] with labels [R, N] counted from 0 within the task."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


class TaskStream:
    """Tasks whose classes are drawn without replacement until too few are left, then shuffled anew.

    split "fixed": the last `test_images` of a class are its test set, the first `train_images` its training
    set.
    split "run": each run draws both sets of a class at random, once, without overlap.
    Raises Error where the source has fewer classes than a task needs, or fewer images than both sets need.
    """

    def __init__(
        self,
        source: ImageSource,
        seeds: Sequence[int],
        *,
        classes_per_task: int = 2,
        train_images: int = 600,
        test_images: int = 100,
        split: str = "fixed",
    ) -> None:
        if source.classes < classes_per_task:
            raise Error(
                f"[stream] expected at least {classes_per_task} classes for a task, got {source.classes}"
            )
        if source.images_per_class < train_images + test_images:
            raise Error(
                f"[stream] expected at least {train_images} training and {test_images} test images a class, "
                f"got {source.images_per_class} images"
            )
        if split not in SPLITS:
            raise Error(f"[stream] expected a split of {', '.join(SPLITS)}, got {split}")
        self.source = source
        self.seeds = list(seeds)
        self.classes_per_task = classes_per_task
        self.train_images = train_images
        self.test_images = test_images
        self.split = split

    def classes(self, task: int) -> NDArray[np.int64]:
        """The classes of a task (counted from 0), one row a run: [R, classes_per_task]."""
        tasks_per_pass = self.source.classes // self.classes_per_task
        shuffle, position = divmod(task, tasks_per_pass)
        first = position * self.classes_per_task
        rows = [
            permutation(seed, PAIRING, shuffle, self.source.classes)[first : first + self.classes_per_task]
            for seed in self.seeds
        ]
        return np.stack(rows).astype(np.int64)

    def task(self, task: int) -> Task:
        """The images of a task; a class that several runs have is read once."""
        chosen = self.classes(task)
        size = self.source.size

        def room(images: int) -> NDArray[np.uint8]:
            return np.empty((*chosen.shape, images, 3, size, size), dtype=np.uint8)

        train, test = room(self.train_images), room(self.test_images)
        for which in np.unique(chosen):
            images = self.source.images(int(which))
            for run, label in zip(*np.nonzero(chosen == which), strict=True):
                train_rows, test_rows = self._rows(int(run), int(which))
                train[run, label] = images[train_rows]
                test[run, label] = images[test_rows]
        return Task(self._flat(train), self._labels(train), self._flat(test), self._labels(test))

    def _rows(self, run: int, which: int) -> tuple[slice | NDArray[np.int64], slice | NDArray[np.int64]]:
        """Which images of a class a run trains on, and which it is tested on."""
        count = self.source.images_per_class
        if self.split == "fixed":
            return slice(0, self.train_images), slice(count - self.test_images, count)
        order = permutation(self.seeds[run], SPLIT, which, count)
        return order[: self.train_images], order[count - self.test_images :]

    @staticmethod
    def _flat(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[R, K, n, 3, H, W] to [R, K n, 3, H, W]."""
        return images.reshape(images.shape[0], -1, *images.shape[3:])

    @staticmethod
    def _labels(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The labels that go with `_flat`: [R, K n]."""
        runs, classes, count = images.shape[:3]
        return np.tile(np.repeat(np.arange(classes), count), (runs, 1))


class GrowingStream(TaskStream):
    """Tasks of all classes that arrived so far, so many more with each; labels count them as they arrive.

    classes: that arrive in all.  Each run has an order of its own.  The rest is as in `TaskStream`.
    """

    def __init__(
        self,
        source: ImageSource,
        seeds: Sequence[int],
        *,
        classes: int,
        classes_per_step: int,
        train_images: int,
        test_images: int,
    ) -> None:
        super().__init__(
            source, seeds, classes_per_task=classes, train_images=train_images, test_images=test_images
        )
        self.classes_per_step = classes_per_step

    def classes(self, task: int) -> NDArray[np.int64]:
        """The classes of a task, the latest ones last, one row a run: [R, classes so far]."""
        seen = min((task + 1) * self.classes_per_step, self.classes_per_task)
        return np.stack([permutation(seed, ARRIVAL, 0, self.source.classes)[:seen] for seed in self.seeds])


def probe_images(source: ImageSource, count: int, classes: int = 20) -> NDArray[np.uint8]:
    """A fixed batch to look at the units with, the same for every run: uint8 [count, 3, H, W].

    The last images of up to `classes` classes, as many of each; fewer than `count` where the source has
    fewer.
    """
    chosen = permutation(0, PROBE, 0, source.classes)[: min(classes, source.classes)]
    each = min(-(-count // len(chosen)), source.images_per_class)
    parts = [source.images(int(which))[source.images_per_class - each :] for which in chosen]
    return np.ascontiguousarray(np.concatenate(parts)[:count])
