"""Networks and their units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf import _core
from klopf.arguments import explain_arguments


class UnitGroup:
    """The hidden units of one layer, in all runs: arrays [R, U, ...], copied out when read.

    A unit is {incoming weights, activity, outgoing weights, age, statistics}; a convolution's is the filter.
    """

    def __init__(self, network: _core.Network, index: int) -> None:
        self._network = network
        self._index = index
        self.layer, self.next_layer, self.size = network._unit_groups()[index]

    def _state(self, name: str) -> NDArray[Any]:
        return self._network._unit_state(self._index)[name]

    @property
    def incoming(self) -> NDArray[np.float32]:
        """Incoming weights [R, U, inputs], or [R, U, C, KH, KW] of filters."""
        return self._network.state_dict()[f"{self.layer}.weight"]

    @property
    def bias(self) -> NDArray[np.float32]:
        """Biases [R, U]."""
        return self._network.state_dict()[f"{self.layer}.bias"]

    @property
    def outgoing(self) -> NDArray[np.float32]:
        """Outgoing weights [R, U, O], into filters [R, U, O, KH, KW], through a flattening [R, U, O, S]."""
        weight = self._network.state_dict()[f"{self.next_layer}.weight"]
        runs, outputs = weight.shape[:2]
        if weight.ndim == 3 and weight.shape[2] != self.size:
            weight = weight.reshape(runs, outputs, self.size, -1)
        return np.ascontiguousarray(np.moveaxis(weight, 2, 1))

    @property
    def activity(self) -> NDArray[np.float32]:
        """Mean |activity| over batch and positions at the last step of a rule that watches units [R, U]."""
        return self._state("activity")

    @property
    def age(self) -> NDArray[np.int32]:
        """Updates since the unit began [R, U]; counted by rules that watch units."""
        return self._state("age")

    @property
    def mean_activity(self) -> NDArray[np.float32]:
        """Bias-corrected running mean activity [R, U]; 0 for a unit that was just replaced."""
        return self._state("mean_activity")

    @property
    def utility(self) -> NDArray[np.float32]:
        """Bias-corrected utility [R, U] of the learner's rule; 0 for a unit that was just replaced."""
        return self._state("utility")

    def __repr__(self) -> str:
        return f"UnitGroup(layer={self.layer}, size={self.size})"


class Network(_core.Network):
    __doc__ = _core.Network.__doc__

    @property
    def units(self) -> list[UnitGroup]:
        """The groups of hidden units, input side first."""
        return [UnitGroup(self, index) for index in range(len(self._unit_groups()))]


explain_arguments(
    Network,
    "network",
    ("__init__", "__call__", "infer_on_device", "to_device", "activities", "load_state_dict", "reset"),
)
