"""Rules in Python: the same as compiled ones where they say the same, saved with the learner, and checked."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference.arrays import relative_error
from reference.losses import LOSSES
from reference.recording import LayerSpec
from reference.utilities import MEASURES, NOT_AVERAGED, Observation

pytestmark = pytest.mark.usefixtures("device")

RUNS = 3
MLP: list[LayerSpec] = [("Linear", (13,)), ("ReLU", ()), ("Linear", (11,)), ("Tanh", ()), ("Linear", (3,))]
IMAGES: list[LayerSpec] = [
    *[("Conv2d", (5, 3, 1, 1)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Conv2d", (7, 3)), ("LeakyReLU", (0.1,))],
    *[("LayerNorm", ()), ("Flatten", ()), ("Linear", (9,)), ("BatchNorm1d", ()), ("Sigmoid", ())],
    ("Linear", (3,)),
]
NETWORKS: dict[str, tuple[list[LayerSpec], tuple[int, ...]]] = {
    "vectors": (MLP, (6,)),
    "images": (IMAGES, (2, 8, 9)),
}


def data(shape: tuple[int, ...], samples: int = 10) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(RUNS, samples, *shape)).astype(np.float32),
        rng.integers(0, 3, size=(RUNS, samples)),
    )


def learner(
    network: str, rules: Sequence[Any], optimizer: Any = None, seeds: Sequence[int] = (0, 1, 2)
) -> Any:
    specs, shape = NETWORKS[network]
    net = twins.engine_network(specs, shape, len(seeds), seeds=list(seeds))
    step_sizes = optimizer or kl.SGD(step_size=0.05, momentum=0.9)
    return kl.Learner(net, loss="cross_entropy", optimizer=step_sizes, rules=list(rules))


def assert_same(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> None:
    for name in b:
        assert np.array_equal(a[name], b[name]), name


class ByMeasure(kl.UtilityRule):
    """A published measure, as the reference has it."""

    def __init__(self, measure: str, **options: Any) -> None:
        super().__init__(**options)
        self.measure = measure

    def utility(self, units: kl.WatchedUnits) -> NDArray[np.float64]:
        activities = units.activities.astype(np.float64)
        outgoing = units.outgoing.astype(np.float64)
        runs, batch = activities.shape[:2]
        values = []
        for run in range(runs):
            by_unit = outgoing[run].reshape(units.size, outgoing.shape[2], -1)  # [U, O, positions or taps]
            if outgoing.ndim == 5:  # taps are shared by all positions
                by_unit = by_unit.reshape(units.size, -1, 1)
            seen = Observation(
                activity=activities[run].reshape(batch, units.size, -1),
                mean_activity=units.mean_activity[run].astype(np.float64),
                variance=np.full(units.size, np.nan),  # which the compiled measures keep for themselves
                incoming=units.incoming[run].reshape(units.size, -1).astype(np.float64),
                outgoing=np.moveaxis(by_unit, 1, 2),
            )
            values.append(MEASURES[self.measure](seen))
        return np.stack(values)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("measure", [name for name in MEASURES if name not in NOT_AVERAGED])
def test_a_utility_in_python_is_the_compiled_one(measure: str, network: str) -> None:
    options: dict[str, Any] = {"replacement_rate": 0.05, "maturity": 4}
    own = learner(network, [ByMeasure(measure, **options)])
    compiled = learner(network, [kl.ContinualBackprop(utility=measure, **options)])
    x, y = data(NETWORKS[network][1])
    replaced = 0
    for _ in range(25):
        mine, theirs = own.step(x, y), compiled.step(x, y)
        assert np.array_equal(mine.loss, theirs.loss)
        for a, b in zip(mine.replaced, theirs.replaced, strict=True):
            assert np.array_equal(a, b)
            replaced += int(a.sum())
    assert replaced > 10
    assert_same(own.net.state_dict(), compiled.net.state_dict())


class Momentum(kl.StepSizeRule):
    """SGD with momentum."""

    def begin(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.state.update({name: np.zeros_like(w) for name, w in weights.items()})

    def step(
        self, weights: Mapping[str, NDArray[Any]], gradients: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        for name, g in gradients.items():
            self.state[name] = np.float32(0.9) * self.state[name] + g
        return {name: w - np.float32(0.05) * self.state[name] for name, w in weights.items()}

    def reset(self, name: str, where: NDArray[np.bool_]) -> None:
        self.state[name][where] = 0.0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rule", ["none", "compiled", "python"])
def test_an_optimizer_in_python_is_the_compiled_one(rule: str, network: str) -> None:
    options: dict[str, Any] = {"replacement_rate": 0.05, "maturity": 4}
    compiled = [] if rule == "none" else [kl.ContinualBackprop(**options)]
    rules = [ByMeasure("contribution", **options)] if rule == "python" else compiled
    own, theirs = learner(network, rules, Momentum()), learner(network, compiled)
    x, y = data(NETWORKS[network][1])
    for _ in range(12):
        assert np.array_equal(own.step(x, y).loss, theirs.step(x, y).loss)
    assert_same(own.net.state_dict(), theirs.net.state_dict())


class Look(kl.UnitRule):
    """Only looks."""

    replaces = False

    def __init__(self) -> None:
        self.seen: list[dict[str, NDArray[Any]]] = []

    def step(self, units: Sequence[kl.WatchedUnits]) -> None:
        names = ("activities", "errors", "incoming_gradient", "bias_gradient", "outgoing_gradient")
        self.seen = [{name: getattr(group, name) for name in names} for group in units]


@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_rule_sees(network: str) -> None:
    look = Look()
    specs, shape = NETWORKS[network]
    made = learner(network, [look], kl.SGD(step_size=0.0))
    state = twins.draw_weights(made.net, np.random.default_rng(3))
    x, y = data(shape)
    made.step(x, y)
    for run, reference in enumerate(twins.reference_networks(specs, shape, state)):
        _, grad = LOSSES["cross_entropy"](reference.forward(x[run]), y[run])
        errors = {}
        for index in reversed(range(len(reference.layers))):
            grad = reference.layers[index].backward(grad)
            errors[index] = grad
        for group, seen in zip(reference.units, look.seen, strict=True):
            activity = reference.activities[reference.units.index(group)]
            assert relative_error(seen["activities"][run], activity) < 1e-5
            expected = errors[group.next].reshape(activity.shape)
            assert relative_error(seen["errors"][run], expected) < 1e-4
            first, behind = reference.layers[group.first], reference.layers[group.next]
            assert relative_error(seen["incoming_gradient"][run], first.gradients["weight"]) < 1e-4
            gradient = behind.gradients["weight"]
            by_unit = np.moveaxis(gradient.reshape(len(gradient), group.size, -1), 1, 0)
            assert relative_error(seen["outgoing_gradient"][run].reshape(by_unit.shape), by_unit) < 1e-4


class Drawn(kl.UnitRule):
    """Replaces at random, and writes: biases of all others move."""

    def begin(self, units: Sequence[kl.WatchedUnits]) -> None:
        self.state["steps"] = np.zeros((), np.int64)

    def step(self, units: Sequence[kl.WatchedUnits]) -> list[NDArray[np.bool_]]:
        step = int(self.state["steps"])
        self.state["steps"] += 1
        masks = [group.uniform(step) < 0.1 for group in units]
        units[0].bias = units[0].bias + 0.01
        return masks


RULES = {
    "utility": lambda: ByMeasure("zero_contribution", replacement_rate=0.1, maturity=2),
    "drawn": Drawn,
    "look": Look,
}


@pytest.mark.parametrize("optimizer", ["compiled", "python"])
@pytest.mark.parametrize("rule", RULES)
def test_runs_alone_and_resumed(rule: str, optimizer: str, tmp_path: Path) -> None:
    def made(seeds: Sequence[int]) -> Any:
        return learner("images", [RULES[rule]()], Momentum() if optimizer == "python" else None, seeds)

    def train(one: Any, runs: slice, epochs: int = 2) -> Any:
        return one.run(x[runs], y[runs], batch_size=4, epochs=epochs, allow_host_rules=True)

    x, y = data((2, 8, 9))
    whole = made([0, 1, 2])
    history = train(whole, slice(None))
    state = whole.state()
    kept = [name for name in state if name.startswith("python.")]
    alone = made([1])
    assert np.array_equal(train(alone, slice(1, 2)).loss, history.loss[1:2])
    assert_same(alone.net.state_dict(), {name: w[1:2] for name, w in whole.net.state_dict().items()})

    first = made([0, 1, 2])
    train(first, slice(None), epochs=1)
    first.save(tmp_path / "learner.safetensors")
    options: dict[str, Any] = {"rules": [RULES[rule]()]}
    if optimizer == "python":
        options["optimizer"] = Momentum()
    second = kl.Learner.load(tmp_path / "learner.safetensors", **options)
    train(second, slice(None), epochs=1)
    assert second.state().keys() == state.keys()
    assert_same(second.state(), state)
    assert bool(kept) == (rule != "look" or optimizer == "python")

    again = made([0, 1, 2])
    train(again, slice(None), epochs=1)
    again.restart()
    assert all((again.state()[name] == 0).all() for name in kept)


def test_steps_and_epochs_and_a_loss_of_ones_own_are_the_same() -> None:
    x, y = data((6,))
    by_run, by_step, by_parts = (learner("vectors", [Drawn()]) for _ in range(3))
    by_run.run(x, y, batch_size=5, epochs=2, shuffle=False, allow_host_rules=True)
    for _ in range(2):
        for part in (slice(0, 5), slice(5, 10)):
            by_step.step(x[:, part], y[:, part])
            out = by_parts.forward(x[:, part]).astype(np.float64)
            p = np.exp(out - out.max(axis=2, keepdims=True))
            by_parts.backward((p / p.sum(axis=2, keepdims=True) - np.eye(3)[y[:, part]]) / 5)
            by_parts.apply()
    assert_same(by_run.net.state_dict(), by_step.net.state_dict())
    for name, w in by_step.net.state_dict().items():
        np.testing.assert_allclose(by_parts.net.state_dict()[name], w, atol=1e-5, err_msg=name)


def test_compiled_epochs_and_those_with_turns_are_the_same() -> None:
    x, y = data((2, 8, 9))
    watched, plain = learner("images", [Look()]), learner("images", [])
    mine = watched.run(x, y, batch_size=4, epochs=3, allow_host_rules=True)
    theirs = plain.run(x, y, batch_size=4, epochs=3)
    assert np.array_equal(mine.loss, theirs.loss)
    assert np.array_equal(mine.accuracy, theirs.accuracy)
    assert_same(watched.net.state_dict(), plain.net.state_dict())


def test_a_frozen_run_stays_as_it_is() -> None:
    rate = np.array([0.05, 3e38, 0.05])
    made = learner("vectors", [Drawn()], kl.SGD(step_size=rate))
    x, y = data((6,))
    losses = [made.step(100 * x, y).loss for _ in range(4)]
    assert made.alive.tolist() == [True, False, True]
    assert np.isnan(losses[-1]).tolist() == [False, True, False]
    assert not any(mask[1].any() for mask in made.step(x, y).replaced)


def test_nothing_holds_a_learner_that_nobody_wants() -> None:
    made = learner("vectors", [Drawn()])
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_epochs_must_be_allowed() -> None:
    x, y = data((6,))
    with pytest.raises(kl.Error, match=r"^\[learner.run\] rules in Python .*allow_host_rules=True"):
        learner("vectors", [Look()]).run(x, y)


class Says(kl.UnitRule):
    def __init__(self, said: Any, **options: Any) -> None:
        self.said = said
        for name, value in options.items():
            setattr(self, name, value)

    def step(self, units: Sequence[kl.WatchedUnits]) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Says([None]), r"\[Says\] step must return a mask for each of 2 groups, got 1"),
        (Says([np.zeros((3, 13)), None]), r"\[Says\] a mask must be bool \[3, 13\], got float64 \[3, 13\]"),
        (Says([None, np.zeros((3, 2), bool)]), r"\[Says\] a mask must be bool \[3, 11\], got bool \[3, 2\]"),
        (Says([None, None], replaces=False), r"\[Says\] step must return None where replaces is False"),
        (Says(None, init="small"), r"\[init\] expected one of kaiming.*, got \"small\""),
    ],
)
def test_mistakes(rule: kl.UnitRule, message: str) -> None:
    x, y = data((6,))
    with pytest.raises(kl.Error, match="^" + message):
        learner("vectors", [rule]).step(x, y)


class Worth(kl.UtilityRule):
    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def utility(self, units: kl.WatchedUnits) -> Any:
        return self.said


class Becomes(kl.StepSizeRule):
    def __init__(self, said: Any) -> None:
        self.said = said

    def step(self, weights: Any, gradients: Any) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            Worth(np.zeros(3)),
            r"\[Worth\] utility must give a number for each unit \[3, 13\], got float64 \[3\]",
        ),
        (Worth(None), r"\[Worth\] utility must give a number for each unit \[3, 13\], got object \[\]"),
        (Becomes(None), r"\[Becomes\] step must return new weights by name, got NoneType"),
        (Becomes({"a": 1}), r"\[Becomes\] step returned \"a\"; there are 0.weight, 0.bias, "),
        (Becomes({"0.bias": 1}), r'\[Becomes\] "0.bias" must have shape \[3, 13\], got \[\]'),
    ],
)
def test_what_rules_must_say(made: Any, message: str) -> None:
    x, y = data((6,))
    rules, options = ([made], {}) if isinstance(made, Worth) else ([], {"optimizer": made})
    with pytest.raises(kl.Error, match="^" + message):
        learner("vectors", rules, **options).step(x, y)


def test_a_learner_names_what_is_no_rule() -> None:
    net = kl.Network([kl.Linear(3), kl.ReLU(), kl.Linear(1)], (2,))
    for given, message in (
        (kl.ReDo(), "rules must be a list, got ReDo"),
        ([kl.ReDo], "rules must be unit rules, as kl.ContinualBackprop\\(\\) is, got <class"),
        ([[kl.ReDo()]], "rules must be unit rules, as kl.ContinualBackprop\\(\\) is, got \\[ReDo"),
    ):
        with pytest.raises(kl.Error, match=r"^\[learner\] " + message):
            kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=given)  # type: ignore[arg-type]


def test_what_a_step_knows_is_there_in_a_turn_only() -> None:
    class Keeps(Look):
        def step(self, units: Sequence[kl.WatchedUnits]) -> None:
            self.units = list(units)

    rule = Keeps()
    made = learner("vectors", [rule])
    x, y = data((6,))
    made.step(x, y)
    for name in ("activities", "errors", "incoming_gradient"):
        with pytest.raises(kl.Error, match="of a step are there while a rule of one's own has its turn"):
            getattr(rule.units[0], name)


def test_an_error_in_a_rule_reaches_the_caller() -> None:
    class Fails(kl.UnitRule):
        def step(self, units: Sequence[kl.WatchedUnits]) -> None:
            raise ZeroDivisionError("of the rule's own")

    x, y = data((6,))
    with pytest.raises(ZeroDivisionError, match="of the rule's own"):
        learner("vectors", [Fails()]).step(x, y)


def test_loading_needs_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "learner.safetensors"
    learner("vectors", [Drawn()], Momentum()).save(path)
    with pytest.raises(kl.Error, match=r"was saved with Drawn in Python: give rules=$"):
        kl.Learner.load(path)
    with pytest.raises(kl.Error, match=r"was saved with Momentum in Python: give optimizer=$"):
        kl.Learner.load(path, rules=[Drawn()])
    with pytest.raises(kl.Error, match=r"\[load\] rules must be of the kinds saved in .*, got \[<.*Look"):
        kl.Learner.load(path, rules=[Look()], optimizer=Momentum())
    learner("vectors", [], Momentum()).save(path)
    with pytest.raises(kl.Error, match=r"\[load\] rules must be of the kinds saved"):
        kl.Learner.load(path, rules=[Drawn()], optimizer=Momentum())


def test_agents_take_compiled_rules_only() -> None:
    def net(outputs: int) -> kl.Network:
        return kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(outputs)], (3,))

    with pytest.raises(kl.Error, match=r"^\[stream\] takes compiled rules only, got Drawn, in Python$"):
        kl.StreamAgent(None, net(1), method="td", rules=[Drawn()])  # type: ignore[list-item]
    with pytest.raises(kl.Error, match=r"^\[ppo\] takes compiled rules only, got Momentum, in Python$"):
        loss = kl.ClippedPolicy(distribution="categorical")
        kl.PPO(net(2), net(1), loss=loss, optimizer=Momentum())  # type: ignore[arg-type]


def test_one_object_cannot_be_two_rules() -> None:
    rule = Look()
    with pytest.raises(kl.Error, match="each rule in Python must be an object of its own"):
        learner("vectors", [rule, rule])


def test_what_does_not_fit_is_not_written() -> None:
    made = learner("vectors", [])
    units = made.net.units[0]
    with pytest.raises(kl.Error, match=r'\[units\] "0.bias" must have 39 numbers, got \[2\]'):
        units.bias = np.zeros(2)
    outgoing = units.outgoing
    units.outgoing = outgoing * 2
    assert np.array_equal(units.outgoing, outgoing * 2)
    units.incoming = np.zeros_like(units.incoming)
    assert not units.incoming.any()
