"""Steps of Ant a second, where their time goes, and what the environment adds to the bare simulator.

    python bench/walking.py

See bench/README.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_env import expand_model_path

import klopf as kl
from comparison.report import report
from comparison.summary import spread
from klopf.envs.needed import Batch, mujoco
from klopf.envs.vector import Ant, MujocoVectorEnv
from klopf.envs.worlds import World
from klopf.experiments.agents import AGENTS
from klopf.experiments.settings import option

METHODS = ("ppo", "continual-ppo")
PARTS = ("acting", "environment", "remembering", "learning")
BLOCK = 200  # steps of one block of the bare simulator


@dataclass(frozen=True)
class Settings:
    """Measure walking: table.md and results.json."""

    runs: tuple[int, ...] = option((8, 30), "how many runs in lockstep", minimum=1)
    buffers: int = option(4, "buffers that every run fills and learns from, after one to warm up", minimum=1)
    blocks: int = option(
        11, f"blocks of {BLOCK} steps, by turns of the environment and of it bare", minimum=1
    )
    threads: int = option(1, "threads", minimum=1)
    out: str | None = option(
        None, "folder of the results (default: bench/results/walking)", placeholder="FOLDER"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as `report` has it."""
    return report("walking.py", Settings, arguments, _measure, _table)


def _measure(settings: Settings) -> dict[str, Any]:
    kl.set_threads(settings.threads)
    return {
        "threads": settings.threads,
        "buffers": settings.buffers,
        "walks": [_walk(name, runs, settings) for runs in settings.runs for name in METHODS],
        "simulators": [_simulators(runs, settings) for runs in settings.runs],
    }


def _walk(name: str, runs: int, settings: Settings) -> dict[str, Any]:
    """Microseconds of a step of one run, by part, and steps a second."""
    world = World("Ant", range(runs), settings.threads)
    method = AGENTS.resolve(name, "authors", {})
    agent = method.build(world.observations, world.actions, world.discrete, range(runs))
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[part] += time.perf_counter() - start
        return result

    begin = 0.0
    for buffer in range(settings.buffers + 1):
        if buffer == 1:
            seconds.update(dict.fromkeys(PARTS, 0.0))
            begin = time.perf_counter()
        while not agent.full:
            actions = timed("acting", lambda: agent.act(world.now))
            happened = timed("environment", lambda: world.step(actions))  # noqa: B023
            timed("remembering", lambda: agent.observe(*happened))  # noqa: B023
        timed("learning", agent.learn)
    whole, steps = time.perf_counter() - begin, settings.buffers * method.buffer * runs
    world.close()
    return {
        "method": name,
        "runs": runs,
        "microseconds": {part: 1e6 * value / steps for part, value in seconds.items()},
        "steps_per_second": steps / whole,
        "steps_per_second_per_thread": steps / whole / settings.threads,
    }


def _simulators(runs: int, settings: Settings) -> dict[str, Any]:
    """The environment over `mujoco.batch` alone: the same states, controls, stages and threads."""
    envs = MujocoVectorEnv(Ant(), runs, threads=settings.threads)
    envs.reset(seed=0)
    bare = Batch(mujoco.MjModel.from_xml_path(expand_model_path(Ant.xml)), runs, settings.threads)
    control = bare.bind("ctrl")
    rng = np.random.default_rng(0)
    ratios, of_envs, of_bare = [], [], []
    for block in range(settings.blocks + 1):
        spent, alone = 0.0, 0.0
        for step in range(BLOCK):
            actions = rng.uniform(-1, 1, (runs, 8)).astype(np.float32)
            bare.state[:] = envs.simulators.state
            control[:] = actions
            for first in (step % 2, 1 - step % 2):  # who goes first alternates
                start = time.perf_counter()
                if first:
                    envs.step(actions)
                    spent += time.perf_counter() - start
                else:
                    bare.step(None, Ant.frames)
                    alone += time.perf_counter() - start
        if block:  # the first warms up
            ratios.append(spent / alone)
            of_envs.append(1e6 * spent / BLOCK / runs)
            of_bare.append(1e6 * alone / BLOCK / runs)
    return {
        "runs": runs,
        "ratios": ratios,
        "environment_microseconds": spread(of_envs).median,
        "bare_microseconds": spread(of_bare).median,
    }


def _table(about: dict[str, Any]) -> list[str]:
    lines = [
        "# Walking",
        "Default Ant, PPO as published (buffers of 2,048 steps, 160 minibatches of 128 each, two networks of "
        f"256-256), {about['threads']} thread{'s' if about['threads'] > 1 else ''}.",
        "",
        "| | runs | steps a second a thread | acting | environment | remembering | learning |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for walk in about["walks"]:
        parts = " | ".join(f"{walk['microseconds'][part]:.1f}" for part in PARTS)
        rate = f"{walk['steps_per_second_per_thread']:,.0f}"
        lines.append(f"| {walk['method']} | {walk['runs']} | {rate} | {parts} |")
    lines += [
        "",
        "Microseconds of one step of one run. The environment over MuJoCo's batch alone, from the same "
        "states with the same controls, median [quartiles] over blocks:",
        "",
        "| runs | ratio | environment | bare |",
        "|--:|--:|--:|--:|",
    ]
    for one in about["simulators"]:
        s = spread(one["ratios"])
        times = f"{one['environment_microseconds']:.1f} | {one['bare_microseconds']:.1f}"
        lines.append(f"| {one['runs']} | {s.median:.3f} [{s.lower:.3f}, {s.upper:.3f}] | {times} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
