"""Small trees of JPEGs in the layouts that collections come in, for the tests of packing and reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klopf.data import pack

NUMBERS = ("1", "2", "10")  # natural order differs from alphabetical order


def pixels_of(*key: int, size: tuple[int, int] = (8, 8)) -> NDArray[np.uint8]:
    """Blocks of 4x4 pixels, so that JPEG changes them little: [H, W, 3]."""
    blocks = np.random.default_rng(key).integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def save(path: Path, *key: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(*key, size=size)).convert(mode).save(path, "JPEG", quality=95)


def ilsvrc(root: Path) -> Path:
    """Three classes of three, four and five images, named as ILSVRC names them."""
    for c in range(3):
        for i in range(3 + c):
            save(root / "train" / f"n0{c}" / f"n0{c}_{(*NUMBERS, '11', '12')[i]}.JPEG", c, i)
    (root / "words.txt").write_text("n00\tfirst, the\nn01\tsecond\nn09\tnot here\n")
    return root


def tiny(root: Path) -> Path:
    """Two classes of three training and two validation images, named as Tiny ImageNet names them."""
    lines = []
    for c in range(2):
        (root / "train" / f"n0{c}").mkdir(parents=True)
        (root / "train" / f"n0{c}" / f"n0{c}_boxes.txt").write_text("")
        for i, number in enumerate(NUMBERS):
            save(root / "train" / f"n0{c}" / "images" / f"n0{c}_{number}.JPEG", c, i)
    for i, number in enumerate(("9", "10", "2", "11")):
        save(root / "val" / "images" / f"val_{number}.JPEG", i % 2, 10 + i)
        lines.append(f"val_{number}.JPEG\tn0{i % 2}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def decoded(path: Path, size: int) -> NDArray[np.uint8]:
    """[3, size, size] by means over blocks of equal size, to within the roundings of two passes."""
    image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
    blocks = image.reshape(size, image.shape[0] // size, size, image.shape[1] // size, 3)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3))
    return np.round(means).astype(np.uint8).transpose(2, 0, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def pack_tiny(folder: Path) -> Path:
    """Two classes of five images of 4x4 pixels in `tiny.npy`, beside the tree `tiny` they come from."""
    return pack(tiny(folder / "tiny"), folder / "tiny.npy", size=4).path
