"""Networks and their units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klopf import _core, backbone
from klopf.arguments import explain_arguments

if TYPE_CHECKING:
    from klopf.pruning import Pruned


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
    def _weights(self) -> tuple[str, str, str]:
        """Names of incoming weights, biases and outgoing weights."""
        return f"{self.layer}.weight", f"{self.layer}.bias", f"{self.next_layer}.weight"

    def _by_unit(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The next layer's weights with the units first."""
        runs, outputs = weight.shape[:2]
        if weight.ndim == 3 and weight.shape[2] != self.size:
            weight = weight.reshape(runs, outputs, self.size, -1)
        return np.ascontiguousarray(np.moveaxis(weight, 2, 1))

    def _write(self, name: str, value: NDArray[Any]) -> None:
        state = self._network.state_dict()
        given = np.asarray(value, dtype=np.float32)
        if given.size != state[name].size:
            raise _core.Error(
                f'[units] "{name}" must have {state[name].size} numbers, got {list(given.shape)}'
            )
        self._network.load_state_dict({**state, name: given.reshape(state[name].shape)})

    @property
    def incoming(self) -> NDArray[np.float32]:
        """Incoming weights [R, U, inputs], or [R, U, C, KH, KW] of filters; what is assigned is written."""
        return self._network.state_dict()[self._weights[0]]

    @incoming.setter
    def incoming(self, value: NDArray[Any]) -> None:
        self._write(self._weights[0], value)

    @property
    def bias(self) -> NDArray[np.float32]:
        """Biases [R, U]; what is assigned is written."""
        return self._network.state_dict()[self._weights[1]]

    @bias.setter
    def bias(self, value: NDArray[Any]) -> None:
        self._write(self._weights[1], value)

    @property
    def outgoing(self) -> NDArray[np.float32]:
        """Outgoing weights [R, U, O], into filters [R, U, O, KH, KW], through a flattening [R, U, O, S]; what
        is assigned is written."""
        return self._by_unit(self._network.state_dict()[self._weights[2]])

    @outgoing.setter
    def outgoing(self, value: NDArray[Any]) -> None:
        self._write(self._weights[2], np.moveaxis(np.asarray(value), 1, 2))

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

    @property
    def living(self) -> NDArray[np.bool_]:
        """Which units live [R, U]; all, unless the layer was made with `living`."""
        vacant = self._network.state_dict().get(f"{self.layer}.vacant")
        if vacant is None:
            return np.ones((self._network.runs, self.size), np.bool_)
        return np.asarray(vacant == 0)

    @property
    def wires(self) -> NDArray[np.bool_]:
        """Which inputs units listen to [R, U, inputs]; all, unless the layer was made with `wires`."""
        state = self._network.state_dict()
        return np.asarray(state.get(f"{self.layer}.wires", np.ones_like(state[self._weights[0]])) != 0)

    def __repr__(self) -> str:
        return f"UnitGroup(layer={self.layer}, size={self.size})"


class Network(_core.Network):
    __doc__ = _core.Network.__doc__

    @property
    def units(self) -> list[UnitGroup]:
        """The groups of hidden units, input side first."""
        return [UnitGroup(self, index) for index in range(len(self._unit_groups()))]

    def backbone(
        self, probe: NDArray[Any], tolerance: float = 0.01, scale: Any = None, offset: Any = None
    ) -> list[NDArray[np.bool_]]:
        """The units that the outputs depend on: one bool mask [R, U] for each group, as in `units`.

        A unit belongs where it moves an output, or a unit of the next layer that belongs, by more than
        `tolerance` of how far that moves at all (`klopf.backbone` has the formula).  Of a run that is not
        finite all units belong.

        Args:
            probe: inputs [B, ...] shared by all runs, or [R, B, ...]
            tolerance: share of a successor's range on the probe, at least 0
            scale: for pixels, as in `activities`
            offset: likewise

        Raises:
            klopf.Error: a probe of another shape, a negative tolerance
        """
        backbone.checked_tolerance(tolerance, "backbone")
        observed = backbone.observe(self, np.asarray(probe), scale, offset)
        return backbone.masks(observed.strengths(), tolerance)

    def prune(
        self, probe: NDArray[Any], tolerance: float = 0.01, scale: Any = None, offset: Any = None
    ) -> list[Pruned]:
        """One smaller network a run, without units outside its backbone; this one stays as it is.

        Each output differs on the probe by less than `tolerance` of its range there, as computed by both
        networks: where removing all units outside the backbone moves outputs further, only the weakest are
        removed.  Mean activities of removed units go into the next layer's biases.  A layer keeps at least
        one unit; ages and statistics of units begin anew.

        Args:
            probe: inputs [B, ...] shared by all runs, or [R, B, ...]
            tolerance: share of an output's range on the probe (of its size, where it is constant), above 0
            scale: for pixels, as in `activities`
            offset: likewise

        Raises:
            klopf.Error: as `backbone`; LayerNorm over hidden units, which need each other there
        """
        from klopf.pruning import prune

        return prune(self, np.asarray(probe), tolerance, scale, offset)


explain_arguments(
    Network,
    "network",
    ("__init__", "__call__", "infer_on_device", "to_device", "activities", "load_state_dict", "reset"),
)
