"""The layouts of folders that can be packed, and which of them a folder has."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from klopf._core import Error
from klopf.data.batches import CIFAR_10, CIFAR_100, CIFAR_100_COARSE, read_cifar, read_imagenet
from klopf.data.class_arrays import read_class_arrays
from klopf.data.collection import Collection
from klopf.data.signs import SIGNS, recognised
from klopf.data.tree import read_tree
from klopf.files import reason

_READERS: dict[str, Callable[[Path], Collection]] = {
    "tree": read_tree,
    "arrays": read_class_arrays,
    "imagenet-batches": read_imagenet,
    "cifar-10": partial(read_cifar, cifar=CIFAR_10),
    "cifar-100": partial(read_cifar, cifar=CIFAR_100),
}


def read_collection(
    source: str | os.PathLike[str], layout: str | None = None, coarse: bool = False
) -> Collection:
    """What lies in the folder `source`: classes, labels, and where the images are. No image is read.

    layout: one of `SIGNS`; found out from the folder's content where None. coarse: the coarse classes of
    CIFAR-100. Raises `klopf.Error` where the folder cannot be read, has signs of no layout or of several, or
    is not what its layout says.
    """
    root = Path(source)
    if layout is not None and layout not in SIGNS:
        raise Error(f"[data pack] expected layout to be one of {', '.join(SIGNS)}, got {layout!r}")
    try:
        chosen = _layout(root, recognised(root)) if layout is None else layout
        if coarse and chosen != "cifar-100":
            raise Error(f"[data pack] expected cifar-100, which has coarse classes, in {root}, got {chosen}")
        return read_cifar(root, CIFAR_100_COARSE) if coarse else _READERS[chosen](root)
    except OSError as error:
        raise Error(f"[data pack] cannot read {error.filename or root}: {reason(error)}") from error


def _layout(root: Path, found: list[str]) -> str:
    """The one layout that was found."""
    if not found:
        wanted = "; ".join(f"{sign.words} ({name})" for name, sign in SIGNS.items())
        raise Error(f"[data pack] expected one of these in {root}: {wanted}; got none of them")
    if len(found) > 1:
        signs = " and of ".join(f"{name} ({SIGNS[name].words})" for name in found)
        raise Error(f"[data pack] expected one layout in {root}, got signs of {signs}: choose the layout")
    return found[0]
