"""SGD, Adam, AdamW and UPGD of the engine against NumPy, on imposed gradients that are exact in float32."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference import optimizers, philox
from reference.arrays import relative_error
from reference.step_sizes import RULES
from reference.traces import ALONG_TRACES, SwiftTD

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-6
STEPS, RUNS, INPUTS, OUTPUTS = 100, 3, 6, 5

PER_RUN = np.array([0.001, 0.01, 0.002])
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"step_size": 0.01}),
    ("SGD", {"step_size": 0.01, "momentum": 0.9}),
    ("SGD", {"step_size": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"step_size": PER_RUN, "momentum": PER_RUN * 50, "weight_decay": PER_RUN * 10}),
    ("Adam", {"step_size": 0.001}),
    ("Adam", {"step_size": 0.001, "epsilon_at": "raw"}),
    ("Adam", {"step_size": 0.001, "epsilon": 0.1}),
    ("Adam", {"step_size": 0.001, "epsilon": 0.1, "epsilon_at": "raw"}),
    ("Adam", {"step_size": 0.001, "beta1": 0.5, "beta2": 0.9, "weight_decay": 0.01}),
    ("SGD", {"step_size": 0.01, "weight_decay": 0.1, "decay_to": "initial"}),
    ("SGD", {"step_size": 0.01, "momentum": 0.9, "weight_decay": PER_RUN * 10, "decay_to": "initial"}),
    ("Adam", {"step_size": 0.001, "weight_decay": 0.1, "decay_to": "initial"}),
    ("AdamW", {"step_size": 0.001}),
    ("AdamW", {"step_size": PER_RUN, "weight_decay": PER_RUN * 100, "decay_to": "initial"}),
    ("UPGD", {"step_size": 0.01}),
    ("UPGD", {"step_size": 0.01, "noise": 0.1, "weight_decay": 0.1, "factor": 2.0}),
    ("UPGD", {"step_size": PER_RUN, "utility_decay": 1 - PER_RUN, "noise": PER_RUN, "maximum": "corrected"}),
    ("Adam", {"step_size": PER_RUN, "beta1": 1 - PER_RUN, "beta2": 1 - PER_RUN / 10, "epsilon": PER_RUN}),
]


def imposed_gradients(rng: np.random.Generator) -> NDArray[np.float32]:
    """dL/dy [T, R, B, O] in multiples of 1/1024: float32 sums them over the batch without rounding."""
    return (rng.integers(-2048, 2049, size=(STEPS, RUNS, INPUTS, OUTPUTS)) / 1024).astype(np.float32)


class Linear:
    """One linear layer on one-hot inputs: the gradient of its weight is dL/dy itself, transposed."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.net = twins.engine_network([("Linear", (OUTPUTS,))], (INPUTS,), RUNS)
        self.initial = twins.draw_weights(self.net, np.random.default_rng(8), scale=2.0)
        self.learner = kl.Learner(self.net, loss="mse", optimizer=getattr(kl, kind)(**options))

    def step(self, grad_y: NDArray[np.float32]) -> None:
        self.learner.forward(np.eye(INPUTS, dtype=np.float32))
        self.learner.backward(grad_y)
        self.learner.apply()


def noise_of(run: int, step: int) -> dict[str, NDArray[np.float64]]:
    """What the engine adds to gradients: weights lie one after the other, from a multiple of 16 on."""
    drawn = philox.normals(run, philox.GRADIENT_NOISE, 0, step, 48)
    weight, bias = drawn[: OUTPUTS * INPUTS], drawn[32 : 32 + OUTPUTS]
    return {"0.weight": weight.reshape(OUTPUTS, INPUTS), "0.bias": bias}


def test_upgd_without_utility() -> None:
    """Where no utility is above zero, as of zeros, all weights move by half."""
    engine = Linear("UPGD", {"step_size": 0.5, "noise": 0.0})
    zero = {name: np.zeros_like(w) for name, w in engine.initial.items()}
    engine.net.load_state_dict(zero)
    engine.step(np.ones((RUNS, INPUTS, OUTPUTS), np.float32))
    assert (engine.net.state_dict()["0.weight"] == -0.25).all()
    assert (engine.net.state_dict()["0.bias"] == -0.25 * INPUTS).all()


def test_decay_leads_to_the_weights_that_began() -> None:
    """Those that the learner found; after a reset, those that it left; of a fresh draw, that."""
    engine = Linear("SGD", {"step_size": 1.0, "weight_decay": 0.5, "decay_to": "initial"})
    moved = {name: w + 1 for name, w in engine.initial.items()}
    still = np.zeros((RUNS, INPUTS, OUTPUTS), np.float32)

    def away(origin: dict[str, NDArray[np.float32]]) -> None:
        engine.net.load_state_dict(moved)
        engine.step(still)
        for name, w in engine.net.state_dict().items():
            assert relative_error(w, (moved[name].astype(np.float64) + origin[name]) / 2) < TOLERANCE

    away(engine.initial)
    engine.net.reset([0], to="zero")
    away(engine.net.state_dict() | {name: np.zeros_like(w) for name, w in moved.items()})
    engine.net.reset([0], to="initial")
    drawn = engine.net.state_dict()
    away(drawn)
    engine.learner.restart()
    restarted = engine.net.state_dict()
    assert not np.array_equal(restarted["0.weight"], drawn["0.weight"])
    away(restarted)


def test_cases_cover_every_optimizer() -> None:
    known = {kind for kind, _ in CASES} | set(RULES) | set(ALONG_TRACES) | {SwiftTD.__name__}
    assert {optimizer.__name__ for optimizer in kl.optimizers} == known


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_hundred_steps(kind: str, options: dict[str, Any]) -> None:
    engine = Linear(kind, options)
    mine = [getattr(optimizers, kind)(**twins.option_of_run(options, run)) for run in range(RUNS)]
    for run, optimizer in enumerate(mine):
        if isinstance(optimizer, optimizers.UPGD):
            optimizer.draw = partial(noise_of, run)
    weights = [
        {name: w.astype(np.float64) for name, w in twins.of_run(engine.initial, run).items()}
        for run in range(RUNS)
    ]
    for grad_y in imposed_gradients(np.random.default_rng(9)):
        engine.step(grad_y)
        for run in range(RUNS):
            gradients = {"0.weight": grad_y[run].T.astype(np.float64), "0.bias": grad_y[run].sum(axis=0)}
            mine[run].step(weights[run], gradients)
    state = engine.net.state_dict()
    for run in range(RUNS):
        for name, expected in weights[run].items():
            assert relative_error(state[name][run], expected) < TOLERANCE, (run, name)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "UPGD"])
def test_array_per_run_equals_numbers(kind: str) -> None:
    """A run with its value out of an array does, to the bit, what it does with the number."""
    gradients = imposed_gradients(np.random.default_rng(10))[:10]
    together = Linear(kind, {"step_size": PER_RUN})
    for grad_y in gradients:
        together.step(grad_y)
    for run in range(RUNS):
        alone = Linear(kind, {"step_size": float(PER_RUN[run])})
        for grad_y in gradients:
            alone.step(grad_y)
        for name, value in alone.net.state_dict().items():
            assert np.array_equal(together.net.state_dict()[name][run], value[run])


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), -0.1, np.ones(RUNS + 1), np.ones((RUNS, 1)), "fast"]
)
def test_bad_step_size(kind: str, bad: Any) -> None:
    with pytest.raises(kl.Error):
        Linear(kind, {"step_size": bad})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SGD", {"momentum": 1.5}),
        ("SGD", {"momentum": -0.1}),
        ("SGD", {"weight_decay": -1.0}),
        ("Adam", {"beta1": 1.0}),
        ("Adam", {"beta2": -0.1}),
        ("Adam", {"epsilon": -1e-8}),
        ("Adam", {"epsilon_at": "root"}),
        ("Adam", {"decay_to": "one"}),
        ("AdamW", {"weight_decay": -0.1}),
        ("UPGD", {"utility_decay": 1.0}),
        ("UPGD", {"maximum": "local"}),
        ("UPGD", {"noise": -1.0}),
    ],
)
def test_bad_option(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(kl.Error):
        Linear(kind, options)
