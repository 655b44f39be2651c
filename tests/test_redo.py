"""ReDo: which units are dormant, when they go, and what becomes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")

RUNS, UNITS = 3, 40
X = np.random.default_rng(0).normal(size=(RUNS, 16, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(RUNS, 16, 2)).astype(np.float32)


def learner(**options: Any) -> kl.Learner:
    layers = [kl.Linear(UNITS), kl.ReLU(), kl.Linear(30), kl.Tanh(), kl.Linear(2)]
    net = kl.Network(layers, (6,), runs=RUNS, init="lecun")
    return kl.Learner(net, loss="mse", optimizer=kl.Adam(step_size=1e-3), rules=[kl.ReDo(**options)])


def dormant(activity: NDArray[Any], threshold: NDArray[Any]) -> NDArray[np.bool_]:
    """[R, U] by the mean |activity| [R, U] of a batch, over the layer's mean (Sokar et al. 2023, eq. 1)."""
    score = activity / activity.mean(axis=1, keepdims=True)
    result: NDArray[np.bool_] = score <= threshold[:, None]
    return result


@pytest.mark.parametrize("period", [1, 4])
def test_dormant_units_go_every_period(period: int) -> None:
    threshold = np.array([0.2, 0.5, 0.8])
    made = learner(threshold=threshold, period=period)
    replaced = 0
    for step in range(1, 9):
        activities = made.net.activities(X)
        out = made.step(X, Y)
        for activity, mask in zip(activities, out.replaced, strict=True):
            magnitude = np.abs(activity.astype(np.float64)).mean(axis=1)
            expected = dormant(magnitude, threshold)
            # Where rounding decides, either will do.
            sure = np.abs(magnitude / magnitude.mean(axis=1, keepdims=True) - threshold[:, None]) > 1e-5
            due = step % period == 0
            assert (mask == (expected & due))[sure].all()
            replaced += int(mask.sum())
    assert replaced > 0


def test_a_new_unit() -> None:
    """Drawn anew, without a bias, and silent for the layer behind; the others go on as without the rule."""
    made = learner(threshold=0.5, period=2)
    made.step(X, Y)
    plain = kl.Learner(
        kl.Network(made.net.layers, (6,), runs=RUNS, init="lecun"),
        loss="mse",
        optimizer=kl.Adam(step_size=1e-3),
    )
    for _ in range(2):
        plain.step(X, Y)
    first, second = made.step(X, Y).replaced
    units, others = made.net.units[0], plain.net.units[0]
    assert first.any()
    assert not first.all()
    assert (units.bias[first] == 0).all()
    for run in range(RUNS):  # but into units that are new as well
        assert (units.outgoing[run][first[run]][:, ~second[run]] == 0).all()
    assert (units.age[first] == 0).all()
    assert (units.age[~first] == 2).all()
    bound = np.sqrt(3 / 6)
    assert (np.abs(units.incoming[first]) <= bound).all()
    assert np.abs(units.incoming[first]).max() > 0.8 * bound
    assert (units.incoming[~first] == others.incoming[~first]).all()


@pytest.mark.parametrize("reset", [True, False])
def test_what_the_optimizer_keeps(reset: bool) -> None:
    made = learner(threshold=0.5, period=3, reset_optimizer_state=reset)
    for _ in range(3):
        out = made.step(X, Y)
    mask = out.replaced[0]
    steps = made.state()["optimizer.steps.0.weight"]
    assert (steps[mask] == (0 if reset else 3)).all()
    assert (steps[~mask] == 3).all()


def test_a_silent_layer_goes_whole() -> None:
    made = learner(threshold=0.0, period=1)
    state = made.net.state_dict()
    state["0.weight"][:] = 0
    state["0.bias"][:] = -1
    made.net.load_state_dict(state)
    assert made.step(X, Y).replaced[0].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, r"\[ReDo\] threshold must be in \[0, infinity\), got -1"),
        ({"period": 0}, r"\[ReDo\] period must be in \[1"),
        ({"period": 1.5}, r"\[ReDo\] period must be a whole number, got 1.5"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        learner(**options)
