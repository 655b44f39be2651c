"""The published curves, to lay over one's own; published.json names their source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def curves() -> dict[str, Any]:
    """The data file: accuracy in percent by task, one curve a method (backprop: one a step size)."""
    text = resources.files("klopf.experiments").joinpath("published.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


def published_curve(
    method: str, settings: Mapping[str, Any], *, first_tasks: bool = False
) -> dict[int, float]:
    """Accuracy in percent by task, of a method with these settings; empty where none was published.

    first_tasks: the curve of the first ten tasks, one point a task, where there is one.
    """
    name = f"bp_{settings['step_size']:g}" if method == "bp" else method
    if first_tasks and f"{name}_first_tasks" in curves():
        name += "_first_tasks"
    curve = curves().get(name, {})
    if not isinstance(curve, dict):
        return {}
    return dict(sorted((int(task), float(value)) for task, value in curve.items()))


def published_points(kind: str, method: str) -> list[tuple[float, float]]:
    """(step, value) of a method of `klopf ant`; nothing where none was published.

    kind: "ant_return", or "ant_dormant_percent".
    """
    return [(float(step), float(value)) for step, value in curves()[kind].get(method, {}).items()]
