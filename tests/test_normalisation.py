"""Normalisation and dropout: what runs along, what inference does, what a new unit gets; and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.arrays import relative_error
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")

RUNS = 3
LAYERS: list[LayerSpec] = [
    *[("Conv2d", (5, 3)), ("BatchNorm2d", (1e-3, 0.3)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Flatten", ())],
    *[("Linear", (9,)), ("BatchNorm1d", ()), ("ReLU", ()), ("Dropout", (0.3,)), ("LayerNorm", ())],
    ("Linear", (3,)),
]
SHAPE = (2, 8, 6)
X = np.random.default_rng(0).normal(size=(RUNS, 12, *SHAPE)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, size=(RUNS, 12))


def learner(specs: list[LayerSpec] = LAYERS, **options: Any) -> kl.Learner:
    net = twins.engine_network(specs, SHAPE, RUNS)
    return kl.Learner(net, **{"loss": "cross_entropy", "optimizer": kl.SGD(step_size=0.0), **options})


def test_names_and_beginnings() -> None:
    state = learner().net.state_dict()
    shapes = {name: value.shape[1:] for name, value in state.items() if name.split(".")[0] in "169"}
    assert shapes == {
        **{f"1.{name}": (5,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"6.{name}": (9,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"9.{name}": (9,) for name in ("weight", "bias")},
    }
    assert list(state)[-4:] == ["1.running_mean", "1.running_var", "6.running_mean", "6.running_var"]
    for name in shapes:
        assert (state[name] == (1 if name.endswith(("weight", "var")) else 0)).all(), name
    images = twins.engine_network([("Conv2d", (4, 3)), ("LayerNorm", ()), *LAYERS[3:]], SHAPE)
    assert images.state_dict()["1.weight"].shape == (1, 4, 6, 4)


def test_running_means_follow_updates_and_nothing_else() -> None:
    made = learner()
    made.evaluate(X, Y)
    made.net(X)
    made.forward(X)
    begun = made.net.state_dict()
    assert not begun["1.running_mean"].any()
    for _ in range(3):
        made.step(X, Y)
    state = made.net.state_dict()
    # Without learning the first layer's outputs stay what they are.
    plain = twins.engine_network([LAYERS[0], ("Flatten", ()), ("Linear", (3,))], SHAPE, RUNS)
    plain.load_state_dict({**plain.state_dict(), "0.weight": state["0.weight"], "0.bias": state["0.bias"]})
    (outputs,) = plain.activities(X)
    values = np.moveaxis(outputs.astype(np.float64), 2, 1).reshape(RUNS, 5, -1)
    kept = 0.7**3
    assert relative_error(state["1.running_mean"], (1 - kept) * values.mean(axis=2)) < 1e-5
    variance = (1 - kept) * values.var(axis=2, ddof=1) + kept
    assert relative_error(state["1.running_var"], variance) < 1e-5


def test_inference_does_not_depend_on_the_batch() -> None:
    made = learner()
    made.step(X, Y)
    whole = made.net(X)
    assert relative_error(made.net(X[:, :2]), whole[:, :2]) < 1e-6  # few samples take another way
    np.testing.assert_array_equal(made.evaluate(X, Y).loss, made.evaluate(X, Y).loss)


def test_dropout_drops_its_share_anew_at_every_update() -> None:
    size = 400
    net = kl.Network([kl.Linear(size), kl.Dropout(0.3), kl.Linear(size)], (2,), runs=RUNS)
    state = net.state_dict()
    state["0.weight"][:], state["0.bias"][:] = 0, 1
    state["2.weight"][:] = np.eye(size)
    net.load_state_dict(state)
    made = kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.0))
    x = np.zeros((50, 2), np.float32)
    masks = []
    for _ in range(2):
        y = made.forward(x)
        np.testing.assert_array_equal(y, made.forward(x))  # the same until something was learned
        np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
        masks.append(y > 0)
        made.backward(np.zeros_like(y))
        made.apply()
    every = np.stack(masks)
    assert abs(every.mean() - 0.7) < 4 * np.sqrt(0.21 / every.size)
    # No update, run, sample or unit goes with another.
    for axis in range(4):
        rows = np.moveaxis(every, axis, 0).reshape(every.shape[axis], -1)[:, :4000]
        assert len(np.unique(rows, axis=0)) == len(rows)
    assert (net(x) == 1).all()


def test_a_new_unit_begins_with_a_fresh_normalisation() -> None:
    made = learner(
        optimizer=kl.SGD(step_size=0.1, momentum=0.9),
        rules=[kl.ContinualBackprop(replacement_rate=0.2, maturity=2)],
    )
    for _ in range(2):
        made.step(X, Y)
    out = made.step(X, Y)
    state = made.state()
    for group, (gone, places) in enumerate(zip(out.replaced, [(1,), (6, 9)], strict=True)):
        assert gone.any() and not gone.all(), group
        for place in places:
            names = ["weight", "bias", *([] if place == 9 else ["running_mean", "running_var"])]
            for name in names:
                values, fresh = state[f"{place}.{name}"], float(name in ("weight", "running_var"))
                assert (values[gone] == fresh).all(), (place, name)
                assert (values[~gone] != fresh).all(), (place, name)
            for name in ("weight", "bias"):
                momentum = state[f"optimizer.momentum.{place}.{name}"]
                assert (momentum[gone] == 0).all() and (momentum[~gone] != 0).any()


def test_new_units_under_decay_to_initial_weights_begin_with_new_ones() -> None:
    made = learner(
        optimizer=kl.SGD(step_size=0.1, weight_decay=0.1, decay_to="initial"),
        rules=[kl.ContinualBackprop(replacement_rate=0.2, maturity=2)],
    )
    before = made.state()
    for _ in range(3):
        out = made.step(X, Y)
    state = made.state()
    for gone, place in zip(out.replaced, (0, 5), strict=True):
        initial, weight = (state[f"{prefix}{place}.weight"] for prefix in ("initial.", ""))
        assert np.array_equal(initial[gone], weight[gone])
        assert np.array_equal(initial[~gone], before[f"{place}.weight"][~gone]) or place == 5
        assert (state[f"initial.{place}.bias"][gone] == 0).all()
    assert (state["initial.1.weight"] == 1).all()


def test_reset_and_restart() -> None:
    made = learner(optimizer=kl.SGD(step_size=0.1))
    for _ in range(2):
        made.step(X, Y)
    learned = made.net.state_dict()
    made.net.reset([1], to="initial")  # the first linear layer and what is behind it
    state = made.net.state_dict()
    for name, value in state.items():
        same = np.array_equal(value, learned[name])
        assert same == (name.split(".")[0] not in "569"), name
    made.restart()
    fresh = made.net.state_dict()
    for name in ("1.weight", "6.running_var", "9.weight"):
        assert (fresh[name] == 1).all()


def test_one_sample_has_no_variance() -> None:
    made = learner()
    message = r"a batch must have at least 2 samples for BatchNorm1d, got 1$"
    for call in (
        lambda: made.step(X[:, :1], Y[:, :1]),
        lambda: made.forward(X[:, :1]),
        lambda: made.run(X, Y, batch_size=11),
        lambda: made.run(X, Y, batch_size=1),
    ):
        with pytest.raises(kl.Error, match=r"^\[learner\..*\] " + message):
            call()
    assert made.evaluate(X[:, :1], Y[:, :1]).loss.shape == (RUNS,)
    learner([*LAYERS[:5], ("Linear", (3,))]).step(X[:, :1], Y[:, :1])  # positions of an image are several


MISTAKES: list[tuple[list[LayerSpec], str]] = [
    ([("BatchNorm1d", ())], r"\[batchnorm1d, layer 0\] needs a flat input: BatchNorm2d\(\) is of images"),
    ([("Flatten", ()), ("BatchNorm1d", ())], r"\[batchnorm1d, layer 1\] must not follow the Flatten\(\)"),
    ([("Flatten", ()), ("BatchNorm2d", ())], r"\[batchnorm2d, layer 1\] needs an image"),
    ([("BatchNorm2d", (0.0,))], r"\[batchnorm2d, layer 0\] epsilon must be above 0"),
    ([("BatchNorm2d", (1e-5, 1.5))], r"\[batchnorm2d, layer 0\] momentum must be in \[0, 1\]"),
    ([("Dropout", (1.0,))], r"\[dropout, layer 0\] probability must be in \[0, 1\), got 1"),
    ([("LayerNorm", (-1.0,))], r"\[layernorm, layer 0\] epsilon must be above 0"),
]


@pytest.mark.parametrize(("layers", "message"), MISTAKES)
def test_mistakes(layers: list[LayerSpec], message: str) -> None:
    with pytest.raises(kl.Error, match="^" + message):
        twins.engine_network([*layers, ("Flatten", ()), ("Linear", (2,))], SHAPE)


def test_what_does_not_go_with_normalised_batches() -> None:
    with pytest.raises(kl.Error, match="BatchNorm makes samples depend on each other"):
        learner(optimizer=kl.IDBD())
    net = kl.Network([kl.Linear(4), kl.BatchNorm1d(), kl.ReLU(), kl.Linear(1)], (3,))
    with pytest.raises(kl.Error, match="must not have BatchNorm"):
        kl.StreamAgent(None, net, method="td", value_optimizer=kl.SGD())


def test_pytorch() -> None:
    """The same network in PyTorch: outputs, gradients and running means."""
    torch = pytest.importorskip("torch")
    specs = [spec for spec in LAYERS if spec[0] != "Dropout"]
    net = twins.engine_network(specs, SHAPE)
    state = twins.draw_weights(net, np.random.default_rng(5))
    made = kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD(step_size=0.1))
    theirs = torch.nn.Sequential(
        *[torch.nn.Conv2d(2, 5, 3), torch.nn.BatchNorm2d(5, 1e-3, 0.3), torch.nn.ReLU()],
        *[torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(30, 9), torch.nn.BatchNorm1d(9)],
        *[torch.nn.ReLU(), torch.nn.LayerNorm(9), torch.nn.Linear(9, 3)],
    )
    theirs.load_state_dict({name: torch.tensor(value[0]) for name, value in state.items()}, strict=False)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    x, y = torch.tensor(X[0]), torch.tensor(Y[0])
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(x), y)
        loss.backward()
        optimizer.step()
        assert relative_error(made.step(X[:1], Y[:1]).loss, np.array([loss.item()])) < 1e-5
    theirs.eval()
    outputs: NDArray[np.float32] = theirs(x).detach().numpy()
    assert relative_error(net(X[:1])[0], outputs) < 1e-4
    for name, value in theirs.state_dict().items():
        if not name.endswith("tracked") and name not in ("0.bias", "5.bias"):  # whose gradient is rounding
            assert relative_error(net.state_dict()[name][0], value.numpy()) < 1e-4, name
