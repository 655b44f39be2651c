"""What tests of experiments share: a tiny experiment, the command as a process, files to compare."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from klopf import checkpoint
from klopf.experiments.imagenet import MEASURED
from klopf.experiments.methods import IMAGE_METHODS
from klopf.experiments.results import Folder, Table

TINY_NETWORK = [
    *("--size", "8", "--classes", "6", "--train-images", "10", "--test-images", "6"),
    *("--channels", "4", "--kernels", "3", "--hidden", "6", "--probe-images", "20"),
]
TINY = [*TINY_NETWORK, "--tasks", "3", "--runs", "2", "--epochs", "2", "--batch-size", "5", "--quiet"]
REPLACING = ["--replacement-rate", "0.05", "--maturity", "2"]  # so that cbp replaces units within a few steps


def klopf(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m klopf` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "klopf", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def contents(folder: Path) -> dict[str, Any]:
    """All of a results folder that is to be the same whenever the experiment is: the timings are left out."""
    found: dict[str, Any] = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in ("timings.json", "checkpoint.safetensors")
    }
    arrays, about = checkpoint.read(folder / "checkpoint.safetensors")
    found["checkpoint"] = about, {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}
    return found


def made_up(
    path: Path,
    names: list[str],
    tasks: int,
    runs: int,
    *,
    every: int = 1,
    change: Callable[[np.ndarray], None] | None = None,
    **given: list[Any],
) -> Path:
    """A results folder with invented numbers.  change: what to do to the values [T, L, R, MEASURED] first."""
    described = [line.describe() for line in IMAGE_METHODS.lines(names, "authors", given)]
    values = np.random.default_rng(0).uniform(0.1, 0.9, size=(tasks, len(described), runs, len(MEASURED)))
    values[..., MEASURED.index("diverged")] = 0
    values[np.arange(tasks) % every > 0, ..., 2:6] = np.nan
    if change is not None:
        change(values)
    folder = Folder(path)
    seeds = list(range(runs))
    table = Table(MEASURED)
    folder.create({"settings": {}, "lines": described, "seeds": seeds, "table": table.describe()})
    folder.begin_results(table, described, seeds, list(values.reshape(-1, runs, len(MEASURED))))
    folder.close()
    return path
