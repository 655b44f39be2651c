"""Controls of a stream of regression tasks: without features, without a past, or with all of it at once.

They bound what other methods do: hidden units that never learn, or only in the first task; a network of its
own for every task, which has nothing to lose; and all tasks at once, which cannot forget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments import regression, stepping
from klopf.experiments.retention import LAGS
from klopf.experiments.settings import option

Floats = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Frozen(regression.Deep):
    """Random features: hidden units stay as they were drawn, the head learns by gradient descent."""

    name: ClassVar[str] = "frozen"

    step_size: float = option(0.01, stepping.BEGIN, above=0)

    def optimizer(self) -> Any:
        """The step-size rule."""
        return self._fixed(0.0)

    def rewiring(self) -> list[Any]:
        if self.rewiring_rate:
            raise kl.Error(f"--rewiring-rate: hidden units of {self.name} stay as they are, wires included")
        return []

    def _fixed(self, hidden: float) -> kl.IDBD:
        """Gradient descent with one step size for hidden layers and another for the head."""
        return kl.IDBD(step_size=hidden, meta_step_size=0.0, output_step_size=self.step_size, scope="layer")


@dataclass(frozen=True)
class FrozenAfterFirst(Frozen):
    """Features of the first task: backprop learns it; then hidden units stay as they are, the head learns.

    Its first task is backprop's, to the bit.
    """

    name: ClassVar[str] = "frozen-after-first"

    def optimizer(self) -> Any:
        """The step-size rule."""
        return self._fixed(self.step_size)

    def begin_task(self, learner: kl.Learner, task: int) -> None:
        super().begin_task(learner, task)
        if task == 1:  # the step size is state of the learner's, so that it is in every later checkpoint
            state = learner.state()
            learner.load_state({**state, "IDBD.step_size": np.zeros_like(state["IDBD.step_size"])})


@dataclass(frozen=True)
class Scratch(stepping.Sgd, regression.Deep):
    """A new network for every task: what a single task teaches, whatever came before."""

    name: ClassVar[str] = "scratch"

    def begin_task(self, learner: kl.Learner, task: int) -> None:
        if task > 0:
            learner.restart()
        super().begin_task(learner, task)


@dataclass(frozen=True)
class Joint(stepping.Sgd, regression.Deep):
    """All tasks at once: every example is learned as one of the latest task and of the 20 before it.

    Each of them has a head, and every example is an error of all of them, so that this is what a network of
    this size can know if it never has to remember.  A new task takes the head of the task before these, and
    begins at zero.  A head that no task has yet is zero and its target is 0: it takes no part in anything.

    The loss is half the squared error, summed over heads.  Heads share no weights, so each learns as if it
    were alone; hidden units, which all heads share, get the sum of what they ask for and not its mean.  The
    mean would leave features as slow as those of a single task, though they are told 21 times as much, and a
    bound should not be held back: at the same step size its errors are twice as large (0.36 against 0.17 on
    the latest task, two runs, tasks 31 to 60).
    """

    name: ClassVar[str] = "joint"
    heads: ClassVar[int] = LAGS[-1] + 1

    def layers(self, hidden: Sequence[int]) -> list[Any]:
        *made, _ = super().layers(hidden)
        return [*made, kl.Linear(self.heads)]

    def known(self, task: int) -> range:
        """The tasks that there are heads for."""
        return range(max(0, task + 1 - self.heads), task + 1)

    def outputs(self, task: int) -> list[int]:
        """Which output is whose, of `known` tasks."""
        return [one % self.heads for one in self.known(task)]

    def begin_task(self, learner: kl.Learner, task: int) -> None:
        if task == 0:
            super().begin_task(learner, task)
            return
        weights = learner.net.state_dict()
        place = len(learner.net.layers) - 1
        for name in (f"{place}.weight", f"{place}.bias"):
            weights[name][:, task % self.heads] = 0
        learner.net.load_state_dict(weights)

    def learn(self, learner: kl.Learner, x: Floats, y: Floats, task: int) -> Values:
        """Every example once, as it comes: the latest task's mean squared errors [R], each example before it
        is learned.

        x: [R, N, inputs].  y: of `known` tasks [R, N, tasks].
        """
        target = np.zeros((*y.shape[:2], self.heads), np.float32)
        *_, latest = places = self.outputs(task)
        target[..., places] = y
        errors = np.empty(y.shape[:2])
        with np.errstate(over="ignore", invalid="ignore"):  # of runs that diverge
            for example in range(x.shape[1]):
                each = slice(example, example + 1)
                off = learner.forward(x[:, each]) - target[:, each]
                learner.backward(off)
                learner.apply()
                errors[:, example] = off[:, 0, latest]
            return np.asarray((errors**2).mean(axis=1))


CONTROLS: dict[str, type[regression.Deep]] = {
    one.name: one for one in (Frozen, FrozenAfterFirst, Scratch, Joint)
}
