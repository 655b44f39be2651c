"""klopf: one run, by one call of Python a step ("step") or by one call for many ("run")."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import numpy as np

import klopf as kl
from peers.cases import Array, Case, Data, Layer, weights_of

LAYERS = {
    "conv": kl.Conv2d,
    "linear": kl.Linear,
    "pool": kl.MaxPool2d,
    "relu": kl.ReLU,
    "flatten": kl.Flatten,
}


def build(case: Case, how: tuple[str, ...], data: Data, threads: int) -> Steps | Run:
    """threads: comes from the environment."""
    rules = [kl.ContinualBackprop(**case.cbp)] if "cbp" in how else []
    learners = [
        _learner(case, layers, weights_of(data, name), rules) for name, layers in case.networks.items()
    ]
    targets = [data[f"{name}.y"] for name in case.networks]
    if "run" in how:
        return Run(learners[0], data["x"], targets[0])
    return Steps(learners, data["x"], targets)


def _learner(
    case: Case, layers: tuple[Layer, ...], weights: dict[str, Array], rules: list[Any]
) -> kl.Learner:
    net = kl.Network([LAYERS[kind](*numbers) for kind, *numbers in layers], case.input_shape)
    net.load_state_dict({name: value[None] for name, value in weights.items()})  # the axis of runs
    if case.optimizer == "adam":
        optimizer: kl.Adam | kl.SGD = kl.Adam(step_size=case.step_size)
    else:
        optimizer = kl.SGD(step_size=case.step_size, momentum=case.momentum)
    return kl.Learner(net, loss=case.loss, optimizer=optimizer, rules=rules)


class Steps:
    """`learner.step` on one batch after the other."""

    version = kl.__version__
    unit = 1

    def __init__(self, learners: list[kl.Learner], x: Array, targets: list[Array]) -> None:
        self._learners = len(learners)
        steps = [learner.step for learner in learners]
        self._calls = cycle(
            [
                (step, batch, y)
                for batch, ys in zip(x, zip(*targets, strict=True), strict=True)
                for step, y in zip(steps, ys, strict=True)
            ]
        )

    def losses(self, count: int) -> list[float]:
        return [sum(self._call(1) for _ in range(self._learners)) for _ in range(count)]

    def run(self, steps: int) -> float:
        return self._call(steps * self._learners)

    def _call(self, calls: int) -> float:
        out = None
        for step, x, y in islice(self._calls, calls):
            out = step(x, y)
        return float("nan") if out is None else float(out.loss[0])


class Run:
    """`learner.run` over all data as often as asked."""

    version = kl.__version__

    def __init__(self, learner: kl.Learner, x: Array, y: Array) -> None:
        self._learner = learner
        self._x, self._y = np.concatenate(x), np.concatenate(y)
        self._batch = x.shape[1]
        self.unit = x.shape[0]

    def losses(self, count: int) -> list[float]:
        starts = range(0, count * self._batch, self._batch)
        return [self._epochs(slice(start, start + self._batch), 1) for start in starts]

    def run(self, steps: int) -> float:
        return self._epochs(slice(None), steps // self.unit)

    def _epochs(self, part: slice, count: int) -> float:
        """Mean loss over the last of `count` epochs on a part of the data."""
        history = self._learner.run(
            self._x[part], self._y[part], batch_size=self._batch, epochs=count, shuffle=False
        )
        return float(history.loss[0, -1])
