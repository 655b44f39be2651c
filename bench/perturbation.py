"""How much of a reward's gradient perturbations find: fresh, held or traced, with and without momentum.

python bench/perturbation.py   # a few minutes
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import recall

HIDDEN, RUNS, EXAMPLES = 48, 40, 5000
Values = NDArray[np.float64]


def learner(seeds: list[int], momentum: float, noise: float, hold: int, trace: float) -> kl.Learner:
    """A network with a new head, whose units are perturbed and do not move for their reward."""
    net = kl.Network([kl.Linear(HIDDEN), kl.ReLU(), kl.Linear(1)], (20,), runs=len(seeds), seeds=seeds)
    net.reset([-1], to="zero")
    optimizer = kl.SGD(step_size=0.005 * (1 - momentum), momentum=momentum)
    goal = kl.Goal("listened", by="perturbation", step_size=0.0, noise=noise, hold=hold, trace_decay=trace)
    return kl.Learner(net, loss="mse", optimizer=optimizer, rules=[goal])


def slowly(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Inputs of which each changes its sign every fifty examples or so."""
    signs = np.where(rng.random(x.shape) < 0.02, -1, 1).astype(np.float32)
    return np.asarray(x[:1] * np.cumprod(signs, axis=0))


def cosines(seeds: list[int], batch: int, slow: bool, **options: Any) -> Values:
    """Of each unit [R, U]: advantages times traces, summed up, and the gradient of the reward."""
    made = learner(seeds, **options)
    settings = recall.Settings(tasks=1)
    draws = [np.random.default_rng(seed) for seed in seeds]
    x = np.stack([rng.choice([-1.0, 1.0], (EXAMPLES * batch, 20)) for rng in draws]).astype(np.float32)
    if slow:
        x = np.stack([slowly(rows, rng) for rows, rng in zip(x, draws, strict=True)])
    y = np.stack([recall.World(settings, seed).target(0, rows) for seed, rows in zip(seeds, x, strict=True)])
    units = made.net.units[0]
    own = units.incoming.copy(), units.bias.copy()  # backprop moves them, and they are put back
    estimate = np.zeros((len(seeds), HIDDEN, 21))
    gradient = np.zeros_like(estimate)
    for first in range(0, EXAMPLES * batch, batch):
        now, wanted = x[:, first : first + batch], y[:, first : first + batch]
        before = made.state()
        error = wanted - made.net(now)
        on = made.net.activities(now)[0] > 0
        made.step(now, wanted)
        state = made.state()
        drawn = state["Goal.0.scale"][:, :, None] * state["Goal.0.perturbation"]
        units.incoming, units.bias = own[0] + drawn[:, :, :-1], own[1] + drawn[:, :, -1]
        reward = state["Goal.0.reward"].astype(np.float64)
        more = reward - reward.mean(axis=1, keepdims=True) - before["Goal.0.baseline"]
        advantage = more / np.sqrt(np.maximum(state["Goal.0.square"], 1e-30))
        estimate += advantage[:, :, None] * state["Goal.0.trace"]
        inputs = np.concatenate([now, np.ones((*now.shape[:2], 1), np.float32)], axis=2)
        gradient += np.einsum(
            "ru,rb,rbu,rbi->rui", np.sign(units.outgoing[:, :, 0]), error[:, :, 0], on, inputs
        )
    norms = np.linalg.norm(estimate, axis=2) * np.linalg.norm(gradient, axis=2)
    return np.asarray((estimate * gradient).sum(axis=2) / np.maximum(norms, 1e-30))


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    seeds = list(range(1000, 1000 + parser.parse_args().runs))
    lines = [
        *((noise, False, 1, 0.0) for noise in (0.03, 0.1, 0.3, 1.0)),
        *((0.3, slow, batch, 0.0) for slow, batch in ((True, 1), (False, 10))),
        (0.3, False, 1, 0.9),
    ]
    for noise, slow, batch, momentum in lines:
        kind = f"noise {noise}, batch {batch}, momentum {momentum}{', slow inputs' if slow else ''}"
        options = {"noise": noise, "momentum": momentum}
        fresh, held, traced = (
            cosines(seeds, batch, slow, hold=hold, trace=trace, **options).mean(axis=1)
            for hold, trace in ((1, 0.0), (16, 0.0), (1, 0.9))
        )
        more = f"held for 16 updates {told(held - fresh)}, with a trace {told(traced - fresh)} more"
        print(f"{kind}: {told(fresh)}, {more}", flush=True)


def told(values: Values) -> str:
    """A mean of runs and its standard error."""
    return f"{values.mean():+.3f} +- {values.std(ddof=1) / len(values) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
