"""The float64 reference of PPO follows the recorded updates of the published implementation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
        config["minibatches"],
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
