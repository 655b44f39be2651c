"""Units that choose their wires, in lockstep with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import klopf as kl
from test_growth import NETWORKS, in_lockstep
from test_units import OPTIMIZERS, RUNS, data
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", ["wires", "wires of images"])
@pytest.mark.parametrize(
    "rewire",
    [
        {"replacement_rate": 0.1, "maturity": 3},
        {"replacement_rate": 1.0, "maturity": 1, "reset_optimizer_state": False},
        {"replacement_rate": np.array([0.05, 0.3, 0.9]), "maturity": np.array([0, 4, 2])},
    ],
    ids=["plain", "at once", "per run"],
)
def test_wires_in_lockstep(rewire: dict[str, Any], network: str, optimizer: str) -> None:
    specs, shape = NETWORKS[network]
    rule = {"replacement_rate": 0.05, "maturity": 4}
    pair = Lockstep(specs, shape, RUNS, "cross_entropy", OPTIMIZERS[optimizer], rule, rewire=rewire)
    replaced = dropped = 0
    for _, (x, y) in zip(range(30), data(shape), strict=False):
        replaced += in_lockstep(pair, x, y)
        dropped += sum(reference.dropped for reference in pair.references)
    assert replaced > 0 and dropped > 30
    for units in pair.net.units:
        counts = units.wires.sum(axis=2)
        assert (counts == counts[0, 0]).all()
        assert not units.incoming.reshape(*units.wires.shape)[~units.wires].any()


def test_pruned_wires() -> None:
    layers = [kl.Linear(10, wires=5), kl.ReLU(), kl.Linear(6, wires=8), kl.ReLU(), kl.Linear(1)]
    net = kl.Network(layers, (7,), runs=2)
    net.units[0].outgoing = net.units[0].outgoing * (np.arange(10) < 4)[:, None]
    x = np.random.default_rng(0).normal(size=(50, 7))
    for pruned in net.prune(x, tolerance=1e-3):
        assert pruned.difference < 1e-3 and pruned.network.units[0].size <= 4
