"""One series: all formulations of a case on so many threads, in alternating blocks of the same duration.

Each formulation lives in a process of its own for the whole series; while one runs, the others sleep.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from peers.cases import Case, Formulation, make_data
from peers.protocol import Worker, WorkerError

CHECKED = 5  # first steps whose losses are compared
TOLERANCE = 1e-3  # relative
PAUSE = 0.02  # seconds in which threads that still spin after a block fall asleep


@dataclass
class Measured:
    """Blocks of one formulation, one a round.  wall, cpu: seconds a block of `steps` steps takes.

    first_losses: of the first steps.  losses: late in each block.
    """

    name: str
    library: str
    version: str
    against: str
    steps: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    first_losses: list[float] = field(default_factory=list)


@dataclass
class Series:
    """All that was measured of a case on so many threads."""

    case: str
    title: str
    threads: int
    formulations: list[Measured]


def measure(
    case: Case,
    formulations: Sequence[Formulation],
    threads: int,
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Series:
    """Start the workers, check that they compute the same, and time them.

    seconds: what a block should take.  say: told what is going on.
    Raises WorkerError where a formulation fails or computes something else than klopf.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        data = Path(folder) / "data.npz"
        np.savez(data, **make_data(case))
        blocks: list[tuple[Worker, Measured]] = []
        for formulation in formulations:
            say(f"{formulation.name} starts")
            worker = stack.enter_context(closing(Worker(case, formulation, threads, data)))
            one = Measured(formulation.name, formulation.library, worker.version, formulation.against)
            one.first_losses = worker.losses(CHECKED)
            check_losses(one, blocks[0][1] if blocks else one)
            one.steps = _calibrated(worker, seconds)
            blocks.append((worker, one))
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for index in order(len(blocks), number):
                time.sleep(PAUSE)
                _block(*blocks[index])
    return Series(case.name, case.title, threads, [one for _, one in blocks])


def order(count: int, number: int) -> list[int]:
    """Who runs when in round `number`: the order rotates, and each one is also walked backwards."""
    rotated = [(number // 2 + position) % count for position in range(count)]
    return rotated[::-1] if number % 2 else rotated


def check_losses(measured: Measured, reference: Measured) -> None:
    """Raises WorkerError where the first losses differ from those of the reference, or are not finite."""
    pairs = zip(measured.first_losses, reference.first_losses, strict=True)
    for step, (loss, expected) in enumerate(pairs, start=1):
        if not abs(loss - expected) <= TOLERANCE * abs(expected):
            raise WorkerError(
                f"{measured.name} computes something else than {reference.name}: "
                f"loss {loss:.6g} in step {step}, expected {expected:.6g}"
            )


def _calibrated(worker: Worker, seconds: float) -> int:
    """Steps that take about `seconds`, a multiple of the worker's unit."""
    worker.run(worker.unit)  # compiles what is compiled, touches all memory
    units = 1
    while (wall := worker.run(units * worker.unit)["wall"]) < seconds / 4:
        units = 2 * units if wall <= 0 else math.ceil(units * min(10.0, seconds / 2 / wall))
    return max(1, round(units * seconds / wall)) * worker.unit


def _block(worker: Worker, measured: Measured) -> None:
    warm = max(1, measured.steps // worker.unit // 20) * worker.unit
    block = worker.run(measured.steps, warm)
    if not math.isfinite(block["loss"]):
        raise WorkerError(f"{measured.name} diverged: its loss is {block['loss']}")
    measured.wall.append(block["wall"])
    measured.cpu.append(block["cpu"])
    measured.losses.append(block["loss"])
