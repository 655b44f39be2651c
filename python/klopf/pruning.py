"""Smaller networks that compute the same on a probe, up to a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error
from klopf.backbone import (
    FloatArray,
    Mask,
    Observed,
    Stage,
    checked_tolerance,
    chunks_of,
    extent,
    inputs_of,
    masks,
    stages_of,
)

if TYPE_CHECKING:
    from klopf.network import Network

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pruned:
    """One run's network without units that its outputs do not depend on.

    network: of one run.  kept: which units of each group it still has, one mask [U] a group.
    difference: largest change of an output on the probe, as a share of that output's range there; as computed
        by both networks.  NaN of a run that is not finite, which keeps all units.
    """

    network: Network
    kept: list[Mask]
    difference: float

    @property
    def removed(self) -> int:
        """How many units are gone."""
        return sum(int((~mask).sum()) for mask in self.kept)

    def __repr__(self) -> str:
        units = sum(mask.size for mask in self.kept)
        return f"Pruned({units - self.removed} of {units} units, difference={self.difference:.2g})"


def prune(net: Network, probe: Array, tolerance: float, scale: Any, offset: Any) -> list[Pruned]:
    """As `Network.prune`."""
    if checked_tolerance(tolerance, "prune") == 0:
        raise Error("[prune] expected a tolerance above 0, got 0: rounding alone moves outputs")
    stages = stages_of(net.layers)
    for stage in stages[:-1]:
        for place, layer in stage.followers:
            if type(layer).__name__ == "LayerNorm":
                raise Error(
                    f"[prune] expected no LayerNorm behind hidden units, got one as layer {place}: without "
                    "some units the mean and variance of the others are no longer the same"
                )
    axis = inputs_of(net, probe, "prune")
    observed, means = Observed(net), [np.zeros(0)] * (len(stages) - 1)
    for chunk in chunks_of(probe, axis):
        activities = net.activities(chunk, scale, offset)
        observed.add(chunk, scale, offset, activities, [extent(activity) for activity in activities])
        sums = [activity.sum(axis=1, dtype=np.float64) / probe.shape[axis] for activity in activities]
        means = [mean + more if mean.size else more for mean, more in zip(means, sums, strict=True)]
    strengths, outputs = observed.strengths(), net(probe, scale, offset)
    state, scales = net.state_dict(), observed.output_scale()
    pruned = []
    for run in range(net.runs):
        of_run = _Run(
            net,
            run,
            stages,
            {name: array[run : run + 1] for name, array in state.items()},
            [each[run] for each in strengths],
            [each[run] for each in means],
        )
        shown = probe if axis == 0 else probe[run : run + 1]

        def change(made: Network, run: int = run, shown: Array = shown) -> float:
            with np.errstate(invalid="ignore"):
                moved = np.abs(np.float64(made(shown, scale, offset)[0]) - outputs[run]).max(axis=0)
                return float((moved / scales[run]).max())

        pruned.append(of_run.smallest(tolerance, change))
    return pruned


@dataclass(frozen=True)
class _Run:
    """A run of a network, to be made smaller.

    strengths: of the units of each group [U].  means: of their activities, [U] or [U, H, W].
    """

    net: Network
    run: int
    stages: list[Stage]
    state: dict[str, Array]
    strengths: list[FloatArray]
    means: list[FloatArray]

    def smallest(self, tolerance: float, change: Any) -> Pruned:
        """Without the backbone's fringe, or as much of it, weakest first, as the tolerance allows.

        Effects of many units add up, so each network is tried; change(network) says how far outputs moved.
        """
        fringe = [~mask for mask in masks(self.strengths, tolerance)]
        for strength, mask in zip(self.strengths, fringe, strict=True):
            if mask.all():  # a layer has at least one unit
                mask[strength.argmax()] = False
        weakest = np.argsort(np.concatenate([*self.strengths, np.zeros(0)]), kind="stable")
        order = weakest[np.concatenate([*fringe, np.zeros(0, bool)])[weakest]]
        best, too_many = self._without(order[:0], change), len(order) + 1
        count = len(order)
        while count > best.removed:
            tried = self._without(order[:count], change)
            if tried.difference < tolerance:
                best = tried
            else:
                too_many = count
            count = (best.removed + too_many) // 2
        return best

    def _without(self, units: NDArray[np.int_], change: Any) -> Pruned:
        kept = np.ones(sum(len(each) for each in self.strengths), bool)
        kept[units] = False
        ends = np.cumsum([len(each) for each in self.strengths])
        split = np.split(kept, ends[:-1]) if self.strengths else []
        network = self._smaller(split)
        return Pruned(network, split, change(network))

    def _smaller(self, kept: Sequence[Mask]) -> Network:
        """The network of the units kept; the others' mean activities go into the next biases."""
        from klopf.network import Network

        layers, state = list(self.net.layers), dict(self.state)
        for index, mask in enumerate(kept):
            stage, successor = self.stages[index], self.stages[index + 1].place
            name = "channels" if type(stage.layer).__name__ == "Conv2d" else "outputs"
            fields = {**layers[stage.place].fields(), name: int(mask.sum())}
            if fields["living"] is not None:
                fields["living"] = fields[name]
            layers[stage.place] = type(stage.layer)(**fields)
            for own in (stage.place, *(place for place, _ in stage.followers)):
                for key in state:
                    if key.partition(".")[0] == str(own):
                        state[key] = state[key][:, mask]
            weight, bias = state[f"{successor}.weight"], state[f"{successor}.bias"]
            by_unit = weight.reshape(1, weight.shape[1], mask.size, -1)
            constant = self.means[index].reshape(mask.size, -1)
            if weight.ndim == 5:
                constant = constant.mean(axis=1, keepdims=True)  # the same at every tap
            gone = by_unit[0][:, ~mask].astype(np.float64) * constant[~mask]
            state[f"{successor}.bias"] = (bias + gone.sum(axis=(1, 2))).astype(np.float32)
            state[f"{successor}.weight"] = by_unit[:, :, mask].reshape(
                *weight.shape[:2], *((-1,) if weight.ndim == 3 else (int(mask.sum()), *weight.shape[3:]))
            )
            wires = state.get(f"{successor}.wires")
            if wires is not None:
                wires = wires.reshape(by_unit.shape)[:, :, mask].reshape(*wires.shape[:2], -1)
                state[f"{successor}.wires"] = wires
                fields = layers[successor].fields()
                fields["wires"] = min(fields["wires"], wires.shape[2])
                layers[successor] = type(layers[successor])(**fields)
        made = Network(
            layers,
            self.net.input_shape,
            runs=1,
            seeds=[self.net.seeds[self.run]],
            init=self.net.init,
            device=self.net.device,
            precision=self.net.precision,
            stream=self.net.stream,
        )
        made.load_state_dict({name: np.ascontiguousarray(array) for name, array in state.items()})
        return made
