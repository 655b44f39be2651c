"""Small folders of images in the layouts of ImageNet's and CIFAR's batches, and of arrays, for the tests."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Dump = Callable[[Mapping[str, Any]], bytes]
Images = NDArray[np.uint8]

CIFAR_10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def drawn(*key: int, shape: tuple[int, ...]) -> Images:
    return np.random.default_rng(key).integers(0, 256, shape, dtype=np.uint8)


def python3(protocol: int) -> Dump:
    return lambda content: pickle.dumps(dict(content), protocol=protocol)


def python2(content: Mapping[str, Any]) -> bytes:
    """A dictionary of uint8 arrays, lists of numbers or words, words and numbers, as Python 2 pickled it."""

    def word(value: bytes) -> bytes:
        return (
            b"U" + bytes([len(value)]) + value
            if len(value) < 256
            else b"T" + struct.pack("<i", len(value)) + value
        )

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def array(value: Images) -> bytes:
        shape = b"(" + b"".join(map(number, value.shape)) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word(b"b") + b"\x87R"
        dtype = (
            b"cnumpy\ndtype\n" + word(b"u1") + b"K\x00K\x01\x87R(K\x03" + word(b"|") + b"NNNJ\xff\xff\xff\xff"
        )
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + word(value.tobytes()) + b"tb"

    def any_of(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return array(value)
        if isinstance(value, list):
            return b"](" + b"".join(map(any_of, value)) + b"e"
        return number(value) if isinstance(value, int) else word(value.encode())

    items = b"".join(word(key.encode()) + any_of(value) for key, value in content.items())
    return b"\x80\x02}(" + items + b"u."


def rows(*key: int, count: int, size: int) -> Images:
    """Images as batches hold them: [N, 3 * size * size]."""
    return drawn(*key, shape=(count, 3 * size * size))


def imagenet_batches(
    root: Path, *, size: int = 4, dump: Dump | None = None, validation: bool = True
) -> dict[int, Images]:
    """Ten batches of seven images of the classes 3, 7 and 1000, and one for validation; .npz without `dump`.

    Returns the images of each label in the order in which they are to be packed.
    """
    root.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[Images]] = {}
    for batch in range(11 if validation else 10):
        name = f"train_data_batch_{batch + 1}" if batch < 10 else "val_data"
        data = rows(1, batch, count=7, size=size)
        labels = [int(label) for label in np.random.default_rng((2, batch)).choice([3, 7, 1000], 7)]
        for image, label in zip(data, labels, strict=True):
            found.setdefault(label, []).append(image.reshape(3, size, size))
        mean = data.mean(axis=0)
        if dump is None:
            np.savez(root / f"{name}.npz", data=data, labels=np.array(labels), mean=mean)
        else:
            (root / name).write_bytes(
                dump({"data": data, "labels": labels} | ({} if dump is python2 else {"mean": mean}))
            )
    return {label: np.stack(found[label]) for label in sorted(found)}


def cifar_10(root: Path, *, dump: Dump = python2) -> dict[int, Images]:
    """Five batches of 40 images, and 20 test images, of ten classes; returns the images of each label."""
    root.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[Images]] = {label: [] for label in range(10)}
    for batch in range(6):
        count = 40 if batch < 5 else 20
        data = rows(3, batch, count=count, size=4)
        labels = [int(label) for label in np.random.default_rng((4, batch)).permutation(count) % 10]
        for image, label in zip(data, labels, strict=True):
            found[label].append(image.reshape(3, 4, 4))
        name = f"data_batch_{batch + 1}" if batch < 5 else "test_batch"
        content = {"batch_label": name, "labels": labels, "data": data, "filenames": ["a.png"] * count}
        (root / name).write_bytes(dump(content))
    (root / "batches.meta").write_bytes(
        dump({"num_cases_per_batch": 40, "label_names": CIFAR_10_NAMES, "num_vis": 48})
    )
    return {label: np.stack(images) for label, images in found.items()}


def cifar_100(root: Path, *, dump: Dump = python2) -> tuple[dict[int, Images], dict[int, Images]]:
    """Training and test images of 100 classes; returns the images of each fine and of each coarse label."""
    root.mkdir(parents=True, exist_ok=True)
    fine: dict[int, list[Images]] = {label: [] for label in range(100)}
    coarse: dict[int, list[Images]] = {label: [] for label in range(20)}
    for number, name in enumerate(("train", "test")):
        data = rows(5, number, count=200, size=2)
        labels = [int(label) for label in np.random.default_rng((6, number)).permutation(200) % 100]
        for image, label in zip(data, labels, strict=True):
            fine[label].append(image.reshape(3, 2, 2))
            coarse[label % 20].append(image.reshape(3, 2, 2))
        content = {"data": data, "fine_labels": labels, "coarse_labels": [label % 20 for label in labels]}
        (root / name).write_bytes(dump(content))
    names = {"fine_label_names": [f"fine{n}" for n in range(100)]}
    names["coarse_label_names"] = [f"coarse{n}" for n in range(20)]
    (root / "meta").write_bytes(dump(names))
    return tuple({label: np.stack(one) for label, one in found.items()} for found in (fine, coarse))  # type: ignore[return-value]


def class_arrays(root: Path, *, last: bool = False) -> list[Images]:
    """Files a2.npy, a10.npy and b.npy of three, four and five images, channels first or last."""
    root.mkdir(parents=True, exist_ok=True)
    images = [drawn(7, number, shape=(3 + number, 3, 4, 4)) for number in range(3)]
    for name, one in zip(("a2", "a10", "b"), images, strict=True):
        np.save(root / f"{name}.npy", np.ascontiguousarray(one.transpose(0, 2, 3, 1)) if last else one)
    return images
