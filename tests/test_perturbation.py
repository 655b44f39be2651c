"""The goal to be listened to by perturbation: lockstep with the reference; and that reward alone teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error
from reference.perturbation import Perturbation
from reference.recording import LayerSpec
from test_goals import NETWORKS as KINKED
from test_goals import RECRUITMENT, RUNS
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")

# Where a sum is zero to rounding, ReLU has either slope, which shows in a reward: so those of smooth ones.
SMOOTH: dict[str, tuple[list[LayerSpec], tuple[int, ...]]] = {
    "smooth mlp": (
        [
            *[("Linear", (13,)), ("Tanh", ()), ("Linear", (11,)), ("Tanh", ())],
            *[("Linear", (7,)), ("Linear", (5,)), ("Tanh", ()), ("Linear", (3,))],
        ],
        (6,),
    ),
    "smooth conv": (
        [
            *[("Conv2d", (5, 3, 1, 1)), ("Tanh", ()), ("Conv2d", (7, 3, 2)), ("Tanh", ())],
            *[("Flatten", ()), ("Linear", (9,)), ("Tanh", ()), ("Linear", (3,))],
        ],
        (2, 8, 9),
    ),
}
NETWORKS = SMOOTH | KINKED
STEPS = {1: 15, 6: 25}  # by batch size
WEIGHTS = 1e-3  # relative error
REWARDS = 1e-2  # of what is a difference of weights, over a deviation that may be small
DRAWN = 1e-5
GOAL: dict[str, Any] = {
    "goal": "listened",
    "by": "perturbation",
    "step_size": 0.01,
    "decay": 0.9,
    "noise": 0.2,
    "baseline_decay": 0.8,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "fresh": {},
    "held": {"hold": 3, "trace_decay": 0.7},
    "per run": {
        "step_size": np.array([0.0, 0.005, 0.02]),
        "noise": np.array([0.3, 0.1, 0.2]),
        "hold": np.array([1, 2, 5]),
        "trace_decay": np.array([0.0, 0.5, 0.9]),
        "baseline_decay": np.array([0.0, 0.9, 0.99]),
    },
}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"step_size": 0.02}),  # of one sample: weights change within the backward pass
    "momentum": ("SGD", {"step_size": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": ("Adam", {"step_size": 0.01, "epsilon": 1e-3}),
}


def known(learner: kl.Learner, group: int, name: str) -> NDArray[Any]:
    return learner.state()[f"Goal.{group}.{name}"]


def assert_alike(learner: kl.Learner, run: int, group: int, twin: Perturbation, rewards: bool) -> None:
    for name in ("reward", "baseline", "square") if rewards else ():
        assert relative_error(known(learner, group, name)[run], getattr(twin, name)) < REWARDS, name
    assert np.array_equal(known(learner, group, "compared")[run], twin.compared)
    assert relative_error(known(learner, group, "scale")[run], twin.scale) < WEIGHTS
    for name in ("perturbation", "trace"):
        rows = np.asarray(known(learner, group, name)[run], np.float64)
        assert relative_error(twin.of_engine(rows), getattr(twin, name)) < DRAWN, name


CASES = [
    *[("smooth mlp", batch, optimizer, "fresh") for batch in STEPS for optimizer in OPTIMIZERS],
    *[("smooth mlp", 1, "sgd", "held"), ("smooth mlp", 6, "momentum", "per run")],
    *[("smooth conv", 6, "adam", "fresh"), ("smooth conv", 1, "sgd", "per run")],
    *[("mlp", 1, "sgd", "fresh"), ("mlp", 6, "sgd", "per run"), ("conv", 6, "sgd", "held")],
]


@pytest.mark.parametrize("replacing", [None, "ContinualBackprop", "Recruitment"])
@pytest.mark.parametrize(("network", "batch", "optimizer", "options"), CASES)
def test_lockstep(network: str, batch: int, optimizer: str, options: str, replacing: str | None) -> None:
    specs, shape = NETWORKS[network]
    goal = GOAL | OPTIONS[options] | ({"units": "fringe"} if replacing == "Recruitment" else {})
    rule = RECRUITMENT if replacing == "Recruitment" else {"replacement_rate": 0.05, "maturity": 4}
    pair = Lockstep(
        specs, shape, RUNS, "cross_entropy", OPTIMIZERS[optimizer], rule, replacing=replacing, goals=[goal]
    )
    rng = np.random.default_rng(3)
    total = 0
    for _ in range(STEPS[batch]):
        x = rng.normal(size=(RUNS, batch, *shape)).astype(np.float32)
        engine, references = pair.step(x, rng.integers(0, 3, size=(RUNS, batch)))
        for run in range(RUNS):
            assert [list(units) for units in engine[run]] == [list(units) for units in references[run]]
            total += sum(len(units) for units in engine[run])
            for group, twin in pair.references[run].goals[0].perturbed.items():
                assert_alike(pair.engine, run, group, twin, network in SMOOTH)
    assert (total > 0) == (replacing is not None)
    for run, reference in enumerate(pair.networks):
        for name, expected in reference.parameters().items():
            assert relative_error(pair.net.state_dict()[name][run], expected) < WEIGHTS, (run, name)


def frozen(rules: list[Any], head: float = 0.01, hidden: int = 8, seeds: int = 4) -> kl.Learner:
    """Hidden units that only rules change, under a head that learns from zero."""
    net = kl.Network([kl.Linear(hidden), kl.ReLU(), kl.Linear(1)], (8,), runs=seeds)
    net.reset([-1], to="zero")
    optimizer = kl.IDBD(step_size=0.0, meta_step_size=0.0, output_step_size=head, scope="layer")
    return kl.Learner(net, loss="squared_error", optimizer=optimizer, rules=rules)


X = np.random.default_rng(0).normal(size=(15000, 8)).astype(np.float32)
WANTED = np.maximum(X[:, :1] + X[:, 1:2], 0) - np.float32(0.5)


def own_weights(learner: kl.Learner) -> NDArray[np.float64]:
    """Incoming weights and biases [R, U, I + 1] without what is in them for a trial."""
    units = learner.net.units[0]
    weights = np.concatenate([units.incoming, units.bias[:, :, None]], axis=2).astype(np.float64)
    return weights - known(learner, 0, "scale")[:, :, None] * known(learner, 0, "perturbation")


def correlations(learner: kl.Learner) -> NDArray[np.float64]:
    """Of units and what is wanted [R, U], their size."""
    found = [
        [abs(np.corrcoef(unit, WANTED[:3000, 0])[0, 1]) for unit in units.T]
        for units in learner.net.activities(X[:3000])[0]
    ]
    return np.asarray(found)


@pytest.mark.parametrize(
    ("batch", "samples", "epochs", "head", "gain", "left"),
    [(1, 3000, 1, 0.01, 0.0, 0.7), (40, 4000, 5, 0.03, 0.1, 0.45)],
)
def test_reward_alone_teaches(
    device: str, batch: int, samples: int, epochs: int, head: float, gain: float, left: float
) -> None:
    """No gradient reaches the units, and yet they come to say what the output lacks; so it errs less."""
    if device != "cpu" and batch == 1:
        pytest.skip("thousands of steps take minutes in the emulation")
    goal = kl.Goal("listened", by="perturbation", step_size=0.02, noise=0.3)
    taught, plain = frozen([goal], head), frozen([], head)
    for made in (taught, plain):
        made.run(X[:samples], WANTED[:samples], batch_size=batch, epochs=epochs)
    alike, before = (correlations(made).mean(axis=1) for made in (taught, plain))
    assert (alike > before + gain).all()  # in every run
    assert alike.mean() > 1.3 * before.mean()
    loss, without = (made.evaluate(X, WANTED).loss.mean() for made in (taught, plain))
    assert loss < left * without


def test_the_size_of_own_weights_stays() -> None:
    made = frozen([kl.Goal("listened", by="perturbation", step_size=0.05, noise=0.5)])
    start = np.linalg.norm(np.concatenate([made.net.units[0].incoming], axis=2), axis=2)
    before = made.net.units[0].incoming.copy()
    made.run(X[:200], WANTED[:200], batch_size=1, epochs=1)
    own = own_weights(made)
    np.testing.assert_allclose(np.linalg.norm(own, axis=2), start, rtol=1e-4)
    assert np.abs(own[:, :, :-1] - before).max() > 0.1
    noise = known(made, 0, "scale") * np.linalg.norm(known(made, 0, "perturbation"), axis=2)
    assert (noise / start).mean() == pytest.approx(0.5, rel=0.1)


def test_loud_units_are_not_rewarded() -> None:
    """Twice the incoming weights are twice the activity, and no more reward."""
    made = frozen([kl.Goal("listened", by="perturbation", step_size=0.0, noise=1e-6)], head=1e-4)
    units = made.net.units[0]
    weights = units.incoming.copy()
    weights[:, 4:] = 2 * weights[:, :4]
    units.incoming = weights
    for x, y in zip(X[:300, None], WANTED[:300, None], strict=True):
        made.step(x, y)
        reward = known(made, 0, "reward")
        np.testing.assert_allclose(reward[:, 4:], reward[:, :4], rtol=1e-2, atol=1e-8)
    assert np.abs(reward).max() > 0


def test_the_perturbation_is_gone_after_promotion() -> None:
    """With steps of zero, units of the backbone have the weights that they were born with, to rounding; and
    those that are replaced have new ones and begin anew."""
    rules = [
        kl.Recruitment(
            replacement_rate=0.05, maturity=20, threshold=0.9, utility_decay=0.9, reputation_decay=0.9
        ),
        kl.Goal("listened", by="perturbation", step_size=0.0, noise=0.3, units="fringe"),
    ]
    made = frozen(rules, hidden=12)
    births = own_weights(made)
    promotions = demotions = 0
    before = np.zeros((4, 12), bool)
    for x, y in zip(X[:300, None], WANTED[:300, None], strict=True):
        step = made.step(x, y)
        assert step.replaced is not None
        gone = np.asarray(step.replaced[0], bool)
        own, scale = own_weights(made), known(made, 0, "scale")
        births[gone] = own[gone]
        np.testing.assert_allclose(own, births, rtol=1e-3, atol=1e-4)
        backbone = made.state()["Recruitment.0.backbone"].astype(bool)
        assert np.array_equal(scale == 0, backbone | gone)
        for name in ("perturbation", "trace"):
            assert not known(made, 0, name)[backbone | gone].any()
        for name in ("reward", "compared", "baseline", "square"):
            assert not known(made, 0, name)[gone].any()
        promotions += int((backbone & ~before).sum())
        demotions += int((before & ~backbone).sum())
        before = backbone
    assert promotions > 6
    assert demotions > 3


def small(seeds: list[int]) -> kl.Learner:
    net = kl.Network(
        [kl.Linear(9), kl.ReLU(), kl.Linear(7), kl.Tanh(), kl.Linear(1)], (8,), runs=len(seeds), seeds=seeds
    )
    rules = [
        kl.Recruitment(replacement_rate=0.05, maturity=10, threshold=0.8),
        kl.Goal("listened", by="perturbation", step_size=0.01, units="fringe", hold=3, trace_decay=0.5),
    ]
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.02), rules=rules)


def test_one_sample_at_a_time_alone_and_after_an_interruption(tmp_path: Path) -> None:
    """As test_invariance, for the path of single samples; interrupted at odd steps, while noise is held."""
    x, y = X[:150], WANTED[:150]
    whole = small([3, 8, 5])
    for part in (x[:57], x[57:]):
        whole.run(part, y[:57] if len(part) == 57 else y[57:], batch_size=1, epochs=1, shuffle=False)
    first = small([8])
    first.run(x[:57], y[:57], batch_size=1, epochs=1, shuffle=False)
    first.save(tmp_path / "learner.safetensors")
    second = kl.Learner.load(tmp_path / "learner.safetensors")
    second.run(x[57:], y[57:], batch_size=1, epochs=1, shuffle=False)
    state = whole.state()
    for name, value in second.state().items():
        assert value.tobytes() == state[name][1:2].tobytes(), name


def test_what_others_write_is_no_reward() -> None:
    """A new head is nobody's doing: rewards are of what an update changed."""
    made = frozen([kl.Goal("listened", by="perturbation")])
    made.run(X[:200], WANTED[:200], batch_size=1, epochs=1)
    usual = np.abs(known(made, 0, "reward")).max()
    made.net.reset([-1], to="zero")
    made.step(X[:1], WANTED[:1])
    assert np.abs(known(made, 0, "reward")).max() < 100 * usual
    before = made.net.units[0].outgoing.copy()
    made.step(X[1:2], WANTED[1:2])
    grown = np.abs(made.net.units[0].outgoing) - np.abs(before)
    deviation = np.sqrt(known(made, 0, "variance"))
    np.testing.assert_allclose(known(made, 0, "reward"), grown[:, :, 0] / deviation, rtol=1e-4, atol=1e-9)


def test_streaming_agents() -> None:
    """Rewards are of what an update changed in the value's head; the fringe moves, the backbone does not."""
    value = kl.Network([kl.Linear(9), kl.ReLU(), kl.Linear(1)], (8,), runs=2)
    rules = [
        kl.Recruitment(threshold=0.8, utility_decay=0.8),
        kl.Goal("listened", by="perturbation", units="fringe"),
    ]
    agent = kl.StreamAgent(
        None,
        value,
        method="td",
        value_optimizer=kl.SGD(step_size=0.01),
        rules=rules,
        normalise_observations=False,
        scale_rewards=False,
    )
    no = np.zeros(2, bool)
    for step in range(50):
        x, after = X[2 * step : 2 * step + 2], X[2 * step + 2 : 2 * step + 4]
        before = np.abs(value.units[0].outgoing[:, :, 0])
        agent.learn(x, None, np.ones(2), after, no)
        state = agent.state()
        grown = np.abs(value.units[0].outgoing[:, :, 0]) - before
        reward = grown / np.sqrt(np.maximum(state["value.Goal.0.variance"], 1e-12))
        found = state["value.Goal.0.reward"]
        np.testing.assert_allclose(found, np.where(found == 0, 0, reward), rtol=1e-3, atol=1e-7)
        backbone = state["value.Recruitment.0.backbone"].astype(bool)
        assert np.array_equal(state["value.Goal.0.scale"] > 0, ~backbone)
    assert backbone.any() and not backbone.all() and found.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "active", "by": "gradient"}, r'\[Goal\] by is of the goal "listened", got "active"'),
        ({"by": "chance"}, r'\[Goal\] by must be one of gradient, perturbation, got "chance"'),
        ({"by": "gradient", "noise": 0.1}, r'\[Goal\] noise is of by="perturbation", got "gradient"'),
        ({"hold": 2}, r'\[Goal\] hold is of by="perturbation", got "gradient"'),
        ({"trace_decay": 0.5}, r'\[Goal\] trace_decay is of by="perturbation", got "gradient"'),
        ({"goal": "active", "baseline_decay": 0.5}, r'\[Goal\] baseline_decay is of by="perturbation"'),
        (
            {"by": "perturbation", "correlation_decay": 0.9},
            r'\[Goal\] correlation_decay is .* by gradient, got "listened" by perturbation',
        ),
        ({"by": "perturbation", "noise": 0}, r"\[Goal\] noise must be above 0"),
        ({"by": "perturbation", "hold": 1.5}, r"\[Goal\] hold must be a whole number, got 1.5"),
        ({"by": "perturbation", "hold": 0}, r"\[Goal\] hold must be in \[1, .*, got 0"),
        ({"by": "perturbation", "trace_decay": 1}, r"\[Goal\] trace_decay must be in \[0, 1\), got 1"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        frozen([kl.Goal(**{"goal": "listened"} | options)])


def test_one_trial_at_a_time() -> None:
    goal = kl.Goal("listened", by="perturbation")
    with pytest.raises(kl.Error, match=r"\[Goal2\] units of layer 0 follow another goal by perturbation"):
        frozen([goal, goal])
