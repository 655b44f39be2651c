"""Initial distributions: bounds, spread, and which numbers are zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")

Bounds = Callable[[int, int, float], tuple[float, float]]  # fan_in, fan_out, gain: of weights, of biases

BOUNDS: dict[str, Bounds] = {
    "kaiming": lambda fan_in, fan_out, gain: (gain * np.sqrt(3 / fan_in), 0),
    "pytorch": lambda fan_in, fan_out, gain: (1 / np.sqrt(fan_in), 1 / np.sqrt(fan_in)),
    "lecun": lambda fan_in, fan_out, gain: (np.sqrt(3 / fan_in), 0),
    "xavier": lambda fan_in, fan_out, gain: (np.sqrt(6 / (fan_in + fan_out)), 0),
    "sparse": lambda fan_in, fan_out, gain: (1 / np.sqrt(fan_in), 0),
}
LAYERS = [
    kl.Conv2d(20, 3),
    kl.ReLU(),
    kl.MaxPool2d(2),
    kl.Conv2d(12, 2),
    kl.Tanh(),
    kl.Flatten(),
    kl.Linear(30),
    kl.LeakyReLU(0.2),
    kl.Linear(25),
    kl.Sigmoid(),
    kl.Linear(11),
]
FANS = {  # layer: fan_in, fan_out, gain of the activation that follows
    0: (3 * 9, 20 * 9, np.sqrt(2)),
    3: (20 * 4, 12 * 4, 5 / 3),
    6: (12 * 4, 30, np.sqrt(2 / (1 + 0.2**2))),
    8: (30, 25, 1.0),
    10: (25, 11, 1.0),
}


def test_every_initialiser_is_here() -> None:
    assert set(BOUNDS) == set(kl.initialisers)


@pytest.mark.parametrize("init", kl.initialisers)
def test_bounds_and_spread(init: str) -> None:
    net = kl.Network(LAYERS, input_shape=(3, 8, 8), runs=40, init=init)
    state = net.state_dict()
    for layer, (fan_in, fan_out, gain) in FANS.items():
        weight = state[f"{layer}.weight"].astype(np.float64).reshape(40, -1, fan_in)
        bias = state[f"{layer}.bias"]
        weight_bound, bias_bound = BOUNDS[init](fan_in, fan_out, gain)
        drawn = weight[weight != 0] if init == "sparse" else weight
        for values, bound in ((drawn, weight_bound), (bias, bias_bound)):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            if bound:  # uniform: mean 0, deviation bound / sqrt(3), within five standard errors
                error = 5 * bound / np.sqrt(3 * values.size)
                assert abs(values.mean()) < error
                assert abs(values.std() - bound / np.sqrt(3)) < error
        if init == "sparse":
            assert ((weight == 0).sum(axis=2) == np.ceil(0.9 * fan_in)).all()


def test_the_sparse_count_is_exact_for_small_fans() -> None:
    for inputs in range(1, 60):
        weight = kl.Network([kl.Linear(7)], input_shape=(inputs,), init="sparse").state_dict()["0.weight"]
        assert ((weight == 0).sum(axis=2) == -(-9 * inputs // 10)).all()
