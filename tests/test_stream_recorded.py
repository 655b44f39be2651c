"""Streaming agents follow the recorded updates of the published implementation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error

FILES = sorted((Path(__file__).parent / "data").glob("stream_*_*obgd.npz"))
TOLERANCE = 1e-4
# How the recording calls the layers of each network.
LAYERS = {
    "fc_layer": 0,
    "hidden_layer": 3,
    "linear_layer": 6,
    "fc_pi": 6,
    "fc1_v": 0,
    "hidden_v": 3,
    "fc_v": 6,
}


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with np.load(path) as file:
        entries = {name: file[name] for name in file.files}
    return ast.literal_eval(str(entries.pop("config"))), entries


def parameters(entries: dict[str, NDArray[Any]], when: str) -> dict[str, dict[str, NDArray[Any]]]:
    """By network, named as ours; a policy's heads of means and deviations are one layer."""
    found: dict[str, dict[str, NDArray[Any]]] = {"policy": {}, "value": {}}
    heads: dict[str, list[NDArray[Any]]] = {"weight": [], "bias": []}
    for name, value in entries.items():
        if not name.startswith(f"{when}."):
            continue
        *net, layer, kind = name.removeprefix(f"{when}.").split(".")
        mine = found["policy" if net == ["policy_net"] else "value"]
        if layer in ("linear_mu", "linear_std"):
            heads[kind].append(value)
            mine[f"6.{kind}"] = np.concatenate(heads[kind])
        else:
            mine[f"{LAYERS[layer]}.{kind}"] = value
    return found


def network(weights: dict[str, NDArray[Any]], stream: int) -> kl.Network:
    norm = kl.LayerNorm(affine=False)
    body = [layer for _ in range(2) for layer in (kl.Linear(16), norm, kl.LeakyReLU(0.01))]
    made = kl.Network([*body, kl.Linear(len(weights["6.bias"]))], (6,), stream=stream)
    made.load_state_dict({name: value[None].astype(np.float32) for name, value in weights.items()})
    return made


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("device")
def test_engine_follows_recording(path: Path) -> None:
    config, entries = read(path)
    initial = parameters(entries, "init")
    actor = config["agent"].startswith("ac")
    policy = network(initial["policy"], 1) if actor else None
    value = network(initial["value"], 0)
    optimizer = {"obgd": kl.ObGD, "adaptive_obgd": kl.AdaptiveObGD}[config["optimizer"]]
    made = kl.StreamAgent(
        policy,
        value,
        method="ac" if actor else config["agent"],
        distribution={"ac_continuous": "softplus", "ac_discrete": "categorical"}.get(config["agent"]),
        optimizer=optimizer(step_size=config["lr"], kappa=config["kappa_policy"]) if actor else None,
        value_optimizer=optimizer(step_size=config["lr"], kappa=config["kappa_value"]),
        discount=config["gamma"],
        trace_decay=config["lamda"],
        entropy=config["entropy_coeff"] if actor else None,
    )
    last = 150 if config["optimizer"] == "obgd" else 10
    for step in range(last):
        made.learn(
            entries["states"][step][None],
            entries["actions"][step][None],
            entries["rewards"][step][None],
            entries["states"][step + 1][None],
            entries["done"][step][None].astype(bool),
            next_action=entries["next_actions"][step][None] if config["agent"] == "sarsa" else None,
            greedy=~entries["nongreedy"][step][None].astype(bool) if config["agent"] == "q" else None,
        )
        if f"after{step + 1}." in " ".join(entries):
            expected = parameters(entries, f"after{step + 1}")
            for net, name in ((policy, "policy"), (value, "value")):
                if net is not None:
                    found = net.state_dict()
                    for key, array in expected[name].items():
                        assert relative_error(found[key][0], array) < TOLERANCE, (step, name, key)
