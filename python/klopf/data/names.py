"""Names of files and classes: their order, how they are shown, and the text files that list them."""

from __future__ import annotations

import re
from pathlib import Path

from klopf._core import Error


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key under which digits count as numbers: a2 before a10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def shown(name: str) -> str:
    """The first of a class's names, in one line: "goldfish" of "goldfish, Carassius auratus"."""
    return " ".join(name.split(",")[0].split()) or "?"


def text_lines(file: Path) -> list[str]:
    """The non-empty lines of a text file; `klopf.Error` where it is not UTF-8."""
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Error(f"[data pack] expected UTF-8 text in {file}, got other bytes") from error
