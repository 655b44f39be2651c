"""A network as its units live: who is useful, how old they are, who listens to whom."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.events import Replaced, read_events
from klopf.experiments.results import EVENTS
from klopf.experiments.settings import written
from klopf.experiments.standing import Standing, expect_run, lines_of
from klopf.metrics import BACKBONE_TOLERANCE

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SINGLE = 32  # inputs or outputs that are told apart


@dataclass(frozen=True)
class Layer:
    """The hidden units of one layer in one run, each an array [U].

    place: the layer as in `state_dict`.  step_size: the mean over a unit's incoming weights; None where step
    sizes do not follow from what is learned.
    """

    place: int
    living: Mask
    backbone: Mask
    utility: Array
    age: Array
    step_size: Array | None

    @property
    def size(self) -> int:
        """How many places for units there are."""
        return len(self.living)


@dataclass(frozen=True)
class Society:
    """The units of one network in one run.

    weights: magnitudes [units, units of the next layer], from the inputs, or the channels of images, to the
    first layer, then layer by layer to the outputs; of units that share several weights their sum.
    input_shape: of the network.  utility_is, backbone_is: what these are, in words.
    updates: of the network.  alive: whether its numbers are finite.
    events: of this run; None where no log was kept.
    """

    layers: list[Layer]
    weights: list[Array]
    input_shape: tuple[int, ...]
    utility_is: str
    backbone_is: str
    updates: int
    alive: bool
    events: Replaced | None

    @property
    def shown(self) -> list[Array]:
        """The weights, of many inputs or many outputs their sum [1, units], [units, 1]."""
        first, *between, last = self.weights
        return [
            first if len(first) <= SINGLE else first.sum(axis=0, keepdims=True),
            *between,
            last if last.shape[1] <= SINGLE else last.sum(axis=1, keepdims=True),
        ]


class Lived(NamedTuple):
    """Of a layer: steps of births and of deaths, and ages at death."""

    births: NDArray[np.int64]
    deaths: NDArray[np.int64]
    ages: NDArray[np.int64]


def read_societies(folder: str | Path, run: int) -> dict[str, Society]:
    """By line's label, of the last checkpoint of a results folder; of an actor-critic two.

    Raises kl.Error where no line has hidden units that have learned, and for a run that is not there.
    """
    events = read_events(folder) if (Path(folder) / EVENTS).exists() else None
    found = {}
    for line in lines_of(folder, "units"):
        expect_run("society", run, len(line.learner.alive))
        of_line = None if events is None else _of_run(events.get(line.label), run)
        for prefix, name, net in _networks(line.learner):
            updates = int(line.learner.state()[f"{prefix}step"][run])
            if net.units and updates:
                found[line.label + name] = _society(line, prefix, net, run, updates, of_line)
    if not found:
        raise kl.Error(f"no line of {folder} has hidden units that have learned")
    return found


def lived(events: Replaced, layer: int) -> Lived:
    """What a log tells of a layer: every row is a birth, and a death too where somebody lived there."""
    mine = events.layer == layer
    died = mine & (events.age > 0)
    return Lived(np.sort(events.step[mine]), np.sort(events.step[died]), events.age[died])


def strongest(weights: Array, each: int) -> Mask:
    """Of every unit's incoming and outgoing weights the `each` largest ones."""
    order = np.argsort(-weights, axis=None, kind="stable")
    rank = np.empty(weights.size, np.int64)
    rank[order] = np.arange(weights.size)
    ranks = rank.reshape(weights.shape)  # unique, so that ties go to the lowest index
    chosen = np.zeros(weights.shape, bool)
    for axis in (0, 1):
        last = np.sort(ranks, axis=axis).take([min(each, weights.shape[axis]) - 1], axis=axis)
        chosen |= ranks <= last
    return chosen & (weights > 0)


def tables(societies: Mapping[str, Society], lines: Mapping[str, Sequence[Mask]]) -> dict[str, str]:
    """CSV files of units and of lines between them, by name.

    lines: those drawn, of the weights that are shown.  Inputs or outputs that are not told apart are "all".
    """
    units: list[Sequence[Any]] = []
    drawn: list[Sequence[Any]] = []
    for label, society in societies.items():
        places = [str(layer.place) for layer in society.layers]
        for layer in society.layers:
            sizes = [""] * layer.size if layer.step_size is None else layer.step_size.tolist()
            columns = (layer.living, layer.backbone, layer.utility, layer.age)
            parts = zip(*(column.tolist() for column in columns), sizes, strict=True)
            for unit, (living, backbone, utility, age, size) in enumerate(parts):
                values = [int(living), int(backbone), utility, int(age), size]
                units.append([label, layer.place, unit, *values, society.utility_is, society.backbone_is])
        ends = zip(["input", *places], [*places, "output"], strict=True)
        shown = zip(ends, society.weights, society.shown, lines[label], strict=True)
        for (here, there), whole, weights, chosen in shown:
            one, other = (same == other for same, other in zip(whole.shape, weights.shape, strict=True))
            for i, j in np.argwhere(chosen).tolist():
                ends_at = [here, i if one else "all", there, j if other else "all"]
                drawn.append([label, *ends_at, float(weights[i, j])])
    of_units = ["line", "layer", "unit", "living", "backbone", "utility", "age", "step_size"]
    of_lines = ["line", "layer", "unit", "next_layer", "next_unit", "weight"]
    return {
        "units": _text([*of_units, "utility_is", "backbone_is"], units),
        "weights": _text(of_lines, drawn),
    }


def _society(
    line: Standing, prefix: str, net: kl.Network, run: int, updates: int, events: Replaced | None
) -> Society:
    learner, groups = line.learner, net.units
    living = [group.living[run] for group in groups]
    alive = bool(learner.alive[run])
    backbone_is, backbone = _backbone(line, prefix, net)
    try:
        sizes = learner.step_sizes()
    except kl.Error:  # one for all
        sizes = None
    if sizes is not None and not any(sizes[f"{prefix}{group.layer}.weight"].any() for group in groups):
        sizes = None  # units are frozen
    # Rules that watch units count ages; without one, nobody is replaced.
    watched = any(group.age.any() for group in groups)
    utility_is = _utility_of(learner.rules) if any(group.utility.any() for group in groups) else None
    layers = []
    for group, lives, mask in zip(groups, living, backbone, strict=True):
        outgoing = np.abs(group.outgoing[run], dtype=np.float64)
        judged = group.utility[run] if utility_is else outgoing.reshape(group.size, -1).sum(axis=1)
        step_size = None
        if sizes is not None:
            of_group = sizes[f"{prefix}{group.layer}.weight"][run].reshape(group.size, -1)
            step_size = of_group.mean(axis=1, dtype=np.float64)
        layers.append(
            Layer(
                group.layer,
                lives,
                mask[run] & lives,
                np.where(lives, np.nan_to_num(judged), 0).astype(np.float64),
                np.where(lives, group.age[run] if watched else updates, 0).astype(np.float64),
                step_size,
            )
        )
    return Society(
        layers,
        _weights(groups, run, living),
        tuple(net.input_shape),
        utility_is or "sum of outgoing |weights|",
        backbone_is,
        updates,
        alive,
        events,
    )


def _networks(learner: Any) -> Iterator[tuple[str, str, kl.Network]]:
    """What learns in a learner: prefix of names in its state, what is added to its label, and the network."""
    if not isinstance(learner, kl.StreamAgent):
        yield "", "", learner.net
        return
    if learner.policy is not None:
        yield "policy.", ", policy", learner.policy
    yield "value.", ", values", learner.value


def _of_run(events: Replaced | None, run: int) -> Replaced:
    """Of a line's log, empty where the line has none."""
    if events is None:
        none = np.zeros(0, np.int64)
        return Replaced(none, none, none, none, none, np.zeros(0), np.zeros(0, np.str_))
    return Replaced(*(column[events.run == run] for column in events))


def _utility_of(rules: Sequence[Any]) -> str:
    """What the rule that watches units keeps as their utility."""
    for rule in rules:
        if isinstance(rule, kl.Recruitment):
            return "reputation"
        if isinstance(rule, kl.ContinualBackprop):
            return f"utility ({rule.utility.replace('_', ' ')})"
    return "utility (contribution)"


def _backbone(line: Standing, prefix: str, net: kl.Network) -> tuple[str, list[Mask]]:
    """In words where it is from, and masks [R, U]: the learner's own, else by what the inputs show."""
    state = line.learner.state()
    own = [state.get(f"{prefix}Recruitment.{index}.backbone") for index in range(len(net.units))]
    if all(mask is not None for mask in own):
        return "as Recruitment has it", [np.asarray(mask, bool) for mask in own]
    inputs, pixels = line.seen()
    found = net.backbone(inputs, BACKBONE_TOLERANCE, **pixels)
    return f"on its latest inputs, at tolerance {written(BACKBONE_TOLERANCE)}", found


def _weights(groups: Sequence[kl.UnitGroup], run: int, living: Sequence[Mask]) -> list[Array]:
    """Magnitudes from the inputs on, layer by layer; none of vacant places."""
    incoming = np.abs(groups[0].incoming[run], dtype=np.float64)
    found = [incoming.reshape(*incoming.shape[:2], -1).sum(axis=2).T * living[0]]
    for index, (group, lives) in enumerate(zip(groups, living, strict=True)):
        outgoing = np.abs(group.outgoing[run], dtype=np.float64)
        magnitude = outgoing.reshape(*outgoing.shape[:2], -1).sum(axis=2) * lives[:, None]
        found.append(magnitude if index + 1 == len(groups) else magnitude * living[index + 1])
    return found


def _text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([repr(one) if isinstance(one, float) else one for one in row] for row in rows)
    return buffer.getvalue()
