"""The NumPy reference itself follows every recorded trajectory, and its gradients agree with differences."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference import optimizers, recording
from reference.arrays import Array, Integers, relative_error
from reference.continual_backprop import ContinualBackprop, Settings
from reference.differences import central_difference
from reference.layers import LAYERS, build
from reference.losses import LOSSES
from reference.network import Learner, Network

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-12  # both are float64; seen: 2e-15
STORED_TOLERANCE = 1e-7  # the final weights of the convolutional recordings are stored as float32


class Follower:
    """Replays a recording: the rule's redraws are taken from the file."""

    def __init__(self, name: str) -> None:
        self.recording = recording.read(name)
        self.now = 0
        kind, arguments = self.recording.optimizer
        rule = ContinualBackprop(Settings(**self.recording.rule), self)
        network = Network(build(self.recording.layers), self.recording.x.shape[2:], self.recording.initial)
        optimizer = getattr(optimizers, kind)(**arguments)
        self.learner = Learner(network, LOSSES[self.recording.loss_name], optimizer, rule)
        self.rule, self.network = rule, network

    def new_incoming(self, group: int, units: Integers) -> Array:
        return self.recording.incoming_at(self.now, group).astype(np.float64)

    def utility(self, group: int) -> Array:
        raise AssertionError("no recording draws its utilities")

    def coin(self, group: int) -> float:
        return 0.0  # no recording looks at it

    def step(self) -> tuple[float, list[Integers]]:
        result = self.learner.step(self.recording.x[self.now], self.recording.y[self.now])
        self.now += 1
        return result


@pytest.mark.parametrize("name", recording.NAMES)
def test_follows_recording(name: str) -> None:
    follower = Follower(name)
    recorded = follower.recording
    for step in range(len(recorded.x)):
        expected_age = [age[step] for age in recorded.age]
        loss, replaced = follower.step()
        assert relative_error(np.array(loss), np.array(recorded.loss[step])) < TOLERANCE
        for group, utility in enumerate(follower.rule.utilities):
            assert list(replaced[group]) == list(recorded.replaced_at(step, group)), (step, group)
            assert relative_error(utility, recorded.utility[group][step]) < TOLERANCE
            staying = np.setdiff1d(np.arange(len(utility)), replaced[group])
            assert np.array_equal(follower.network.units[group].age[staying], expected_age[group][staying])
    for key, value in follower.network.parameters().items():
        assert relative_error(value, recorded.final[key]) < (
            STORED_TOLERANCE if recorded.final[key].dtype == np.float32 else TOLERANCE
        ), key


def test_every_recording_is_there() -> None:
    assert len(recording.NAMES) == 8


# (layer class, arguments, input shape of one image)
CASES: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    ("Linear", (4,), (7,)),
    ("Conv2d", (3, 3), (2, 6, 5)),
    ("Conv2d", (3, 3, 2, 1), (2, 6, 7)),
    ("Conv2d", (2, 2, 3, 2), (3, 5, 8)),
    ("MaxPool2d", (2,), (3, 6, 5)),
    ("MaxPool2d", (3, 2), (2, 7, 8)),
    ("MaxPool2d", (2, 3), (2, 7, 8)),
    ("Flatten", (), (2, 3, 4)),
    ("ReLU", (), (9,)),
    ("LeakyReLU", (0.1,), (2, 3, 4)),
    ("LayerNorm", (), (9,)),
    ("BatchNorm1d", (), (9,)),
    ("BatchNorm2d", (), (2, 3, 4)),
    ("Dropout", (), (9,)),
    ("LayerNorm", (0.1,), (2, 3, 4)),
    ("Tanh", (), (9,)),
    ("Sigmoid", (), (9,)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), CASES)
def test_layer_gradients(name: str, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    layer = build([(name, arguments)])[0]
    x = rng.normal(size=(3, *shape))
    if layer.parametric:
        kernel = (arguments[1],) * 2 if name == "Conv2d" else ()
        weight = rng.normal(size=(arguments[0], shape[0], *kernel))
        layer.weights = {"weight": weight, "bias": rng.normal(size=arguments[0])}
    grad_y = rng.normal(size=layer.forward(x).shape)
    grad_x = layer.backward(grad_y)
    gradients = dict(layer.gradients)

    def score() -> float:
        return float((layer.forward(x) * grad_y).sum())

    assert relative_error(grad_x, central_difference(score, x)) < 1e-6
    for kind, w in layer.weights.items():
        assert relative_error(gradients[kind], central_difference(score, w)) < 1e-6, kind


def test_all_layers_have_a_gradient_case() -> None:
    assert set(LAYERS) == {name for name, _, _ in CASES}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_gradients(name: str) -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(5, 3))
    target: NDArray[Any] = rng.integers(0, 3, size=5) if name == "cross_entropy" else rng.normal(size=(5, 3))
    _, grad_y = LOSSES[name](y, target)
    assert relative_error(grad_y, central_difference(lambda: LOSSES[name](y, target)[0], y)) < 1e-6
