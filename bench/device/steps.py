"""Whole training steps of the published network, continual backprop, at several numbers of runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import klopf as kl
from device.child import Row, collect
from device.clock import seconds_of_one
from device.settings import About, Measured, Settings
from peers.cases import CASES
from peers.klopf_peer import LAYERS

CAP = 60.0  # seconds
CASE = CASES["imagenet"]
SAMPLES = 1200  # as a task of the published stream has


def measure(settings: Settings, seconds: float) -> Measured:
    found, why = collect(
        rows, seconds, settings.device, settings.precision, settings.runs, settings.seconds, SAMPLES
    )
    return found, [f"steps: {why}"] if why else []


def rows(
    device: str, precisions: tuple[str, ...], runs: tuple[int, ...], seconds: float, samples: int
) -> Iterator[Row]:
    """One row for each precision and number of runs."""
    for precision in reversed(precisions):
        for count in runs:
            took = step_seconds(device, precision, count, seconds, samples)
            yield {"name": "klopf cbp", "precision": precision, "runs": count, "seconds": took}


def step_seconds(device: str, precision: str, runs: int, seconds: float, samples: int) -> float:
    """Of a step of all runs: as `Learner.run` takes them, with images of each run's own and shuffling."""
    layers = [LAYERS[kind](*numbers) for kind, *numbers in CASE.networks["net"]]
    net = kl.Network(layers, CASE.input_shape, runs=runs, device=device, precision=precision)
    optimizer = kl.SGD(step_size=CASE.step_size, momentum=CASE.momentum)
    learner = kl.Learner(net, loss=CASE.loss, optimizer=optimizer, rules=[kl.ContinualBackprop(**CASE.cbp)])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (runs, samples, *CASE.input_shape), dtype=np.uint8)
    y = rng.integers(0, 2, (runs, samples))

    def epochs(count: int) -> None:
        learner.run(x, y, batch_size=CASE.batch, epochs=count, scale=1 / 255, offset=-0.5)

    took = seconds_of_one(epochs, seconds) / -(-samples // CASE.batch)
    if not learner.alive.all():
        raise kl.Error("a run diverged: its steps are not whole ones")
    return took


def table(about: About) -> list[str]:
    """Those of PyTorch, which are backprop alone, in the same table."""
    lines = [
        "## Steps\n",
        f"{CASE.title}. klopf: `Learner.run`, images per run, shuffled. "
        "PyTorch: backprop alone, batches on the device.\n",
        "| | precision | runs | ms a step of all runs | ms a run |",
        "|---|---|--:|--:|--:|",
    ]
    for row in about.get("steps", []) + about.get("torch", {}).get("rows", []):
        ms = 1e3 * row["seconds"]
        cells = [row["name"], row["precision"], str(row["runs"]), f"{ms:.3g}", f"{ms / row['runs']:.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
