"""The same network twice: R runs in the engine, and one NumPy reference network for each of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klopf as kl
from reference import optimizers
from reference.arrays import Array, Integers, Mask
from reference.continual_backprop import ContinualBackprop, Settings
from reference.goals import Goal
from reference.layers import build
from reference.losses import LOSSES
from reference.network import Learner, Network
from reference.recording import LayerSpec
from reference.recruitment import Recruitment, RecruitmentSettings
from reference.wires import Rewire

State = dict[str, NDArray[Any]]


def engine_network(
    specs: list[LayerSpec], input_shape: tuple[int, ...], runs: int = 1, **options: Any
) -> kl.Network:
    """The engine's network of these layers."""
    return kl.Network(
        [getattr(kl, name)(*arguments) for name, arguments in specs], input_shape, runs=runs, **options
    )


def draw_weights(net: kl.Network, rng: np.random.Generator, scale: float = 1.0) -> State:
    """Gaussian parameters, biases included, that keep activities near one: loaded and returned."""
    state = {}
    for name, value in net.state_dict().items():
        if name.endswith((".vacant", ".wires")):
            state[name] = value
            continue
        fan_in = int(np.prod(value.shape[2:])) if name.endswith("weight") else 4
        drawn = scale * rng.normal(size=value.shape) / np.sqrt(fan_in)
        if name.endswith("running_var"):
            drawn = 0.5 + np.abs(drawn)
        state[name] = drawn.astype(np.float32)
    net.load_state_dict(state)
    return net.state_dict()


def draw_fractions(net: kl.Network, rng: np.random.Generator, denominator: int = 4) -> State:
    """Multiples of 1 / denominator, so that float32 sums of products are exact: loaded and returned."""
    state = {
        name: (rng.integers(-denominator, denominator + 1, size=value.shape) / denominator).astype(np.float32)
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return state


def of_run(state: State, run: int) -> State:
    """One run's part of a state dict [R, ...]."""
    return {name: value[run] for name, value in state.items()}


def reference_networks(specs: list[LayerSpec], input_shape: tuple[int, ...], state: State) -> list[Network]:
    """One reference network for every run of a state dict."""
    runs = len(next(iter(state.values())))
    return [Network(build(specs), input_shape, of_run(state, run)) for run in range(runs)]


def option_of_run(options: dict[str, Any], run: int) -> dict[str, Any]:
    """Numeric options may be arrays with a value for every run."""
    return {key: value[run] if isinstance(value, np.ndarray) else value for key, value in options.items()}


class EngineDraws:
    """What the engine drew at random in one run, read from its state after the step."""

    def __init__(self, net: kl.Network, run: int) -> None:
        self.net, self.run = net, run
        self.replaced: list[Mask] = []  # of every group [U]

    def new_incoming(self, group: int, units: Integers) -> Array:
        """The incoming weights that the engine gave to these units."""
        return np.asarray(self.net.units[group].incoming[self.run][units], np.float64)

    def new_wires(self, group: int, units: Integers) -> Array:
        """Those that the engine gave to these units."""
        return np.asarray(self.net.units[group].wires[self.run][units], np.float64)

    def wires(self, group: int, unit: int) -> Array:
        """What a unit of the engine listens to [I]."""
        return self.new_wires(group, np.array([unit]))[0]

    def utility(self, group: int) -> Array:
        """The engine's random utilities; the replaced ones, zeroed since, must have been the lowest."""
        utility = np.asarray(self.net.units[group].utility[self.run], np.float64)
        return np.where(self.replaced[group], -1.0, utility)

    def coin(self, group: int) -> float:
        """Zero, which replaces, where the engine has replaced a unit."""
        return 0.0 if self.replaced[group].any() else float(np.nextafter(1.0, 0.0))


RULES: dict[str, tuple[type[ContinualBackprop], type[Settings]]] = {
    "ContinualBackprop": (ContinualBackprop, Settings),
    "Recruitment": (Recruitment, RecruitmentSettings),
}


class Lockstep:
    """Steps the engine, and after it one reference learner for every run, with the engine's own draws."""

    def __init__(
        self,
        specs: list[LayerSpec],
        input_shape: tuple[int, ...],
        runs: int,
        loss: str,
        optimizer: tuple[str, dict[str, Any]],
        rule: dict[str, Any],
        seed: int = 0,
        replacing: str | None = "ContinualBackprop",
        goals: Sequence[dict[str, Any]] = (),
        rewire: dict[str, Any] | None = None,
    ) -> None:
        kind, options = optimizer
        self.net = engine_network(specs, input_shape, runs)
        state = draw_weights(self.net, np.random.default_rng(seed))
        self.engine = kl.Learner(
            self.net,
            loss=loss,
            optimizer=getattr(kl, kind)(**options),
            rules=[
                *([getattr(kl, replacing)(**rule)] if replacing else []),
                *([] if rewire is None else [kl.Rewire(**rewire)]),
                *(kl.Goal(**goal) for goal in goals),
            ],
        )
        self.draws = [EngineDraws(self.net, run) for run in range(runs)]
        self.rules: list[ContinualBackprop] = []
        if replacing:
            twin, settings = RULES[replacing]
            self.rules = [twin(settings(**option_of_run(rule, d.run)), d) for d in self.draws]
        self.networks = reference_networks(specs, input_shape, state)
        self.references: list[Learner] = []
        for run, network in enumerate(self.networks):
            own_optimizer = getattr(optimizers, kind)(**option_of_run(options, run))
            own_rule = self.rules[run] if self.rules else None
            own_goals = [Goal(**option_of_run(goal, run), seed=self.net.seeds[run]) for goal in goals]
            own_wires = None
            if rewire is not None:
                own_wires = Rewire(self.draws[run].wires, **option_of_run(rewire, run))
            self.references.append(
                Learner(network, LOSSES[loss], own_optimizer, own_rule, own_goals, own_wires)
            )

    def step(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[list[list[Integers]], list[list[Integers]]]:
        """The engine's and the references' replaced units, [run][group], sorted; x and y are [R, B, ...]."""
        masks = self.engine.step(x, y).replaced
        engine, references = [], []
        for run, (draws, reference) in enumerate(zip(self.draws, self.references, strict=True)):
            draws.replaced = [np.asarray(mask[run]) for mask in masks or []]
            engine.append([np.flatnonzero(gone) for gone in draws.replaced])
            references.append([np.sort(units) for units in reference.step(x[run], y[run])[1]])
        return engine, references
