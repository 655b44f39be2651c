"""Losses of the engine and their gradients against the reference."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.arrays import relative_error
from reference.losses import LOSSES
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-6
OUTPUTS = 5


class Outcome:
    """One step on outputs of one's choice: a linear layer returns its weights for one-hot inputs.

    The gradient is read off the weights after a step so large that they are little else.
    """

    def __init__(self, loss: str, y: NDArray[np.float32], target: NDArray[Any]) -> None:
        runs, batch, outputs = y.shape
        specs: list[LayerSpec] = [("Linear", (outputs,))]
        net = twins.engine_network(specs, (batch,), runs)
        weight = np.ascontiguousarray(y.swapaxes(1, 2))
        net.load_state_dict({"0.weight": weight, "0.bias": np.zeros((runs, outputs), np.float32)})
        x = np.eye(batch, dtype=np.float32)
        step_size = 2.0**30 * float(np.abs(y).max() + 1)
        learner = kl.Learner(net, loss=loss, optimizer=kl.SGD(step_size=step_size))
        evaluation = learner.evaluate(x, target)
        step = learner.step(x, target)
        assert np.allclose(evaluation.loss, step.loss, rtol=1e-12, atol=0)
        self.loss, self.accuracy = step.loss, step.accuracy
        change = weight.astype(np.float64) - net.state_dict()["0.weight"]
        self.grad_y = change.swapaxes(1, 2) / step_size  # [R, B, O]


def draw_target(loss: str, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    """Labels [R, B] or targets [R, B, O] for outputs of this shape."""
    if loss == "cross_entropy":
        return rng.integers(0, shape[-1], size=shape[:-1])
    return rng.normal(size=shape).astype(np.float32)


def test_reference_has_every_loss() -> None:
    assert set(kl.losses) == set(LOSSES)


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_value_and_gradient(loss: str, runs: int, batch: int) -> None:
    rng = np.random.default_rng(batch)
    y = rng.normal(size=(runs, batch, OUTPUTS)).astype(np.float32) * 2
    target = draw_target(loss, rng, y.shape)
    outcome = Outcome(loss, y, target)
    for run in range(runs):
        value, grad_y = LOSSES[loss](y[run].astype(np.float64), target[run])
        assert outcome.loss[run] == pytest.approx(value, rel=TOLERANCE)
        assert relative_error(outcome.grad_y[run], grad_y) < TOLERANCE


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_target_shared_by_all_runs(loss: str) -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(3, 4, OUTPUTS)).astype(np.float32)
    target = draw_target(loss, rng, y.shape[1:])
    shared, repeated = Outcome(loss, y, target), Outcome(loss, y, np.stack([target] * 3))
    assert np.array_equal(shared.loss, repeated.loss)
    assert np.array_equal(shared.grad_y, repeated.grad_y)


def test_accuracy_is_the_share_of_right_answers() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=(2, 20, OUTPUTS)).astype(np.float32)
    labels = draw_target("cross_entropy", rng, y.shape)
    expected = (y.argmax(axis=2) == labels).mean(axis=1)
    assert np.allclose(Outcome("cross_entropy", y, labels).accuracy, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [50.0, 1e4, 1e20])
def test_cross_entropy_of_huge_outputs_stays_finite(size: float) -> None:
    y = np.array([[[size, -size, 0.0], [-size, 0.0, size]]], np.float32)
    outcome = Outcome("cross_entropy", y, np.array([[0, 1]]))
    assert outcome.loss[0] == pytest.approx(size / 2, rel=TOLERANCE)
    assert relative_error(outcome.grad_y[0], np.array([[0.0, 0, 0], [0, -0.5, 0.5]])) < TOLERANCE


@pytest.mark.parametrize("label", [-1, OUTPUTS, 2**40])
def test_label_out_of_range(label: int) -> None:
    y = np.zeros((1, 2, OUTPUTS), np.float32)
    with pytest.raises(kl.Error):
        Outcome("cross_entropy", y, np.array([[0, label]]))


def test_target_of_the_wrong_kind() -> None:
    y = np.zeros((1, 2, OUTPUTS), np.float32)
    with pytest.raises(kl.Error):
        Outcome("mse", y, np.zeros((1, 2), np.int64))
    with pytest.raises(kl.Error):
        Outcome("cross_entropy", y, np.zeros((1, 2, OUTPUTS), np.float32))
    with pytest.raises(kl.Error):
        Outcome("mse", y, np.zeros((1, 2, OUTPUTS + 1), np.float32))
