"""Methods that learn examples one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl


@dataclass(frozen=True)
class OnlineMethod:
    """What every method has."""

    name: ClassVar[str]

    def optimizer(self) -> Any:
        """The step-size rule."""
        raise NotImplementedError

    def rules(self) -> list[Any]:
        """The unit rules that follow the optimizer."""
        return []

    def rewiring(self) -> list[Any]:
        """The rule, behind all others, by which units' wires change."""
        return []

    def begin_task(self, learner: kl.Learner, task: int) -> None:
        """What happens before task number `task` (from 0) of a stream that has tasks: a new head, at zero."""
        learner.net.reset([-1], to="zero")

    def build(
        self,
        layers: Sequence[Any],
        inputs: int,
        seeds: Sequence[int],
        loss: str,
        init: str,
        device: str,
        precision: str,
        events: int = 0,
    ) -> kl.Learner:
        """A learner with one run for each seed."""
        network = kl.Network(
            list(layers),
            input_shape=(inputs,),
            runs=len(seeds),
            seeds=list(seeds),
            init=init,
            device=device,
            precision=precision,
        )
        rules = [*self.rules(), *self.rewiring()]
        return kl.Learner(network, loss=loss, optimizer=self.optimizer(), rules=rules, events=events)
