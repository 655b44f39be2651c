"""What an example costs under each scope of step sizes, and under each piece of a decentralised network.

One thread, one example at a time; all lines by turns, so that what else the machine does strikes each alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import klopf as kl

INPUTS, HIDDEN, RUNS, EXAMPLES, ROUNDS = 20, 48, 10, 4000, 15
SCOPES = ("network", "layer", "unit", "weight")


def _autostep(scope: str = "unit") -> Any:
    bound = "unit" if scope == "weight" else scope
    return kl.Autostep(
        step_size=0.01,
        meta_step_size=0.1,
        minimum_step_size=0.001,
        maximum_step_size=0.1,
        output_step_size=0.005,
        weight_decay=3e-4,
        scope=scope,
        bound=bound,
    )


def lines() -> dict[str, Callable[[], tuple[Any, list[Any]]]]:
    """Optimizer and rules of each line, by name; the first is what others are compared with."""
    listened = kl.Goal("listened", units="fringe")
    by_reward = kl.Goal("listened", by="perturbation", units="fringe")
    return {
        "bp": lambda: (kl.SGD(step_size=0.005), []),
        "cbp": lambda: (kl.SGD(step_size=0.005), [kl.ContinualBackprop()]),
        **{f"autostep, {scope}": lambda scope=scope: (_autostep(scope), []) for scope in SCOPES},
        "decentralised": lambda: (_autostep(), [kl.Recruitment()]),
        "listened, gradient": lambda: (_autostep(), [kl.Recruitment(), listened]),
        "listened, perturbation": lambda: (_autostep(), [kl.Recruitment(), by_reward]),
        "fringe by gradient alone": lambda: (
            _autostep(),
            [kl.Recruitment(backprop_in_fringe=False), listened],
        ),
        "fringe by reward alone": lambda: (
            _autostep(),
            [kl.Recruitment(backprop_in_fringe=False), by_reward],
        ),
        "active": lambda: (_autostep(), [kl.Recruitment(), kl.Goal("active")]),
        "unlike peers": lambda: (_autostep(), [kl.Recruitment(), kl.Goal("decorrelated")]),
    }


def cost() -> Iterator[str]:
    """A table in Markdown: microseconds an example and run, and how many times those of the first line."""
    kl.set_threads(1)
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(RUNS, EXAMPLES, INPUTS)).astype(np.float32)
    y = np.sign(x[..., :7].sum(axis=2, keepdims=True)).astype(np.float32)
    learners = {}
    for name, make in lines().items():
        optimizer, rules = make()
        net = kl.Network([kl.Linear(HIDDEN), kl.ReLU(), kl.Linear(1)], (INPUTS,), runs=RUNS)
        learners[name] = kl.Learner(net, loss="squared_error", optimizer=optimizer, rules=rules)
    took: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(ROUNDS + 1):  # the first warms up
        for name, learner in learners.items():
            begin = time.perf_counter()
            learner.run(x, y, batch_size=1, epochs=1, shuffle=False)
            took[name].append((time.perf_counter() - begin) / (RUNS * EXAMPLES) * 1e6)
    times = np.array(list(took.values()))[:, 1:]
    ratios = times / times[0]
    yield "| | µs an example, the least | times bp, median | middle half of the rounds |"
    yield "|---|--:|--:|--:|"
    for name, own, ratio in zip(took, times, ratios, strict=True):
        low, middle, high = np.percentile(ratio, (25, 50, 75))
        yield f"| {name} | {own.min():.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |"
