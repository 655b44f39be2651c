"""PPO: the float64 reference and the engine follow the recorded updates of the published implementation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference import layers, ppo
from reference.arrays import relative_error
from reference.network import Network
from reference.optimizers import Adam

FILES = sorted((Path(__file__).parent / "data").glob("ppo_*.npz"))
TOLERANCE = 1e-4


def of(entries: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: array for name, array in entries.items() if name.startswith(prefix)}


def network(activation: str, outputs: int, weights: dict[str, NDArray[Any]]) -> Network:
    hidden = [layer for _ in range(2) for layer in (layers.Linear(16), getattr(layers, activation)())]
    return Network([*hidden, layers.Linear(outputs)], (7,), weights)


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with np.load(path) as file:
        entries = {name: file[name] for name in file.files}
    return ast.literal_eval(str(entries.pop("config"))), entries


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reference_follows_recording(path: Path) -> None:
    config, entries = read(path)
    initial = of(entries, "init.")
    beta1, beta2 = config["betas"]
    agent = ppo.Agent(
        network(config["activation"], 3, of(initial, "policy.mean_net.")),
        network(config["activation"], 1, of(initial, "value.v_net.")),
        initial["policy.log_std"],
        Adam(config["lr"], beta1, beta2, config["eps"], config["weight_decay"]),
    )
    done = entries["done"]
    buffer = {name: entries[name] for name in ("actions", "log_probs", "rewards")} | {
        "observations": entries["observations"][:-1],
        "final_observations": entries["observations"][1:],
        "terminated": done,
        "truncated": np.zeros_like(done),
    }
    ppo.update(
        agent,
        buffer,
        entries["permutations"],
        len(done) // config["minibatches"],
        config["clip"],
        config["gamma"],
        config["lam"],
    )
    found = agent.parameters()
    for name, expected in of(entries, "final.").items():
        short = name.replace("policy.mean_net", "policy").replace("value.v_net", "value")
        assert relative_error(found[short.replace("policy.log", "log")], expected) < TOLERANCE, name


def test_gradients_are_those_of_the_losses() -> None:
    rng = np.random.default_rng(0)
    actions, mean, log_std = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), rng.normal(size=3) / 4
    old = ppo.log_probability(actions, mean, log_std) + rng.normal(size=40) / 4  # some are clipped
    advantage = rng.normal(size=40)

    def loss(mean: Any, log_std: Any) -> float:
        return ppo.policy_loss(actions, mean, log_std, old, advantage, 0.2)[0]

    _, by_mean, by_log_std = ppo.policy_loss(actions, mean, log_std, old, advantage, 0.2)
    for i in range(3):
        step = np.zeros(3)
        step[i] = 1e-6
        numeric = (loss(mean, log_std + step) - loss(mean, log_std - step)) / 2e-6
        assert by_log_std[i] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
        step = np.zeros_like(mean)
        step[i, i] = 1e-6
        numeric = (loss(mean + step, log_std) - loss(mean - step, log_std)) / 2e-6
        assert by_mean[i, i] == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    ones, none = np.ones(3), np.zeros(3, dtype=bool)
    middle = np.array([False, True, False])
    values, final = np.zeros(3), np.full(3, 10.0)
    for terminated, truncated, expected in [
        (none, none, [10.0 + 0.9 * (10.0 + 0.9 * 10.0), 10.0 + 0.9 * 10.0, 10.0]),
        (none, middle, [10.0 + 0.9 * 10.0, 10.0, 10.0]),
        (middle, none, [10.0 + 0.9 * 1.0, 1.0, 10.0]),
    ]:
        found = ppo.advantages(ones, values, final, terminated, truncated, discount=0.9, trace=1.0)
        np.testing.assert_allclose(found, expected)


# --- the engine ---------------------------------------------------------------------------------------------


def engine_networks(
    config: dict[str, Any], entries: dict[str, NDArray[Any]]
) -> tuple[kl.Network, kl.Network]:
    """Policy and value as recorded at the beginning."""
    initial = of(entries, "init.")
    nets = []
    for stream, (prefix, outputs, last) in enumerate(
        [("policy.mean_net.", 3, [kl.LogStd()]), ("value.v_net.", 1, [])]
    ):
        hidden = [layer for _ in range(2) for layer in (kl.Linear(16), getattr(kl, config["activation"])())]
        net = kl.Network([*hidden, kl.Linear(outputs), *last], (7,), stream=stream)
        weights = of(initial, prefix) | {"5.log_std": initial["policy.log_std"]}
        net.load_state_dict(
            {name: weights[name].reshape(w.shape).astype(np.float32) for name, w in net.state_dict().items()}
        )
        nets.append(net)
    return nets[0], nets[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("device")
def test_engine_follows_recording(path: Path) -> None:
    config, entries = read(path)
    policy, value = engine_networks(config, entries)
    beta1, beta2 = config["betas"]
    adam = kl.Adam(
        step_size=config["lr"],
        beta1=beta1,
        beta2=beta2,
        epsilon=config["eps"],
        weight_decay=config["weight_decay"],
    )
    actor = kl.Learner(policy, loss=kl.ClippedPolicy(clip=config["clip"]), optimizer=adam)
    critic = kl.Learner(value, loss="mse", optimizer=adam)
    observations = entries["observations"].astype(np.float32)
    values = value(observations)[..., 0]
    done = entries["done"].astype(bool)[None]
    estimates = kl.advantages(
        entries["rewards"][None],
        values[:, :-1],
        values[:, 1:],
        done,
        np.zeros_like(done),
        config["gamma"],
        config["lam"],
    )
    returns = (estimates + values[:, :-1])[0, :, None].astype(np.float32)
    normal = ppo.standardised(estimates[0])
    targets = np.column_stack([entries["actions"], entries["log_probs"], normal]).astype(np.float32)
    for order in entries["permutations"]:
        for at in np.split(order, config["minibatches"]):
            actor.step(observations[at], targets[at])
            critic.step(observations[at], returns[at])
    final = of(entries, "final.")
    for net, prefix in ((policy, "policy.mean_net."), (value, "value.v_net.")):
        for name, found in net.state_dict().items():
            expected = final["policy.log_std" if name.endswith("log_std") else prefix + name]
            assert relative_error(found[0], expected) < TOLERANCE, name


def test_advantages() -> None:
    rng = np.random.default_rng(3)
    shape = (4, 60)
    rewards, values, final = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    terminated = rng.random(shape) < 0.1
    truncated = ~terminated & (rng.random(shape) < 0.1)
    found = kl.advantages(rewards, values, final, terminated, truncated, 0.97, 0.9)
    for r in range(shape[0]):
        expected = ppo.advantages(
            rewards[r], values[r], final[r], terminated[r], truncated[r], discount=0.97, trace=0.9
        )
        np.testing.assert_allclose(found[r], expected, rtol=1e-12)
