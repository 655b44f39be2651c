"""One atomic, checksummed safetensors file of named arrays with a JSON description."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.files import atomic_write, reason


def _checksum(arrays: Mapping[str, NDArray[Any]], description: str) -> str:
    total = zlib.crc32(description.encode())
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    return f"{total:08x}"


def write(path: str | PathLike[str], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Writes arrays and a description that JSON can hold; an earlier file stays whole until this one is.

    Raises:
        klopf.Error: the file cannot be written.
    """
    from safetensors.numpy import save

    description = json.dumps(meta)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # One key: safetensors writes several in no fixed order.
    header = json.dumps({"checksum": _checksum(contiguous, description), "description": description})
    data = save(contiguous, metadata={"klopf": header})
    with atomic_write(path, "wb") as file:
        file.write(data)


def read(path: str | PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What `write` wrote: arrays and description.

    Raises:
        klopf.Error: the file is missing, truncated, corrupt or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise Error(f"[checkpoint] cannot read {path}: {reason(error)}") from None
    except SafetensorError:
        raise Error(f"[checkpoint] {path} is truncated, corrupt or not a safetensors file") from None
    if "klopf" not in header:
        raise Error(f"[checkpoint] {path} was not written by klopf")
    try:
        about = json.loads(header["klopf"])
        checksum, description = about["checksum"], about["description"]
    except (ValueError, KeyError, TypeError):
        raise Error(f"[checkpoint] {path} is corrupt: its header cannot be read") from None
    if checksum != _checksum(arrays, description):
        raise Error(f"[checkpoint] {path} is corrupt: its checksum does not match")
    described: dict[str, Any] = json.loads(description)
    return arrays, described


def read_saved(
    path: str | PathLike[str], format: str, what: str
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The same, of a description whose format is this one.

    Raises:
        klopf.Error: as `read`; the file holds something else than `what`.
    """
    arrays, described = read(path)
    if described.get("format") != format:
        raise Error(f"[load] {path} is not {what} saved by klopf")
    return arrays, described


def within(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Those whose names begin so, without it."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def warn_of_other_arithmetic(path: str | PathLike[str], before: str, now: str) -> None:
    """Says so when a checkpoint goes on at another instruction-set level, or on another device or precision,
    than it was written at."""
    if before != now:
        hint = f" (KLOPF_ISA={before.split()[-1]} would)" if "level" in before and "level" in now else ""
        warnings.warn(
            f"{path} was written at {before} and goes on at {now}: results will agree to rounding, "
            f"not bit for bit{hint}",
            stacklevel=3,
        )
