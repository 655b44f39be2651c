"""Images in arrays: folders of .npy files, and arrays of one's own as a source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klopf as kl
from image_folders import class_arrays, drawn
from image_trees import contents
from klopf.data import ArrayImages, open_source, pack

# --- folders of .npy files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
def test_a_file_for_each_class(tmp_path: Path, last: bool) -> None:
    images = class_arrays(tmp_path / "in", last=last)
    source = pack(tmp_path / "in", tmp_path / "out.npy")
    assert (source.classes, source.images_per_class, source.size) == (3, 3, 4)
    assert source.class_ids == source.class_names == ["a2", "a10", "b"]
    for number, one in enumerate(images):
        np.testing.assert_array_equal(source.images(number), one[:3])


def test_images_that_are_not_square_need_a_size(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = drawn(0, shape=(2, 3, 4, 8))
    np.save(tmp_path / "in/a.npy", images)
    with pytest.raises(
        kl.Error, match=r"expected a size for images that are not square, got none for 4 x 8$"
    ):
        pack(tmp_path / "in", tmp_path / "out.npy")
    with pytest.raises(kl.Error, match=r"at most that of the images, 4 x 8, got 5$"):
        pack(tmp_path / "in", tmp_path / "out.npy", size=5)
    source = pack(tmp_path / "in", tmp_path / "out.npy", size=4)
    means = images.reshape(2, 3, 4, 4, 2).mean(axis=4)
    assert np.abs(source.images(0) - means).max() <= 0.5


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (drawn(0, shape=(2, 3, 4, 4)).astype(np.float32), r"expected uint8 in .*c\.npy, got float32$"),
        (
            drawn(0, shape=(2, 1, 4, 4)),
            r"expected the shape \[N, 3, H, W\] or \[N, H, W, 3\] in .*, got \[2, 1,",
        ),
        (drawn(0, shape=(2, 4, 4)), r"expected the shape"),
        (drawn(0, shape=(1, 2, 3, 4, 4)), r"expected the shape"),
        (np.uint8(3), r"expected the shape"),
        (drawn(0, shape=(0, 3, 4, 4)), r"expected the shape"),
        (drawn(0, shape=(2, 3, 3, 3)), r"expected one axis of 3 colours in .*, got two: \[2, 3, 3, 3\]$"),
        (drawn(0, shape=(2, 3, 4, 3)), r"expected one axis of 3 colours"),
        (drawn(0, shape=(2, 3, 8, 8)), r"expected images of 4 x 4, as in .*a2\.npy, got 8 x 8 in .*c\.npy$"),
        (np.asfortranarray(drawn(0, shape=(2, 3, 4, 4))), r"expected C order in .*, got Fortran order$"),
        (np.array([{}]), r"expected numbers in .*, got Python objects$"),
    ],
)
def test_broken_files(tmp_path: Path, array: Any, message: str) -> None:
    class_arrays(tmp_path / "in")
    np.save(tmp_path / "in/c.npy", array)
    with pytest.raises(kl.Error, match=r"^\[data pack\] .*" + message):
        pack(tmp_path / "in", tmp_path / "out.npy")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("length", [0, 5, 100, 127, 128, 200])
def test_truncated_files(tmp_path: Path, length: int) -> None:
    class_arrays(tmp_path / "in")
    path = tmp_path / "in/b.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(kl.Error, match=r"expected (a \.npy file, got something else|\d+ bytes) in .*b\.npy"):
        pack(tmp_path / "in", tmp_path / "out.npy")


def test_a_packed_file_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ArrayImages(drawn(0, shape=(2, 3, 3, 4, 4))).save(tmp_path / "in/images.npy")
    with pytest.raises(kl.Error, match=r"got \[2, 3, 3, 4, 4\]$"):
        pack(tmp_path / "in", tmp_path / "out.npy")


# --- arrays of one's own ------------------------------------------------------------------------------------

IMAGES = drawn(1, shape=(2, 5, 3, 4, 4))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: ArrayImages(IMAGES), ["0", "1"]),
        (lambda: ArrayImages(IMAGES, ["cat", "dog"]), ["cat", "dog"]),
        (lambda: ArrayImages(list(IMAGES)), ["0", "1"]),
        (lambda: ArrayImages([IMAGES[0], np.concatenate([IMAGES[1], IMAGES[0]])]), ["0", "1"]),
        (lambda: ArrayImages({"cat": IMAGES[0], "dog": IMAGES[1]}), ["cat", "dog"]),
        (lambda: ArrayImages.from_labels(IMAGES.reshape(10, 3, 4, 4), [7] * 5 + [900] * 5), ["7", "900"]),
        (
            lambda: ArrayImages.from_labels(
                IMAGES.swapaxes(0, 1).reshape(10, 3, 4, 4), np.arange(10) % 2, ["cat", "dog"]
            ),
            ["cat", "dog"],
        ),
    ],
)
def test_arrays_are_a_source(tmp_path: Path, make: Callable[[], ArrayImages], names: list[str]) -> None:
    source = make()
    assert (source.classes, source.images_per_class, source.size) == (2, 5, 4)
    assert source.class_names == names
    for number in range(2):
        np.testing.assert_array_equal(source.images(number), IMAGES[number])
    source.images(0)[:] = 0
    assert source.images(0).any()
    assert source.describe() == ArrayImages(IMAGES).describe()
    packed = source.save(tmp_path / "out.npy")
    np.testing.assert_array_equal(packed.mean, source.mean)
    np.testing.assert_array_equal(packed.deviation, source.deviation)
    np.testing.assert_array_equal(packed.scale, source.scale)
    assert packed.class_names == packed.class_ids == names
    for number in range(2):
        np.testing.assert_array_equal(open_source(packed.path).images(number), IMAGES[number])


def test_mapped_arrays_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    source = ArrayImages(np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_array_equal(source.images(1), IMAGES[1])
    assert source.describe() != ArrayImages(IMAGES[:, :4]).describe()


def test_arrays_cannot_be_opened_from_their_description() -> None:
    with pytest.raises(
        kl.Error, match=r"^\[data\] expected images that are in a file, got .*ArrayImages\.save"
    ):
        open_source(ArrayImages(IMAGES).describe())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArrayImages(IMAGES / 255), "expected images to be uint8, got float64"),
        (
            lambda: ArrayImages(IMAGES[0]),
            r"expected images to have the shape \[classes, N, 3, size, size\], got",
        ),
        (
            lambda: ArrayImages(IMAGES[:, :, :1]),
            r"expected images of a class \[N, 3, size, size\], got \[5, 1",
        ),
        (lambda: ArrayImages(IMAGES[..., :3]), r"got \[5, 3, 4, 3\]"),
        (lambda: ArrayImages(IMAGES[:, :0]), r"got \[0, 3, 4, 4\]"),
        (lambda: ArrayImages(IMAGES[:0]), "expected images of at least one class, got none"),
        (lambda: ArrayImages([]), "expected images of at least one class, got none"),
        (
            lambda: ArrayImages([IMAGES[0], IMAGES[1, ..., :2, :2]]),
            "expected images of one size, got 2 and 4",
        ),
        (lambda: ArrayImages(3), "expected images to be arrays, got int"),  # type: ignore[arg-type]
        (lambda: ArrayImages([[[1], [2, 3]]]), "expected images to be an array, got something else"),  # type: ignore[list-item]
        (lambda: ArrayImages(IMAGES, ["a"]), r"expected 2 names, one a class, got \['a'\]"),
        (lambda: ArrayImages(IMAGES, [1, 2]), r"expected 2 names"),  # type: ignore[list-item]
        (lambda: ArrayImages({"a": IMAGES[0]}, ["a"]), "expected names as keys or as names, got both"),
        (
            lambda: ArrayImages.from_labels(IMAGES[0], [1, 2]),
            r"expected labels to be whole numbers \[5\], got int64 \[2\]",
        ),
        (lambda: ArrayImages.from_labels(IMAGES[0], [0.5] * 5), r"got float64 \[5\]"),
        (lambda: ArrayImages.from_labels(IMAGES, [0, 1]), r"got \[2, 5, 3, 4, 4\]"),
        (lambda: ArrayImages(IMAGES).images(2), "expected a class from 0 to 1, got 2"),
        (lambda: ArrayImages(IMAGES * 0).scale, "expected images that differ, got one value"),
    ],
)
def test_mistakes_with_arrays(make: Callable[[], object], message: str) -> None:
    with pytest.raises(kl.Error, match=r"^\[data\] .*" + message):
        make()


def test_mistakes_when_saving(tmp_path: Path) -> None:
    with pytest.raises(kl.Error, match="to end in"):
        ArrayImages(IMAGES).save(tmp_path / "out.npz")
    with pytest.raises(kl.Error, match=r"expected images that differ"):
        ArrayImages(IMAGES * 0).save(tmp_path / "out.npy")
    with pytest.raises(kl.Error, match=r"expected names of classes in UTF-8, got '\\udcff'"):
        ArrayImages(IMAGES, ["a", "\udcff"]).save(tmp_path / "out.npy")
    assert contents(tmp_path) == {}


def test_the_module_is_there_when_it_is_asked_for() -> None:
    code = """
import sys
import klopf as kl
assert "klopf.data" not in sys.modules
assert kl.data.ArrayImages is sys.modules["klopf.data"].ArrayImages
from klopf import *
assert data is kl.data
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'klopf' has no attribute 'dota'"):
        kl.dota  # noqa: B018
