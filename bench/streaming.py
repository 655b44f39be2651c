"""One act-and-learn step of the streaming actor-critic: klopf, PyTorch and JAX by turns, on one thread.

    python bench/streaming.py

See bench/README.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

import klopf as kl
from comparison.report import report
from comparison.summary import spread
from klopf.experiments.settings import option
from peers.streaming import INPUTS, STEPS, klopf_agent

SECONDS = 0.2  # about how long each takes its turn


@dataclass(frozen=True)
class Settings:
    """Measure a step of streaming agents: table.md and results.json."""

    rounds: int = option(11, "turns of each", minimum=1)
    out: str | None = option(
        None, "folder of the results (default: bench/results/streaming)", placeholder="FOLDER"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as `report` has it."""
    return report("streaming.py", Settings, arguments, _measure, _table)


def _measure(settings: Settings) -> dict[str, Any]:
    kl.set_threads(1)
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(500, INPUTS)), rng.normal(size=500)
    steps, missing = {}, []
    for name, make in STEPS.items():
        try:
            steps[name] = make()
        except ImportError:
            missing.append(name)
    if missing:
        print(f"streaming.py: not installed: {', '.join(missing)}", file=sys.stderr)

    def turn(name: str, count: int) -> float:
        start = time.perf_counter()
        for k in range(count):
            steps[name](observations[k % 500], rewards[k % 500], k % 100 == 99)
        return (time.perf_counter() - start) / count

    counts = {}
    for name in steps:
        turn(name, 100)  # compiles, and warms up
        counts[name] = max(20, int(SECONDS / turn(name, 50)))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(settings.rounds):
        for name in steps:
            found[name].append(1e6 * turn(name, counts[name]))
    return {
        "microseconds": found,
        "ratios": {
            name: [other / own for other, own in zip(found[name], found["klopf"], strict=True)]
            for name in steps
            if name != "klopf"
        },
        "klopf": {
            f"{'AdaptiveObGD' if adaptive else 'ObGD'}, {runs} run{'s' if runs > 1 else ''}": _agents(
                runs, adaptive, settings.rounds
            )
            for runs, adaptive in ((1, True), (30, False), (30, True))
        },
        "ant": _in_ant(settings.rounds),
    }


def _agents(runs: int, adaptive: bool, rounds: int) -> list[float]:
    """Microseconds of a step of each run."""
    agent = klopf_agent(runs, adaptive)
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(50, runs, INPUTS)), rng.normal(size=(50, runs))
    going = np.zeros(runs, bool)
    agent.begin(observations[0])
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for k in range(50):
            agent.step(observations[k], rewards[k], going, going)
        found.append(1e6 * (time.perf_counter() - start) / 50 / runs)
    return found


def _in_ant(rounds: int) -> dict[str, list[float]]:
    """Microseconds of a step and run, of eight agents in Ant: the simulators', and the agents'."""
    from klopf.envs.worlds import World
    from klopf.experiments.streams import STREAMS, Place

    runs = list(range(8))
    world = World("Ant", runs, threads=1)
    shape = (world.observations, world.actions, world.discrete)
    agent = STREAMS.resolve("ac", "authors", {}).build(Place(*shape, runs, 10**6, world.time_limit))
    actions = agent.begin(world.now)
    found: dict[str, list[float]] = {"the simulators": [], "the agents": []}
    for _ in range(rounds):
        spent = [0.0, 0.0]
        for _ in range(100):
            begin = time.perf_counter()
            rewards, terminated, truncated, final = world.step(world.clipped(actions))
            between = time.perf_counter()
            actions = agent.step(world.now, rewards, terminated, truncated, final)
            spent[0] += between - begin
            spent[1] += time.perf_counter() - between
        for name, seconds in zip(found, spent, strict=True):
            found[name].append(1e6 * seconds / 100 / len(runs))
    world.close()
    return found


def _table(about: dict[str, Any]) -> list[str]:
    found, ratios = about["microseconds"], about["ratios"]
    rows = [
        f"| {name} | {_spread(values)} | {_spread(ratios[name]) if name in ratios else ''} |"
        for name, values in found.items()
    ]
    ant = [f"| {name} | {_spread(values)} |" for name, values in about["ant"].items()]
    own = [f"| klopf, {name} | {_spread(values)} | |" for name, values in about["klopf"].items()]
    return [
        "# A step of the streaming actor-critic",
        "105 observations, two layers of 128 units, 8 actions, ObGD; acting and learning, one thread.",
        "",
        "| | microseconds of a step and run | times klopf |",
        "|---|--:|--:|",
        *rows,
        *own,
        "",
        "With the simulator in the loop, eight runs of Ant, observations and rewards scaled:",
        "",
        "| | microseconds of a step and run |",
        "|---|--:|",
        *ant,
        "",
        "Medians [quartiles].",
    ]


def _spread(values: Sequence[float]) -> str:
    s = spread(values)
    return f"{s.median:.3g} [{s.lower:.3g}, {s.upper:.3g}]"


if __name__ == "__main__":
    sys.exit(main())
