"""Packing trees of JPEGs: every layout, and broken versions of each."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_trees import NUMBERS, contents, decoded, ilsvrc, pack_tiny, save, tiny
from klopf._core import Error
from klopf.data import PackedImages, pack
from klopf.data.names import natural_order
from klopf.data.pixels import PixelSums
from klopf.data.tree import JpegPart, read_tree


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack_tiny(tmp_path)


def test_pack_ilsvrc(tmp_path: Path) -> None:
    source = pack(ilsvrc(tmp_path / "images"), tmp_path / "out.npy", size=4)
    assert (source.classes, source.images_per_class, source.size) == (3, 3, 4)
    assert source.class_ids == ["n00", "n01", "n02"]
    assert source.class_names == ["first, the", "second", "n02"]
    assert [one["available"] for one in json.loads((tmp_path / "out.json").read_bytes())["classes"]] == [
        3,
        4,
        5,
    ]
    for c in range(3):
        expected = [decoded(tmp_path / f"images/train/n0{c}/n0{c}_{n}.JPEG", 4) for n in NUMBERS]
        difference = source.images(c).astype(int) - np.stack(expected)
        assert np.abs(difference).max() <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.json", "out.npy"]


def test_pack_class_folders_directly(tmp_path: Path) -> None:
    whole = pack(ilsvrc(tmp_path / "images"), tmp_path / "whole.npy", size=4)
    direct = pack(tmp_path / "images" / "train", tmp_path / "direct.npy", size=4)
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "direct.npy").read_bytes()
    assert direct.class_names == whole.class_ids


def test_pack_tiny_imagenet_with_validation_images_last(tmp_path: Path) -> None:
    parts = read_tree(tiny(tmp_path)).parts
    assert [(part.label, part.names) for part in parts if isinstance(part, JpegPart)] == [
        (0, ["n00_1.JPEG", "n00_2.JPEG", "n00_10.JPEG"]),
        (1, ["n01_1.JPEG", "n01_2.JPEG", "n01_10.JPEG"]),
        (0, ["val_2.JPEG", "val_9.JPEG"]),
        (1, ["val_10.JPEG", "val_11.JPEG"]),
    ]
    source = pack(tmp_path, tmp_path / "out.npy", size=8)
    assert source.images_per_class == 5
    np.testing.assert_array_equal(source.images(1)[4], decoded(tmp_path / "val/images/val_11.JPEG", 8))


def test_pack_takes_the_first_images_asked_for(tmp_path: Path) -> None:
    whole = pack(ilsvrc(tmp_path / "images"), tmp_path / "whole.npy", size=8)
    two = pack(tmp_path / "images", tmp_path / "two.npy", size=8, images_per_class=2)
    np.testing.assert_array_equal(two.images(1), whole.images(1)[:2])
    with pytest.raises(Error, match=r"^\[data pack\] expected 4 images in class n00, got 3$"):
        pack(tmp_path / "images", tmp_path / "four.npy", images_per_class=4)


def test_pack_is_the_same_to_the_byte(packed: Path) -> None:
    before = packed.read_bytes(), packed.with_suffix(".json").read_bytes()
    pack(packed.parent / "tiny", packed, size=4)
    assert (packed.read_bytes(), packed.with_suffix(".json").read_bytes()) == before


def test_pack_any_proportions_and_modes(tmp_path: Path) -> None:
    save(tmp_path / "in/train/a/1.jpg", 1, size=(16, 8))
    save(tmp_path / "in/train/a/2.JPG", 2, mode="L", size=(8, 24))
    save(tmp_path / "in/train/a/3.jpeg", 3, mode="CMYK", size=(16, 16))
    (tmp_path / "in/train/a/.4.jpeg").write_text("what some systems leave in every folder")
    source = pack(tmp_path / "in", tmp_path / "out.npy", size=8)
    images = source.images(0)
    assert images.shape == (3, 3, 8, 8)
    assert np.abs(images[0].astype(int) - decoded(tmp_path / "in/train/a/1.jpg", 8)).max() <= 1
    assert (images[1][0] == images[1][2]).all()


def test_pack_statistics(packed: Path) -> None:
    source = PackedImages(packed)
    pixels = np.load(packed).astype(np.float64) / 255
    np.testing.assert_allclose(source.mean, pixels.mean(axis=(0, 1, 3, 4)), rtol=1e-12)
    np.testing.assert_allclose(source.deviation, pixels.std(axis=(0, 1, 3, 4)), rtol=1e-12)
    channels = (slice(None), None, None)
    standard = pixels * 255 * source.scale[channels] + source.offset[channels]
    assert source.scale.dtype == source.offset.dtype == np.float32
    np.testing.assert_allclose(standard.mean(axis=(0, 1, 3, 4)), 0, atol=1e-6)
    np.testing.assert_allclose(standard.std(axis=(0, 1, 3, 4)), 1, rtol=1e-6)


def test_pack_reports_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(ilsvrc(tmp_path / "in"), tmp_path / "out.npy", progress=lambda done, of: seen.append((done, of)))
    assert seen == [(3, 9), (6, 9), (9, 9)]


def test_interrupted_pack_leaves_the_old_files(packed: Path) -> None:
    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    before = contents(packed.parent)
    with pytest.raises(KeyboardInterrupt):
        pack(packed.parent / "tiny", packed, size=8, progress=interrupt)
    assert contents(packed.parent) == before


@pytest.mark.parametrize("successes", [0, 1])
def test_full_disk_leaves_the_old_files(
    packed: Path, monkeypatch: pytest.MonkeyPatch, successes: int
) -> None:
    before = contents(packed.parent)
    remaining = iter(range(successes))

    def fill(descriptor: int) -> None:
        if next(remaining, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(Error, match=r"^cannot write .*tiny\.(npy|json): No space left on device$"):
        pack(packed.parent / "tiny", packed, size=8)
    assert contents(packed.parent) == before


def break_jpeg(root: Path) -> None:
    (root / "train/n01/images/n01_2.JPEG").write_bytes(b"not an image")


def truncate_jpeg(root: Path) -> None:
    path = root / "train/n01/images/n01_2.JPEG"
    path.write_bytes(path.read_bytes()[:-100])


def empty_class(root: Path) -> None:
    (root / "train/n02/images").mkdir(parents=True)


def unknown_class(root: Path) -> None:
    with open(root / "val/val_annotations.txt", "a") as file:
        file.write("val_2.JPEG\tn77\t0\t0\t1\t1\n")


def missing_validation_image(root: Path) -> None:
    (root / "val/images/val_2.JPEG").unlink()


def bad_annotation(root: Path) -> None:
    (root / "val/val_annotations.txt").write_text("\nval_2.JPEG n01\n")


def binary_words(root: Path) -> None:
    (root / "words.txt").write_bytes(b"\xff\xfe\x00")


def no_classes(root: Path) -> None:
    (root / "train").rename(root / "elsewhere")
    (root / "train").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_jpeg, r"expected an image in .*n01_2\.JPEG, got something else"),
        (truncate_jpeg, r"cannot decode .*n01_2\.JPEG: .*[Tt]runcated"),
        (empty_class, r"expected JPEG files in .*n02, got none"),
        (unknown_class, r"val_annotations\.txt, line 5: there is no class folder 'n77'"),
        (missing_validation_image, r"val_annotations\.txt, line 3: there is no file .*val_2\.JPEG"),
        (bad_annotation, r"expected FILE<tab>CLASS in .*, line 1, got 'val_2\.JPEG n01'"),
        (binary_words, r"expected UTF-8 text in .*words\.txt"),
        (no_classes, r"expected class folders in .*train, got none"),
    ],
)
def test_broken_trees(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tiny(tmp_path / "tiny"))
    with pytest.raises(Error, match=r"^\[data pack\] .*" + message) as caught:
        pack(tmp_path / "tiny", tmp_path / "out.npy", size=4)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_folder_above_the_tree_gets_a_hint(tmp_path: Path) -> None:
    tiny(tmp_path / "tiny")
    with pytest.raises(Error, match=f"did you mean {tmp_path}/tiny\\?"):
        pack(tmp_path, tmp_path / "out.npy")


def test_pack_mistakes(tmp_path: Path) -> None:
    images = tiny(tmp_path / "tiny")
    file = images / "val" / "val_annotations.txt"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"source": tmp_path / "none"}, r"\[data pack\] cannot read .*none: No such file or directory"),
        ({"source": file}, r"\[data pack\] cannot read .*val_annotations\.txt: Not a directory"),
        ({"out": tmp_path / "out.npz"}, r"\[data\] expected the path of packed images to end in \.npy"),
        ({"out": tmp_path / "none" / "out.npy"}, "cannot write .*: No such file or directory"),
        ({"size": 0}, r"\[data pack\] expected size to be an integer from 1, got 0"),
        ({"size": 2.5}, r"\[data pack\] expected size to be an integer from 1, got 2\.5"),
        ({"images_per_class": 0}, r"\[data pack\] expected images_per_class to be an integer from 1, got 0"),
    ]
    for options, message in wrong:
        with pytest.raises(Error, match="^" + message):
            pack(**{"source": images, "out": tmp_path / "out.npy", **options})


def test_pack_of_one_flat_colour(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "in" / "a" / "1.JPEG")
    with pytest.raises(Error, match="expected images that differ"):
        pack(tmp_path / "in", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_pack_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.delitem(sys.modules, "PIL", raising=False)
    with pytest.raises(Error, match=r"need Pillow.*klopf\[data\]"):
        pack(tmp_path / "tiny", tmp_path / "out.npy")


@given(st.lists(st.from_regex(r"[a-c0-9_]{0,6}", fullmatch=True)))
def test_natural_order_is_a_total_order(names: list[str]) -> None:
    ordered = sorted(set(names), key=natural_order)
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_order) == ordered


def test_natural_order_counts() -> None:
    numbered = [f"a{number}.JPEG" for number in (0, 7, 14, 70, 98, 105, 140, 1000)]
    assert sorted(numbered, key=natural_order) == numbered


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=5))
def test_pixel_sums_in_any_order(seeds: list[int]) -> None:
    parts = [
        np.random.default_rng(seed).integers(0, 256, (seed % 3 + 1, 3, 4, 4), dtype=np.uint8)
        for seed in seeds
    ]
    forward, backward = PixelSums(), PixelSums()
    for part, other in zip(parts, reversed(parts), strict=True):
        forward.add(part)
        backward.add(other)
    whole = np.concatenate(parts) / 255
    np.testing.assert_array_equal(forward.mean(), backward.mean())
    np.testing.assert_array_equal(forward.deviation(), backward.deviation())
    np.testing.assert_allclose(forward.mean(), whole.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(forward.deviation(), whole.std(axis=(0, 2, 3)), rtol=1e-10)
