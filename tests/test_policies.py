"""Policies: the engine's clipped surrogate and its gradients against NumPy, and the actions that it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference import ppo
from reference.arrays import relative_error

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-5
RUNS, BATCH, OUTPUTS = 3, 140, 5


def one_hot_network(outputs: NDArray[np.float32], *last: Any) -> kl.Network:
    """Its outputs on the rows of the identity are these [R, B, O]: a linear layer returns its weights."""
    runs, batch, size = outputs.shape
    net = kl.Network([kl.Linear(size), *last], (batch,), runs=runs)
    weights = net.state_dict() | {
        "0.weight": np.ascontiguousarray(outputs.swapaxes(1, 2)),
        "0.bias": np.zeros((runs, size), np.float32),
    }
    net.load_state_dict(weights)
    return net


def judged(net: kl.Network, loss: kl.ClippedPolicy, target: NDArray[Any]) -> tuple[Any, dict[str, Any]]:
    """A step, and minus the gradients, read off the weights after a step of size one."""
    before = net.state_dict()
    learner = kl.Learner(net, loss=loss, optimizer=kl.SGD(step_size=2.0**20))
    x = np.eye(target.shape[1], dtype=np.float32)
    evaluated = learner.evaluate(x, target)
    step = learner.step(x, target)
    assert np.allclose(evaluated.loss, step.loss, rtol=1e-12, atol=1e-15)
    after = net.state_dict()
    return step, {name: (before[name].astype(np.float64) - after[name]) / 2.0**20 for name in after}


@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_gaussian(entropy: float) -> None:
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(RUNS, BATCH, OUTPUTS)).astype(np.float32)
    log_std = (rng.normal(size=(RUNS, OUTPUTS)) / 3).astype(np.float32)
    actions = (mean + np.exp(log_std)[:, None] * rng.normal(size=mean.shape)).astype(np.float32)
    advantage = rng.normal(size=(RUNS, BATCH)).astype(np.float32)
    clip = np.array([0.1, 0.2, 0.4])
    old = np.stack([ppo.log_probability(actions[r], mean[r], log_std[r]) for r in range(RUNS)])
    old = (old + rng.normal(size=old.shape) / 3).astype(np.float32)
    net = one_hot_network(mean, kl.LogStd())
    net.load_state_dict(net.state_dict() | {"1.log_std": log_std})
    target = np.concatenate([actions, old[..., None], advantage[..., None]], axis=2)
    step, grads = judged(net, kl.ClippedPolicy(clip=clip, entropy=entropy), target)
    for r in range(RUNS):
        expected = ppo.policy_loss(actions[r], mean[r], log_std[r], old[r], advantage[r], clip[r], entropy)
        loss, by_mean, by_log_std = expected
        assert step.loss[r] == pytest.approx(loss, rel=TOLERANCE)
        assert relative_error(grads["0.weight"][r], by_mean.T) < TOLERANCE
        assert relative_error(grads["1.log_std"][r], by_log_std) < TOLERANCE
        now = ppo.log_probability(actions[r], mean[r], log_std[r])
        assert step.accuracy[r] == ppo.surrogate(now, old[r], advantage[r], clip[r])[2]


@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_categorical(entropy: float) -> None:
    rng = np.random.default_rng(2)
    logits = (2 * rng.normal(size=(RUNS, BATCH, OUTPUTS))).astype(np.float32)
    actions = rng.integers(0, OUTPUTS, size=(RUNS, BATCH))
    advantage = rng.normal(size=(RUNS, BATCH)).astype(np.float32)
    old = (np.log(1 / OUTPUTS) + rng.normal(size=(RUNS, BATCH)) / 3).astype(np.float32)
    target = np.stack([actions.astype(np.float32), old, advantage], axis=2)
    loss = kl.ClippedPolicy(distribution="categorical", clip=0.3, entropy=entropy)
    step, grads = judged(one_hot_network(logits), loss, target)
    for r in range(RUNS):
        expected, by_logits = ppo.categorical_loss(
            actions[r], logits[r].astype(np.float64), old[r], advantage[r], 0.3, entropy
        )
        assert step.loss[r] == pytest.approx(expected, rel=TOLERANCE)
        assert relative_error(grads["0.weight"][r], by_logits.T) < TOLERANCE


def agent_of(*last: Any, outputs: int = OUTPUTS, runs: int = RUNS, **settings: Any) -> kl.PPO:
    policy = kl.Network([kl.Linear(outputs), *last], (2,), runs=runs)
    value = kl.Network([kl.Linear(1)], (2,), runs=runs, stream=1)
    return kl.PPO(policy, value, **settings)


def follow(agent: kl.PPO, steps: int) -> NDArray[Any]:
    """The actions [steps, R, ...] at one observation."""
    observation, nothing, no = np.ones((agent.runs, 2)), np.zeros(agent.runs), np.zeros(agent.runs, bool)
    actions = []
    for _ in range(steps):
        actions.append(agent.act(observation))
        agent.observe(nothing, no, no, observation)
    return np.stack(actions)


def test_gaussian_actions_are_drawn_from_the_policy() -> None:
    agent = agent_of(kl.LogStd(initial=0.5), steps=4000)
    actions = follow(agent, 4000)
    mean = agent.policy(np.ones((1, 2), np.float32))[:, 0]
    z = (actions - mean) / np.exp(0.5)
    assert actions.dtype == np.float32
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(len(z))
    assert np.abs((z**2).mean(axis=0) - 1).max() < 4 * np.sqrt(2 / len(z))
    # Numbers of an action, and runs, know nothing of each other.
    flat = z.reshape(len(z), -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 5 / np.sqrt(len(z))
    stored = agent.state()["buffer.targets"]
    for r in range(RUNS):
        expected = ppo.log_probability(actions[:, r], mean[r], np.full(OUTPUTS, 0.5))
        assert np.abs(stored[r, :, OUTPUTS] - expected).max() < 1e-5


def test_categorical_actions_are_drawn_from_the_policy() -> None:
    agent = agent_of(loss=kl.ClippedPolicy(distribution="categorical"), steps=6000)
    actions = follow(agent, 6000)
    assert actions.dtype == np.int64
    logits = agent.policy(np.ones((1, 2), np.float32))[:, 0].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for r in range(RUNS):
        found = np.bincount(actions[:, r], minlength=OUTPUTS) / len(actions)
        assert np.abs(found - p[r]).max() < 4 * np.sqrt(0.25 / len(actions))


def test_log_std_is_a_parameter_of_the_network() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(3), kl.LogStd(initial=-1)], (2,), runs=2)
    assert net.outputs == 3
    assert (net.state_dict()["3.log_std"] == -1).all()
    assert net(np.ones((1, 2), np.float32)).shape == (2, 1, 3)
    net.reset(to="zero")
    assert all((array == 0).all() for array in net.state_dict().values())
    net.reset(to="initial")
    assert (net.state_dict()["3.log_std"] == -1).all()
    assert [group.size for group in net.units] == [4]


def test_streams_of_the_same_seed_draw_different_weights() -> None:
    a, b, again = (kl.Network([kl.Linear(30)], (7,), stream=stream) for stream in (0, 1, 1))
    assert (b.state_dict()["0.weight"] == again.state_dict()["0.weight"]).all()
    correlation = np.corrcoef(*(net.state_dict()["0.weight"].ravel() for net in (a, b)))[0, 1]
    assert abs(correlation) < 0.25


def test_fan_in_of_a_layer_that_is_told() -> None:
    told, plain = (
        kl.Network([kl.Linear(500, fan_in=fan_in), kl.ReLU(), kl.Linear(1)], (4,), init="lecun")
        for fan_in in (100, 0)
    )
    bounds = [np.abs(net.state_dict()["0.weight"]).max() for net in (told, plain)]
    assert np.allclose(bounds, [np.sqrt(3 / 100), np.sqrt(3 / 4)], rtol=0.01)
    rule = kl.ContinualBackprop(replacement_rate=1.0, maturity=0)
    learner = kl.Learner(told, loss="mse", optimizer=kl.SGD(step_size=0.0), rules=[rule])
    learner.step(np.ones((2, 4), np.float32), np.ones((2, 1), np.float32))
    assert np.allclose(np.abs(told.state_dict()["0.weight"]).max(), np.sqrt(3 / 100), rtol=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kl.Network([kl.LogStd(), kl.Linear(2)], (3,)),
            r"\[logstd, layer 0\] must be the last",
        ),
        (lambda: agent_of(), r"\[learner\] a Gaussian policy needs a network that ends with LogStd\(\)"),
        (
            lambda: agent_of(kl.LogStd(), loss=kl.ClippedPolicy(distribution="categorical")),
            "a categorical policy must not end with LogStd",
        ),
        (
            lambda: kl.Learner(kl.Network([kl.Linear(2), kl.LogStd()], (3,)), loss="mse", optimizer=kl.SGD()),
            "is a policy, and needs loss=ClippedPolicy",
        ),
        (
            lambda: judged(
                one_hot_network(np.zeros((1, 2, 3), np.float32)),
                kl.ClippedPolicy(distribution="categorical"),
                np.array([[[1, 0, 0], [3, 0, 0]]], np.float32),
            ),
            r"\[learner.evaluate\] actions must be whole numbers from 0 to 2, got 3",
        ),
        (lambda: agent_of(kl.LogStd(), steps=0), r"\[ppo\] steps must be from 1"),
        (lambda: agent_of(kl.LogStd(), discount=1.5), r"\[ppo\] discount must be in \[0, 1\], got 1.5"),
        (lambda: agent_of(kl.LogStd(), discount=[0.9, 0.9]), "discount must be one number or 3"),
        (lambda: agent_of(kl.LogStd(), truncation="ignore"), "truncation must be one of bootstrap, terminal"),
        (
            lambda: agent_of(kl.LogStd()).act(np.ones((3, 4))),
            r"observation must be numbers of shape \[3",
        ),
        (lambda: agent_of(kl.LogStd()).act(np.full((3, 2), np.nan)), "observation must be finite, got nan"),
        (lambda: agent_of(kl.LogStd()).learn(), r"learn\(\) needs a full buffer of 2048 steps, got 0"),
        (
            lambda: kl.PPO(kl.Network([kl.Linear(1)], (2,)), kl.Network([kl.Linear(1)], (2,))),
            "draw the same weights: make one of them with stream=1",
        ),
        (
            lambda: kl.PPO(kl.Network([kl.Linear(1)], (2,)), kl.Network([kl.Linear(2)], (2,), stream=1)),
            "value must have one output, got 2",
        ),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        make()
