"""The backbone of a network: the units that its outputs depend on, at a tolerance, on a probe.

How far unit i moves its successor j (a unit of the next layer, or an output) is taken relative to how far j
moves at all:

    e_ij = slope_j |w_ij| range_i / range_j

range: largest less smallest activity on the probe, as the next layer sees it.  slope_j: how far, at most, j's
activity moves with its net input: 1 for ReLU, LeakyReLU, Tanh and pooling, 1/4 for Sigmoid, times a
normalisation's gain over its deviation.  Where i reaches j by several weights, |w| range is their sum: over
places for a filter behind Flatten, over taps for one in front of a filter; a padded image contains zeros.  So
replacing i by any constant within its range changes j by at most e_ij range_j.

LayerNorm's deviation is the least of a sample, of the probe's first 100.  What units do to others through its
mean and deviation is left out; this is where e_ij is no bound.

The strength of a unit is that of the strongest way from it to an output, and a way is as strong as its
weakest step: s_i = max_j min(e_ij, s_j), outputs infinite.  The backbone at a tolerance are the units of a
greater strength; one pass backwards finds it for all tolerances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from klopf._core import Error

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

PROBE_CHUNK = 100  # inputs shown at once: activities of all runs before flattening are large
_SLOPES = {"Sigmoid": 0.25}
_PARAMETRIC = ("Conv2d", "Linear")
_LINEAR = ("Dropout", "LogStd")  # hand on, in inference, what they are given
_BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d")


class Observable(Protocol):
    """What is asked of a network (`klopf.Network` has it)."""

    @property
    def runs(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def layers(self) -> Sequence[Any]: ...
    def __call__(self, x: Array, scale: Any = None, offset: Any = None) -> Array: ...
    def activities(self, x: Array, scale: Any = None, offset: Any = None) -> list[Array]: ...
    def state_dict(self) -> dict[str, Array]: ...


class Stage(NamedTuple):
    """A layer with weights, and what follows it up to the next one: (place among the layers, layer)."""

    place: int
    layer: Any
    followers: list[tuple[int, Any]]


def stages_of(layers: Sequence[Any]) -> list[Stage]:
    """Input side first; what comes before the first weights is left out."""
    stages: list[Stage] = []
    for place, layer in enumerate(layers):
        if type(layer).__name__ in _PARAMETRIC:
            stages.append(Stage(place, layer, []))
        elif stages:
            stages[-1].followers.append((place, layer))
    return stages


def inputs_of(net: Observable, probe: Array, who: str) -> int:
    """The axis of a probe's inputs: 0 for [B, ...], 1 for [R, B, ...].  Error for other shapes."""
    axis = probe.ndim - len(net.input_shape) - 1
    if axis not in (0, 1) or probe.shape[axis] == 0:
        raise Error(
            f"[{who}] expected a probe [B, {', '.join(map(str, net.input_shape))}] or [R, B, ...], "
            f"got {list(probe.shape)}"
        )
    return axis


def chunks_of(probe: Array, axis: int) -> Iterator[Array]:
    """The probe, a few inputs at a time."""
    for start in range(0, probe.shape[axis], PROBE_CHUNK):
        chunk = probe[start : start + PROBE_CHUNK] if axis == 0 else probe[:, start : start + PROBE_CHUNK]
        yield np.ascontiguousarray(chunk)


def extent(activity: Array) -> tuple[Array, Array]:
    """Each unit's smallest and largest activity on each input [R, B, U]; NaN passes through both."""
    if activity.ndim == 3:
        return activity, activity
    positions = activity.reshape(*activity.shape[:3], -1)
    return positions.min(axis=-1), positions.max(axis=-1)


@dataclass
class Span:
    """Smallest and largest values so far; NaN stays."""

    low: FloatArray | None = None
    high: FloatArray | None = None

    def add(self, low: Array, high: Array) -> None:
        """low, high: [R, B, ...]; B is gone through."""
        least, most = low.min(axis=1).astype(np.float64), high.max(axis=1).astype(np.float64)
        self.low = least if self.low is None else np.minimum(self.low, least)
        self.high = most if self.high is None else np.maximum(self.high, most)

    def range(self, with_zero: bool = False) -> FloatArray:
        """Largest less smallest, or 0 among them; NaN where one is not finite."""
        assert self.low is not None and self.high is not None
        low, high = self.low, self.high
        if with_zero:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            found = high - low
        return np.where(np.isfinite(found), found, np.nan)


class Observed:
    """What a probe shows of a network: the ranges of units and outputs."""

    def __init__(self, net: Observable) -> None:
        self._net = net
        self._stages = stages_of(net.layers)
        groups = len(self._stages) - 1
        self._units = [Span() for _ in range(groups)]  # [R, U]
        self._places = [Span() for _ in range(groups)]  # [R, U, H, W] behind Flatten
        self._outputs = Span()  # [R, O]
        self._state = net.state_dict()
        last = self._stages[-1]
        self._plain = type(last.layer).__name__ == "Linear" and all(
            type(layer).__name__ in _LINEAR for _, layer in last.followers
        )
        self._before = {
            place: _network_before(net, place, self._state)
            for stage in self._stages
            for place, layer in stage.followers
            if type(layer).__name__ == "LayerNorm"
        }
        # Least of a sample of the first chunk: another forward pass for each is too much for the whole probe.
        self._deviation = {place: np.full(net.runs, np.nan) for place in self._before}

    def add(
        self,
        inputs: Array,
        scale: Any,
        offset: Any,
        activities: Sequence[Array],
        extents: Sequence[tuple[Array, Array]],
    ) -> None:
        """A chunk of the probe, the activities of all groups on it, and the `extent` of each."""
        for index, (activity, (low, high)) in enumerate(zip(activities, extents, strict=True)):
            self._units[index].add(low, high)
            if self._by_place(index, activity):
                self._places[index].add(activity, activity)
        if self._plain and activities:
            outputs = self._of_last(activities[-1])
        else:
            outputs = self._net(inputs, scale, offset)
        self._outputs.add(outputs, outputs)
        for place, network in self._before.items():
            values = network.activities(inputs, scale, offset)[-1]
            for run, of_run in enumerate(values):
                with np.errstate(invalid="ignore"):
                    deviations = of_run.reshape(len(of_run), -1).std(axis=1, dtype=np.float64)
                self._deviation[place][run] = deviations.min()
        self._before = {}

    def _by_place(self, index: int, activity: Array) -> bool:
        return activity.ndim == 5 and type(self._stages[index + 1].layer).__name__ == "Linear"

    def _of_last(self, activity: Array) -> FloatArray:
        """Outputs [R, B, O] of a last linear layer: cheaper than another forward pass."""
        name = f"{self._stages[-1].place}."
        weight, bias = self._state[name + "weight"], self._state[name + "bias"]
        flat = activity.reshape(*activity.shape[:2], -1).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            products: FloatArray = flat @ weight.astype(np.float64).swapaxes(1, 2)
            return products + bias[:, None]

    def output_scale(self) -> FloatArray:
        """Range of each output [R, O]; of a constant one its size, or 1 if it is zero."""
        found = self._outputs.range()
        size = np.abs(self._outputs.high)  # type: ignore[arg-type]
        return np.where(found == 0, np.where(size > 0, size, 1.0), found)

    def living(self) -> list[Mask]:
        """Which units of each group live [R, U]."""
        return living_of(self._state, [stage.place for stage in self._stages[:-1]])

    def strengths(self) -> list[FloatArray]:
        """Of the units of each group [R, U]; NaN in runs that are not finite."""
        groups = len(self._units)
        if groups == 0:
            return []
        runs = self._net.runs
        finite = np.array(
            [all(np.isfinite(a[run]).all() for a in self._state.values()) for run in range(runs)]
        )
        ranges = [span.range() for span in self._units] + [self.output_scale()]
        for each in (*ranges, *(least[:, None] for least in self._deviation.values())):
            finite &= np.isfinite(each).all(axis=1)
        found: list[FloatArray] = [np.full(each.shape, np.inf) for each in ranges]
        for index in reversed(range(groups)):
            effects = self.effects(index)
            for run in range(runs):
                ways = np.minimum(next(effects), found[index + 1][run])
                found[index][run] = ways.max(axis=1)
        for each in found:
            each[~finite] = np.nan
        return found[:-1]

    def effects(self, index: int) -> Iterator[FloatArray]:
        """How far a group's units move their successors: [U, successors] of one run after the other."""
        sources, slope = self._sources(index), self._slope(index + 1)
        last = index + 1 == len(self._units)
        scales = self.output_scale() if last else self._units[index + 1].range()
        weight = self._state[f"{self._stages[index + 1].place}.weight"]
        for run, source in enumerate(sources):
            one = np.abs(weight[run], dtype=np.float64).reshape(weight.shape[1], len(source), -1)
            with np.errstate(all="ignore"):
                moved = np.einsum("jus,us->uj", one, source)
                # Over a range of 0 infinite: a unit that does not move has, as a rule, no strength to share.
                yield np.where(moved > 0, moved * (slope[run] / scales[run]), 0.0)

    def _sources(self, index: int) -> FloatArray:
        """How far the inputs move that a group gives its successors: [R, U, places], or [R, U, 1]."""
        if self._places[index].low is not None:
            spread = self._places[index].range()
            return spread.reshape(*spread.shape[:2], -1)
        padded = getattr(self._stages[index + 1].layer, "padding", 0) > 0
        return self._units[index].range(with_zero=padded)[..., None]

    def _slope(self, index: int) -> FloatArray:
        """How far activities, or outputs, move at most with the net inputs of a stage [R, U]."""
        stage = self._stages[index]
        slope = np.ones((self._net.runs, self._state[f"{stage.place}.weight"].shape[1]))
        for place, layer in stage.followers:
            kind = type(layer).__name__
            slope *= _SLOPES.get(kind, 1.0)
            variance: Array | None = None
            if kind in _BATCH_NORMS:
                variance = self._state[f"{place}.running_var"].astype(np.float64)
            elif place in self._deviation:
                variance = self._deviation[place][:, None] ** 2
            if variance is not None:
                gain = self._state.get(f"{place}.weight")
                if gain is not None:
                    slope *= np.abs(gain).reshape(*slope.shape, -1).max(axis=2)
                slope /= np.sqrt(variance + layer.epsilon)
        return slope


def _network_before(net: Observable, place: int, state: Mapping[str, Array]) -> Any:
    """A network whose last hidden units are what enters the layer at a place.

    Through a LayerNorm the slope depends on the deviation of what enters it, which activities do not tell.
    """
    from klopf._core import Flatten, Linear
    from klopf.network import Network

    if not isinstance(net, Network):
        raise Error("[backbone] expected a klopf.Network where LayerNorm is among the layers")
    made = Network(
        [*net.layers[:place], Flatten(), Linear(1)],
        net.input_shape,
        runs=net.runs,
        init="kaiming",
        device=net.device,
        precision=net.precision,
    )
    own = made.state_dict()
    shared = {name for name in own if int(name.partition(".")[0]) < place}
    made.load_state_dict({name: state[name] if name in shared else own[name] for name in own})
    return made


def observe(
    net: Observable, probe: Array, scale: Any = None, offset: Any = None, who: str = "backbone"
) -> Observed:
    """Show a network the probe [B, ...] or [R, B, ...]."""
    axis = inputs_of(net, probe, who)
    observed = Observed(net)
    for chunk in chunks_of(probe, axis):
        activities = net.activities(chunk, scale, offset)
        observed.add(chunk, scale, offset, activities, [extent(activity) for activity in activities])
    return observed


def checked_tolerance(tolerance: float, who: str) -> float:
    """A finite number of at least 0."""
    if not (isinstance(tolerance, int | float | np.number) and 0 <= tolerance < np.inf):
        raise Error(f"[{who}] expected a tolerance of at least 0, got {tolerance!r}")
    return float(tolerance)


def masks(strengths: Sequence[FloatArray], tolerance: float) -> list[Mask]:
    """The units of a greater strength than the tolerance [R, U]; all, in runs that are not finite."""
    return [~(each <= tolerance) for each in strengths]


def share(strengths: Sequence[FloatArray], tolerance: float, living: Sequence[Mask]) -> FloatArray:
    """Share [R] of all living hidden units that are in the backbone; NaN in runs that are not finite, or
    where no unit lives."""
    every = np.concatenate(strengths, axis=1)
    with np.errstate(invalid="ignore"):
        found = (every > tolerance).sum(axis=1) / np.concatenate(living, axis=1).sum(axis=1)
    return np.where(np.isnan(every).any(axis=1), np.nan, found)


def living_of(state: Mapping[str, Array], places: Sequence[int]) -> list[Mask]:
    """Which units of layers live [R, U], by a network's state dict."""
    everybody = [np.zeros(state[f"{place}.weight"].shape[:2]) for place in places]
    return [state.get(f"{place}.vacant", none) == 0 for place, none in zip(places, everybody, strict=True)]
