"""Meters: what a rule does to the function that a network computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf.own_rules import UnitRule, WatchedUnits

if TYPE_CHECKING:
    from klopf.specs import Rule


class FunctionChange:
    """How far replacements move the outputs: put around a rule, it looks at them before and after.

    probe: inputs [B, ...] that outputs are compared on.  scale, offset: as `kl.Network` takes them.
    steps: updates in which something was replaced, from 0 [T].  change: the root mean square of what outputs
    moved by, over that of the outputs before [T, R]; 0 in runs where nothing was replaced.  They are not
    saved with a learner.

        meter = kl.FunctionChange(probe)
        learner = kl.Learner(net, ..., rules=meter.around(kl.ContinualBackprop()))
    """

    def __init__(self, probe: NDArray[Any], scale: Any = None, offset: Any = None) -> None:
        self._probe, self._pixels = probe, {"scale": scale, "offset": offset}
        self._steps: list[int] = []
        self._change: list[NDArray[np.float64]] = []
        self._before: NDArray[np.float64] | None = None

    @property
    def steps(self) -> NDArray[np.int64]:
        """Updates in which something was replaced [T]."""
        return np.array(self._steps, dtype=np.int64)

    @property
    def change(self) -> NDArray[np.float64]:
        """Relative change of the outputs [T, R]."""
        return np.array(self._change)

    def around(self, rule: Rule | UnitRule) -> list[Rule | UnitRule]:
        """The rule, with what looks before and after it: for a learner's `rules`."""
        return [_Before(self), rule, _After(self)]

    def _outputs(self, units: Sequence[WatchedUnits]) -> NDArray[np.float64]:
        """On the probe [R, B, O]."""
        return units[0]._learner.net(self._probe, **self._pixels).astype(np.float64)

    def _compare(self, units: Sequence[WatchedUnits]) -> None:
        """Writes down how far the outputs are from what they were, if something was replaced."""
        learner, before = units[0]._learner, self._before
        if before is None or not any(mask.any() for mask in learner._replaced()):
            return
        moved = np.sqrt(((self._outputs(units) - before) ** 2).mean(axis=(1, 2)))
        size = np.sqrt((before**2).mean(axis=(1, 2)))
        self._steps.append(learner._updates())
        self._change.append(np.divide(moved, size, out=np.zeros_like(moved), where=moved > 0))


class _Looking(UnitRule):
    replaces = False

    def __init__(self, meter: FunctionChange) -> None:
        self.meter = meter


class _Before(_Looking):
    def step(self, units: Sequence[WatchedUnits]) -> None:
        self.meter._before = self.meter._outputs(units)


class _After(_Looking):
    def step(self, units: Sequence[WatchedUnits]) -> None:
        self.meter._compare(units)
