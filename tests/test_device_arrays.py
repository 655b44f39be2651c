"""Arrays of other libraries on a device, by DLPack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl

ON_GPU = "cuda" in kl.devices() and "emulated" not in kl._core.gpu_status()
pytestmark = pytest.mark.skipif("cuda" not in kl.devices(), reason="no cuda device")
RUNS, BATCH = 4, 6


def made(device: str) -> kl.Learner:
    net = kl.Network([kl.Linear(7), kl.ReLU(), kl.Linear(3)], (5,), runs=RUNS, device=device)
    return kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD(step_size=0.1))


class Foreign:
    """An array in what the emulation takes for its device's memory, which does not say that it is NumPy's."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Pinned:
    """What PyTorch's pinned tensors say: memory of the host, of a kind of its own."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (3, 0)


def foreign(array: NDArray[Any]) -> Any:
    if not ON_GPU:
        return Foreign(array)
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array).cuda()


def read(array: Any) -> NDArray[Any]:
    """As another library would."""
    if not ON_GPU:
        return np.from_dlpack(array)
    torch = pytest.importorskip("torch")
    return torch.from_dlpack(array).cpu().numpy()


@pytest.mark.parametrize("device", ["cuda"])
def test_in_and_out(device: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, 5)).astype(np.float32), rng.integers(0, 3, BATCH)
    grad = rng.normal(size=(RUNS, BATCH, 3)).astype(np.float32)
    here, there = made("cpu"), made(device)
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(there.net(foreign(x)), here.net(x), **close)
    out = there.net.infer_on_device(foreign(x))
    assert out.shape == (RUNS, BATCH, 3)
    for values in (read(out), out.numpy(), np.asarray(out)):
        np.testing.assert_allclose(values, here.net(x), **close)
    np.testing.assert_allclose(read(there.forward_on_device(x)), here.forward(x), **close)
    there.backward(foreign(grad))
    here.backward(grad)
    there.apply()
    here.apply()
    for _ in range(3):
        a, b = here.step(x, y), there.step(foreign(x), foreign(y))
        np.testing.assert_allclose(b.loss, a.loss, **close)
    np.testing.assert_allclose(there.net(x), here.net(x), **close)
    # What the network gave, back into it.
    np.testing.assert_array_equal(there.net(Pinned(x)), there.net(x))
    stays = there.net.to_device(x)
    np.testing.assert_array_equal(there.net(stays), there.net(x))
    np.testing.assert_array_equal(read(there.net.to_device(x.astype(np.uint8))), x.astype(np.uint8))
    there.backward(there.forward_on_device(stays))  # of one shape with its gradient


@pytest.mark.parametrize("device", ["cuda"])
def test_what_does_not_fit(device: str) -> None:
    learner = made(device)
    x = np.zeros((BATCH, 10), np.float32)
    for bad, why in [
        (x[:, :5].astype(np.float64), "x must be float32 or uint8 where it lies on a device, got float64"),
        (x[:, ::2], "x must be contiguous where it lies on a device"),
        (x, r"x must have shape \[B, 5\] or \[R=4, B, 5\] with B at least 1, got \[6, 10\]"),
    ]:
        if ON_GPU and not bad.flags.c_contiguous:
            continue  # the copy to the device would be
        with pytest.raises(kl.Error, match=rf"^\[network\] {why}$"):
            learner.net(foreign(bad))
    learner.forward(x[:, :5])
    with pytest.raises(kl.Error, match=r"^\[learner.backward\] grad_y must be float32 of shape \[4, B, 3\]$"):
        learner.backward(foreign(np.zeros((RUNS, BATCH, 2), np.float32)))
    with pytest.raises(BufferError, match="stays on its device"):
        learner.net.infer_on_device(x[:, :5].copy()).__dlpack__(dl_device=(77, 0))


def test_without_a_device() -> None:
    learner = made("cpu")
    with pytest.raises(kl.Error, match=r'^\[network\] infer_on_device needs a device of its own, got "cpu"$'):
        learner.net.infer_on_device(np.zeros((2, 5), np.float32))
    with pytest.raises(kl.Error, match=r"^\[learner.forward\] forward_on_device needs a device of its own"):
        learner.forward_on_device(np.zeros((2, 5), np.float32))
