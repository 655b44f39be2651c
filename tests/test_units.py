"""Unit groups and continual backprop of the engine, in lockstep with the reference."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error
from reference.recording import LayerSpec
from reference.units import bias_corrected
from reference.utilities import MEASURES
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-4
RUNS, STEPS = 3, 40

Specs = list[LayerSpec]

MLP: Specs = [("Linear", (13,)), ("ReLU", ()), ("Linear", (11,)), ("Tanh", ()), ("Linear", (3,))]
CONVOLUTIONAL: Specs = [
    *[("Conv2d", (5, 3, 1, 1)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Conv2d", (7, 3)), ("LeakyReLU", (0.1,))],
    *[("Flatten", ()), ("Linear", (9,)), ("Sigmoid", ()), ("Linear", (3,))],
]
NORMALISED: Specs = [
    *[("Conv2d", (5, 3)), ("BatchNorm2d", ()), ("ReLU", ()), ("MaxPool2d", (2,))],
    *[("Conv2d", (7, 2)), ("LayerNorm", ()), ("ReLU", ()), ("Flatten", ()), ("LayerNorm", (1e-5, False))],
    *[("Linear", (9,)), ("BatchNorm1d", (1e-3,)), ("Tanh", ()), ("LayerNorm", (1e-3,)), ("Linear", (3,))],
]
NETWORKS: dict[str, tuple[Specs, tuple[int, ...]]] = {
    "mlp": (MLP, (6,)),
    "conv": (CONVOLUTIONAL, (2, 8, 9)),
    "normalised": (NORMALISED, (2, 8, 9)),
}
TOLERANCES = {"normalised": 1e-3}
BEFORE_BATCH_NORM = ("0.bias", "9.bias")  # whose gradients only rounding keeps from zero

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "momentum": ("SGD", {"step_size": 0.02, "momentum": 0.9, "weight_decay": 0.001}),
    "adam": ("Adam", {"step_size": 0.003, "epsilon": 1e-4}),  # tiny gradients must not become signs
}
RULE: dict[str, Any] = {"replacement_rate": 0.05, "utility_decay": 0.9, "maturity": 4}


def data(shape: tuple[int, ...], batch: int = 6, outputs: int = 3, seed: int = 1) -> Any:
    """Endless (x [R, B, ...], labels [R, B]), other ones in every run."""
    rng = np.random.default_rng(seed)
    while True:
        yield (
            rng.normal(size=(RUNS, batch, *shape)).astype(np.float32),
            rng.integers(0, outputs, size=(RUNS, batch)),
        )


def run_lockstep(network: str, optimizer: str, rule: dict[str, Any], steps: int = STEPS) -> int:
    """Both sides step together and agree at every step; returns the number of replacements."""
    specs, shape = NETWORKS[network]
    pair = Lockstep(specs, shape, RUNS, "cross_entropy", OPTIMIZERS[optimizer], RULE | rule)
    total = 0
    batch = 6
    if network == "normalised":  # normalised batches make much of a rounding
        batch, steps = 24, steps // 2
    for _, (x, y) in zip(range(steps), data(shape, batch), strict=False):
        engine, references = pair.step(x, y)
        for run in range(RUNS):
            assert [list(units) for units in engine[run]] == [list(units) for units in references[run]]
            total += sum(len(units) for units in engine[run])
            check_statistics(pair, run, TOLERANCES.get(network, TOLERANCE))
    state = pair.net.state_dict()
    for run, reference in enumerate(pair.networks):
        arrays = reference.parameters() | reference.buffers()
        assert set(arrays) == set(state)
        for name, expected in arrays.items():
            if network == "normalised" and name in BEFORE_BATCH_NORM:
                assert np.abs(state[name][run] - expected).max() < 1e-4
                continue
            tolerance = TOLERANCES.get(network, TOLERANCE)
            assert relative_error(state[name][run], expected) < tolerance, (run, name)
    return total


def check_statistics(pair: Lockstep, run: int, tolerance: float) -> None:
    """Age, mean activity and utility of every group after a step."""
    decay = pair.rules[run].settings.utility_decay
    for index, (units, expected) in enumerate(zip(pair.net.units, pair.networks[run].units, strict=True)):
        assert np.array_equal(units.age[run], expected.age)
        mean = bias_corrected(expected.activity_trace, expected.age, decay)
        assert relative_error(units.mean_activity[run], mean) < tolerance
        if pair.rules[run].settings.utility != "random":
            gone = expected.age == 0
            utility = np.where(gone, 0.0, pair.rules[run].utilities[index])
            assert relative_error(units.utility[run], utility) < tolerance, index


def test_reference_has_every_measure() -> None:
    assert set(kl.utilities) == {*MEASURES, "random"}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("utility", kl.utilities)
def test_every_measure(utility: str, network: str) -> None:
    assert run_lockstep(network, "momentum", {"utility": utility}) > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "rule",
    [
        {"count_from": "all"},
        {"count_mode": "bernoulli"},
        {"count_mode": "bernoulli", "count_from": "all", "replacement_rate": 0.3},
        {"transfer_mean_to_bias": True},
        {"transfer_mean_to_bias": True, "utility": "adaptable_contribution", "reset_optimizer_state": False},
        {"reset_optimizer_state": False},
        {"replacement_rate": 1.0, "maturity": 6},
        {"replacement_rate": 1.0, "maturity": 0},
        {
            "replacement_rate": np.array([0.0, 0.03, 0.2]),
            "utility_decay": np.array([0.0, 0.5, 0.99]),
            "maturity": np.array([2, 5, 9]),
        },
    ],
    ids=lambda rule: "-".join(f"{key}={value}" for key, value in rule.items()),
)
def test_every_option(rule: dict[str, Any], network: str, optimizer: str) -> None:
    assert run_lockstep(network, optimizer, rule) > 0


def test_nothing_is_replaced_at_rate_zero() -> None:
    assert run_lockstep("mlp", "momentum", {"replacement_rate": 0.0, "maturity": 0}) == 0


def test_groups_show_the_weights() -> None:
    specs, shape = NETWORKS["conv"]
    net = Lockstep(specs, shape, RUNS, "cross_entropy", OPTIMIZERS["momentum"], RULE).net
    state = net.state_dict()
    names = [name for name in state if name.endswith("weight")]
    assert [units.size for units in net.units] == [5, 7, 9]
    for units, first, following in zip(net.units, names[:-1], names[1:], strict=True):
        assert np.array_equal(np.reshape(units.incoming, state[first].shape), state[first])
        per_unit = state[following].reshape(RUNS, state[following].shape[1], units.size, -1).swapaxes(1, 2)
        seen = np.asarray(units.outgoing)
        assert seen.shape[:2] == (RUNS, units.size)
        assert np.array_equal(
            np.sort(seen.reshape(RUNS, units.size, -1)), np.sort(per_unit.reshape(RUNS, units.size, -1))
        )


def test_activities_are_what_the_next_layer_sees() -> None:
    specs, shape = NETWORKS["conv"]
    pair = Lockstep(specs, shape, RUNS, "cross_entropy", OPTIMIZERS["momentum"], RULE)
    x, _ = next(data(shape))
    seen: list[NDArray[np.float32]] = pair.net.activities(x)
    for run, reference in enumerate(pair.networks):
        reference.forward(x[run])
        for mine, expected in zip(seen, reference.activities, strict=True):
            assert relative_error(mine[run], expected) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"utility": "contributions"},
        {"count_from": "some"},
        {"count_mode": "poisson"},
        {"replacement_rate": -0.1},
        {"replacement_rate": 1.1},
        {"replacement_rate": float("nan")},
        {"replacement_rate": np.ones(RUNS + 1)},
        {"utility_decay": 1.0},
        {"utility_decay": -0.1},
        {"maturity": -1},
        {"init": "kaimin"},
    ],
    ids=str,
)
def test_bad_option(options: dict[str, Any]) -> None:
    specs, shape = NETWORKS["mlp"]
    net = kl.Network([getattr(kl, name)(*arguments) for name, arguments in specs], shape, runs=RUNS)
    with pytest.raises(kl.Error):
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[kl.ContinualBackprop(**options)])
