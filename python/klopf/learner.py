"""Learners that save themselves."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf import _core, checkpoint
from klopf.arguments import explain_arguments
from klopf.network import Network
from klopf.own_rules import StepSizeRule, UnitRule, WatchedUnits
from klopf.specs import (
    Loss,
    Optimizer,
    PerRun,
    Rule,
    describe,
    describe_network,
    made,
    made_network,
    plain,
)

_FORMAT = "klopf learner 1"
_PYTHON = "python"  # of what is described, and before the names of what it keeps


class Learner(_core.Learner):
    __doc__ = _core.Learner.__doc__

    def __init__(
        self,
        network: Network,
        *,
        loss: Loss,
        optimizer: Optimizer | StepSizeRule,
        rules: Sequence[Rule | UnitRule] | None = None,
        max_gradient_norm: PerRun | None = None,
        events: int = 0,
    ) -> None:
        given = _rules(rules)
        super().__init__(
            network,
            loss=loss,
            optimizer=_core.HostOptimizer() if isinstance(optimizer, StepSizeRule) else optimizer,
            rules=[rule._spec() if isinstance(rule, UnitRule) else rule for rule in given],
            max_gradient_norm=max_gradient_norm,
            events=events,
        )
        self.max_gradient_norm = max_gradient_norm
        self.net = network
        self.loss = loss
        self.optimizer = optimizer
        self.rules = given
        self._capacity = events
        self._turns: list[StepSizeRule | UnitRule] = [
            one for one in (optimizer, *given) if isinstance(one, StepSizeRule | UnitRule)
        ]
        if len({id(one) for one in self._turns}) < len(self._turns):
            raise _core.Error("[learner] each rule in Python must be an object of its own")
        if self._turns:
            this = weakref.ref(self)  # else learner and engine would hold each other for ever

            def turn(index: int) -> None:
                learner = this()
                if learner is not None:
                    learner._turn(index)

            self._on_pause(turn)
            self._begin()

    def _begin(self) -> None:
        for one in self._turns:
            one.state.clear()
            one.begin(self._watched() if isinstance(one, UnitRule) else self._parameters())  # type: ignore[arg-type]

    def _watched(self) -> list[WatchedUnits]:
        return [WatchedUnits(self, index) for index in range(len(self.net.units))]

    def _parameters(self) -> dict[str, NDArray[Any]]:
        """The weights, without what runs along."""
        learned = ("weight", "bias", "log_std")
        return {name: w for name, w in self.net.state_dict().items() if name.rpartition(".")[2] in learned}

    def _turn(self, index: int) -> None:
        """What the rule of this number does in a step."""
        one = self._turns[index]
        if isinstance(one, UnitRule):
            for group, mask in enumerate(one._masks(self._watched())):
                self._replace(group, mask & self.alive[:, None])
            return
        if any(getattr(rule, "reset_optimizer_state", False) for rule in self.rules):
            self._forget(one)
        new = one._new(self._parameters(), self._gradients(), self.alive)
        self.net.load_state_dict({**self.net.state_dict(), **new})

    def _forget(self, optimizer: StepSizeRule) -> None:
        """What it keeps for the units that were replaced in the step before."""
        for group, mask in zip(self.net.units, self._replaced(), strict=True):
            if not mask.any():
                continue
            weights = self._parameters()
            *own, outgoing = group._weights
            for place in range(group.layer + 1, group.next_layer):  # gains and biases of normalisation
                own += [name for name in (f"{place}.weight", f"{place}.bias") if name in weights]
            for name in own:  # the unit, or the unit and its positions, are the second axis
                shape = weights[name].shape
                where = np.repeat(mask, shape[1] // group.size, axis=1)
                optimizer.reset(
                    name, np.broadcast_to(where.reshape(*where.shape, *[1] * (len(shape) - 2)), shape)
                )
            shape = weights[outgoing].shape
            where = np.repeat(mask, shape[2] // group.size, axis=1)
            where = where.reshape(len(mask), 1, -1, *[1] * (len(shape) - 3))
            optimizer.reset(outgoing, np.broadcast_to(where, shape))

    def events(self) -> dict[str, NDArray[Any]]:
        """The last replacements of units, run by run in their order: a column [N] for each of

        run, layer (as in `state_dict`), unit, step (updates before it), age (updates that the unit lived),
        utility (its last one) and cause (the rule's name). Of each run as many as the learner's `events`.
        """
        found: dict[str, Any] = self._events()
        layers = np.array([group.layer for group in self.net.units], dtype=np.int64)
        names = np.array([type(rule).__name__ for rule in self.rules] or [""])
        found["cause"] = names[found["cause"]]
        return {
            "run": found.pop("run"),
            "layer": layers[found.pop("group")] if len(layers) else found.pop("group"),
            **found,
        }

    def add_units(self, units: int | NDArray[np.bool_], group: int = 0) -> NDArray[np.bool_]:
        """Units begin to live where none did: incoming weights drawn anew, outgoing ones zero, so that the
        network computes what it did; what optimizer and rules keep of them begins too.

        Args:
            units: which [R, U] or [U]; or how many in each run, the first places where there is room
            group: place in `Network.units`

        Returns:
            those that were added [R, U]

        Raises:
            klopf.Error: a layer without room (`kl.Linear(64, living=8)` has some), a unit that lives already
        """
        return self._change_units("add_units", units, group, self._add_units)

    def remove_units(self, units: int | NDArray[np.bool_], group: int = 0) -> NDArray[np.bool_]:
        """Units cease to live; their mean contribution goes into the next layer's biases, where a rule that
        watches units knows their mean activity.

        Args:
            units: which [R, U] or [U]; or how many in each run, those of lowest utility (without a
                rule that watches units, the first ones)
            group: place in `Network.units`

        Returns:
            those that were removed [R, U]

        Raises:
            klopf.Error: a layer whose units live always, a unit that does not live
        """
        return self._change_units("remove_units", units, group, self._remove_units)

    def _change_units(
        self, name: str, units: int | NDArray[np.bool_], group: int, change: Callable[..., None]
    ) -> NDArray[np.bool_]:
        groups = self.net.units
        if not (isinstance(group, int) and 0 <= group < len(groups)):
            raise _core.Error(f"[{name}] group must be a place in Network.units, got {group!r}")
        asked = groups[group]
        shape, there = (self.net.runs, asked.size), asked.living
        given = np.asarray(units)
        if given.dtype == np.bool_ and given.shape in (shape, shape[1:]):
            mask = np.ascontiguousarray(np.broadcast_to(given, shape))
        elif given.dtype.kind in "iu" and given.ndim == 0:
            adds = name == "add_units"
            candidates = there != adds
            if (candidates.sum(axis=1) < given).any() or given < 0:
                raise _core.Error(
                    f"[{name}] expected from 0 to {candidates.sum(axis=1).min()} units, as many as "
                    f"{'have room' if adds else 'live'}, got {int(given)}"
                )
            worth = np.where(candidates, 0.0 if adds else asked.utility, np.inf)
            mask = np.zeros(shape, np.bool_)
            np.put_along_axis(mask, np.argsort(worth, axis=1, kind="stable")[:, : int(given)], True, axis=1)
        else:
            raise _core.Error(
                f"[{name}] units must be a number, or a mask {list(shape)} or [{asked.size}], "
                f"got {given.dtype} {list(given.shape)}"
            )
        change(group, mask)
        return mask

    @property
    def events_counted(self) -> NDArray[np.int64]:
        """How many replacements there were [R], those that are forgotten included."""
        return self._events_counted()

    def restart(self) -> None:
        super().restart()
        self._begin()

    restart.__doc__ = _core.Learner.restart.__doc__

    def state(self) -> dict[str, NDArray[Any]]:
        kept = {
            f"{_PYTHON}.{index}.{name}": np.array(value)
            for index, one in enumerate(self._turns)
            for name, value in one.state.items()
        }
        return {**super().state(), **kept}

    state.__doc__ = _core.Learner.state.__doc__

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        if not self._turns:
            return super().load_state(arrays)
        theirs = {name: value for name, value in arrays.items() if not name.startswith(f"{_PYTHON}.")}
        own = [checkpoint.within(arrays, f"{_PYTHON}.{index}.") for index in range(len(self._turns))]
        for one, kept in zip(self._turns, own, strict=True):
            if set(kept) != set(one.state):
                raise _core.Error(
                    f"[load_state] {type(one).__name__} keeps {sorted(one.state)}, got {sorted(kept)}"
                )
        if len(theirs) + sum(len(kept) for kept in own) < len(arrays):
            raise _core.Error(f"[load_state] expected {len(self._turns)} rules in Python, got more")
        super().load_state(theirs)
        for one, kept in zip(self._turns, own, strict=True):
            one.state.update({name: np.array(value) for name, value in kept.items()})

    load_state.__doc__ = _core.Learner.load_state.__doc__

    def save(self, path: str | PathLike[str]) -> None:
        """Writes everything to one safetensors file, atomically: exact resume with `Learner.load`.

        Of rules in Python their `state` is written, and their names.

        Raises:
            klopf.Error: the file cannot be written.
        """
        settings = {
            "format": _FORMAT,
            "arithmetic": self.net._arithmetic,
            "network": describe_network(self.net),
            "loss": describe(self.loss),
            "optimizer": _described(self.optimizer),
            "rules": [_described(rule) for rule in self.rules],
            "max_gradient_norm": plain(self.max_gradient_norm),
            "events": self._capacity,
        }
        checkpoint.write(path, self.state(), settings)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        rules: Sequence[Rule | UnitRule] | None = None,
        device: str = "cpu",
        precision: str = "float32",
        *,
        optimizer: StepSizeRule | None = None,
    ) -> Learner:
        """A learner that goes on exactly where the saved one stood, bit for bit at the same level, on the
        same device and at the same precision.

        Args:
            path: what `save` wrote
            rules: in place of the saved ones, of the same kinds; to be given where one is in Python
            device: where it goes on
            precision: of dense products there
            optimizer: to be given where it is in Python

        Raises:
            klopf.Error: missing, truncated or corrupt file; a file of something else.
        """
        arrays, settings = checkpoint.read_saved(path, _FORMAT, "a learner")
        saved = settings["rules"]
        _expect_given(path, "rules", saved, rules)
        _expect_given(path, "optimizer", [settings["optimizer"]], None if optimizer is None else [optimizer])
        learner = cls(
            made_network(settings["network"], device, precision),
            loss=made(settings["loss"]),
            optimizer=made(settings["optimizer"]) if optimizer is None else optimizer,
            rules=[made(rule) for rule in saved] if rules is None else rules,
            max_gradient_norm=settings.get("max_gradient_norm"),
            events=settings.get("events", 0),
        )
        learner.load_state(arrays)
        checkpoint.warn_of_other_arithmetic(path, settings["arithmetic"], learner.net._arithmetic)
        return learner


def _rules(given: Any) -> list[Any]:
    """Those given, each a rule."""
    if not isinstance(given, Sequence | None):
        raise _core.Error(f"[learner] rules must be a list, got {given!r}")
    rules = list(given or [])
    for one in rules:
        if not isinstance(one, Rule | UnitRule):
            raise _core.Error(
                f"[learner] rules must be unit rules, as kl.ContinualBackprop() is, got {one!r}"
            )
    return rules


def _described(value: Any) -> Any:
    if isinstance(value, UnitRule | StepSizeRule):
        return {"kind": _PYTHON, "name": type(value).__name__}
    return describe(value)


def _expect_given(path: str | PathLike[str], option: str, saved: list[Any], given: Any) -> None:
    """Raises klopf.Error where what was saved is in Python, and what is given is not that."""
    names = [one["name"] if one["kind"] == _PYTHON else None for one in saved]
    if given is None:
        if any(names):
            raise _core.Error(
                f"[load] {path} was saved with {', '.join(filter(None, names))} in Python: give {option}="
            )
        return
    now = [type(one).__name__ if isinstance(one, UnitRule | StepSizeRule) else None for one in given]
    if now != names:
        raise _core.Error(f"[load] {option} must be of the kinds saved in {path}, {saved}, got {list(given)}")


explain_arguments(
    Learner,
    "learner",
    ("__init__", "step", "run", "evaluate", "forward", "forward_on_device", "backward", "load_state"),
)
