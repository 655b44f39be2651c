"""The command line of gpu.py, and what parts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klopf.experiments.settings import option

PARTS = ("steps", "operations", "tasks", "agreement", "torch")  # what takes longest comes last

About = dict[str, Any]  # what results.json holds
Measured = tuple[Any, list[str]]  # what was found, and what could not be measured, with the reason


@dataclass(frozen=True)
class Settings:
    """Measure klopf on a GPU, and PyTorch where it is installed: table.md and results.json."""

    parts: tuple[str, ...] = option(PARTS, "what to measure", choices=PARTS)
    device: str = option("cuda", "where klopf's networks live")
    precision: tuple[str, ...] = option(
        ("float32", "tf32"), "of klopf's dense products", choices=("float32", "tf32")
    )
    runs: tuple[int, ...] = option((1, 8, 30, 64, 128), "steps: numbers of runs in lockstep", minimum=1)
    many: int = option(30, "runs of everything else", minimum=2)
    seconds: float = option(1.0, "about how long each step is timed", above=0)
    operations: str | None = option(
        None, "the program klopf-operations (default: that on PATH)", placeholder="FILE"
    )
    tasks: int = option(3, "published tasks that are timed", minimum=1)
    epochs: int = option(250, "their epochs", minimum=1)
    compared: int = option(100, "short tasks on which CPU and device are compared", minimum=2)
    limit: float = option(420.0, "seconds that all parts together may take", above=0)
    out: str | None = option(None, "folder of the results (default: bench/results/gpu)", placeholder="FOLDER")
