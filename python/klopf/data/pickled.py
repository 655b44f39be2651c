"""What a pickle of NumPy arrays refers to by name, and what comes of it: the words that `pickles` knows."""

from __future__ import annotations

import codecs
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np

from klopf.data.stored import StoredArray

_IN_MEMORY = 32 << 20  # bytes of a decoded text that are not put into a temporary file


class Refused(Exception):
    """What was found that does not belong into a pickle of arrays."""


class Name(Enum):
    """What a pickle of arrays refers to; numpy._core is called numpy.core here."""

    ARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    SCALAR = "numpy.core.multiarray.scalar"
    FROM_BUFFER = "numpy.core.numeric._frombuffer"
    ENCODE = "_codecs.encode"


@dataclass(frozen=True)
class LongString:
    """A long string, of bytes or of text in UTF-8, that stays in its file."""

    path: Path
    start: int
    length: int

    def latin1(self) -> Iterator[bytes]:
        """The bytes that a text stands for letter by letter, as Python 3 writes them with protocol 2."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        step = 1 << 20
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for begin in range(0, self.length, step):
                piece = file.read(min(step, self.length - begin))
                yield decoder.decode(piece, begin + step >= self.length).encode("latin1")


@dataclass(frozen=True)
class Decoded:
    """The `length` bytes that a long text stands for, decoded whenever they are read."""

    text: LongString
    length: int

    def open(self) -> IO[bytes]:
        """A stream of them."""
        file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115, which the caller closes
        try:
            for piece in self.text.latin1():
                file.write(piece)
        except BaseException:
            file.close()
            raise
        return file


@dataclass
class Dtype:
    """A type of numbers; its byte order comes after it."""

    numpy: np.dtype[Any]


@dataclass
class Array:
    """An array; its content comes after it."""

    stored: StoredArray | None = None


def call(function: Any, arguments: Any) -> Any:
    """The value of a call; raises `Refused` where it is none that makes arrays."""
    if not isinstance(function, Name) or function not in _CALLS or not isinstance(arguments, tuple):
        raise Refused("a call of something else than NumPy's functions")
    return _CALLS[function](*arguments)


def build(target: Any, state: Any) -> None:
    """Give an array or a type what it was pickled with."""
    if isinstance(target, Dtype):
        order = _word(state[1])
        if order not in ("<", ">", "=", "|"):
            raise Refused("a type of unknown byte order")
        target.numpy = target.numpy.newbyteorder(order)  # type: ignore[arg-type]
    elif isinstance(target, Array):
        _, shape, dtype, fortran, content = state
        target.stored = _array(content, dtype, shape, fortran)
    else:
        raise Refused("a state for something else than an array")


def _reconstruct(subtype: Any, shape: Any, code: Any) -> Array:
    if subtype is not Name.ARRAY:
        raise Refused("an array of a type of its own")
    return Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(_array(content, dtype, shape, order != "C"))


def _dtype(code: Any, *_: Any) -> Dtype:
    word = _word(code)
    if not re.fullmatch(r"[biuf][1248]", word):
        kind = "Python objects" if word.startswith("O") else f"type {word[:20]!r}"
        raise Refused(f"an array of {kind}")
    return Dtype(np.dtype(word))


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes):
        raise Refused("a number without type or content")
    return np.frombuffer(content, dtype.numpy)[0].item()


def _encode(text: Any, encoding: Any) -> bytes | Decoded:
    if encoding != "latin1" or not isinstance(text, str | LongString):
        raise Refused("a text in another encoding than latin1")
    if isinstance(text, str):
        return text.encode("latin1")
    return Decoded(text, sum(map(len, text.latin1())))


_CALLS: dict[Name, Callable[..., Any]] = {
    Name.RECONSTRUCT: _reconstruct,
    Name.FROM_BUFFER: _from_buffer,
    Name.DTYPE: _dtype,
    Name.SCALAR: _scalar,
    Name.ENCODE: _encode,
}


def _word(value: Any) -> str:
    """A short text, which Python 2 wrote as bytes."""
    word = value.decode("latin1") if isinstance(value, bytes) else value
    if not isinstance(word, str):
        raise Refused("a type without a name")
    return word


def _array(content: Any, dtype: Any, shape: Any, fortran: Any) -> StoredArray:
    """The array with this content."""
    if isinstance(content, list):
        raise Refused("an array of Python objects")
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes | LongString | Decoded):
        raise Refused("an array without type or content")
    lengths = shape if isinstance(shape, tuple) and len(shape) <= 32 else (None,)
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise Refused("an array without a shape")
    if fortran and len(shape) > 1:
        raise Refused("an array in Fortran order")
    opener, start, length = _stream(content)
    if math.prod(shape) * dtype.numpy.itemsize != length:
        raise Refused(f"an array of {length} bytes for the shape {list(shape)!s:.100}")
    return StoredArray("", opener, start, shape, dtype.numpy)


def _stream(content: bytes | LongString | Decoded) -> tuple[Callable[[], IO[bytes]], int, int]:
    """What opens the content of an array, where it begins in there, and its length."""
    if isinstance(content, bytes):
        return (lambda: io.BytesIO(content)), 0, len(content)
    if isinstance(content, Decoded):
        return content.open, 0, content.length
    return (lambda: open(content.path, "rb")), content.start, content.length
