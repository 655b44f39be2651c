"""Who is replaced, how many, and what a new unit is: one property of continual backprop at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.arrays import relative_error
from reference.continual_backprop import Settings, replacements_due
from reference.recording import LayerSpec

pytestmark = pytest.mark.usefixtures("device")


class Still:
    """A network whose optimizer has nothing to do: dL/dy is zero, and only the unit rule acts."""

    def __init__(
        self,
        specs: list[LayerSpec],
        shape: tuple[int, ...],
        runs: int = 1,
        born: str = "kaiming",
        **rule: Any,
    ) -> None:
        self.net = twins.engine_network(specs, shape, runs, init=born)
        twins.draw_weights(self.net, np.random.default_rng(2))
        optimizer = kl.SGD(step_size=0.1, momentum=0.9)
        self.learner = kl.Learner(
            self.net, loss="mse", optimizer=optimizer, rules=[kl.ContinualBackprop(**rule)]
        )

    def step(self, x: NDArray[np.float32], grad: float = 0.0) -> list[list[list[int]]]:
        """The units replaced, [group][run]; dL/dy is `grad` everywhere."""
        before = [units.age for units in self.net.units]
        y = self.learner.forward(x)
        self.learner.backward(np.full_like(y, grad))
        self.learner.apply()
        return [
            [np.flatnonzero(units.age[run] < age[run] + 1).tolist() for run in range(self.net.runs)]
            for units, age in zip(self.net.units, before, strict=True)
        ]


def mlp(hidden: int, activation: str = "ReLU") -> list[LayerSpec]:
    return [("Linear", (hidden,)), (activation, ()), ("Linear", (3,))]


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@given(
    hidden=st.integers(1, 40),
    rate=st.floats(0.0, 1.0),
    maturity=st.integers(0, 6),
    count_from=st.sampled_from(["eligible", "all"]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_counts_follow_the_carry(hidden: int, rate: float, maturity: int, count_from: str) -> None:
    options: dict[str, Any] = {"replacement_rate": rate, "maturity": maturity, "count_from": count_from}
    still = Still(mlp(hidden), (4,), **options)
    age, carry = np.zeros(hidden), 0.0
    for _ in range(12):
        age += 1
        eligible = age > maturity
        due, carry = replacements_due(Settings(**options), eligible, hidden, carry, coin=0.0)
        (((*replaced,),),) = still.step(images(5, 4))
        assert len(replaced) == due
        assert eligible[replaced].all()
        age[replaced] = 0


@pytest.mark.parametrize(("rate", "hidden"), [(0.02, 10), (0.9, 1), (0.3, 10), (0.25, 10)])
def test_bernoulli_counts(rate: float, hidden: int) -> None:
    """Above one a fixed number, below one that share of the steps, in every run by a coin of its own."""
    runs, steps = 20, 60
    still = Still(
        mlp(hidden), (4,), runs, replacement_rate=rate, maturity=0, count_mode="bernoulli", count_from="all"
    )
    counts = np.array([[len(units) for units in still.step(images(5, 4))[0]] for _ in range(steps)])
    due = rate * hidden
    if due >= 1:
        assert (counts == int(due)).all()
        return
    assert counts.max() == 1
    deviation = np.sqrt(due * (1 - due) / counts.size)
    assert abs(counts.mean() - due) < 4 * deviation
    assert len(np.unique(counts, axis=1).T) > 1


@given(hidden=st.integers(2, 40), due=st.integers(1, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_equal_utilities_lowest_index_first(hidden: int, due: int) -> None:
    due = min(due, hidden)
    still = Still(mlp(hidden), (4,), replacement_rate=min(1.0, (due + 0.5) / hidden), maturity=0)
    twins.draw_weights(still.net, np.random.default_rng(0), scale=0.0)
    assert still.step(images(5, 4)) == [[list(range(due))]]


def test_lowest_utilities_go() -> None:
    still = Still(mlp(30), (4,), 3, replacement_rate=0.2, maturity=1)
    x = images(5, 4)
    still.step(x)
    utility = still.net.units[0].utility
    for run, replaced in enumerate(still.step(x)[0]):
        assert replaced == sorted(np.argsort(utility[run], kind="stable")[:6].tolist())


def test_nan_goes_last() -> None:
    """Where activities add up to infinity, and nobody listens, utility is infinity times 0."""
    still = Still(mlp(8), (4,), replacement_rate=0.5, maturity=0, utility="contribution")
    state = still.net.state_dict()
    state["0.weight"][:, :3], state["0.bias"][:, :3], state["2.weight"][:, :, :3] = 0, 3e38, 0
    still.net.load_state_dict(state)
    replaced = still.step(images(5, 4))[0][0]
    assert len(replaced) == 4
    assert not set(replaced) & {0, 1, 2}
    assert np.isnan(still.net.units[0].utility[0, :3]).all()


def test_runs_choose_for_themselves() -> None:
    still = Still(mlp(30), (4,), 4, replacement_rate=0.2, maturity=0)
    assert len({tuple(units) for units in still.step(images(5, 4))[0]}) == 4


FLATTENED: list[LayerSpec] = [
    *[("Conv2d", (6, 3)), ("ReLU", ()), ("MaxPool2d", (2,))],
    *[("Flatten", ()), ("Linear", (3,))],
]
CONVOLVED: list[LayerSpec] = [
    *[("Conv2d", (6, 3)), ("ReLU", ()), ("Conv2d", (2, 3))],
    *[("Flatten", ()), ("Linear", (3,))],
]


@pytest.mark.parametrize(
    ("specs", "shape"),
    [(mlp(10), (4,)), (mlp(10, "Tanh"), (4,)), (FLATTENED, (2, 8, 8)), (CONVOLVED, (2, 6, 6))],
)
@pytest.mark.parametrize("transfer", [True, False])
def test_transfer_keeps_the_mean_output(
    specs: list[LayerSpec], shape: tuple[int, ...], transfer: bool
) -> None:
    still = Still(specs, shape, 2, replacement_rate=0.5, maturity=0, transfer_mean_to_bias=transfer)
    x = images(9, *shape)
    if (
        len(shape) == 3
    ):  # all pixels of an image alike: then all positions of a filter are, and the mean says all
        x = np.ascontiguousarray(np.broadcast_to(x[:, :, :1, :1], x.shape))
    before = still.net(x).mean(axis=1)
    assert all(units for group in still.step(x) for units in group)
    kept = relative_error(still.net(x).mean(axis=1), before) < 1e-5
    assert kept == transfer


LARGEST = {"kaiming": np.sqrt(6.0), "pytorch": 1.0, "lecun": np.sqrt(3.0)}  # of U(+-largest / sqrt(fan_in))


@pytest.mark.parametrize("init", [None, "pytorch", "lecun"])
@pytest.mark.parametrize("born", ["kaiming", "pytorch"])
@pytest.mark.parametrize(
    ("specs", "shape"), [(mlp(40), (30,)), (FLATTENED, (2, 8, 8)), (CONVOLVED, (2, 6, 6))]
)
def test_new_units(specs: list[LayerSpec], shape: tuple[int, ...], born: str, init: str | None) -> None:
    """Incoming weights from the initial distribution, everything else zero; nobody else is touched."""
    still = Still(specs, shape, 2, born, replacement_rate=0.5, maturity=0, init=init)
    before = still.net.state_dict()
    replaced, *behind = still.step(images(5, *shape))
    after = still.net.state_dict()
    first, following = [name for name in after if name.endswith("weight")][:2]
    size = still.net.units[0].size
    drawn = []
    for run, gone in enumerate(replaced):
        stay = np.setdiff1d(np.arange(size), gone)
        assert len(gone) == size // 2
        assert np.array_equal(after[first][run][stay], before[first][run][stay])
        bias, bias_before = (state[first.replace("weight", "bias")][run] for state in (after, before))
        assert np.array_equal(bias[stay], bias_before[stay])
        assert not bias[gone].any()
        redrawn = behind[0][run] if behind else []  # units of the next layer
        outgoing, outgoing_before = (
            np.delete(by_unit(state[following][run], size), redrawn, axis=0) for state in (after, before)
        )
        assert np.array_equal(outgoing[:, stay], outgoing_before[:, stay])
        assert not outgoing[:, gone].any()
        drawn.append(after[first][run][gone].ravel())
    new = np.concatenate(drawn)
    largest = LARGEST[init or born] / np.sqrt(after[first][0][0].size)
    assert len(np.unique(new)) > 0.99 * new.size  # every run and unit has its own draw
    assert np.abs(new).max() <= largest * (1 + 1e-6)
    assert np.abs(new).max() > 0.9 * largest
    assert abs(new.mean()) < 4 * largest / np.sqrt(3 * new.size)
    assert abs(new.std() * np.sqrt(3.0) / largest - 1) < 4 / np.sqrt(new.size)


def by_unit(weight: NDArray[Any], size: int) -> NDArray[Any]:
    """The next layer's weight as [outputs, units, the rest]."""
    return weight.reshape(len(weight), size, -1)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
@pytest.mark.parametrize("reset", [True, False])
def test_new_units_rest_without_gradient(kind: str, reset: bool) -> None:
    """With its optimizer state forgotten a new unit stays silent; otherwise old momentum moves it."""
    still = Still(mlp(12), (4,), replacement_rate=0.5, maturity=3, reset_optimizer_state=reset)
    if kind == "adam":
        rule = kl.ContinualBackprop(replacement_rate=0.5, maturity=3, reset_optimizer_state=reset)
        still.learner = kl.Learner(still.net, loss="mse", optimizer=kl.Adam(), rules=[rule])
    x = images(5, 4)
    for _ in range(3):
        assert still.step(x, grad=1.0) == [[[]]]
    gone = still.step(x, grad=1.0)[0][0]
    born = still.net.state_dict()
    assert not born["2.weight"][0][:, gone].any()
    still.step(x, grad=0.0)
    later = still.net.state_dict()
    rested = not later["2.weight"][0][:, gone].any()
    assert rested == reset
    if reset:
        assert np.array_equal(later["0.weight"][0][gone], born["0.weight"][0][gone])
