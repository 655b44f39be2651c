"""The same learning on every device, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.methods import IMAGE_METHODS, METHODS, NetworkSize
from reference.arrays import relative_error

DEVICES = [device for device in ["cuda"] if device in kl.devices()] or [
    pytest.param("cuda", marks=pytest.mark.skip(reason="no cuda device"))
]
SIZE = NetworkSize(channels=(6, 17), kernels=(3, 3), hidden=(19, 9), outputs=3)
SHAPE = (3, 10, 11)
SEEDS = [4, 2**40, 5, 6]
STEPS, RUNS, BATCH = 100, len(SEEDS), 12
# Of all state, after all steps: 1e-6 is seen, until two pixels of a window are so close that devices disagree
# about the maximum, from where on a run goes another way. One of the runs may.
TOLERANCE = 1e-3
NOTHING = 1e-6  # what only rounding keeps from zero: momentum of biases before BatchNorm
MARGIN = 1e-4  # of a layer's largest utility: two units closer than that may change places
RULES: dict[str, dict[str, Any]] = {
    "cbp": {"maturity": 5, "replacement_rate": 0.02},
}


def made(name: str, device: str, precision: str = "float32") -> kl.Learner:
    return IMAGE_METHODS.resolve(name, "authors", RULES.get(name, {})).build(
        SIZE, SHAPE, SEEDS, device, precision
    )


def only_at_a_tie(
    cpu: kl.Learner, other: kl.Learner, of_cpu: NDArray[np.bool_], of_other: NDArray[np.bool_], group: int
) -> None:
    """Each kept what the other replaced: these units must be next to equal."""
    utility = [learner.net.units[group].utility for learner in (cpu, other)]
    for run in np.flatnonzero((of_cpu != of_other).any(axis=1)):
        here = utility[1][run][of_cpu[run] & ~of_other[run]]
        there = utility[0][run][of_other[run] & ~of_cpu[run]]
        largest = np.abs(utility[0][run]).max()
        assert here.size == there.size
        assert np.abs(np.sort(here) - np.sort(there)).max() <= MARGIN * largest


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", METHODS)
def test_a_hundred_steps(name: str, device: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(RUNS, 40, *SHAPE)).astype(np.float32)
    y = (x[:, :, 0, 3:6, 5].argmax(axis=-1)).astype(np.int64)
    cpu, other = made(name, "cpu"), made(name, device)
    replaced = 0
    for _ in range(STEPS):
        at = rng.integers(0, 40, BATCH)
        a, b = cpu.step(x[:, at], y[:, at]), other.step(x[:, at], y[:, at])
        differ = False
        for group, (here, there) in enumerate(zip(a.replaced, b.replaced, strict=True)):
            replaced += int(here.sum())
            if (here != there).any():
                only_at_a_tie(cpu, other, here, there, group)
                differ = True
        if differ:
            other.load_state(cpu.state())
    assert (replaced > 0) == (name == "cbp")
    expected, state = cpu.state(), other.state()
    assert expected.keys() == state.keys()
    errors = np.zeros(RUNS)
    for key, value in expected.items():
        if value.dtype == np.float32 and np.abs(value).max() < NOTHING:
            assert np.abs(state[key]).max() < NOTHING, key
        elif value.dtype == np.float32:
            errors = np.maximum(
                errors, [relative_error(a, b) for a, b in zip(state[key], value, strict=True)]
            )
        else:
            np.testing.assert_array_equal(state[key], value, err_msg=key)
    assert np.sort(errors)[-2] < TOLERANCE, errors


@pytest.mark.parametrize("device", DEVICES)
def test_a_learner_moves_between_devices(device: str, tmp_path: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, *SHAPE)).astype(np.float32), rng.integers(0, 3, 30)
    learner = made("cbp", device)
    learner.run(x, y, batch_size=7, epochs=2)
    learner.save(tmp_path / "learner")
    with pytest.warns(UserWarning, match="results will agree to rounding, not bit for bit$"):
        moved = kl.Learner.load(tmp_path / "learner", device="cpu")
    assert moved.net.device == "cpu"
    a, b = learner.evaluate(x, y), moved.evaluate(x, y)
    np.testing.assert_allclose(b.loss, a.loss, rtol=1e-5)
    np.testing.assert_allclose(moved.net(x), learner.net(x), rtol=1e-4, atol=1e-5)


# Layers of such sizes, in so many runs, that every tile of every product is used.
POOLED = [
    *(kl.Conv2d(32, 5), kl.ReLU(), kl.MaxPool2d(2), kl.Conv2d(64, 3), kl.ReLU(), kl.MaxPool2d(3)),
    *(kl.Flatten(), kl.Linear(2)),
]
WIDE = [(300, 40, 192), (300, 192, 40), (8, 382, 192), (1200, 20, 32), (1200, 32, 20), (8, 1151, 32)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize(
    "layers, shape, batch",
    [([kl.Linear(inner), kl.Linear(outputs)], (3,), batch) for batch, inner, outputs in WIDE]
    + [(POOLED, (3, 17, 19), 10)],
    ids=str,
)
def test_wide_layers(
    layers: list[Any], shape: tuple[int, ...], batch: int, precision: str, device: str
) -> None:
    rng = np.random.default_rng(5)
    nets = [
        kl.Network(layers, shape, runs=30, device=where, precision=how)
        for where, how in (("cpu", "float32"), (device, precision))
    ]
    learners = [kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.1)) for net in nets]
    x = rng.normal(size=(batch, *shape)).astype(np.float32)
    grad = rng.normal(size=(30, batch, nets[0].outputs)).astype(np.float32)
    expected, found = (learner.forward(x) for learner in learners)
    assert relative_error(found, expected) < (1e-5 if precision == "float32" else 5e-3)
    for learner in learners:
        learner.backward(grad)
    gradients = learners[1].gradients()
    for name, value in learners[0].gradients().items():
        # A maximum or two may change places.
        bound = 1e-5 if precision == "float32" else 5e-2
        assert np.linalg.norm(gradients[name] - value) < bound * np.linalg.norm(value), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 2, 257, 2049, 5000])
def test_epochs_in_the_same_order(count: int, device: str) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    state = []
    for where in ("cpu", device):
        net = kl.Network([kl.Linear(2)], (3,), runs=2, device=where)
        learner = kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.1))
        history = learner.run(x, y, batch_size=max(1, count // 6), epochs=3)
        state.append([history.loss, *net.state_dict().values()])
    for a, b in zip(*state, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_those_of_their_call(device: str) -> None:
    """Whenever they are read."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(24, *SHAPE)).astype(np.float32), rng.integers(0, 3, 24)
    late, soon = made("cbp", device), made("cbp", device)
    steps = [late.step(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    history, evaluation = late.run(x, y, batch_size=10, epochs=2), late.evaluate(x, y)
    late.step(x, y)
    for i, step in zip((0, 8, 16), steps, strict=True):
        now = soon.step(x[i : i + 8], y[i : i + 8])
        np.testing.assert_array_equal(step.loss, now.loss.copy())
        np.testing.assert_array_equal(step.accuracy, now.accuracy)
        for a, b in zip(step.replaced, now.replaced, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(history.loss, soon.run(x, y, batch_size=10, epochs=2).loss)
    np.testing.assert_array_equal(evaluation.accuracy, soon.evaluate(x, y).accuracy)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_diverges(device: str) -> None:
    """It reports the step at which it did, and nothing from then on."""
    x, y = np.ones((4, *SHAPE), np.float32), np.zeros(4, np.int64)
    seen = []
    for where in ("cpu", device):
        learner = made("bp", where)
        weights = learner.net.state_dict()
        weights["0.bias"][1] = np.nan
        learner.net.load_state_dict(weights)
        first, second = learner.step(x, y), learner.step(x, y)
        assert learner.alive.tolist() == [True, False, True, True]
        seen.append([first.loss, first.accuracy, second.loss, second.accuracy, learner.run(x, y).accuracy])
    for a, b in zip(*seen, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)
    assert np.isnan(seen[1][2]).tolist() == [False, True, False, False]


@pytest.mark.parametrize("device", DEVICES)
def test_tensor_cores(device: str) -> None:
    """TF32 keeps ten bits behind the point of each factor: near float32, and not the same."""
    rng = np.random.default_rng(3)
    x, grad = rng.normal(size=(9, *SHAPE)).astype(np.float32), rng.normal(size=(RUNS, 9, 3))
    exact, rounded = (made("bp", device, precision) for precision in ("float32", "tf32"))
    assert rounded.net.precision == "tf32"
    a, b = exact.forward(x), rounded.forward(x)
    assert 1e-6 < relative_error(b, a) < 5e-3
    exact.backward(grad)
    rounded.backward(grad)
    of_rounded = rounded.gradients()
    for name, value in exact.gradients().items():
        # A maximum or two may change places.
        assert np.linalg.norm(of_rounded[name] - value) < 2e-2 * np.linalg.norm(value), name
    with pytest.raises(kl.Error, match=r'^\[network\] precision must be "float32" on the CPU, got "tf32"$'):
        made("bp", "cpu", "tf32")
    with pytest.raises(kl.Error, match=r'^\[network\] precision must be "float32" or "tf32", got "fp8"$'):
        made("bp", device, "fp8")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(kl.Error, match=r'^\[network\] device "cuda:77" is not there: [^\n]+$'):
        kl.Network([kl.Linear(2)], (3,), device="cuda:77")
    with pytest.raises(kl.Error, match=r'^\[network\] device must be "cpu", "cuda", [^\n]+, got "tpu"$'):
        kl.Network([kl.Linear(2)], (3,), device="tpu")
    auto, named = (
        kl.Network([kl.Linear(2)], (3,), device=device)
        for device in ("auto", "cuda" if "cuda" in kl.devices() else "cpu")
    )
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(auto(x), named(x))
