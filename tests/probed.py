"""What tests of the backbone and of pruning share: networks made by hand, and networks drawn."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl

Array = NDArray[Any]

GRID = np.array(list(product([0.0, 0.5, 1.0], repeat=2)), np.float32)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(layers: list[Any], inputs: tuple[int, ...], **arrays: Any) -> kl.Network:
    """One run, with weights given as w0=... and b0=... of layer 0; the others are zero."""
    net = kl.Network(layers, inputs)
    state = {name: 0 * array for name, array in net.state_dict().items()}
    for name, value in arrays.items():
        full = f"{name[1:]}.{'weight' if name[0] == 'w' else 'bias'}"
        state[full][:] = np.array(value, np.float32).reshape(state[full].shape)
    net.load_state_dict(state)
    return net


dense = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([kl.ReLU(), kl.LeakyReLU(0.1), kl.Tanh(), kl.Sigmoid()]),
    st.booleans(),
).map(
    lambda drawn: (
        [
            layer
            for units in drawn[0]
            for layer in (kl.Linear(units), *([kl.BatchNorm1d()] if drawn[2] else []), drawn[1], kl.Dropout())
        ]
        + [kl.Linear(2)],
        (3,),
    )
)
convolutional = st.sampled_from(
    [
        [kl.Conv2d(3, 3), kl.ReLU(), kl.MaxPool2d(2), kl.Conv2d(2, 2, padding=1), kl.Tanh(), kl.Flatten()],
        [kl.Conv2d(2, 3, 2, 1), kl.BatchNorm2d(), kl.ReLU(), kl.Conv2d(3, 2), kl.MaxPool2d(2), kl.Flatten()],
        [
            kl.Conv2d(3, 3, padding=2),
            kl.LeakyReLU(),
            kl.MaxPool2d(3, 2),
            kl.Flatten(),
            kl.Linear(4),
            kl.ReLU(),
        ],
    ]
).map(lambda layers: ([*layers, kl.Linear(2)], (2, 6, 7)))
networks = dense | convolutional


def drawn_net(
    layers: list[Any], shape: tuple[int, ...], seed: int, runs: int = 1
) -> tuple[kl.Network, Array]:
    """With random biases, gains and running statistics too, and a probe."""
    net, draw = kl.Network(layers, shape, runs=runs, seeds=range(seed, seed + runs)), random(seed)
    state = net.state_dict()
    for name, array in state.items():
        if "running_var" in name:
            array[:] = draw.uniform(0.2, 3, size=array.shape)
        elif array.ndim == 2:
            array[:] += draw.normal(0, 0.5, size=array.shape)
    net.load_state_dict(state)
    return net, draw.normal(size=(9, *shape)).astype(np.float32)
