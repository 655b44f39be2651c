"""`klopf demo`: the loss of plasticity in two minutes, on built-in images.

The same experiment as `klopf imagenet`, with the settings of `PRESET`: small images, a small network, short
tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf.experiments import imagenet
from klopf.experiments.lines import Line
from klopf.experiments.methods import IMAGE_METHODS
from klopf.experiments.place import Where
from klopf.experiments.results import FIGURE, LineResults, read_results
from klopf.experiments.session import carry_out
from klopf.experiments.settings import Parser, option
from klopf.experiments.statistics import bootstrap_interval, mean
from klopf.experiments.tables import aligned

PRESET: dict[str, Any] = {
    # The stream and the network.
    "size": 16,
    "classes": 1000,
    "tasks": 180,
    "epochs": 15,
    "batch_size": 20,
    "train_images": 60,
    "test_images": 60,
    "channels": [8, 16],
    "kernels": [5, 3],
    "hidden": [32],
    # What is measured.
    "metrics_every": 5,
    "probe_images": 500,
}

# How these numbers were chosen, and what else was tried: docs/demo.md.
EVERY_METHOD: dict[str, Any] = {"step_size": 0.0125, "momentum": 0.9, "init": "xavier"}
METHODS: dict[str, dict[str, Any]] = {
    "bp": {},
    "l2": {"weight_decay": 1e-3},
    "snp": {"weight_decay": 1e-3, "noise": 3e-4},
    "cbp": {"replacement_rate": 1e-2, "utility": "contribution"},
    "scratch": {},
}


@dataclass(frozen=True)
class Settings:
    """See backprop lose plasticity, and continual backprop keep it, in two minutes."""

    runs: int = option(12, "independent runs of each method", minimum=2)
    seed: int = option(300, "seed of the first run; the others count on from it", minimum=0)
    threads: int = option(0, "threads; 0: KLOPF_NUM_THREADS, or one a core", minimum=0)
    quiet: bool = option(False, "show no progress")


def command(arguments: Sequence[str]) -> None:
    """`klopf demo`."""
    parser = Parser("klopf demo", Settings.__doc__ or "")
    parser.add_settings(Where)
    parser.add_settings(Settings)
    given = parser.parse(arguments)
    path = carry_out("demo", given, arguments, _plan, imagenet.Plan.read)
    print(table(read_results(path)))
    print(f"figure: {Path(path) / FIGURE}.png")


def _plan(given: Mapping[str, Any], command: Sequence[str]) -> imagenet.Plan:
    options = {**PRESET, **dataclasses.asdict(Settings(**given))}
    lines = [
        Line(name, IMAGE_METHODS.resolve(name, "paper", {**EVERY_METHOD, **own}), {})
        for name, own in METHODS.items()
    ]
    return imagenet.plan(options, command, lines)


def table(lines: Sequence[LineResults]) -> str:
    """Each method's accuracy early and late in the stream, with paired 95% bootstrap intervals over runs.

    Early is the second tenth of the stream, when what earlier tasks taught has begun to help; late is the
    last tenth.
    """
    tasks = lines[0].values["accuracy"].shape[1]
    tenth = max(tasks // 10, 1)
    early, late = slice(tenth, 2 * tenth), slice(tasks - tenth, tasks)
    means = {line.label: (_mean(line, early), _mean(line, late)) for line in lines}
    scratch = next((means[line.label][1] for line in lines if line.method == "scratch"), None)
    rows = [
        [
            "accuracy (%)",
            f"tasks {early.start + 1}-{early.stop}",
            f"tasks {late.start + 1}-{late.stop}",
            "change",
            "late, against scratch",
        ]
    ]
    for label, (before, after) in means.items():
        against = "" if scratch is None or after is scratch else _with_interval(after - scratch)
        rows.append(
            [label, f"{mean(before):.1f}", f"{mean(after):.1f}", _with_interval(after - before), against]
        )
    runs = len(scratch) if scratch is not None else lines[0].values["accuracy"].shape[0]
    return f"{aligned(rows)}\nmean of {runs} runs; in brackets: paired 95% bootstrap intervals over runs"


def _mean(line: LineResults, tasks: slice) -> NDArray[np.float64]:
    """Mean accuracy in percent of each run over some tasks [R]."""
    return 100 * mean(line.values["accuracy"][:, tasks], axis=1)


def _with_interval(differences: NDArray[np.float64]) -> str:
    centre, low, high, _ = bootstrap_interval(differences)
    return f"{centre:+.1f} [{low:+.1f}, {high:+.1f}]"
