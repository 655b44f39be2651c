"""Gradients that are made no longer than a limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import klopf as kl
from reference.arrays import relative_error

pytestmark = pytest.mark.usefixtures("device")

RUNS, BATCH = 3, 900  # several chunks of samples
X = np.random.default_rng(0).normal(size=(RUNS, BATCH, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(RUNS, BATCH, 2)).astype(np.float32)


def learner(**options: Any) -> kl.Learner:
    layers = [kl.Linear(7), kl.Tanh(), kl.Linear(2)]
    net = kl.Network(layers, (6,), runs=RUNS)
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.5), **options)


@pytest.mark.parametrize("batch", [1, 40, BATCH])
def test_against_numpy(batch: int) -> None:
    x, y = X[:, :batch], Y[:, :batch]
    plain = learner()
    before = plain.net.state_dict()
    plain.step(x, y)
    gradient = {name: 2 * (before[name].astype(np.float64) - w) for name, w in plain.net.state_dict().items()}
    norm = np.sqrt(sum((g.reshape(RUNS, -1) ** 2).sum(axis=1) for g in gradient.values()))
    most = norm * [0.3, 2.0, 0.9]
    limited = learner(max_gradient_norm=most)
    limited.step(x, y)
    for name, w in limited.net.state_dict().items():
        for run, scale in enumerate(np.minimum(1, most / (norm + 1e-6))):
            expected = before[name][run] - 0.5 * scale * gradient[name][run]
            assert relative_error(w[run], expected) < 1e-5, name
            if scale == 1:  # nothing to do
                assert (w[run] == plain.net.state_dict()[name][run]).all()


def test_a_limit_that_is_never_reached_changes_no_bit() -> None:
    plain, limited = learner(), learner(max_gradient_norm=1e9)
    for made in (plain, limited):
        made.run(X, Y, batch_size=BATCH // 2, epochs=3)
    for name, w in plain.net.state_dict().items():
        assert (w == limited.net.state_dict()[name]).all()


def test_saved_with_the_learner(tmp_path: Any, device: str) -> None:
    made = learner(max_gradient_norm=np.array([0.1, 0.2, 0.3]))
    made.step(X, Y)
    made.save(tmp_path / "learner")
    again = kl.Learner.load(tmp_path / "learner", device=device)
    for one in (made, again):
        one.step(X, Y)
    for name, w in made.net.state_dict().items():
        assert (w == again.net.state_dict()[name]).all()


def test_mistakes() -> None:
    with pytest.raises(kl.Error, match=r"\[learner\] max_gradient_norm must be in \[0, infinity\), got -1"):
        learner(max_gradient_norm=-1)
    with pytest.raises(kl.Error, match=r"\[learner\] max_gradient_norm must be a number, or one"):
        learner(max_gradient_norm="much")
