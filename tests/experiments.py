"""What tests of experiments share: a tiny experiment, the command as a process, files to compare."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from klopf import checkpoint as checkpoints
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
        if path.is_file() and path.name not in ("timings.json", "checkpoint.safetensors")
    }
    arrays, about = checkpoints.read(folder / "checkpoint.safetensors")
    found["checkpoint"] = about, {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}
    return found


def killed_and_resumed(words: list[str], folder: Path) -> None:
    """An experiment killed again and again, each time a moment after a checkpoint, ends with the bytes of one
    that was not.

    words: its command, which writes into `out` and checkpoints often.
    """
    assert klopf(*words, cwd=folder).communicate(timeout=120)[1] == ""
    expected = contents(folder / "out")
    (folder / "out").rename(folder / "whole")
    draw, checkpoint = random.Random(str(words)), folder / "out/checkpoint.safetensors"
    process, kills = klopf(*words, cwd=folder), 0
    for _ in range(3):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.communicate()
        kills += process.returncode != 0
        process = klopf(words[0], "--resume", "out", cwd=folder)
    assert process.communicate(timeout=120)[1] == ""
    assert kills > 0
    assert contents(folder / "out") == expected


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
