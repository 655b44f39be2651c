"""What every library has to compute: networks, data, and the formulations that are timed.

Nothing here is written for one library. Layers are tuples of a word and numbers, weights have PyTorch's names
and shapes, and both reach every library as the same NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Layer = tuple[
    Any, ...
]  # ("conv", filters, kernel), ("pool", kernel), ("linear", units), ("relu",), ("flatten",)
Data = Mapping[str, Array]


@dataclass(frozen=True)
class Formulation:
    """One way to compute a case.

    library: the module `peers.LIBRARY_peer`.  how: words that this module understands.
    against: the formulation of klopf that it is compared with.
    """

    name: str
    library: Literal["klopf", "torch", "jax"]
    how: tuple[str, ...]
    against: str


@dataclass(frozen=True)
class Case:
    """A task of a size that people train.

    networks: layers by name; a step updates all of them on the same inputs.
    batch: samples of a step.  inputs: batches of distinct inputs; each comes with two opposite targets.
    cbp: options of klopf.ContinualBackprop, where a formulation asks for it.
    """

    name: str
    title: str
    input_shape: tuple[int, ...]
    networks: Mapping[str, tuple[Layer, ...]]
    batch: int
    inputs: int
    loss: Literal["cross_entropy", "mse"]
    optimizer: Literal["sgd", "adam"]
    step_size: float
    formulations: tuple[Formulation, ...]
    momentum: float = 0.0
    cbp: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """Steps until the data begin again."""
        return 2 * self.inputs


def mlp(*units: int) -> tuple[Layer, ...]:
    """Linear layers with ReLU between them."""
    layers: list[Layer] = []
    for count in units[:-1]:
        layers += [("linear", count), ("relu",)]
    return (*layers, ("linear", units[-1]))


def convolutions(*filters: tuple[int, int]) -> tuple[Layer, ...]:
    """Blocks of convolution (filters, kernel), ReLU and 2x2 pooling, then flattened."""
    layers: list[Layer] = []
    for count, kernel in filters:
        layers += [("conv", count, kernel), ("relu",), ("pool", 2)]
    return (*layers, ("flatten",))


# --- data ---------------------------------------------------------------------------------------------------


def make_data(case: Case, seed: int = 0) -> dict[str, Array]:
    """Initial weights and all batches.

    Keys: "x" [T, B, ...] float32; for each network "NAME.y", int64 [T, B] or float32 [T, B, O], and its
    weights "NAME.0.weight", "NAME.0.bias", ... with T = case.batches.

    Every batch comes twice, with opposite targets.  Nothing can learn that, so gradients neither vanish nor
    explode, however many steps a machine does in its time; the inputs are small lest units die at once.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((case.inputs, case.batch, *case.input_shape), dtype=np.float32) / 4
    data: dict[str, Array] = {"x": _interleaved(x, x)}
    for name, layers in case.networks.items():
        weights, outputs = _initial_weights(layers, case.input_shape, rng)
        data |= {f"{name}.{key}": value for key, value in weights.items()}
        shape = (case.inputs, case.batch)
        if case.loss == "cross_entropy":
            labels = rng.integers(outputs, size=shape)
            data[f"{name}.y"] = _interleaved(labels, (labels + 1) % outputs)
        else:
            targets = rng.standard_normal((*shape, outputs), dtype=np.float32)
            data[f"{name}.y"] = _interleaved(targets, -targets)
    return data


def _interleaved(first: Array, second: Array) -> Array:
    """first[0], second[0], first[1], ..."""
    return np.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def weights_of(data: Data, network: str) -> dict[str, Array]:
    """Weights of one network as PyTorch names them: "0.weight", "0.bias", ..."""
    prefix = f"{network}."
    return {
        key.removeprefix(prefix): value
        for key, value in data.items()
        if key.startswith(prefix) and key != f"{network}.y"
    }


def _initial_weights(
    layers: tuple[Layer, ...], shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[dict[str, Array], int]:
    """Kaiming's weights and zero biases by name, and the number of outputs."""
    weights: dict[str, Array] = {}
    for index, (kind, *numbers) in enumerate(layers):
        if kind == "conv":
            filters, kernel = numbers
            new: tuple[int, ...] = (filters, shape[0], kernel, kernel)
            shape = (filters, shape[1] - kernel + 1, shape[2] - kernel + 1)
        elif kind == "linear":
            new = (numbers[0], shape[0])
            shape = (numbers[0],)
        else:
            if kind == "pool":
                shape = (shape[0], shape[1] // numbers[0], shape[2] // numbers[0])
            elif kind == "flatten":
                shape = (int(np.prod(shape)),)
            continue
        gain = 1.0 if index == len(layers) - 1 else np.sqrt(2.0)
        scale = np.float32(gain / np.sqrt(np.prod(new[1:])))
        weights[f"{index}.weight"] = scale * rng.standard_normal(new, dtype=np.float32)
        weights[f"{index}.bias"] = np.zeros(new[0], np.float32)
    return weights, shape[0]


# --- the cases ----------------------------------------------------------------------------------------------


def _klopf(name: str, *how: str, against: str = "") -> Formulation:
    return Formulation(name, "klopf", how, against or name)


def _peers(against: str, *how_in_jax: str) -> tuple[Formulation, ...]:
    return (
        Formulation("PyTorch eager", "torch", ("eager",), against),
        Formulation("PyTorch compiled", "torch", ("compiled",), against),
        Formulation("JAX jit", "jax", ("step", *how_in_jax), against),
    )


_BP = _klopf("klopf bp", "step")

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "imagenet",
            "Continual ImageNet: 3 conv, 3 linear, batch 100, SGD, momentum",
            (3, 32, 32),
            {"net": (*convolutions((32, 5), (64, 3), (128, 3)), *mlp(128, 128, 2))},
            batch=100,
            inputs=6,
            loss="cross_entropy",
            optimizer="sgd",
            step_size=0.01,
            momentum=0.9,
            cbp={  # as `klopf imagenet --method cbp` has it
                "replacement_rate": 3e-4,
                "utility": "adaptable_contribution",
                "maturity": 100,
                "count_from": "all",
                "reset_optimizer_state": False,
                "init": "pytorch",
            },
            formulations=(
                _klopf("klopf cbp", "cbp", "step"),
                _klopf("klopf bp", "step", against="klopf cbp"),
                Formulation("PyTorch eager", "torch", ("eager",), "klopf cbp"),
                Formulation("PyTorch channels_last", "torch", ("eager", "channels_last"), "klopf cbp"),
                Formulation("PyTorch compiled", "torch", ("compiled", "channels_last"), "klopf cbp"),
                Formulation("JAX jit", "jax", ("step",), "klopf cbp"),
            ),
        ),
        Case(
            "ppo",
            "PPO: 27-256-256-8 and 27-256-256-1, batch 128, Adam",
            (27,),
            {"policy": mlp(256, 256, 8), "value": mlp(256, 256, 1)},
            batch=128,
            inputs=16,
            loss="mse",
            optimizer="adam",
            step_size=3e-4,
            formulations=(_BP, *_peers("klopf bp")),
        ),
        Case(
            "stream",
            "Stream: 105-128-128-8, batch 1, SGD",
            (105,),
            {"net": mlp(128, 128, 8)},
            batch=1,
            inputs=1000,
            loss="mse",
            optimizer="sgd",
            step_size=0.001,
            formulations=(_BP, *_peers("klopf bp")),
        ),
        Case(
            "tiny",
            "Tiny stream: 20-5-1, batch 1, SGD",
            (20,),
            {"net": mlp(5, 1)},
            batch=1,
            inputs=1000,
            loss="mse",
            optimizer="sgd",
            step_size=0.01,
            cbp={"replacement_rate": 1e-4, "maturity": 100},
            formulations=(
                _klopf("klopf cbp, step", "cbp", "step"),
                *_peers("klopf cbp, step", "packed"),
                _klopf("klopf cbp, run", "cbp", "run"),
                Formulation("JAX scan", "jax", ("scan",), "klopf cbp, run"),
            ),
        ),
        Case(
            "large",
            "Permuted images: 784-2000-2000-2000-10, batch 1, SGD",
            (784,),
            {"net": mlp(2000, 2000, 2000, 10)},
            batch=1,
            inputs=200,
            loss="cross_entropy",
            optimizer="sgd",
            step_size=0.001,
            formulations=(_BP, *_peers("klopf bp")),
        ),
    )
}
