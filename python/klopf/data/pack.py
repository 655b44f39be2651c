"""Packing a tree of JPEGs into one file that training can map: decoded, resized and counted once."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.layouts import ImageClass, find_classes
from klopf.data.packed import FORMAT, VERSION, PackedImages, description_path
from klopf.data.pixels import PixelSums
from klopf.files import atomic_write

Progress = Callable[[int, int], None]


def pack(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    size: int = 32,
    images_per_class: int | None = None,
    progress: Progress | None = None,
) -> PackedImages:
    """Pack the JPEGs of a folder (ILSVRC's, Tiny ImageNet's or a plain layout, see `layouts`) and open the
    result.

    Each image becomes RGB of `size` x `size` by area averaging, whatever its proportions were. Of each class
    the first `images_per_class` images are packed, as many as the smallest class has where None; validation
    images come last within a class. `out` (.npy) and the JSON file beside it replace older ones only when
    everything went well. `progress` is called with the number of images done and the number of all.

    Raises `klopf.Error` for a missing folder, a class with too few images, a file that is no readable image,
    and a file that cannot be written; nothing new is left behind then.
    """
    path = Path(out)
    about = description_path(path)
    for name, value in (("size", size), ("images_per_class", images_per_class)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise Error(f"[data pack] expected {name} to be an integer from 1, got {value!r}")
    _check_pillow()
    classes = find_classes(source)
    count = _rectangle(classes, images_per_class)
    with atomic_write(path) as pixels:
        sums, checksums = _write_pixels(pixels, classes, count, size, progress)
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
            "source": os.path.abspath(source),
            "classes": [
                {"id": one.id, "name": one.name, "available": len(one.files), "crc32": checksum}
                for one, checksum in zip(classes, checksums, strict=True)
            ],
        }
        pixels.flush()
        os.fsync(pixels.fileno())  # so that a full disk is met before the first of the two files is replaced
        with atomic_write(about, "w") as description:
            json.dump(content, description, indent=1, ensure_ascii=False)
            description.write("\n")
    return PackedImages(path)


def _rectangle(classes: list[ImageClass], images_per_class: int | None) -> int:
    """How many images of each class to pack."""
    smallest = min(classes, key=lambda one: len(one.files))
    available = len(smallest.files)
    if images_per_class is not None and available < images_per_class:
        raise Error(f"[data pack] expected {images_per_class} images in class {smallest.id}, got {available}")
    return available if images_per_class is None else images_per_class


def _write_pixels(
    file: IO[bytes], classes: list[ImageClass], count: int, size: int, progress: Progress | None
) -> tuple[PixelSums, list[int]]:
    """Write the .npy class after class; returns the pixels' sums and the checksum of each class.

    Plain writes rather than a memory map: on a full disk they raise, where a map kills the process.
    """
    shape = (len(classes), count, 3, size, size)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    sums = PixelSums()
    checksums = []
    images = np.empty(shape[1:], dtype=np.uint8)
    with _Decoders() as pool:
        for number, one in enumerate(classes):
            for index, image in enumerate(pool.map(partial(_decode, size=size), one.files[:count])):
                images[index] = image
                if progress is not None:
                    progress(number * count + index + 1, len(classes) * count)
            file.write(images.data)
            sums.add(images)
            checksums.append(zlib.crc32(images.data))
    return sums, checksums


class _Decoders(ThreadPoolExecutor):
    """A thread for each core this process may use (decoding runs outside the interpreter's lock).

    When the block ends early, by an error or an interrupt, images not yet begun are not decoded.
    """

    def __init__(self) -> None:
        affinity = getattr(os, "sched_getaffinity", None)
        super().__init__(len(affinity(0)) if affinity else os.cpu_count())

    def __exit__(self, *exception: Any) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _decode(file: Path, size: int) -> NDArray[np.uint8]:
    """One image file as [3, size, size]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BOX)
    except UnidentifiedImageError as error:
        raise Error(f"[data pack] expected an image in {file}, got something else") from error
    except Exception as error:  # decoders raise many types for broken files
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Error(f"[data pack] cannot decode {file}: {words or type(error).__name__}") from error
    pixels: NDArray[np.uint8] = np.asarray(small).transpose(2, 0, 1)
    return pixels


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise Error(
            "[data pack] decoding JPEG needs Pillow, which is not installed: pip install 'klopf[data]'"
        ) from error
