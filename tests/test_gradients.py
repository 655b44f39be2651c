"""Forward and backward of every layer of the engine against the reference and against central differences."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl
import twins
from reference import philox, recording
from reference.arrays import Array, relative_error
from reference.differences import central_difference
from reference.layers import Dropout, Flatten
from reference.network import Network
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")

FORWARD_TOLERANCE = 1e-5
BACKWARD_TOLERANCE = 1e-5

# Small networks, by the layers they are about. Every layer's own gradients pass through all layers behind it.
CASES: dict[str, tuple[list[LayerSpec], tuple[int, ...]]] = {
    "Linear": ([("Linear", (5,)), ("Linear", (3,))], (7,)),
    "ReLU": ([("Linear", (9,)), ("ReLU", ()), ("Linear", (2,))], (5,)),
    "LeakyReLU": ([("Linear", (9,)), ("LeakyReLU", (0.2,)), ("Linear", (2,))], (5,)),
    "Tanh": ([("Linear", (9,)), ("Tanh", ()), ("Linear", (2,))], (5,)),
    "Sigmoid": ([("Linear", (9,)), ("Sigmoid", ()), ("Linear", (2,))], (5,)),
    "LayerNorm": ([("Linear", (9,)), ("LayerNorm", (1e-5, False)), ("Linear", (2,))], (5,)),
    "LayerNorm LeakyReLU": (
        [*([("Linear", (19,)), ("LayerNorm", (1e-3, False)), ("LeakyReLU", ())] * 2), ("Linear", (2,))],
        (5,),
    ),
    "Conv2d LayerNorm": (
        [("Conv2d", (3, 2)), ("LayerNorm", (1e-5, False)), ("ReLU", ()), ("Flatten", ()), ("Linear", (2,))],
        (2, 4, 5),
    ),
    "LayerNorm affine": (
        [*([("Linear", (19,)), ("LayerNorm", (1e-3,)), ("LeakyReLU", ())] * 2), ("Linear", (2,))],
        (5,),
    ),
    "Conv2d LayerNorm affine": (
        [
            *[("Conv2d", (3, 2)), ("LayerNorm", ()), ("Tanh", ()), ("MaxPool2d", (2, 1))],
            *[("Conv2d", (4, 2)), ("ReLU", ()), ("Flatten", ()), ("LayerNorm", ()), ("Linear", (2,))],
        ],
        (2, 5, 6),
    ),
    "normalised inputs": ([("LayerNorm", ()), ("Linear", (3,))], (7,)),
    "BatchNorm1d": (
        [
            *[("Linear", (9,)), ("BatchNorm1d", ()), ("ReLU", ()), ("Linear", (70,)), ("Tanh", ())],
            *[("BatchNorm1d", (1e-3, 0.5, False)), ("Linear", (2,))],
        ],
        (5,),
    ),
    "BatchNorm2d": (
        [
            *[("Conv2d", (5, 2)), ("BatchNorm2d", ()), ("ReLU", ()), ("MaxPool2d", (2,)), ("Conv2d", (3, 2))],
            *[("Sigmoid", ()), ("BatchNorm2d", (1e-3, 0.2, False)), ("Flatten", ()), ("Linear", (2,))],
        ],
        (2, 7, 8),
    ),
    "Dropout": (
        [
            *[("Dropout", (0.2,)), ("Linear", (70,)), ("Tanh", ()), ("Dropout", ()), ("LayerNorm", ())],
            *[("Linear", (2,))],
        ],
        (9,),
    ),
    "Conv2d Dropout": (
        [
            *[("Conv2d", (3, 2)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Dropout", (0.3,)), ("Flatten", ())],
            *[("Linear", (8,)), ("Dropout", (0.0,)), ("ReLU", ()), ("Linear", (2,))],
        ],
        (2, 7, 5),
    ),
    "Flatten": ([("Flatten", ()), ("Linear", (4,))], (2, 3, 5)),
    "Conv2d": ([("Conv2d", (5, 3)), ("Conv2d", (3, 2)), ("Flatten", ()), ("Linear", (2,))], (3, 6, 5)),
    "Conv2d strided": (
        [("Conv2d", (3, 3, 2, 1)), ("Tanh", ()), ("Conv2d", (4, 2, 2, 2)), ("Flatten", ()), ("Linear", (2,))],
        (2, 8, 5),
    ),
    "MaxPool2d": (
        [("Conv2d", (3, 2)), ("MaxPool2d", (2,)), ("Conv2d", (3, 2)), ("Flatten", ()), ("Linear", (2,))],
        (1, 9, 7),
    ),
    "MaxPool2d overlapping": (
        [("Conv2d", (4, 3)), ("Sigmoid", ()), ("MaxPool2d", (3, 2)), ("Flatten", ()), ("Linear", (2,))],
        (1, 9, 8),
    ),
    "MaxPool2d first": (
        [("MaxPool2d", (2, 1)), ("Conv2d", (3, 2)), ("Flatten", ()), ("Linear", (2,))],
        (2, 5, 4),
    ),
    "Conv2d ReLU MaxPool2d": (
        [("Conv2d", (5, 3)), ("ReLU", ()), ("MaxPool2d", (2,))] * 2 + [("Flatten", ()), ("Linear", (2,))],
        (2, 12, 10),
    ),
    "Conv2d ReLU": (
        [("Conv2d", (3, 3, 1, 1)), ("ReLU", ())] * 2 + [("Flatten", ()), ("Linear", (2,))],
        (2, 4, 3),
    ),
    "Conv2d LeakyReLU MaxPool2d": (
        [("Conv2d", (3, 2)), ("LeakyReLU", (0.1,)), ("MaxPool2d", (2, 1)), ("Flatten", ()), ("Linear", (2,))],
        (2, 5, 6),
    ),
    "activation last": (
        [("Conv2d", (3, 2)), ("ReLU", ()), ("Flatten", ()), ("Linear", (4,)), ("Tanh", ())],
        (2, 4, 3),
    ),
}


def pooled(window: int, *convolution: int) -> list[LayerSpec]:
    return [("Conv2d", convolution), ("ReLU", ()), ("MaxPool2d", (window,))]


# By what the engine does differently for them, too large for central differences; with a batch size.
LARGE_CASES: dict[str, tuple[list[LayerSpec], tuple[int, ...], int]] = {
    "channels that fill registers": (
        [*pooled(2, 32, 3), *pooled(2, 48, 3, 1, 1), ("Flatten", ()), ("Linear", (20,)), ("Linear", (2,))],
        (16, 15, 12),
        5,
    ),
    "large windows": (
        [*pooled(5, 17, 2), *pooled(3, 16, 1), ("Flatten", ()), ("Linear", (3,))],
        (3, 31, 34),
        3,
    ),
    "five rows": (
        [*pooled(2, 50, 5, 1, 2), *pooled(2, 17, 5), ("Flatten", ()), ("Linear", (3,))],
        (3, 21, 26),
        3,
    ),
    "behind ReLU": (
        [("Linear", (210,)), ("ReLU", ()), ("Linear", (150,)), ("ReLU", ()), ("Linear", (133,))],
        (70,),
        141,
    ),
    "normalised batches": (
        [
            *[("Conv2d", (70, 3)), ("BatchNorm2d", ()), ("ReLU", ()), ("MaxPool2d", (2,)), ("Flatten", ())],
            *[("Linear", (130,)), ("BatchNorm1d", ()), ("ReLU", ()), ("Linear", (3,))],
        ],
        (3, 20, 20),
        131,
    ),
    "several chunks that drop out": (
        [*pooled(2, 8, 5), ("Flatten", ()), ("Dropout", ()), ("Linear", (3,))],
        (3, 24, 24),
        62,
    ),
    "several chunks": ([*pooled(2, 8, 5), ("Flatten", ()), ("Linear", (3,))], (3, 24, 24), 62),
}


DRAWN_OR_OF_BATCHES = {"BatchNorm1d", "BatchNorm2d", "Dropout"}  # layers that inference does without


def draw_dropout(network: Network, run: int, batch: int, shape: tuple[int, ...]) -> None:
    """What the first update of a run keeps, of samples as the engine has them: channels last."""
    x = np.zeros((batch, *shape))
    for place, layer in enumerate(network.layers):
        channels, *positions = x.shape[1:] if x.ndim == 4 or layer.parametric else shape
        if isinstance(layer, Dropout):
            kept = philox.kept(run, place, 0, batch, x[0].size, layer.probability)
            layer.keep = np.moveaxis(kept.reshape(batch, -1, channels), 2, 1).reshape(x.shape)
        x = layer.forward(x)
        shape = (channels, *positions) if isinstance(layer, Flatten) else x.shape[1:]


class Passes:
    """One forward and backward pass of the engine, and of the reference of every run."""

    def __init__(
        self, specs: list[LayerSpec], shape: tuple[int, ...], runs: int, batch: int, exact: bool
    ) -> None:
        rng = np.random.default_rng([runs, batch, *shape])
        net = twins.engine_network(specs, shape, runs)
        state = twins.draw_fractions(net, rng) if exact else twins.draw_weights(net, rng)
        self.x = self.draw(rng, (runs, batch, *shape), exact)
        self.networks: list[Network] = twins.reference_networks(specs, shape, state)
        for run, network in enumerate(self.networks):
            draw_dropout(network, run, batch, shape)
        self.inferred = np.stack([n.infer(x) for n, x in zip(self.networks, self.x, strict=True)])
        self.expected = np.stack([n.forward(x) for n, x in zip(self.networks, self.x, strict=True)])
        self.grad_y = self.draw(rng, self.expected.shape, exact)
        for network, grad_y in zip(self.networks, self.grad_y, strict=True):
            network.backward(grad_y.astype(np.float64))
        learner = kl.Learner(net, loss="mse", optimizer=kl.SGD())
        self.y = learner.forward(self.x)
        learner.backward(self.grad_y)
        self.gradients: dict[str, NDArray[Any]] = learner.gradients()
        self.inference = net(self.x)
        self.kinds = {name for name, _ in specs}

    @staticmethod
    def draw(rng: np.random.Generator, shape: tuple[int, ...], exact: bool) -> NDArray[np.float32]:
        """Numbers of order one, multiples of 1/2 if exact."""
        drawn = rng.integers(-4, 5, size=shape) / 2 if exact else rng.normal(size=shape)
        return drawn.astype(np.float32)

    def error(self, run: int, name: str, expected: Array) -> float:
        """The relative error of a gradient; of one that only rounding keeps from zero, such as a bias has
        before BatchNorm, over the largest of all gradients."""
        given = self.gradients[name][run]
        largest = max(float(np.abs(g).max()) for g in self.networks[run].gradients().values())
        if np.abs(expected).max() < 1e-7 * largest:
            return float(np.abs(given).max()) / largest
        return relative_error(given, expected)

    def differences(self, run: int) -> dict[str, Array]:
        """Central differences of sum(y * grad_y) of one run, in float64."""
        network, x, grad_y = self.networks[run], self.x[run], self.grad_y[run].astype(np.float64)

        def score() -> float:
            return float((network.forward(x) * grad_y).sum())

        return {name: central_difference(score, w) for name, w in network.parameters().items()}


def test_cases_cover_every_layer() -> None:
    of_policies = {"LogStd"}  # which has no output of its own
    assert {layer.__name__ for layer in kl.layers} - of_policies == {
        name for specs, _ in CASES.values() for name, _ in specs
    }


def least_batch(case: str) -> int:
    return 7 if case.startswith("BatchNorm") else 1


def tolerance(case: str) -> float:
    """Of gradients: normalised batches of seven make more of a rounding."""
    return 5e-5 if case.startswith("BatchNorm") else BACKWARD_TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_central_differences(case: str) -> None:
    specs, shape = CASES[case]
    passes = Passes(specs, shape, runs=2, batch=max(2, least_batch(case)), exact=False)
    for run in range(2):
        for name, expected in passes.differences(run).items():
            assert passes.error(run, name, expected) < tolerance(case), (run, name)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    ("case", "batch"), [(case, batch) for case in CASES for batch in (1, 2, 7) if batch >= least_batch(case)]
)
def test_matches_reference(case: str, batch: int, runs: int) -> None:
    passes = Passes(*CASES[case], runs=runs, batch=batch, exact=False)
    check(passes, FORWARD_TOLERANCE, tolerance(case))


@pytest.mark.parametrize("case", LARGE_CASES)
def test_large_matches_reference(case: str) -> None:
    specs, shape, batch = LARGE_CASES[case]
    check(Passes(specs, shape, runs=2, batch=batch, exact=False), FORWARD_TOLERANCE, BACKWARD_TOLERANCE)


@st.composite
def convolutional(draw: st.DrawFn) -> tuple[list[LayerSpec], tuple[int, ...]]:
    """Two convolutions with odd sizes, with and without activation and pooling, and a linear head."""
    channels, height, width = draw(st.integers(1, 9)), draw(st.integers(4, 14)), draw(st.integers(4, 14))
    specs: list[LayerSpec] = []
    for most in (19, 9):
        filters, kernel = draw(st.integers(1, most)), draw(st.integers(1, 5))
        specs.append(("Conv2d", (filters, kernel, draw(st.integers(1, 3)), draw(st.integers(0, 2)))))
        activation = draw(st.sampled_from([None, "ReLU", "LeakyReLU"]))
        if activation is not None:
            specs.append((activation, (0.5,) if activation == "LeakyReLU" else ()))
        if draw(st.booleans()):
            specs.append(("MaxPool2d", (draw(st.integers(1, 3)), draw(st.integers(1, 3)))))
    assume(fits(specs, height, width))
    return [*specs, ("Flatten", ()), ("Linear", (draw(st.integers(1, 5)),))], (channels, height, width)


def fits(specs: list[LayerSpec], *lengths: int) -> bool:
    """Whether every window finds room."""
    for length in lengths:
        for name, arguments in specs:
            if name in ("ReLU", "LeakyReLU"):
                continue
            kernel, stride, pad = (*arguments[1:], 0)[:3] if name == "Conv2d" else (*arguments, 0)
            length += 2 * pad
            if length < kernel:
                return False
            length = (length - kernel) // stride + 1
    return True


@given(network=convolutional(), batch=st.integers(1, 7), runs=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_convolutional_shape(
    network: tuple[list[LayerSpec], tuple[int, ...]], batch: int, runs: int
) -> None:
    """Numbers that float32 adds and multiplies without rounding: not one bit may differ, ties included."""
    check(Passes(*network, runs=runs, batch=batch, exact=True), 0.0, 0.0)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from(["ReLU", "LeakyReLU", "LayerNorm", "BatchNorm1d", "Tanh", "Sigmoid"]),
    batch=st.integers(1, 20),
    runs=st.sampled_from([1, 3]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_linear_shape(sizes: list[int], activation: str, batch: int, runs: int) -> None:
    assume(batch > 4 or activation != "BatchNorm1d")  # two samples of a unit are nearly 1 and -1
    specs: list[LayerSpec] = [spec for size in sizes[1:] for spec in (("Linear", (size,)), (activation, ()))]
    check(Passes(specs[:-1], (sizes[0],), runs, batch, exact=False), FORWARD_TOLERANCE, BACKWARD_TOLERANCE)


def test_large_linear_layers() -> None:
    check(Passes(recording.multilayer([300, 257, 130, 10]), (300,), runs=2, batch=129, exact=True), 0.0, 0.0)


def test_published_network() -> None:
    """The network of Continual ImageNet on a batch that is no round number."""
    passes = Passes(recording.CONVOLUTIONAL, (3, 32, 32), runs=1, batch=37, exact=False)
    check(passes, FORWARD_TOLERANCE, BACKWARD_TOLERANCE)


def check(passes: Passes, forward: float, backward: float) -> None:
    """Outputs, inference and gradients of every run within these relative errors."""
    if not passes.kinds & DRAWN_OR_OF_BATCHES:
        assert np.array_equal(passes.y, passes.inference)
    assert relative_error(passes.inference, passes.inferred) <= forward
    assert relative_error(passes.y, passes.expected) <= forward
    for run, network in enumerate(passes.networks):
        for name, expected in network.gradients().items():
            assert passes.error(run, name, expected) <= backward, (run, name)
