"""Calls of the compiled module with arguments of the wrong kind become one clear line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from klopf._core import Error

_SHORT = {  # how types are called in messages
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "klopf._core.": "",
    "HostOptimizer": "StepSizeRule",
    "HostRule": "UnitRule",
    "collections.abc.": "",
    "numpy.typing.": "",
}


def _explained(where: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except TypeError as error:
            found = re.search(r"incompatible (?:function|constructor) arguments.*?\n\s+1\. (.*)", str(error))
            if found is None:
                raise
            expected = re.sub(r"self: [^,)]*(, )?", "", found[1]).split(" -> ")[0]
            for long, short in _SHORT.items():
                expected = expected.replace(long, short)
            raise Error(f"[{where}] arguments must fit {expected[expected.index('(') :]}") from None

    return call


def explain_arguments(kind: type, where: str, methods: Iterable[str]) -> None:
    """Makes methods of a class raise Error, not a TypeError of many lines, for arguments that do not fit."""
    for name in methods:
        label = where if name in ("__init__", "__call__") else f"{where}.{name}"
        setattr(kind, name, _explained(label, getattr(kind, name)))
