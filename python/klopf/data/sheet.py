"""A contact sheet: some images of some classes, a row for each class."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.data.names import shown
from klopf.data.packed import PackedImages
from klopf.files import atomic_write

_DOTS = 200  # of the picture in an inch
_GAP = 0.06  # between images, as a share of their size
_INCHES = 0.5  # height and width of an image
_LONGEST = 24  # letters of a class's name that fit


def contact_sheet(
    source: PackedImages, out: str | os.PathLike[str], classes: int = 10, images: int = 10
) -> Path:
    """Draw the first `images` images of `classes` classes, spread evenly over all, into a PNG.

    Returns its path. Where there are fewer, all are drawn. Raises `klopf.Error` where `out` does not end in
    .png or cannot be written, and where pixels are not those that were packed.
    """
    target = Path(out)
    if target.suffix != ".png":
        raise Error(f"[data info] expected the picture's name to end in .png, got {target}")
    rows, columns = min(classes, source.classes), min(images, source.images_per_class)
    chosen = [row * source.classes // rows for row in range(rows)]
    pixels = _pasted([source.images(one)[:columns] for one in chosen])
    names = [source.class_names[one] for one in chosen]
    with atomic_write(target) as file:
        file.write(_drawn(pixels, names, rows, columns))
    return target


def _pasted(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of images [N, 3, size, size] as one white picture [H, W, 3]."""
    size = rows[0].shape[2]
    gap = max(1, round(_GAP * size))
    step = size + gap
    picture = np.full((len(rows) * step - gap, len(rows[0]) * step - gap, 3), 255, dtype=np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * step, column * step
            picture[top : top + size, left : left + size] = image.transpose(1, 2, 0)
    return picture


def _drawn(pixels: NDArray[np.uint8], names: list[str], rows: int, columns: int) -> bytes:
    """The picture with the classes' names beside its rows, as a PNG; the same input gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 7.0, "text.parse_math": False}):
        figure = Figure(figsize=(columns * _INCHES, rows * _INCHES), dpi=_DOTS)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        middles = (np.arange(rows) + 0.5) * pixels.shape[0] / rows
        axes.set_yticks(middles, [_short(name) for name in names])
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None}
        )
    return buffer.getvalue()


def _short(name: str) -> str:
    """A name that fits beside a row."""
    word = shown(name)
    return word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"
