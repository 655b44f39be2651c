"""Packing images into one file that training can map: decoded, resized, sorted by class and counted once."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.collection import Collection
from klopf.data.layouts import read_collection
from klopf.data.packed import FORMAT, VERSION, PackedImages, description_path
from klopf.data.partial import Partial, partial_file
from klopf.data.pictures import pillow
from klopf.data.pixels import PixelSums
from klopf.files import atomic_write, reason

Progress = Callable[[int, int], None]

_TREE_SIZE = 32  # pixels, where images have sizes of their own and nobody asked for one
_READ = 8 << 20  # bytes of the packed file that are counted at a time


def pack(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    size: int | None = None,
    images_per_class: int | None = None,
    progress: Progress | None = None,
    *,
    layout: str | None = None,
    coarse: bool = False,
) -> PackedImages:
    """Pack the images of a folder and open the result.

    source: a tree of JPEGs, a folder with a .npy for each class, or the batches of ImageNet (downsampled),
    CIFAR-10 or CIFAR-100. layout: "tree", "arrays", "imagenet-batches", "cifar-10" or "cifar-100"; found out
    from the folder's content where None. coarse: CIFAR-100's 20 coarse classes instead of its 100 fine ones.

    Each image becomes RGB of `size` x `size` by area averaging, JPEGs whatever their proportions were. Where
    None, JPEGs become 32 x 32, and arrays keep their size; they are never enlarged. Of each class the first
    `images_per_class` images are packed, as many as the smallest class has where None; validation and test
    images come last within a class. `progress` is called with the number of images done and of all.

    `out` (.npy) and the JSON file beside it replace older ones only when everything went well. After a kill
    or KeyboardInterrupt the same call goes on where it was, if the images are the same, and gives the same
    bytes.

    Raises `klopf.Error` for a missing folder, a class with too few images, a file that is not what it should
    be, and a file that cannot be written; nothing new is left behind then.
    """
    return write_packed(
        read_collection(source, layout, coarse),
        out,
        size,
        images_per_class,
        os.path.abspath(source),
        progress,
    )


def write_packed(
    collection: Collection,
    out: str | os.PathLike[str],
    size: int | None,
    images_per_class: int | None,
    source: str,
    progress: Progress | None = None,
) -> PackedImages:
    """Pack a collection, as `pack` does; `source` says in the description where it comes from."""
    path = Path(out)
    about = description_path(path)
    for name, value in (("size", size), ("images_per_class", images_per_class)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise Error(f"[data pack] expected {name} to be an integer from 1, got {value!r}")
    _refuse_names(collection)
    count = _rectangle(collection, images_per_class)
    size = _size(collection, size)
    shape = (len(collection.classes), count, 3, size, size)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    start = len(head.getvalue())
    with partial_file(path, start + math.prod(shape), _plan(collection, shape)) as file:
        file.write(head.getbuffer(), 0)
        _write_images(file, start, collection, shape, progress)
        sums, checksums = _count_pixels(file, start, shape)
        if sums.deviation().min() == 0:
            raise Error(
                f"[data pack] expected images that differ, got one value throughout a channel of {source}"
            )
        content = {
            "format": FORMAT,
            "version": VERSION,
            "images_per_class": count,
            "size": size,
            "mean": sums.mean().tolist(),
            "deviation": sums.deviation().tolist(),
            "source": source,
            "classes": [
                {"id": one.id, "name": one.name, "available": available, "crc32": checksum}
                for one, available, checksum in zip(
                    collection.classes, collection.available().tolist(), checksums, strict=True
                )
            ],
        }
        file.flush()  # so that a full disk is met before the first of the two files is replaced
        with atomic_write(about, "w") as description:
            json.dump(content, description, indent=1, ensure_ascii=False)
            description.write("\n")
    return PackedImages(path)


def _refuse_names(collection: Collection) -> None:
    """Raise `klopf.Error` where a class has a name that cannot be written as text."""
    for one in collection.classes:
        try:
            (one.id + one.name).encode()
        except UnicodeEncodeError as error:
            raise Error(f"[data pack] expected names of classes in UTF-8, got {one.id!a}") from error


def _rectangle(collection: Collection, images_per_class: int | None) -> int:
    """How many images of each class to pack."""
    available = collection.available()
    smallest = int(available.argmin())
    wanted = 1 if images_per_class is None else images_per_class
    if available[smallest] < wanted:
        raise Error(
            f"[data pack] expected {wanted} images in class {collection.classes[smallest].id}, "
            f"got {available[smallest]}"
        )
    return int(available[smallest]) if images_per_class is None else images_per_class


def _size(collection: Collection, size: int | None) -> int:
    """Height and width to pack."""
    if collection.shape is None:
        return _TREE_SIZE if size is None else size
    height, width = collection.shape
    if size is None and height != width:
        raise Error(
            f"[data pack] expected a size for images that are not square, got none for {height} x {width}"
        )
    if size is not None and size > min(height, width):
        raise Error(
            f"[data pack] expected size to be at most that of the images, {height} x {width}, got {size}"
        )
    return height if size is None else size


def _plan(collection: Collection, shape: tuple[int, ...]) -> str:
    """A digest of all that the packed bytes depend on, the files' sizes and times among it."""
    averaged = collection.shape != shape[3:]
    digest = hashlib.sha256()

    def add(line: object) -> None:
        digest.update(json.dumps(line).encode() + b"\n")

    add([FORMAT, VERSION, *shape, pillow().__version__ if averaged else ""])
    for one in collection.classes:
        add([one.id, one.name])
    for part in collection.parts:
        try:
            for stamp in part.stamps():
                add(stamp)
        except OSError as error:
            raise Error(f"[data pack] cannot read {error.filename}: {reason(error)}") from error
        digest.update(part.labels.tobytes())
    return digest.hexdigest()


def _write_images(
    file: Partial, start: int, collection: Collection, shape: tuple[int, ...], progress: Progress | None
) -> None:
    """Write every image at its place, part after part, beginning where an earlier process ended."""
    classes, count, _, size, _ = shape
    done, image_bytes = 0, 3 * size * size
    report = progress or (lambda done, all: None)
    if file.done:
        report(file.done, classes * count)
    for part, rows, places in collection.placed(count):
        skipped = min(max(file.done - done, 0), len(rows))
        done += skipped
        places = places[skipped:]
        with closing(part.images(rows[skipped:], size)) as pieces:
            for images in pieces:
                _write_runs(file, start, images, places[: len(images)], image_bytes)
                places = places[len(images) :]
                done += len(images)
                file.reached(done)
                report(done, classes * count)


def _write_runs(
    file: Partial, start: int, images: NDArray[np.uint8], places: NDArray[np.int64], image_bytes: int
) -> None:
    """Write images at their places, neighbours together."""
    order = np.argsort(places)
    data = images[order].reshape(-1).data
    places = places[order]
    ends = [*(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    first = 0
    for end in ends:
        file.write(data[first * image_bytes : end * image_bytes], start + int(places[first]) * image_bytes)
        first = end


def _count_pixels(file: Partial, start: int, shape: tuple[int, ...]) -> tuple[PixelSums, list[int]]:
    """The pixels' sums, and the checksum of each class, of what was written."""
    classes, count, _, size, _ = shape
    image_bytes = 3 * size * size
    at_once = max(1, _READ // image_bytes)
    sums, checksums = PixelSums(), []
    for number in range(classes):
        checksum = 0
        for first in range(0, count, at_once):
            images = min(at_once, count - first)
            data = file.read(images * image_bytes, start + (number * count + first) * image_bytes)
            sums.add(np.frombuffer(data, dtype=np.uint8).reshape(images, 3, size, size))
            checksum = zlib.crc32(data, checksum)
        checksums.append(checksum)
    return sums, checksums
