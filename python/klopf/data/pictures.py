"""Images through Pillow: decoding files, and averaging pixels over areas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error


def pillow() -> Any:
    """Pillow's module of images; `klopf.Error` where it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Error(
            "[data pack] decoding and resizing need Pillow, which is not installed: pip install 'klopf[data]'"
        ) from error
    return Image


def decoded(file: Path, size: int) -> NDArray[np.uint8]:
    """One image file as RGB [3, size, size], by area averaging whatever its proportions are.

    Raises `klopf.Error` where it is no image that can be read.
    """
    pictures = pillow()
    try:
        with pictures.open(file) as image:
            small = _averaged(image.convert("RGB"), size)
    except pictures.UnidentifiedImageError as error:
        raise Error(f"[data pack] expected an image in {file}, got something else") from error
    except Exception as error:  # decoders raise many types for broken files
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Error(f"[data pack] cannot decode {file}: {words or type(error).__name__}") from error
    return small


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Images [N, 3, H, W] as [N, 3, size, size], by area averaging; themselves where they have that size."""
    if images.shape[2:] == (size, size):
        return images
    pictures = pillow()
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return np.stack([_averaged(pictures.fromarray(image), size) for image in last])


def _averaged(image: Any, size: int) -> NDArray[np.uint8]:
    """A picture of Pillow's as [3, size, size]."""
    small = image.resize((size, size), pillow().Resampling.BOX)
    pixels: NDArray[np.uint8] = np.asarray(small).transpose(2, 0, 1)
    return pixels
