"""Image sources: reading packed images, drawing procedural ones, opening either; broken versions of each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from image_trees import pack_tiny, save
from klopf._core import Error
from klopf.data import PackedImages, SyntheticImages, open_source, pack


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack_tiny(tmp_path)


# --- reading ---


def test_images_are_the_callers_own(packed: Path) -> None:
    source = PackedImages(packed)
    first = source.images(0)
    first[:] = 0
    assert source.images(0).any()
    np.testing.assert_array_equal(source.images(1), np.load(packed)[1])


def test_packed_file_is_plain_npy(packed: Path) -> None:
    pixels = np.load(packed, mmap_mode="r", allow_pickle=False)
    assert pixels.shape == (2, 5, 3, 4, 4)
    assert pixels.dtype == np.uint8


def test_changed_pixels_are_noticed_when_read(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    source = PackedImages(packed)
    source.images(0)
    with pytest.raises(Error, match=r"the pixels of class 'n01' in .* differ from those packed"):
        source.images(1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 3, 4, 4), dtype=np.float32), "expected uint8 in C order in .*, got float32"),
        (np.asfortranarray(np.zeros((2, 5, 3, 4, 4), dtype=np.uint8)), "got uint8 in Fortran order"),
        (np.zeros((2, 5, 3, 4), dtype=np.uint8), r"expected the shape .* got \[2, 5, 3, 4\]"),
        (np.zeros((2, 5, 1, 4, 4), dtype=np.uint8), "expected the shape"),
        (np.zeros((2, 5, 3, 4, 6), dtype=np.uint8), "expected the shape"),
        (np.zeros((0, 5, 3, 4, 4), dtype=np.uint8), "expected the shape"),
        (np.zeros((2, 6, 3, 4, 4), dtype=np.uint8), "tiny\\.json to describe the shape \\[2, 6, 3, 4, 4\\]"),
        (np.array([{}]), "expected uint8 in C order in .*, got object"),
    ],
)
def test_wrong_arrays(packed: Path, array: NDArray[Any], message: str) -> None:
    np.save(packed, array)
    with pytest.raises(Error, match=r"^\[data\] .*" + message):
        PackedImages(packed)


def test_truncated_and_foreign_files(packed: Path) -> None:
    content = packed.read_bytes()
    for length in (*range(0, 128, 9), 127, 128, len(content) - 1):
        packed.write_bytes(content[:length])
        with pytest.raises(Error, match=r"^\[data\] expected (a \.npy file|\d+ bytes .* truncated)"):
            PackedImages(packed)
    packed.write_bytes(content + b"\0")
    with pytest.raises(Error, match="the file is too long"):
        PackedImages(packed)
    np.savez(packed.with_suffix(".npz"), content)
    packed.with_suffix(".npz").rename(packed)
    with pytest.raises(Error, match=r"expected a \.npy file"):
        PackedImages(packed)
    packed.unlink()
    with pytest.raises(Error, match=r"^\[data\] cannot read .*tiny\.npy: No such file or directory$"):
        PackedImages(packed)
    with pytest.raises(Error, match=r"to end in \.npy"):
        PackedImages(packed.parent / "tiny")


def test_damaged_head_is_an_error_or_harmless(packed: Path) -> None:
    content = packed.read_bytes()
    whole = np.load(packed)
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(128)] = generator.randrange(256)
        packed.write_bytes(damaged)
        try:
            source = PackedImages(packed)
        except Error as error:
            assert "\n" not in str(error)
        else:
            np.testing.assert_array_equal(source.images(1), whole[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'expected "format": "klopf images"'),
        ({"version": 2}, "expected version 1 in .*, got 2"),
        ({"classes": None}, "expected a list of classes"),
        ({"classes": [{"id": "a"}]}, "expected a list of classes"),
        ({"images_per_class": 4}, "describe the shape .* got \\[2, 4, 3, 4, 4\\]"),
        ({"size": "4"}, "describe the shape"),
        ({"mean": [0, 0]}, "expected mean to be three numbers"),
        ({"mean": [0, 0, float("nan")]}, "expected mean to be three numbers"),
        ({"deviation": [1, 0, 1]}, "expected deviation to be three numbers"),
        ({"deviation": [1, True, "1"]}, "expected deviation to be three numbers"),
    ],
)
def test_wrong_descriptions(packed: Path, change: dict[str, Any], message: str) -> None:
    path = packed.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(Error, match=r"^\[data\] .*" + message):
        PackedImages(packed)


def test_missing_and_invalid_description(packed: Path) -> None:
    path = packed.with_suffix(".json")
    content = path.read_bytes()
    for broken in (b"", content[:-10], b"\xff\xff", b"[" * 100_000, b"[]", b"null"):
        path.write_bytes(broken)
        with pytest.raises(Error, match=r"^\[data\] expected .*JSON") as caught:
            PackedImages(packed)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(Error, match=r"^\[data\] .*tiny\.json is missing"):
        PackedImages(packed)


# --- procedural images ---


def test_synthetic_images_repeat() -> None:
    source = SyntheticImages(classes=5, images_per_class=6, size=12, seed=3)
    images = source.images(4)
    assert images.shape == (6, 3, 12, 12)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, SyntheticImages(9, 6, 12, 3).images(4))
    np.testing.assert_array_equal(images[:2], SyntheticImages(5, 2, 12, 3).images(4))
    assert (images != source.images(3)).any()
    assert (images != SyntheticImages(5, 6, 12, 4).images(4)).any()


def test_synthetic_statistics_are_those_of_the_images() -> None:
    source = SyntheticImages(classes=4, images_per_class=8, size=8)
    pixels = np.concatenate([source.images(c) for c in range(4)]) / 255
    np.testing.assert_allclose(source.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(source.deviation, pixels.std(axis=(0, 2, 3)), rtol=1e-10)
    assert source.scale.shape == source.offset.shape == (3,)


@pytest.mark.parametrize("option", [{"classes": 0}, {"images_per_class": -1}, {"size": 1.5}, {"seed": -1}])
def test_synthetic_mistakes(option: dict[str, Any]) -> None:
    with pytest.raises(Error, match=r"^\[synthetic images\] expected \w+ to be an integer from"):
        SyntheticImages(**option)


# --- opening ---


def test_open_source_again_from_its_description(packed: Path) -> None:
    for spec in (packed, str(packed), "synthetic", {"kind": "synthetic", "classes": 3, "size": 8}):
        source = open_source(spec)
        description = json.loads(json.dumps(source.describe()))
        again = open_source(description)
        assert type(again) is type(source)
        assert again.describe() == description
        np.testing.assert_array_equal(again.mean, source.mean)


def test_class_numbers_out_of_range(packed: Path) -> None:
    for source in (PackedImages(packed), SyntheticImages(classes=2)):
        for index in (-1, 2):
            with pytest.raises(Error, match=f"expected a class from 0 to 1, got {index}"):
                source.images(index)


def test_description_of_other_images(packed: Path) -> None:
    description = open_source(packed).describe()
    save(packed.parent / "tiny/train/n00/images/n00_1.JPEG", 99)
    pack(packed.parent / "tiny", packed, size=4)
    with pytest.raises(Error, match=r"^\[data\] expected checksum \d+ in .*: not the same images$"):
        open_source(description)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"kind": "other"},
        {"kind": "packed"},
        {"kind": "packed", "path": 3},
        {"kind": "packed", "paht": "x.npy"},
        {"kind": "synthetic", "clases": 3},
        {"kind": "synthetic", "classes": "3"},
        "synthetics",
    ],
)
def test_wrong_specifications(spec: Any) -> None:
    with pytest.raises(Error, match=r"^\[(data|synthetic images)\] expected"):
        open_source(spec)
