"""How much of a reward's gradient perturbations find: fresh ones or held, with and without momentum.

python bench/perturbation.py   # a few minutes
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import recall

HIDDEN, RUNS, EXAMPLES = 48, 8, 5000
Values = NDArray[np.float64]


def learner(seeds: list[int], momentum: float, noise: float, hold: int) -> kl.Learner:
    """A network with a new head, whose units are perturbed and do not move for it."""
    net = kl.Network([kl.Linear(HIDDEN), kl.ReLU(), kl.Linear(1)], (20,), runs=len(seeds), seeds=seeds)
    net.reset([-1], to="zero")
    optimizer = kl.SGD(step_size=0.005 * (1 - momentum), momentum=momentum)
    goal = kl.Goal("listened", by="perturbation", step_size=0.0, noise=noise, hold=hold)
    return kl.Learner(net, loss="mse", optimizer=optimizer, rules=[goal])


def slowly(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Inputs of which each changes its sign every fifty examples or so."""
    signs = np.where(rng.random(x.shape) < 0.02, -1, 1).astype(np.float32)
    return np.asarray(x[:1] * np.cumprod(signs, axis=0))


def cosines(seeds: list[int], batch: int, slow: bool, **options: Any) -> Values:
    """Of each unit [R, U]: reward times perturbation, summed up, and the gradient, likewise."""
    made = learner(seeds, **options)
    settings = recall.Settings(tasks=1)
    draws = [np.random.default_rng(seed) for seed in seeds]
    x = np.stack([rng.choice([-1.0, 1.0], (EXAMPLES * batch, 20)) for rng in draws]).astype(np.float32)
    if slow:
        x = np.stack([slowly(rows, rng) for rows, rng in zip(x, draws, strict=True)])
    y = np.stack([recall.World(settings, seed).target(0, rows) for seed, rows in zip(seeds, x, strict=True)])
    units = made.net.units[0]
    estimate = np.zeros((len(seeds), HIDDEN, 21))
    gradient = np.zeros_like(estimate)
    for first in range(0, EXAMPLES * batch, batch):
        now, wanted = x[:, first : first + batch], y[:, first : first + batch]
        xi = made.state()["Goal.0.perturbation"]
        error = wanted - made.net(now)
        on = made.net.activities(now)[0] > 0
        made.step(now, wanted)
        reward = made.state()["Goal.0.reward"].astype(np.float64)
        estimate += (reward - reward.mean(axis=1, keepdims=True))[:, :, None] * xi
        inputs = np.concatenate([now, np.ones((*now.shape[:2], 1), np.float32)], axis=2)
        deviation = np.sqrt(np.maximum(made.state()["Goal.0.variance"], 1e-12))
        gradient += (np.sign(units.outgoing[:, :, 0]) / deviation)[:, :, None] * np.einsum(
            "rb,rbu,rbi->rui", error[:, :, 0], on, inputs
        )
    norms = np.linalg.norm(estimate, axis=2) * np.linalg.norm(gradient, axis=2)
    return np.asarray((estimate * gradient).sum(axis=2) / np.maximum(norms, 1e-30))


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    seeds = list(range(1000, 1000 + parser.parse_args().runs))
    lines: list[tuple[float, bool, int, float]] = [
        *((noise, False, 1, 0.0) for noise in (0.03, 0.1, 0.3, 1.0)),
        *((0.3, slow, batch, momentum) for slow, batch, momentum in ((True, 1, 0.0), (False, 10, 0.0))),
        (0.3, False, 1, 0.9),
    ]
    for noise, slow, batch, momentum in lines:
        found = []
        for hold in (1, 4, 16, 64):
            each = cosines(seeds, batch, slow, noise=noise, momentum=momentum, hold=hold).mean(axis=1)
            found.append(f"{each.mean():.3f} +- {each.std(ddof=1) / len(seeds) ** 0.5:.3f}")
        kind = f"noise {noise}, batch {batch}, momentum {momentum}{', slow inputs' if slow else ''}"
        print(f"{kind}: {', '.join(found)} held for 1, 4, 16, 64 updates", flush=True)


if __name__ == "__main__":
    main()
