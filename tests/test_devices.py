"""The same learning on every device, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from klopf.experiments.methods import METHODS, NetworkSize, resolve
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
MARGIN = 1e-4  # of a layer's largest utility: two units closer than that may change places
RULES: dict[str, dict[str, Any]] = {
    "cbp": {"maturity": 5, "replacement_rate": 0.02},
}


def made(name: str, device: str, precision: str = "float32") -> kl.Learner:
    return resolve(name, "authors", RULES.get(name, {})).build(SIZE, SHAPE, SEEDS, device, precision)


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
        if value.dtype == np.float32:
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
    moved = kl.Learner.load(tmp_path / "learner", device="cpu")
    assert moved.net.device == "cpu"
    a, b = learner.evaluate(x, y), moved.evaluate(x, y)
    np.testing.assert_allclose(b.loss, a.loss, rtol=1e-5)
    np.testing.assert_allclose(moved.net(x), learner.net(x), rtol=1e-4, atol=1e-5)


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
