"""Packing ImageNet's and CIFAR's batches: every form they come in, and broken versions of each."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_folders import (
    CIFAR_10_NAMES,
    Dump,
    cifar_10,
    cifar_100,
    imagenet_batches,
    python2,
    python3,
    rows,
)
from klopf._core import Error
from klopf.data import pack

DUMPS = {"python2": python2, **{f"protocol {n}": python3(n) for n in range(2, 6)}}


def refused(folder: Path, **options: Any) -> str:
    """The one line with which packing a folder is refused, and nothing is left behind."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(Error, match=r"^\[data pack\] ") as caught:
        pack(folder, folder.parent / "out.npy", **options)
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.iterdir()) == before
    return str(caught.value)


# --- ImageNet -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dump", [None, *DUMPS.values()], ids=["npz", *DUMPS])
def test_imagenet_batches(tmp_path: Path, dump: Dump | None) -> None:
    expected = imagenet_batches(tmp_path / "in", dump=dump)
    source = pack(tmp_path / "in", tmp_path / "out.npy")
    count = min(map(len, expected.values()))
    assert (source.classes, source.images_per_class, source.size) == (3, count, 4)
    assert source.class_ids == source.class_names == ["3", "7", "1000"]
    for number, images in enumerate(expected.values()):
        np.testing.assert_array_equal(source.images(number), images[:count])


def test_validation_images_come_last(tmp_path: Path) -> None:
    expected = imagenet_batches(tmp_path / "in", dump=python3(3))
    without = imagenet_batches(tmp_path / "without", dump=python3(3), validation=False)
    for label, images in expected.items():
        assert len(images) > len(without[label])
        np.testing.assert_array_equal(images[: len(without[label])], without[label])
    assert pack(tmp_path / "without", tmp_path / "out.npy").images_per_class == min(
        map(len, without.values())
    )


def test_compressed_npz(tmp_path: Path) -> None:
    imagenet_batches(tmp_path / "in")
    whole = pack(tmp_path / "in", tmp_path / "whole.npy")
    for file in (tmp_path / "in").iterdir():
        with np.load(file) as arrays:
            np.savez_compressed(file, **arrays)
    again = pack(tmp_path / "in", tmp_path / "again.npy")
    np.testing.assert_array_equal(again.images(2), whole.images(2))


def test_names_from_map_clsloc(tmp_path: Path) -> None:
    imagenet_batches(tmp_path / "in", dump=python3(3))
    (tmp_path / "in/map_clsloc.txt").write_text("n3 3 kit_fox\nn5 5 not_here\nn7 7 Egyptian_cat\n")
    source = pack(tmp_path / "in", tmp_path / "out.npy")
    assert source.class_ids == ["n3", "n7", "1000"]
    assert source.class_names == ["kit fox", "Egyptian cat", "1000"]
    (tmp_path / "in/map_clsloc.txt").write_text("n3 three kit_fox\n")
    assert "expected ID LABEL NAME in" in refused(tmp_path / "in")


def test_smaller_images(tmp_path: Path) -> None:
    imagenet_batches(tmp_path / "in", size=8, dump=python3(3))
    whole = pack(tmp_path / "in", tmp_path / "whole.npy")
    small = pack(tmp_path / "in", tmp_path / "small.npy", size=4, images_per_class=2)
    means = whole.images(1)[:2].reshape(2, 3, 4, 2, 4, 2).mean(axis=(3, 5))
    assert np.abs(small.images(1) - means).max() <= 1
    assert refused(tmp_path / "in", size=9).endswith(
        "expected size to be at most that of the images, 8 x 8, got 9"
    )


def change(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


GOOD = {"data": rows(0, count=7, size=4), "labels": [3, 3, 3, 7, 7, 1000, 1000]}


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, r"data"),
        ({"labels": None}, r"labels"),
        ({"data": GOOD["data"].astype(np.float32)}, r"expected data to be uint8 .* got float32 \[7, 48\]"),
        ({"data": GOOD["data"].astype(np.int8)}, r"expected data to be uint8 .* got int8 \[7, 48\]"),
        ({"data": GOOD["data"][:, :47]}, r"got \[7, 47\]"),
        ({"data": GOOD["data"].reshape(7, 3, 4, 4)}, r"got uint8 \[7, 3, 4, 4\]"),
        ({"data": GOOD["data"][:0]}, r"got \[0, 48\]"),
        ({"data": GOOD["data"][:, :0]}, r"got \[7, 0\]"),
        ({"data": np.asfortranarray(GOOD["data"])}, "Fortran order"),
        ({"data": np.array([[{}]])}, "Python objects"),
        ({"data": rows(0, count=7, size=2)}, r"expected images of 2 x 2, as in .*1(\.npz)?, got 4 x 4 in"),
        ({"labels": [3] * 6}, "expected 7 labels in .*, as many as images, got 6"),
        ({"labels": [0] * 7}, "expected labels from 1 to 1000 in .*, got 0"),
        ({"labels": [3] * 6 + [1001]}, "expected labels from 1 to 1000 in .*, got 1001"),
        ({"labels": [3.0] * 7}, "expected labels to be a list of whole numbers"),
        ({"labels": np.array([[3] * 7])}, "expected labels to be a list of whole numbers"),
    ],
)
def test_broken_imagenet_batches(tmp_path: Path, npz: bool, changes: dict[str, Any], message: str) -> None:
    imagenet_batches(tmp_path / "in", dump=None if npz else python3(3))
    content = change(GOOD, **changes)
    if npz:
        np.savez(tmp_path / "in/train_data_batch_1.npz", **content)
    else:
        (tmp_path / "in/train_data_batch_1").write_bytes(pickle.dumps(content, protocol=3))
    assert re.search(message, refused(tmp_path / "in"))


@pytest.mark.parametrize("labels", [[True] * 7, ["3"] * 7, [2**80] * 7, [[3]] * 7, "3333333", None, {"a": 3}])
def test_labels_that_are_no_numbers(tmp_path: Path, labels: Any) -> None:
    imagenet_batches(tmp_path / "in", dump=python3(3))
    (tmp_path / "in/train_data_batch_1").write_bytes(pickle.dumps({**GOOD, "labels": labels}, protocol=3))
    assert "expected labels to be a list of whole numbers in" in refused(tmp_path / "in")


def test_missing_batches(tmp_path: Path) -> None:
    imagenet_batches(tmp_path / "in", dump=python3(3))
    (tmp_path / "in/train_data_batch_7").unlink()
    line = refused(tmp_path / "in")
    assert "expected the files train_data_batch_1, ..., train_data_batch_10 in" in line
    assert line.endswith("got no train_data_batch_7")


@pytest.mark.parametrize("end", ["", ".npz"])
def test_truncated_batches(tmp_path: Path, end: str) -> None:
    imagenet_batches(tmp_path / "in", dump=None if end else python3(3))
    path = tmp_path / f"in/train_data_batch_3{end}"
    content = path.read_bytes()
    for length in (0, 1, 2, 50, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "train_data_batch_3" in refused(tmp_path / "in")


# --- CIFAR --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dump", DUMPS.values(), ids=DUMPS)
def test_cifar_10(tmp_path: Path, dump: Dump) -> None:
    expected = cifar_10(tmp_path / "in", dump=dump)
    source = pack(tmp_path / "in", tmp_path / "out.npy")
    assert (source.classes, source.images_per_class, source.size) == (10, 22, 4)
    assert source.class_names == CIFAR_10_NAMES
    for label, images in expected.items():
        np.testing.assert_array_equal(source.images(label), images)


@pytest.mark.parametrize("dump", [python2, python3(2), python3(5)])
def test_cifar_100(tmp_path: Path, dump: Dump) -> None:
    fine, coarse = cifar_100(tmp_path / "in", dump=dump)
    source = pack(tmp_path / "in", tmp_path / "fine.npy")
    assert (source.classes, source.images_per_class, source.size) == (100, 4, 2)
    assert source.class_names[99] == "fine99"
    np.testing.assert_array_equal(source.images(42), fine[42])
    source = pack(tmp_path / "in", tmp_path / "coarse.npy", coarse=True)
    assert (source.classes, source.images_per_class) == (20, 20)
    assert source.class_names[19] == "coarse19"
    np.testing.assert_array_equal(source.images(7), coarse[7])


def meta(folder: Path, **content: Any) -> None:
    (folder / "batches.meta").write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "data_batch_4").unlink(),
            "expected the files data_batch_1, ..., batches.meta in",
        ),
        (lambda folder: (folder / "test_batch").unlink(), "got no"),
        (lambda folder: (folder / "batches.meta").unlink(), "got no"),
        (lambda folder: meta(folder), "expected label_names to be a list of names in"),
        (lambda folder: meta(folder, label_names="abc"), "expected label_names to be a list of names in"),
        (lambda folder: meta(folder, label_names=[1, 2]), "expected label_names to be a list of names in"),
        (lambda folder: meta(folder, label_names=["a"] * 9), "expected labels from 0 to 8 in"),
        (lambda folder: meta(folder, label_names=["a"] * 11), "expected 1 images in class 10, got 0"),
    ],
)
def test_broken_cifar(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    cifar_10(tmp_path / "in")
    damage(tmp_path / "in")
    assert message in refused(tmp_path / "in")


# --- which layout -------------------------------------------------------------------------------------------


def test_layouts_that_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    line = refused(tmp_path / "in")
    for word in ("tree", "arrays", "imagenet-batches", "cifar-10", "cifar-100", "train_data_batch_1"):
        assert word in line
    cifar_10(tmp_path / "in")
    (tmp_path / "in" / "old").mkdir()
    assert "got signs of tree (class folders of JPEGs) and of cifar-10 (" in refused(tmp_path / "in")
    assert pack(tmp_path / "in", tmp_path / "out.npy", layout="cifar-10").classes == 10


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    cifar_10(tmp_path / "in")
    assert "expected layout to be one of tree, arrays, " in refused(tmp_path / "in", layout="cifar")
    assert "expected class folders in" in refused(tmp_path / "in", layout="tree")
    assert "expected a .npy for each class in" in refused(tmp_path / "in", layout="arrays")
    assert "got no" in refused(tmp_path / "in", layout="imagenet-batches")
    assert "expected cifar-100, which has coarse classes, in" in refused(tmp_path / "in", coarse=True)


def test_folder_above_batches_gets_a_hint(tmp_path: Path) -> None:
    cifar_10(tmp_path / "in/cifar-10-batches-py")
    assert refused(tmp_path / "in").endswith(
        f"cifar-10-batches-py, got none: did you mean {tmp_path}/in/cifar-10-batches-py?"
    )
