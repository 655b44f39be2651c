"""The head of a .npy file: shape, order and type, read with every mistake as one line."""

from __future__ import annotations

import warnings
from typing import IO, Any

import numpy as np

from klopf._core import Error

Head = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_head(file: IO[bytes], name: object, where: str) -> Head:
    """Shape, Fortran order and type from the head of a .npy file, which is left at its first value.

    name, where: what errors call the file, and who wants it. Raises `klopf.Error` where it is no .npy file.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, about the text of a damaged head
            head: Head = read(file)
    except OSError:
        raise
    except Exception as error:  # the head is Python text: what is wrong with it may raise almost anything
        raise Error(f"[{where}] expected a .npy file, got something else in {name}") from error
    if not all(isinstance(length, int) and length >= 0 for length in head[0]):
        raise Error(f"[{where}] expected a .npy file, got something else in {name}")
    return head
