"""Packed images: one memory-mappable uint8 .npy [classes, images, 3, H, W] with a JSON file beside it.

The JSON file holds
    format, version           "klopf images", 1
    images_per_class, size    the rectangle that was packed
    mean, deviation           [3] each, in units of [0, 1], over all packed pixels
    source                    the folder the images came from
    classes                   one record a class: id, name, available (images found), crc32 (of its pixels)
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.npy import read_head
from klopf.data.source import ImageSource, check_class_index, check_options
from klopf.files import reason

FORMAT = "klopf images"
VERSION = 1


class PackedImages(ImageSource):
    """The images that `klopf data pack` wrote, read through a memory map: only the classes asked for are
    copied.

    `path` is that of the .npy; the JSON file lies beside it under the same name. Raises `klopf.Error` where
    either is missing, truncated or not what the packer writes. The pixels of a class are compared with their
    checksum when they are first read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        about = description_path(self.path)
        self._pixels = _map_pixels(self.path)
        self._about = _read_description(about, self._pixels.shape)
        self._mean = np.array(self._about["mean"], dtype=np.float64)
        self._deviation = np.array(self._about["deviation"], dtype=np.float64)
        self._verified: set[int] = set()

    @staticmethod
    def from_description(options: Mapping[str, Any]) -> PackedImages:
        """Open what `describe()` returned (without its kind); `klopf.Error` where the images have changed."""
        check_options(options, ("path", "classes", "images_per_class", "size", "checksum"), "packed")
        if not isinstance(options.get("path"), str):
            raise Error("[data] expected the description of packed images to have a path, got none")
        source = PackedImages(options["path"])
        now = source.describe()
        for name, value in options.items():
            if name != "path" and now[name] != value:
                raise Error(
                    f"[data] expected {name} {value} in {source.path}, got {now[name]}: not the same images"
                )
        return source

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self._pixels.shape[0])

    @property
    def images_per_class(self) -> int:
        """Number of images of every class."""
        return int(self._pixels.shape[1])

    @property
    def size(self) -> int:
        """Height and width of every image, in pixels."""
        return int(self._pixels.shape[3])

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel [3], in units of [0, 1], over all packed pixels."""
        return np.array(self._mean)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each channel [3], in units of [0, 1], over all packed pixels."""
        return np.array(self._deviation)

    @property
    def class_ids(self) -> list[str]:
        """The name of each class's folder in the source, such as "n01443537"."""
        return [record["id"] for record in self._about["classes"]]

    @property
    def class_names(self) -> list[str]:
        """A human name for each class where the source had one, else its id."""
        return [record["name"] for record in self._about["classes"]]

    @property
    def origin(self) -> str:
        """Where the images come from: the folder that was packed, or "arrays"."""
        return str(self._about.get("source"))

    def images(self, class_index: int) -> NDArray[np.uint8]:
        """A copy of one class [N, 3, H, W]; `klopf.Error` where its pixels are not those packed."""
        check_class_index(class_index, self.classes)
        images = np.array(self._pixels[class_index])
        if class_index not in self._verified:
            record = self._about["classes"][class_index]
            if zlib.crc32(images.data) != record["crc32"]:
                name = f"{record['id']!r:.100}"
                raise Error(
                    f"[data] the pixels of class {name} in {self.path} differ from those packed: "
                    "pack the images again"
                )
            self._verified.add(class_index)
        return images

    def describe(self) -> dict[str, Any]:
        """Kind, absolute path, sizes and a checksum, from which `open_source` opens the same images again."""
        checksums = ",".join(str(record["crc32"]) for record in self._about["classes"])
        return {
            "kind": "packed",
            "path": str(self.path),
            "classes": self.classes,
            "images_per_class": self.images_per_class,
            "size": self.size,
            "checksum": zlib.crc32(checksums.encode()),
        }


def description_path(path: Path) -> Path:
    """Where the JSON file of a packed .npy lies; `klopf.Error` where the path does not end in .npy."""
    if path.suffix != ".npy":
        raise Error(f"[data] expected the path of packed images to end in .npy, got {path}")
    return path.with_suffix(".json")


def _map_pixels(path: Path) -> NDArray[np.uint8]:
    """The memory map [classes, images, 3, H, W], after a look at type, shape and length of the file."""
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_head(file, path, "data")
            start = file.tell()
            length = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Error(f"[data] cannot read {path}: {reason(error)}") from error
    if dtype != np.uint8 or fortran:
        order = " in Fortran order" if fortran else ""
        raise Error(f"[data] expected uint8 in C order in {path}, got {dtype!s:.100}{order}")
    if len(shape) != 5 or shape[2] != 3 or shape[3] != shape[4] or min(shape) < 1:
        raise Error(
            f"[data] expected the shape [classes, images, 3, size, size] in {path}, got {list(shape)!s:.100}"
        )
    expected = start + math.prod(shape)
    if length != expected:
        state = "truncated" if length < expected else "too long"
        raise Error(f"[data] expected {expected} bytes in {path}, got {length}: the file is {state}")
    return np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=shape)


def _read_description(path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """The content of the JSON file, checked wherever it is used; `shape` is that of the pixels."""
    try:
        about = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Error(f"[data] {path} is missing: the packer writes it beside the .npy") from error
    except OSError as error:
        raise Error(f"[data] cannot read {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise Error(f"[data] expected JSON in {path}, got something else: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Error(f'[data] expected "format": "{FORMAT}" in {path}, got another kind of JSON')
    if about.get("version") != VERSION:
        raise Error(f"[data] expected version {VERSION} in {path}, got {about.get('version')!r:.100}")
    records = about.get("classes")
    if not isinstance(records, list) or not all(_is_class_record(record) for record in records):
        raise Error(f"[data] expected a list of classes with id, name and crc32 in {path}")
    described = [len(records), about.get("images_per_class"), 3, about.get("size"), about.get("size")]
    if described != list(shape):
        raise Error(
            f"[data] expected {path} to describe the shape {list(shape)} of the .npy, got {described!s:.100}"
        )
    for name, least in (("mean", 0.0), ("deviation", 1e-9)):
        if not _is_channel_list(about.get(name), least):
            raise Error(
                f"[data] expected {name} to be three numbers from {least:g} to 1 in {path}, "
                f"got {about.get(name)!r:.100}"
            )
    return about


def _is_class_record(record: Any) -> bool:
    types = {"id": str, "name": str, "crc32": int}
    return isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in types.items()
    )


def _is_channel_list(values: Any, least: float) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(value, int | float) and least <= value <= 1 for value in values)  # NaN fails too
    )
