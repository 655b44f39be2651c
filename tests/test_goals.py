"""Goals of units' own, in lockstep with the reference; and that each does what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from klopf import metrics
from reference.arrays import relative_error
from reference.recording import LayerSpec
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")

RUNS = 3
STEPS = {1: 15, 6: 25}  # by batch size; one sample makes much of a rounding: signs, small deviations
MLP: list[LayerSpec] = [
    *[("Linear", (13,)), ("ReLU", ()), ("Linear", (11,)), ("Tanh", ())],
    *[("Linear", (7,)), ("Linear", (5,)), ("LeakyReLU", (0.1,)), ("Linear", (3,))],
]
CONVOLUTIONAL: list[LayerSpec] = [
    *[("Conv2d", (5, 3, 1, 1)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Conv2d", (7, 3)), ("LeakyReLU", (0.1,))],
    *[("Flatten", ()), ("Linear", (9,)), ("ReLU", ()), ("Linear", (3,))],
]
NETWORKS: dict[str, tuple[list[LayerSpec], tuple[int, ...]]] = {
    "mlp": (MLP, (6,)),
    "conv": (CONVOLUTIONAL, (2, 8, 9)),
}
OPTIMIZER: tuple[str, dict[str, Any]] = ("SGD", {"step_size": 0.02, "momentum": 0.9})
RECRUITMENT: dict[str, Any] = {
    "replacement_rate": 0.1,
    "maturity": 4,
    "threshold": 0.8,
    "utility_decay": 0.9,
}
DENSE = [2]  # the group of "conv" between two linear layers

KINDS: dict[str, dict[str, Any]] = {
    "active": {"goal": "active", "share": 0.7, "step_size": 0.05, "decay": 0.8},
    "unit_variance": {"goal": "unit_variance", "step_size": 0.05, "decay": 0.8},
    "decorrelated": {"goal": "decorrelated", "step_size": 0.05, "decay": 0.9, "correlation_decay": 0.8},
    "listened": {"goal": "listened", "step_size": 0.05, "decay": 0.9, "correlation_decay": 0.8},
}


def of_network(goal: dict[str, Any], network: str) -> dict[str, Any]:
    needs_samples = goal["goal"] in ("decorrelated", "listened")
    return goal | ({"layers": DENSE} if network == "conv" and needs_samples else {})


EACH = [*KINDS, "all", "per run"]
CASES = [(kind, "mlp", batch) for kind in EACH for batch in STEPS] + [(kind, "conv", 6) for kind in EACH[-2:]]


@pytest.mark.parametrize("replacing", [None, "ContinualBackprop", "Recruitment"])
@pytest.mark.parametrize(("kind", "network", "batch"), CASES)
def test_lockstep(kind: str, network: str, replacing: str | None, batch: int) -> None:
    specs, shape = NETWORKS[network]
    goals = [KINDS[kind]] if kind in KINDS else list(KINDS.values())
    if kind == "per run":
        goals = [goal | {"step_size": np.array([0.0, 0.03, 0.1])} for goal in goals]
    goals = [of_network(goal, network) for goal in goals]
    if replacing == "Recruitment":
        goals = [goal | {"units": "fringe"} for goal in goals]
    rule = RECRUITMENT if replacing == "Recruitment" else {"replacement_rate": 0.05, "maturity": 4}
    pair = Lockstep(specs, shape, RUNS, "cross_entropy", OPTIMIZER, rule, replacing=replacing, goals=goals)
    before = pair.net.state_dict()
    rng = np.random.default_rng(3)
    total = 0
    for _ in range(STEPS[batch]):
        x = rng.normal(size=(RUNS, batch, *shape)).astype(np.float32)
        engine, references = pair.step(x, rng.integers(0, 3, size=(RUNS, batch)))
        for run in range(RUNS):
            assert [list(units) for units in engine[run]] == [list(units) for units in references[run]]
            total += sum(len(units) for units in engine[run])
    assert (total > 0) == (replacing is not None)
    for run, reference in enumerate(pair.networks):
        for name, expected in reference.parameters().items():
            now = pair.net.state_dict()[name][run]
            assert relative_error(now, expected) < 1e-3, (run, name)
            assert not np.array_equal(now, before[name][run]) or name.endswith("bias")


def alone(goal: kl.Goal, bias: float = 0.0, hidden: int = 20) -> kl.Learner:
    """Units whose network does not learn."""
    net = kl.Network([kl.Linear(hidden), kl.ReLU(), kl.Linear(1)], (8,), runs=RUNS)
    state = net.state_dict()
    state["0.bias"][:] = bias
    net.load_state_dict(state)
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.0), rules=[goal])


X = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)
Y = np.zeros((len(X), 1), np.float32)


def test_active_units() -> None:
    """Dormant ones wake up, to the share and not much beyond; awake ones stay as they are."""
    made = alone(kl.Goal("active", share=0.1, step_size=0.005, decay=0.99), bias=-8.0)
    assert metrics.dormant_rate(made.net.activities(X)).tolist() == [1.0] * RUNS
    made.run(X, Y, batch_size=10, epochs=10)
    share = (made.net.activities(X)[0] > 0).mean(axis=1)
    assert share.min() > 0.09
    assert share.max() < 0.2
    awake = alone(kl.Goal("active", share=0.1), bias=0.0)
    awake.run(X, Y, batch_size=10, epochs=1)
    assert not awake.net.units[0].bias.any()


def test_units_of_unit_variance() -> None:
    made = alone(kl.Goal("unit_variance", step_size=0.01, decay=0.99))
    made.net.units[0].incoming = 0.1 * made.net.units[0].incoming
    made.run(X, Y, batch_size=10, epochs=10)
    deviation = made.net.activities(X)[0].std(axis=1)
    assert np.abs(deviation - 1).max() < 0.1


def alike(net: kl.Network) -> float:
    """Mean squared correlation of different units."""
    found = []
    for activity in net.activities(X)[0]:
        matrix = np.corrcoef(activity.T)
        found.append((matrix[~np.eye(len(matrix), dtype=bool)] ** 2).mean())
    return float(np.mean(found))


def test_decorrelated_units() -> None:
    made = alone(kl.Goal("decorrelated", step_size=0.1, decay=0.99, correlation_decay=0.99), hidden=8)
    rng = np.random.default_rng(1)
    common = rng.normal(size=(1, 1, 8))
    made.net.units[0].incoming = common + 0.3 * rng.normal(size=(RUNS, 8, 8))
    norm = np.linalg.norm(made.net.units[0].incoming, axis=2)
    before = alike(made.net)
    made.run(X, Y, batch_size=10, epochs=20)
    assert alike(made.net) < 0.2 * before
    now = np.sqrt((made.net.units[0].incoming ** 2).sum(axis=2) + made.net.units[0].bias ** 2)
    np.testing.assert_allclose(now, norm, rtol=1e-3)


def test_units_are_listened_to() -> None:
    """The output lacks a feature; units come to say it, before any outgoing weight has changed."""
    made = alone(kl.Goal("listened", step_size=0.05, decay=0.99, correlation_decay=0.99))
    wanted = np.maximum(X[:, :1] + X[:, 1:2], 0) - 0.5

    def heard() -> NDArray[np.float64]:
        activity = made.net.activities(X)[0]
        output = made.net(X)
        return np.array(
            [
                [abs(np.corrcoef(unit, (wanted - out)[:, 0])[0, 1]) for unit in units.T]
                for units, out in zip(activity, output, strict=True)
            ]
        )

    made.net.reset([-1], to="zero")
    before = heard()
    made.run(X, wanted.astype(np.float32), batch_size=10, epochs=20)
    after = heard()
    assert (after > before - 0.02).mean() > 0.9
    assert np.median(after) > 0.7
    assert np.median(after) > 2 * np.median(before)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda: [kl.Goal("happy")], r'\[Goal\] goal must be one of active, .*, got "happy"'),
        (lambda: [kl.Goal("active", share=0)], r"\[Goal\] share must be above 0"),
        (lambda: [kl.Goal("active", share=1.5)], r"\[Goal\] share must be in \[0, 1\], got 1.5"),
        (lambda: [kl.Goal("listened", share=0.2)], r'\[Goal\] share is of the goal "active", got "listened"'),
        (lambda: [kl.Goal("active", correlation_decay=0.9)], r"\[Goal\] correlation_decay is of the goals"),
        (lambda: [kl.Goal("active", units="fringe")], r'\[Goal\] units="fringe" follows klopf.Recruitment'),
        (lambda: [kl.Goal("active", units="backbone")], r"\[Goal\] units must be one of all, fringe"),
        (lambda: [kl.Goal("active", layers=[2])], r"\[Goal\] layers must be places in Network.units, from 0"),
        (lambda: [kl.Goal("active", layers=0)], r"\[Goal\] layers must be .*Sequence\[int\], got 0"),
        (lambda: [kl.Goal("active", decay=1)], r"\[Goal\] decay must be in \[0, 1\), got 1"),
        (lambda: [kl.Goal("active"), kl.ReDo()], r"\[ReDo\] a rule that replaces units comes before goals"),
    ],
)
def test_mistakes(rules: Any, message: str) -> None:
    net = kl.Network([kl.Linear(5), kl.ReLU(), kl.Linear(4), kl.ReLU(), kl.Linear(1)], (8,))
    with pytest.raises(kl.Error, match=message):
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=rules())


def refused(net: kl.Network, goal: kl.Goal, message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[goal])


def test_units_that_cannot() -> None:
    normalised = kl.Network([kl.Linear(5), kl.LayerNorm(), kl.ReLU(), kl.Linear(1)], (8,))
    refused(normalised, kl.Goal("active"), r"\[Goal\] units of layer 0 are normalised")
    dropped = kl.Network([kl.Linear(5), kl.ReLU(), kl.Dropout(0.1), kl.Linear(1)], (8,))
    refused(dropped, kl.Goal("listened"), r"\[Goal\] units of layer 0 are not of Linear with at most an act")
    alone = kl.Network([kl.Linear(1), kl.ReLU(), kl.Linear(1)], (8,))
    refused(alone, kl.Goal("decorrelated"), r"\[Goal\] units of layer 0 have no peers")


def test_units_of_all_layers_that_can() -> None:
    specs, shape = NETWORKS["conv"]
    net = kl.Network([getattr(kl, name)(*arguments) for name, arguments in specs], shape)
    made = kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[kl.Goal("listened")])
    assert [name for name in made.state() if name.endswith("heard")] == ["Goal.2.heard"]
    refused(net, kl.Goal("listened", layers=[1, 2]), r"\[Goal\] units of layer 3 are not of Linear")


def test_no_goal_of_agents_losses() -> None:
    value = kl.Network([kl.Linear(5), kl.ReLU(), kl.Linear(1)], (4,))
    with pytest.raises(kl.Error, match=r'\[Goal\] the goal "listened" by gradient is of a Learner\'s losses'):
        kl.StreamAgent(None, value, method="td", value_optimizer=kl.SGD(), rules=[kl.Goal("listened")])
