"""What the goal to be active does to backprop: dormant units and error on slowly changing regression.

python bench/goals.py   # about half a minute
"""

from __future__ import annotations

import numpy as np

import klopf as kl
from klopf import metrics
from klopf.experiments import regression

EXAMPLES, EVERY, RUNS, HIDDEN = 400_000, 20_000, 10, 20


def learner(seeds: list[int], step_size: float, goal_step_size: float) -> kl.Learner:
    """Backprop, with the goal where its step size is above zero."""
    net = kl.Network([kl.Linear(HIDDEN), kl.ReLU(), kl.Linear(1)], (20,), runs=RUNS, seeds=seeds)
    rules = [kl.Goal("active", share=0.1, step_size=goal_step_size)] if goal_step_size else []
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=step_size), rules=rules)


def main() -> None:
    """Print a line for each pair of step sizes, over the second half of the examples."""
    plan = regression.plan({"method": ["bp"], "examples": EXAMPLES, "runs": RUNS, "seed": 1000}, [])
    stream = plan.stream()
    settings = [(step, goal) for step in (0.003, 0.001) for goal in (0.0, 1e-4, 1e-3, 1e-2)]
    learners = [learner(plan.seeds, *one) for one in settings]
    errors: list[list[np.ndarray]] = [[] for _ in settings]
    dormant: list[list[np.ndarray]] = [[] for _ in settings]
    for first in range(0, EXAMPLES, EVERY):
        x, y = stream.examples(first, EVERY)
        for index, made in enumerate(learners):
            errors[index].append(made.run(x, y, batch_size=1, epochs=1, shuffle=False).loss[:, 0])
            dormant[index].append(metrics.dormant_rate(made.net.activities(x[:, -5000:])))
    late = EXAMPLES // EVERY // 2
    for (step, goal), error, rate in zip(settings, errors, dormant, strict=True):
        mean = np.mean(error[late:], axis=0)
        print(
            f"step size {step}, goal {goal:g}: "
            f"error {mean.mean():.3g} +- {mean.std(ddof=1) / RUNS**0.5:.2g}, "
            f"dormant {100 * np.mean(rate[late:]):.1f}%, most {100 * np.max(rate[late:]):.0f}%"
        )


if __name__ == "__main__":
    main()
