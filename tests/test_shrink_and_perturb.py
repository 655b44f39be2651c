"""Shrink and Perturb: SGD with weight decay, and Gaussian noise on every weight and bias after every step."""

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")

SPECS: list[LayerSpec] = [("Linear", (60,)), ("ReLU", ()), ("Linear", (50,))]
INPUTS, RUNS = 40, 3


def step_without_gradient(learner: kl.Learner) -> None:
    y = learner.forward(np.ones((2, INPUTS), np.float32))
    learner.backward(np.zeros_like(y))
    learner.apply()


def perturbations(
    noise: float | NDArray[np.float64], steps: int = 1, decay: float = 0.0
) -> list[twins.State]:
    """What every step adds to the weights, over and above what it does without noise."""
    changes = []
    learners = []
    for rules in ([kl.ShrinkAndPerturb(noise=noise)], []):
        net = twins.engine_network(SPECS, (INPUTS,), RUNS)
        twins.draw_weights(net, np.random.default_rng(1))
        optimizer = kl.SGD(step_size=0.1, weight_decay=decay)
        learners.append((net, kl.Learner(net, loss="mse", optimizer=optimizer, rules=rules)))
    (noisy, _), (plain, _) = learners
    for _ in range(steps):
        plain.load_state_dict(noisy.state_dict())
        for _, learner in learners:
            step_without_gradient(learner)
        expected = plain.state_dict()
        changes.append({name: w - expected[name] for name, w in noisy.state_dict().items()})
    return changes


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_noise_is_gaussian_on_every_parameter(decay: float) -> None:
    noise = 1e-2
    (change,) = perturbations(noise, decay=decay)
    for name, values in change.items():
        for run in range(RUNS):
            drawn = values[run].ravel() / noise
            assert (drawn != 0).mean() > 0.99, name
            assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
            assert abs(drawn.std() - 1) < 4 / np.sqrt(2 * drawn.size)
    everything = np.concatenate([values.ravel() for values in change.values()]) / noise
    assert np.abs(everything).max() > 3.3  # 13,000 draws
    assert abs((np.abs(everything) < 1).mean() - 0.6827) < 0.02


def test_noise_is_fresh_everywhere() -> None:
    """No two steps, runs or layers share their draws."""
    first, second = perturbations(0.01, steps=2)
    rows = [
        change[name][run].ravel()[:50] for change in (first, second) for name in change for run in range(RUNS)
    ]
    correlation = np.corrcoef(np.stack(rows)) - np.eye(len(rows))
    assert np.abs(correlation).max() < 0.7


def test_noise_of_every_run() -> None:
    (change,) = perturbations(np.array([0.0, 0.01, 0.1]))
    deviations = change["0.weight"].reshape(RUNS, -1).std(axis=1)
    assert deviations[0] == 0
    assert np.allclose(deviations[1:], [0.01, 0.1], rtol=0.1)


@pytest.mark.parametrize("noise", [-1e-5, float("nan"), "loud"])
def test_bad_noise(noise: float) -> None:
    net = twins.engine_network(SPECS, (INPUTS,))
    with pytest.raises(kl.Error):
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[kl.ShrinkAndPerturb(noise=noise)])
