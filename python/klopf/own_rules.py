"""Rules in Python: of units, utilities and step sizes.

They see what the engine sees, as arrays with the runs first, and have a turn in every step. Slower than what
is compiled, by what it takes to hand arrays over; the same in every other respect: they are saved, go on
exactly, and a run feels nothing of its neighbours where they treat runs apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf import _core
from klopf.network import UnitGroup

if TYPE_CHECKING:
    from klopf.learner import Learner

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class WatchedUnits(UnitGroup):
    """A group of units while a rule has its turn: what `UnitGroup` has, and what the step knows."""

    def __init__(self, learner: Learner, index: int) -> None:
        super().__init__(learner.net, index)
        self._learner = learner

    @property
    def activities(self) -> NDArray[np.float32]:
        """Of the batch, as the next layer sees them: [R, B, U], or [R, B, U, H, W] of filters."""
        return self._learner._activities(self._index)

    @property
    def errors(self) -> NDArray[np.float32]:
        """Gradients of the batch's mean loss by the activities, of the same shape."""
        return self._learner._errors(self._index)

    @property
    def incoming_gradient(self) -> NDArray[np.float32]:
        """Of the incoming weights, of their shape."""
        return self._learner._gradients()[self._weights[0]]

    @property
    def bias_gradient(self) -> NDArray[np.float32]:
        """Of the biases [R, U]."""
        return self._learner._gradients()[self._weights[1]]

    @property
    def outgoing_gradient(self) -> NDArray[np.float32]:
        """Of the outgoing weights, of their shape."""
        return self._by_unit(self._learner._gradients()[self._weights[2]])

    @property
    def alive(self) -> Mask:
        """Runs that still learn [R]."""
        return self._learner.alive

    def uniform(self, step: int, use: int = 0) -> NDArray[np.float64]:
        """Random numbers in [0, 1) for each unit [R, U]: other ones for each seed, step, group and use."""
        rows = []
        for seed in self._network.seeds:
            bits = np.random.Philox(key=[seed, 0x6B6C6F7066], counter=[0, use, step, self._index])
            rows.append(np.random.Generator(bits).random(self.size))
        return np.stack(rows)


class Kept:
    """A rule's memory: arrays by name, which checkpoints hold. Whatever else it keeps is not saved."""

    @property
    def state(self) -> dict[str, Array]:
        """Arrays that a checkpoint holds, by name; changed in place or replaced at will."""
        kept: dict[str, Array] = self.__dict__.setdefault("_state", {})
        return kept


class UnitRule(Kept):
    """A rule of units in Python: derive from it, and say in `step` which units are to be replaced.

    Class attributes, or attributes of an object, that the engine heeds:
        replaces: False for a rule that only looks or writes, a callback of every step
        init: distribution of new incoming weights, an initialiser's name; None: the network's
        transfer_mean_to_bias: add a removed unit's mean contribution to the next layer's biases
        reset_optimizer_state: zero what the optimizer keeps for weights that begin anew
    """

    replaces: bool = True
    init: str | None = None
    transfer_mean_to_bias: bool = False
    reset_optimizer_state: bool = True

    def begin(self, units: Sequence[WatchedUnits]) -> None:
        """Called before the first step, and again by `Learner.restart`: where `state` is made."""

    def step(self, units: Sequence[WatchedUnits]) -> Sequence[Array | None] | None:
        """Called in every step after the optimizer, with the groups input side first.

        Returns a mask [R, U] of the units to replace for each group, or None for none.
        """
        raise NotImplementedError

    def _spec(self) -> _core.HostRule:
        return _core.HostRule(
            replaces=self.replaces,
            transfer_mean_to_bias=self.transfer_mean_to_bias,
            reset_optimizer_state=self.reset_optimizer_state,
            init=self.init,
        )

    def _masks(self, units: Sequence[WatchedUnits]) -> list[Mask]:
        """What `step` says, checked."""
        name = type(self).__name__
        said = self.step(units)
        if not self.replaces:
            if said is not None:
                raise _core.Error(f"[{name}] step must return None where replaces is False")
            return []
        if said is not None and len(said) != len(units):
            raise _core.Error(
                f"[{name}] step must return a mask for each of {len(units)} groups, got {len(said)}"
            )
        masks = []
        for group, mask in zip(units, said or [None] * len(units), strict=True):
            shape = (len(group._network.seeds), group.size)
            given = np.zeros(shape, dtype=bool) if mask is None else np.asarray(mask)
            if given.dtype != bool or given.shape != shape:
                raise _core.Error(
                    f"[{name}] a mask must be bool [{shape[0]}, {shape[1]}], "
                    f"got {given.dtype} {list(given.shape)}"
                )
            masks.append(given)
        return masks


def expect_compiled(where: str, given: Sequence[Any]) -> None:
    """Raises klopf.Error where an optimizer or a rule of an agent is in Python."""
    for one in given:
        if isinstance(one, Kept):
            raise _core.Error(f"[{where}] takes compiled rules only, got {type(one).__name__}, in Python")


class UtilityRule(UnitRule):
    """Continual backprop with a utility in Python: derive from it and say in `utility` what a unit is worth.

    The rest is as `kl.ContinualBackprop` has it: running averages with bias correction, units older than
    `maturity` are eligible, of which a share `replacement_rate` is replaced at each step, lowest first.
    Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024).
    """

    def __init__(
        self,
        replacement_rate: float | Array = 1e-4,
        utility_decay: float = 0.99,
        maturity: float = 100,
    ) -> None:
        self.replacement_rate, self.utility_decay, self.maturity = replacement_rate, utility_decay, maturity

    def utility(self, units: WatchedUnits) -> Array:
        """What the units of a group are worth at this step [R, U]."""
        raise NotImplementedError

    def begin(self, units: Sequence[WatchedUnits]) -> None:
        for k, group in enumerate(units):
            runs = len(group._network.seeds)
            self.state[f"utility.{k}"] = np.zeros((runs, group.size))
            self.state[f"carry.{k}"] = np.zeros(runs)

    def step(self, units: Sequence[WatchedUnits]) -> Sequence[Array | None]:
        corrected = []
        for k, group in enumerate(units):
            trace, age = self.state[f"utility.{k}"], group.age
            trace[age == 1] = 0.0  # of a unit that has just begun
            worth = np.asarray(self.utility(group))
            if worth.shape != trace.shape or worth.dtype.kind not in "fiub":
                raise _core.Error(
                    f"[{type(self).__name__}] utility must give a number for each unit {list(trace.shape)}, "
                    f"got {worth.dtype} {list(worth.shape)}"
                )
            trace[...] = self.utility_decay * trace + (1 - self.utility_decay) * worth
            corrected.append(trace / (1 - self.utility_decay ** age.astype(np.float64)))
        return [
            lowest(utility, group.age > self.maturity, self.replacement_rate, self.state[f"carry.{k}"])
            for k, (group, utility) in enumerate(zip(units, corrected, strict=True))
        ]


def lowest(utility: Array, eligible: Mask, rate: float | Array, carry: NDArray[np.float64]) -> Mask:
    """The units [R, U] to replace: a share of the eligible ones, of least utility, equal ones by index.

    carry: fractions of units that are due [R], which is changed.
    """
    carry += rate * eligible.sum(axis=1)
    due = np.minimum(np.floor(carry), eligible.sum(axis=1))
    carry -= due
    order = np.argsort(np.where(eligible, utility, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    return np.asarray((rank < due[:, None]) & eligible)


class StepSizeRule(Kept):
    """An optimizer in Python: derive from it, and say in `step` what becomes of the weights.

    In place of `kl.SGD(...)` and its like.
    """

    def begin(self, weights: Mapping[str, Array]) -> None:
        """Called before the first step, and again by `Learner.restart`: where `state` is made."""

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> Mapping[str, Array]:
        """The new weights, by name, from weights and gradients of the batch's mean loss, [R, ...] each.

        Names that are left out stay as they are.
        """
        raise NotImplementedError

    def reset(self, name: str, where: Mask) -> None:
        """Forget what is kept for the weights `where` [R, ...] of this name, which belong to new units."""

    def _new(
        self, weights: Mapping[str, Array], gradients: Mapping[str, Array], alive: Mask
    ) -> dict[str, Array]:
        """What `step` says, checked, with runs that no longer learn as they are."""
        name = type(self).__name__
        new = dict(weights)
        said: Any = self.step(weights, gradients)
        if not isinstance(said, Mapping):
            raise _core.Error(f"[{name}] step must return new weights by name, got {type(said).__name__}")
        for key, value in said.items():
            given = np.asarray(value, dtype=np.float32)
            if key not in weights:
                raise _core.Error(f'[{name}] step returned "{key}"; there are {", ".join(weights)}')
            if given.shape != weights[key].shape:
                expected = list(weights[key].shape)
                raise _core.Error(f'[{name}] "{key}" must have shape {expected}, got {list(given.shape)}')
            new[key] = np.where(alive.reshape(-1, *[1] * (given.ndim - 1)), given, weights[key])
        return new
