"""Units that come and go: in lockstep with the reference, and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error
from test_units import OPTIMIZERS, RUNS, TOLERANCE, Specs, data
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")

NETWORKS: dict[str, tuple[Specs, tuple[int, ...]]] = {
    "mlp": (
        [("Linear", (9, 0, 2)), ("ReLU", ()), ("Linear", (7, 0, 0)), ("Sigmoid", ()), ("Linear", (3,))],
        (6,),
    ),
    "conv": (
        [
            *[("Conv2d", (5, 3, 1, 1, 3)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Conv2d", (7, 3, 1, 0, 1))],
            *[("LeakyReLU", (0.1,)), ("Flatten", ()), ("Linear", (9, 0, 4)), ("Tanh", ()), ("Linear", (3,))],
        ],
        (2, 8, 9),
    ),
    "normalised": (
        [
            *[("Conv2d", (5, 3, 1, 0, 2)), ("BatchNorm2d", ()), ("ReLU", ()), ("MaxPool2d", (2,))],
            *[("Flatten", ()), ("Linear", (9,)), ("LayerNorm", ()), ("Tanh", ()), ("Linear", (3,))],
        ],
        (2, 8, 9),
    ),
    "wires": (
        [("Linear", (9, 0, 5, 3)), ("ReLU", ()), ("Linear", (7, 0, None, 4)), ("Tanh", ()), ("Linear", (3,))],
        (6,),
    ),
    "wires of images": (
        [
            *[("Conv2d", (5, 3)), ("ReLU", ()), ("Flatten", ())],
            *[("Linear", (6, 0, 3, 20)), ("ReLU", ()), ("Linear", (3,))],
        ],
        (2, 8, 9),
    ),
}
RULE: dict[str, Any] = {
    "replacement_rate": 0.05,
    "maturity": 4,
    "threshold": 0.37,
    "utility_decay": 0.9,
    "reputation_decay": 0.95,
    "growth_period": 3,
    "candidates": 4,
    "progress": 0.5,
}


def in_lockstep(pair: Lockstep, x: NDArray[Any], y: NDArray[Any], loose: bool = False) -> int:
    """A step of both sides, which agree; how many units were replaced or added."""
    engine, references = pair.step(x, y)
    state = pair.net.state_dict()
    # Normalised batches, and Adam where gradients are tiny, make much of a rounding.
    normalised = any(type(layer) is kl.BatchNorm2d for layer in pair.net.layers)
    tolerance = 1e-3 if loose or normalised or type(pair.engine.optimizer) is kl.Adam else TOLERANCE
    for run, reference in enumerate(pair.networks):
        assert [list(units) for units in engine[run]] == [list(units) for units in references[run]]
        for units, expected in zip(pair.net.units, reference.units, strict=True):
            assert np.array_equal(units.living[run], expected.living)
            assert np.array_equal(units.age[run], expected.age)
        for name, array in (reference.parameters() | reference.buffers()).items():
            if name.endswith("vacant") or (normalised and name == "0.bias"):  # whose gradient is rounding
                continue
            assert relative_error(state[name][run], array) < tolerance, (run, name)
    return sum(len(units) for each in engine for units in each)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"transfer_mean_to_bias": True, "replacement_rate": 1.0, "maturity": 3, "candidates": 9},
        {
            "growth_period": np.array([0, 2, 5]),
            "candidates": np.array([1, 2, 9]),
            "tolerated_error": np.array([0.0, 0.9, 0.1]),
            "progress": np.array([0.0, 0.05, 1.0]),
        },
    ],
    ids=["plain", "at once", "per run"],
)
def test_growth_in_lockstep(rule: dict[str, Any], network: str, optimizer: str) -> None:
    specs, shape = NETWORKS[network]
    pair = Lockstep(
        specs, shape, RUNS, "cross_entropy", OPTIMIZERS[optimizer], RULE | rule, replacing="Recruitment"
    )
    before = sum(int(units.living.sum()) for units in pair.net.units)
    changed = sum(
        in_lockstep(pair, x, y)
        for _, (x, y) in zip(range(40), data(shape, 24 if network == "normalised" else 6), strict=False)
    )
    grown = sum(int(units.living.sum()) for units in pair.net.units) - before
    assert 0 < grown <= changed


GOALS: dict[str, dict[str, Any]] = {
    "active": {"goal": "active"},
    "unit_variance": {"goal": "unit_variance"},
    "decorrelated": {"goal": "decorrelated"},
    "listened": {"goal": "listened"},
    "perturbation": {"goal": "listened", "by": "perturbation", "noise": 0.1, "hold": 2, "trace_decay": 0.5},
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("replacing", ["ContinualBackprop", "Recruitment"])
@pytest.mark.parametrize("network", ["mlp", "wires"])
def test_goals_and_other_rules_leave_alone_what_is_not_there(network: str, replacing: str, goal: str) -> None:
    specs, shape = NETWORKS[network]
    rule: dict[str, Any] = {"replacement_rate": 0.3, "maturity": 0}
    if replacing == "ContinualBackprop":
        rule |= {"count_from": "all", "utility": "adaptable_contribution"}  # 0 / 0 where no unit lives
    pair = Lockstep(
        *(specs, shape, RUNS, "cross_entropy", OPTIMIZERS["momentum"], rule),
        replacing=replacing,
        goals=[GOALS[goal] | {"step_size": 0.05, "decay": 0.9}],
        rewire={"replacement_rate": 0.2, "maturity": 2} if network == "wires" else None,
    )
    before = [units.living for units in pair.net.units]
    for _, (x, y) in zip(range(20), data(shape), strict=False):
        in_lockstep(pair, x, y, loose=goal == "perturbation")  # a reward is a small difference
    assert all((units.living == lived).all() for units, lived in zip(pair.net.units, before, strict=True))


RULES: dict[str, list[Any]] = {
    "none": [],
    "noise": [kl.ShrinkAndPerturb(noise=0.1)],
    "cbp": [kl.ContinualBackprop(replacement_rate=0.2, maturity=0, count_from="all")],
    "redo": [kl.ReDo(threshold=1.0, period=2)],
    "snr": [kl.SNR(period=2, threshold=5)],
    "growth": [kl.Recruitment(replacement_rate=0.1, maturity=2, growth_period=4, utility_decay=0.9)],
    "goals": [
        kl.Recruitment(replacement_rate=0.1, maturity=2),
        kl.Rewire(replacement_rate=0.2, maturity=2),
        kl.Goal("active", share=1.0),
        kl.Goal("listened"),
        kl.Goal("listened", by="perturbation"),
    ],
}
STEPPED: dict[str, Any] = {
    "sgd": kl.SGD(step_size=0.02, momentum=0.9, weight_decay=0.01),
    "initial": kl.SGD(step_size=0.02, weight_decay=0.1, decay_to="initial"),
    "adamw": kl.AdamW(step_size=0.003),
    "upgd": kl.UPGD(step_size=0.02, noise=0.1),
    "idbd": kl.IDBD(step_size=0.01, meta_step_size=0.01, scope="unit"),
    "autostep": kl.Autostep(step_size=0.01, scope="unit", bound="unit"),
    "obgd": kl.ObGD(),
}


def made(rule: str = "none", optimizer: str = "sgd", runs: int = RUNS, **options: Any) -> kl.Learner:
    layers = [kl.Linear(9, living=3, wires=4), kl.ReLU(), kl.Linear(6, living=2), kl.ReLU(), kl.Linear(2)]
    net = kl.Network(layers, (5,), runs=runs, **options)
    return kl.Learner(net, loss="squared_error", optimizer=STEPPED[optimizer], rules=RULES[rule], events=99)


def stream(count: int, runs: int = RUNS, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(runs, count, 5)).astype(np.float32)
    return x, np.stack([x[..., 0] * x[..., 1], np.abs(x[..., 2])], axis=2)


def check_absent(net: kl.Network) -> None:
    """Where no unit lives, and no wire is, weights are zero."""
    for units in net.units:
        gone, arrays = ~units.living, (units.incoming, units.bias, units.outgoing, units.age, units.utility)
        assert not any(array[gone].any() for array in arrays)
        assert not units.incoming[~units.wires].any()


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("optimizer", STEPPED)
@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_where_nobody_lives(rule: str, optimizer: str, batch: int) -> None:
    """Under every rule and kind of optimizer; and rows beside it learn as they would in a smaller network."""
    learner = made(rule, optimizer)
    x, y = stream(42)
    check_absent(learner.net)
    for _ in range(2):
        learner.run(x, y, batch_size=batch, epochs=1)
        check_absent(learner.net)
    assert learner.alive.all()
    if rule != "growth":
        assert [int(units.living.sum()) for units in learner.net.units] == [3 * RUNS, 2 * RUNS]


@pytest.mark.parametrize("optimizer", [name for name in STEPPED if name != "upgd"])  # noise goes by place
def test_as_a_network_without_room(optimizer: str) -> None:
    """Living units learn to the bit as those of a network that has no other places."""
    x, y = stream(60)

    def trained(room: int) -> dict[str, NDArray[Any]]:
        layers = [kl.Linear(room, fan_in=5, living=4), kl.ReLU(), kl.Linear(2, fan_in=4)]
        net = kl.Network(layers, (5,), runs=RUNS)
        small = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(2)], (5,), runs=RUNS).state_dict()
        state = net.state_dict()
        state["0.weight"][:, :4], state["0.bias"][:, :4] = small["0.weight"], small["0.bias"]
        state["2.weight"][:, :, :4], state["2.bias"][:] = small["2.weight"], small["2.bias"]
        net.load_state_dict(state)
        learner = kl.Learner(net, loss="squared_error", optimizer=STEPPED[optimizer])
        learner.run(x, y, batch_size=5, epochs=2, shuffle=False)
        return net.state_dict()

    with_room, without = trained(9), trained(4)
    for name in ("0.weight", "0.bias"):
        assert relative_error(with_room[name][:, :4], without[name]) < 1e-5
    assert relative_error(with_room["2.weight"][:, :, :4], without["2.weight"]) < 1e-5


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 2**9 - 1)), max_size=6))
@pytest.mark.parametrize("optimizer", ["adamw", "autostep"])
def test_added_and_removed_by_hand(optimizer: str, changes: list[tuple[bool, int, int]]) -> None:
    """Adding changes no output; a unit that goes leaves its mean; what optimizers keep begins with a unit."""
    learner = made("growth", optimizer, runs=2)
    x, y = stream(12, 2)
    for add, group, bits in changes:
        learner.run(x, y, batch_size=1, epochs=1)
        units = learner.net.units[group]
        asked = np.array([[bits >> u & 1 for u in range(units.size)]] * 2, bool)
        before, state, mean = learner.net(x), learner.state(), units.mean_activity
        if add:
            asked &= ~units.living
            assert np.array_equal(learner.add_units(asked, group), asked)
            assert np.array_equal(learner.net(x), before)
            assert (units.living >= asked).all()
            for name, value in learner.state().items():
                if name.startswith("optimizer.") and name.endswith(f".{units.layer}.bias"):
                    assert not value[asked].any() and np.array_equal(value[~asked], state[name][~asked])
        else:
            asked &= units.living
            weight, bias = (state[f"{units.next_layer}.{kind}"] for kind in ("weight", "bias"))
            learner.remove_units(asked, group)
            moved = learner.net.state_dict()[f"{units.next_layer}.bias"] - bias
            living = np.ones_like(bias, bool) if group == 1 else learner.net.units[1].living
            expected = np.einsum("rou,ru->ro", weight, np.where(asked, mean, 0)) * living
            np.testing.assert_allclose(moved, expected, atol=1e-5)
            assert not (learner.net.units[group].living & asked).any()
        check_absent(learner.net)


def test_growing_from_nothing() -> None:
    """A network without hidden units recruits until the error is tolerated; each addition is an event."""
    net = kl.Network([kl.Linear(16, living=0), kl.ReLU(), kl.Linear(1)], (3,), runs=2)
    rule = kl.Recruitment(growth_period=50, maturity=50, utility_decay=0.98, tolerated_error=0.01)
    learner = kl.Learner(
        net, loss="squared_error", optimizer=kl.SGD(step_size=0.1), rules=[rule], events=1000
    )
    x = np.random.default_rng(0).choice([-1.0, 1.0], size=(1500, 3)).astype(np.float32)
    y = x[:, :1] * x[:, 1:2]  # no linear function of the inputs
    before = learner.evaluate(x, y).loss
    assert (net(x[:1]) == 0).all() and (before == 0.5).all()
    losses = [learner.run(x, y, batch_size=1, epochs=1, shuffle=False).loss[:, 0] for _ in range(5)]
    assert losses[-1].max() < 0.02
    living = net.units[0].living.sum(axis=1)
    assert ((living >= 2) & (living < 16)).all()
    events = learner.events()
    added = events["age"] == 0
    assert [int((events["run"][added] == run).sum()) for run in (0, 1)] == living.tolist()
    assert ((events["step"][added] + 1) % 50 == 0).all()


def test_a_learner_of_ones_own_rules_may_add() -> None:
    class Adds(kl.UnitRule):
        def step(self, units: Any) -> Any:
            return [~group.living & (np.arange(group.size) < 5) for group in units]

    net = kl.Network([kl.Linear(9, living=3), kl.ReLU(), kl.Linear(1)], (2,), runs=2)
    learner = kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[Adds()])
    x = np.ones((4, 2), np.float32)
    learner.step(x, x[:, :1])
    assert net.units[0].living.sum(axis=1).tolist() == [5, 5]


@pytest.mark.parametrize("rule", ["growth", "goals"])
def test_alone_and_resumed(rule: str, tmp_path: Path) -> None:
    x, y = stream(60)

    def state_of(learner: kl.Learner) -> dict[str, bytes]:
        return {name: value.tobytes() for name, value in learner.state().items()}

    whole, first, alone = made(rule), made(rule), made(rule, seeds=[1], runs=1)
    for learner in (whole, first):
        learner.run(x, y, batch_size=2, epochs=1)
        learner.add_units(1, 1)
    alone.run(x[1:2], y[1:2], batch_size=2, epochs=1)
    alone.add_units(1, 1)
    first.save(tmp_path / "saved")
    second = kl.Learner.load(tmp_path / "saved")
    for learner in (whole, second):
        learner.run(x, y, batch_size=1, epochs=1)
    alone.run(x[1:2], y[1:2], batch_size=1, epochs=1)
    assert state_of(second) == state_of(whole)
    assert state_of(alone) == {name: value[1:2].tobytes() for name, value in whole.state().items()}


def test_restart_and_reset() -> None:
    learner = made("growth")
    x, y = stream(40)
    learner.run(x, y, batch_size=1, epochs=2)
    learner.add_units(2, 0)
    before, wires = learner.net.units[0].living, learner.net.units[0].wires
    learner.net.reset([0], to="initial")
    assert np.array_equal(learner.net.units[0].living, before)
    assert not np.array_equal(learner.net.units[0].wires, wires)
    check_absent(learner.net)
    learner.restart()
    assert [units.living.sum(axis=1).tolist() for units in learner.net.units] == [[3] * RUNS, [2] * RUNS]
    check_absent(learner.net)


def test_weights_that_are_loaded_where_nothing_is() -> None:
    net, other = made().net, made(seeds=[7, 8, 9]).net
    ones = {
        name: np.ones_like(value) for name, value in net.state_dict().items() if name[-4:] in "weight bias"
    }
    net.load_state_dict({**net.state_dict(), **ones})
    check_absent(net)
    net.load_state_dict(other.state_dict())
    assert np.array_equal(net.units[0].wires, other.units[0].wires)  # they are loaded with the weights


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.vacant", 2, r'"0.vacant" must be 0 where a unit lives, else 1'),
        ("0.wires", 0.5, r'"0.wires" must be 1 where there is a wire, else 0'),
        ("0.wires", np.nan, r'"0.wires" must be 1 where there is a wire, else 0'),
        ("0.wires", 1, r'"0.wires" must be 1 at no more than 4 inputs of a unit'),
    ],
)
def test_masks_that_are_none(name: str, value: float, message: str) -> None:
    learner = made("growth")
    for load, state in (
        (learner.net.load_state_dict, learner.net.state_dict()),
        (learner.load_state, learner.state()),
    ):
        before = learner.state()
        with pytest.raises(kl.Error, match=message):
            load({**state, name: np.full_like(state[name], value)})
        assert all(array.tobytes() == before[key].tobytes() for key, array in learner.state().items())


def test_units_that_hear_nothing_are_replaced() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(1)], (3,))
    rule = kl.ContinualBackprop(utility="adaptable_contribution", replacement_rate=0.25, maturity=2)
    learner = kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.01), rules=[rule])
    net.units[0].incoming = net.units[0].incoming * np.array([1, 0, 1, 1])[:, None]
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    masks = [learner.step(x, x[:, :1]).replaced[0][0] for _ in range(4)]
    assert np.flatnonzero(np.sum(masks, axis=0)).tolist() == [1]


def test_pruned() -> None:
    learner = made("growth")
    x, y = stream(80)
    learner.run(x, y, batch_size=1, epochs=5)
    for run, pruned in enumerate(learner.net.prune(x, tolerance=1e-3)):
        assert pruned.difference < 1e-3
        small = [units.size for units in pruned.network.units]
        assert small <= [max(1, int(units.living[run].sum())) for units in learner.net.units]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kl.Network([kl.Linear(3, living=4), kl.Linear(1)], (2,)),
            "living must be from 0 to 3, got 4",
        ),
        (lambda: kl.Network([kl.Linear(3, wires=3), kl.Linear(1)], (2,)), "wires must be from 1 to 2, got 3"),
        (lambda: kl.Network([kl.Linear(3, living=1)], (2,)), "living is for hidden layers"),
        (lambda: kl.Network([kl.Linear(3, wires=1)], (2,)), "wires is for hidden layers"),
        (
            lambda: kl.Network([kl.Linear(3, living=1), kl.LayerNorm(), kl.Linear(1)], (2,)),
            "layer 0 cannot come and go .living.: LayerNorm",
        ),
        (
            lambda: made().add_units(7),
            r"\[add_units\] expected from 0 to 6 units, as many as have room, got 7",
        ),
        (lambda: made().remove_units(3, 1), "expected from 0 to 2 units, as many as live, got 3"),
        (lambda: made().add_units(np.ones(9, bool)), "unit 0 of run 0 lives already"),
        (lambda: made().remove_units(np.ones((RUNS, 9), bool)), "unit 3 of run 0 does not live"),
        (lambda: made().add_units(1, 2), "group must be a place in Network.units, got 2"),
        (lambda: made().add_units(np.ones(8, bool)), r"a mask \[3, 9\] or \[9\], got bool \[8\]"),
        (lambda: made().add_units(1.5), "units must be a number"),  # type: ignore[arg-type]
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        make()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (kl.Recruitment(growth_period=10), r"growth_period needs a layer with room"),
        (kl.Recruitment(candidates=2), r"candidates is for units that are added"),
        (kl.Recruitment(growth_period=1.5), r"growth_period must be a whole number, got 1.5"),
        (kl.Rewire(), r"no units that listen to some of their inputs"),
        (kl.Rewire(replacement_rate=2), r"replacement_rate must be in \[0, 1\], got 2"),
    ],
)
def test_rules_without_what_they_need(rule: Any, message: str) -> None:
    net = kl.Network([kl.Linear(3), kl.ReLU(), kl.Linear(1)], (2,))
    if "must be in" in message:
        net = kl.Network([kl.Linear(3, wires=1), kl.ReLU(), kl.Linear(1)], (2,))
    with pytest.raises(kl.Error, match=message):
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[rule])


def test_growth_needs_the_loss() -> None:
    learner = made("growth")
    x, y = stream(4)
    learner.forward(x)
    with pytest.raises(kl.Error, match="needs the loss, and learns by step"):
        learner.backward(y)
