"""The stream of tasks: classes without replacement, splits, labels, and images copied once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import klopf as kl
from klopf.data.source import ImageSource
from klopf.experiments.stream import TaskStream, probe_images


class Counted(ImageSource):
    """Images whose pixels say which class and image they are, and a note of every class read."""

    def __init__(self, classes: int = 7, images_per_class: int = 10, size: int = 4) -> None:
        self._shape = classes, images_per_class, size
        self.read: list[int] = []

    @property
    def classes(self) -> int:
        return self._shape[0]

    @property
    def images_per_class(self) -> int:
        return self._shape[1]

    @property
    def size(self) -> int:
        return self._shape[2]

    def images(self, class_index: int) -> np.ndarray:
        self.read.append(class_index)
        images = np.empty((self.images_per_class, 3, self.size, self.size), dtype=np.uint8)
        images[:, 0] = class_index
        images[:, 1:] = np.arange(self.images_per_class)[:, None, None, None]
        return images


def stream_of(source: Counted, seeds: list[int], **options: Any) -> TaskStream:
    return TaskStream(source, seeds, **{"train_images": 6, "test_images": 3, **options})


@given(st.integers(2, 9), st.integers(2, 4), st.integers(0, 2**40))
def test_no_class_comes_twice_before_too_few_are_left(classes: int, per_task: int, seed: int) -> None:
    if classes < per_task:
        return
    stream = stream_of(Counted(classes), [seed], classes_per_task=per_task)
    tasks = classes // per_task
    for first in (0, 5 * tasks):
        drawn = np.concatenate([stream.classes(first + task)[0] for task in range(tasks)])
        assert len(set(drawn.tolist())) == tasks * per_task
        assert drawn.min() >= 0
        assert drawn.max() < classes


def test_every_pass_and_every_seed_shuffles_anew() -> None:
    stream = stream_of(Counted(100), [0, 1])
    passes = [np.concatenate([stream.classes(50 * n + task) for task in range(50)], axis=1) for n in range(3)]
    orders = {tuple(order) for one in passes for order in one.tolist()}
    assert len(orders) == 6


def test_a_run_has_the_stream_of_its_seed_whoever_its_neighbours_are() -> None:
    together, alone = stream_of(Counted(), [8, 9, 10], split="run"), stream_of(Counted(), [9], split="run")
    for task in (0, 1, 17):
        assert np.array_equal(together.classes(task)[1:2], alone.classes(task))
        for theirs, own in zip(together.task(task), alone.task(task), strict=True):
            assert np.array_equal(theirs[1:2], own)


@pytest.mark.parametrize("split", ["fixed", "run"])
def test_images_and_labels_belong_together(split: str) -> None:
    source = Counted()
    stream = stream_of(source, [0, 1, 2], split=split)
    task = stream.task(4)
    chosen = stream.classes(4)
    assert task.train.shape == (3, 12, 3, 4, 4)
    assert task.test.shape == (3, 6, 3, 4, 4)
    assert task.train.dtype == task.test.dtype == np.uint8
    for images, labels in ((task.train, task.train_labels), (task.test, task.test_labels)):
        assert np.array_equal(images[:, :, 0, 0, 0], np.take_along_axis(chosen, labels, axis=1))
    for run in range(3):
        for label in range(2):
            train = set(task.train[run, task.train_labels[run] == label, 1, 0, 0].tolist())
            test = set(task.test[run, task.test_labels[run] == label, 1, 0, 0].tolist())
            assert (len(train), len(test)) == (6, 3)
            assert not train & test
            if split == "fixed":
                assert train == set(range(6))
                assert test == {7, 8, 9}


def test_runs_split_differently_but_always_the_same_way() -> None:
    stream = stream_of(Counted(classes=2), list(range(6)), split="run")
    first, again = stream.task(0), stream.task(0)
    assert np.array_equal(first.test, again.test)
    tests = {tuple(sorted(map(tuple, first.test[run, :, :2, 0, 0].tolist()))) for run in range(6)}
    assert len(tests) > 1
    later = stream.task(5)  # the same two classes: the same test images
    for run in range(6):
        assert sorted(first.test[run, :, :2, 0, 0].tolist()) == sorted(later.test[run, :, :2, 0, 0].tolist())


def test_a_class_is_read_once_a_task() -> None:
    source = Counted(classes=3)
    stream = stream_of(source, list(range(10)))
    stream.task(0)
    assert len(source.read) == len(set(source.read)) <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_task": 8}, "expected at least 8 classes for a task, got 7"),
        ({"test_images": 5}, "expected at least 6 training and 5 test images a class, got 10 images"),
        ({"split": "runs"}, "expected a split of fixed, run, got runs"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        stream_of(Counted(), [0], **options)


def test_the_probe_is_spread_over_classes() -> None:
    probe = probe_images(Counted(classes=30), 100)
    assert probe.shape == (100, 3, 4, 4)
    counts = np.unique(probe[:, 0, 0, 0], return_counts=True)[1]
    assert counts.tolist() == [5] * 20
    assert np.array_equal(probe, probe_images(Counted(classes=30), 100))
    assert probe_images(Counted(classes=3), 100).shape == (30, 3, 4, 4)  # all there is
