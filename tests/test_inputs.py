"""What a network accepts: the same numbers in other clothes give the same bits, all else is an error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.arrays import relative_error
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")

SPECS: list[LayerSpec] = [
    *[("Conv2d", (4, 3)), ("ReLU", ()), ("MaxPool2d", (2,))],
    *[("Flatten", ()), ("Linear", (5,))],
]
SHAPE, RUNS, BATCH = (3, 7, 6), 3, 4


def network() -> kl.Network:
    net = twins.engine_network(SPECS, SHAPE, RUNS)
    twins.draw_weights(net, np.random.default_rng(1))
    return net


def images(runs: int | None = None) -> NDArray[np.float32]:
    shape = (BATCH, *SHAPE) if runs is None else (runs, BATCH, *SHAPE)
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def test_shared_batch_is_every_runs_batch() -> None:
    net, x = network(), images()
    assert np.array_equal(net(x), net(np.stack([x] * RUNS)))


def test_runs_have_batches_of_their_own() -> None:
    net, x = network(), images(RUNS)
    y = net(x)
    for run in range(RUNS):
        assert np.array_equal(y[run], net(x[run])[run])


def test_float64_is_converted() -> None:
    net, x = network(), images().astype(np.float64) + 1e-10
    assert np.array_equal(net(x), net(x.astype(np.float32)))


def test_memory_order_does_not_matter() -> None:
    net, x = network(), images(RUNS)
    padded = np.zeros((RUNS, 2 * BATCH, *SHAPE), np.float32)
    padded[:, ::2] = x
    for view in (np.asfortranarray(x), padded[:, ::2], x[:, :, ::-1].copy()[:, :, ::-1]):
        assert np.array_equal(net(view), net(x))


@pytest.mark.parametrize("runs", [None, RUNS])
def test_bytes_with_scale_and_offset(runs: int | None) -> None:
    """float = byte * scale + offset, a scale and an offset for every channel."""
    rng = np.random.default_rng(3)
    shape = (BATCH, *SHAPE) if runs is None else (runs, BATCH, *SHAPE)
    x = rng.integers(0, 256, size=shape, dtype=np.uint8)
    scale, offset = np.float32(rng.uniform(0.01, 0.03, size=3)), np.float32(rng.normal(size=3))
    same = np.float32(x * scale[:, None, None].astype(np.float64) + offset[:, None, None])
    net = network()
    labels = rng.integers(0, 5, size=shape[: -len(SHAPE)])
    learner = kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD())
    from_bytes = learner.evaluate(x, labels, scale=scale, offset=offset)
    assert relative_error(net(x, scale=scale, offset=offset), net(same)) < 1e-6
    assert relative_error(from_bytes.loss, learner.evaluate(same, labels).loss) < 1e-6


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((BATCH, 3, 7, 7), np.float32),
        np.zeros((RUNS + 1, BATCH, *SHAPE), np.float32),
        np.zeros(SHAPE, np.float32),
        np.zeros((0, *SHAPE), np.float32),
        np.zeros((BATCH, *SHAPE), np.int64),
        np.zeros((BATCH, *SHAPE), np.complex64),
        np.zeros((BATCH, *SHAPE), object),
        "images",
    ],
    ids=lambda x: f"{x.dtype}{x.shape}" if isinstance(x, np.ndarray) else str(x),
)
def test_anything_else_is_an_error(x: Any) -> None:
    net = network()
    with pytest.raises(kl.Error):
        net(x)
    with pytest.raises(kl.Error):
        kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD()).step(x, np.zeros(BATCH, np.int64))


def test_bytes_need_three_scales() -> None:
    x = np.zeros((BATCH, *SHAPE), np.uint8)
    with pytest.raises(kl.Error):
        network()(x, scale=np.ones(2, np.float32), offset=np.zeros(2, np.float32))
    with pytest.raises(kl.Error):
        network()(x, scale=np.ones(3, np.float32), offset=np.zeros(4, np.float32))


def test_batches_of_inputs_and_targets_must_match() -> None:
    learner = kl.Learner(network(), loss="cross_entropy", optimizer=kl.SGD())
    with pytest.raises(kl.Error):
        learner.step(images(), np.zeros(BATCH + 1, np.int64))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_number_must_be_finite(bad: float) -> None:
    net = kl.Network([kl.Linear(2)], input_shape=(7,))
    largest = np.finfo(np.float32).max
    for place in np.ndindex(3, 7):
        x = np.full((3, 7), -largest, np.float32)
        net(x)
        x[place] = bad
        name = "nan" if np.isnan(bad) else "inf"
        with pytest.raises(kl.Error, match=rf"x must be finite, got {name} at \[{place[0]}, {place[1]}\]$"):
            net(x)


def test_what_a_step_did_stays() -> None:
    """The arrays are made when they are first read, whatever the learner did since, and only once."""
    rng = np.random.default_rng(4)
    rule = kl.ContinualBackprop(replacement_rate=0.3, maturity=0)
    x, y = images(), rng.integers(0, 5, size=BATCH)
    read, late = [], []
    for at_once in (True, False):
        learner = kl.Learner(network(), loss="cross_entropy", optimizer=kl.SGD(), rules=[rule])
        for _ in range(6):
            out = learner.step(x, y)
            if at_once:
                read.append((out.loss, out.accuracy, *out.replaced))
            else:
                late.append(out)
    del learner
    for arrays, out in zip(read, late, strict=True):
        assert out.loss is out.loss and out.accuracy is out.accuracy and out.replaced is out.replaced
        assert all(map(np.array_equal, arrays, (out.loss, out.accuracy, *out.replaced)))
        out.loss[:] = 7
        assert (out.loss == 7).all()
    assert any(out.replaced[0].any() for out in late)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "type"])
def test_load_state_dict_takes_all_or_nothing(change: str) -> None:
    net = network()
    before = net.state_dict()
    state: dict[str, Any] = {name: value + 1 for name, value in before.items()}
    if change == "missing":
        del state["4.bias"]
    elif change == "unknown":
        state["9.weight"] = np.zeros((RUNS, 2), np.float32)
    elif change == "shape":
        state["4.bias"] = np.zeros((RUNS, 6), np.float32)
    else:
        state["4.bias"] = np.zeros((RUNS, 5), np.complex64)
    with pytest.raises(kl.Error):
        net.load_state_dict(state)
    after = net.state_dict()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_arguments_of_the_wrong_kind_are_one_line() -> None:
    net = kl.Network([kl.Linear(2)], input_shape=(3,))
    learner = kl.Learner(net, loss="mse", optimizer=kl.SGD())
    x, y = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    calls: dict[str, Callable[[], object]] = {
        "learner.run": lambda: learner.run(x, y, batch_size=2.5),  # type: ignore[arg-type]
        r"learner.run\] .*epochs": lambda: learner.run(x, y, batchsize=5),  # type: ignore[call-arg]
        "learner": lambda: kl.Learner(None, loss="mse", optimizer=kl.SGD()),  # type: ignore[arg-type]
        "learner.load_state": lambda: learner.load_state(None),  # type: ignore[arg-type]
        "network": lambda: kl.Network([kl.ReLU], input_shape=(3,)),  # type: ignore[list-item]
        "network.reset": lambda: net.reset(layers=-1),  # type: ignore[arg-type]
        "network.load_state_dict": lambda: net.load_state_dict(None),  # type: ignore[arg-type]
    }
    for where, call in calls.items():
        with pytest.raises(kl.Error, match=rf"^\[{where}") as raised:
            call()
        assert "\n" not in str(raised.value)
