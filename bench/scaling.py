"""What more costs: continual backprop over backprop, more runs, more threads. klopf against itself.

    python bench/scaling.py

See bench/README.md.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import klopf as kl
from comparison.report import report
from comparison.summary import Spread, digits, spread
from klopf.experiments.settings import option
from peers.cases import CASES, make_data, weights_of
from peers.klopf_peer import LAYERS

CASE = CASES["imagenet"]
STEPS = 4  # of a block, for each run


@dataclass(frozen=True)
class Settings:
    """Measure what more runs, threads and continual backprop cost: table.md and results.json."""

    pairs: int = option(40, "pairs of blocks, taken in turns", minimum=1)
    runs: int = option(30, "how many runs are many", minimum=2)
    out: str | None = option(
        None, "folder of the results (default: bench/results/scaling)", placeholder="FOLDER"
    )


@dataclass(frozen=True)
class Result:
    """One claim: a ratio of times for each pair of blocks."""

    title: str
    ratios: list[float]
    seconds: tuple[float, float]  # medians of a step, numerator and denominator

    @property
    def spread(self) -> Spread:
        return spread(self.ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as `report` has it."""
    return report("scaling.py", Settings, arguments, _measured, _table)


def _measured(settings: Settings) -> dict[str, Any]:
    if len(os.sched_getaffinity(0)) < 2:
        raise kl.Error("expected at least 2 cores, got 1")
    megabytes, results = _measure(settings)
    return {
        "runs": settings.runs,
        "memory_mb": megabytes,
        "results": [dataclasses.asdict(result) for result in results],
    }


def _measure(settings: Settings) -> tuple[float, list[Result]]:
    data = make_data(CASE)
    x, y = data["x"][:STEPS].reshape(-1, *CASE.input_shape), data["net.y"][:STEPS].reshape(-1)

    def block(runs: int, threads: int, rules: Sequence[Any]) -> Callable[[], None]:
        layers = [LAYERS[kind](*numbers) for kind, *numbers in CASE.networks["net"]]
        net = kl.Network(layers, CASE.input_shape, runs=runs)
        weights = {name: value[None] for name, value in weights_of(data, "net").items()}
        net.load_state_dict({name: value.repeat(runs, axis=0) for name, value in weights.items()})
        optimizer = kl.SGD(step_size=CASE.step_size, momentum=CASE.momentum)
        learner = kl.Learner(net, loss=CASE.loss, optimizer=optimizer, rules=list(rules))

        def work() -> None:
            kl.set_threads(threads)
            learner.run(x, y, batch_size=CASE.batch, shuffle=False)

        work()
        return work

    cbp = [kl.ContinualBackprop(**CASE.cbp)]
    before = _resident()
    many = block(settings.runs, 2, cbp)
    megabytes = (_resident() - before) / 1e6
    one, backprop, two = block(1, 1, cbp), block(1, 1, []), block(2, 2, cbp)
    shared, many_on_one = block(1, 2, cbp), block(settings.runs, 1, cbp)
    cpu, wall = time.process_time, time.perf_counter
    few = max(3, settings.pairs // 5)  # blocks of many runs are long
    return megabytes, [
        _pairs("continual backprop over backprop, CPU time", one, backprop, cpu, settings.pairs),
        _pairs("2 runs on 2 threads over 1 run on 1 thread", two, one, wall, settings.pairs),
        _pairs("1 run on 2 threads over 1 run on 1 thread", shared, one, wall, settings.pairs),
        _pairs(
            f"{settings.runs} runs over 1 run, a run, 1 thread", many_on_one, one, wall, few, settings.runs
        ),
        _pairs(f"{settings.runs} runs on 2 threads over 1 thread", many, many_on_one, wall, few),
    ]


def _pairs(
    title: str,
    first: Callable[[], None],
    second: Callable[[], None],
    clock: Callable[[], float],
    count: int,
    runs: int = 1,
) -> Result:
    """Ratios of the first's time, divided by `runs`, over the second's; which goes first alternates."""
    times: dict[Callable[[], None], list[float]] = {first: [], second: []}
    for pair in range(count):
        for work in (first, second) if pair % 2 else (second, first):
            start = clock()
            work()
            times[work].append((clock() - start) / STEPS)
    ratios = [a / runs / b for a, b in zip(times[first], times[second], strict=True)]
    return Result(title, ratios, (spread(times[first]).median, spread(times[second]).median))


def _resident() -> int:
    """Bytes of memory this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _table(about: dict[str, Any]) -> list[str]:
    lines = [
        "# What more costs",
        f"{CASE.title}. Ratio of times, median [quartiles] over pairs of blocks; ms a step of all runs.",
        "",
        "| | ratio | ms | ms | pairs |",
        "|---|--:|--:|--:|--:|",
    ]
    for result in (Result(**one) for one in about["results"]):
        s, (a, b) = result.spread, result.seconds
        ratio = f"{s.median:.3f} [{s.lower:.3f}, {s.upper:.3f}]"
        lines.append(
            f"| {result.title} | {ratio} | {digits(1e3 * a)} | {digits(1e3 * b)} | {len(result.ratios)} |"
        )
    return [
        *lines,
        "",
        f"{about['runs']} runs of continual backprop on 2 threads take {about['memory_mb']:.0f} MB "
        "beside the data.",
    ]


if __name__ == "__main__":
    sys.exit(main())
