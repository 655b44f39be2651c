"""Recruitment: reputations, the backbone, and replacement outside of it, in lockstep with the reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error
from reference.recruitment import Recruitment
from test_units import NETWORKS, OPTIMIZERS, RUNS, TOLERANCE, TOLERANCES, data
from twins import Lockstep

pytestmark = pytest.mark.usefixtures("device")

RULE: dict[str, Any] = {
    "replacement_rate": 0.2,
    "maturity": 4,
    "threshold": 0.8,
    "utility_decay": 0.9,
    "reputation_decay": 0.99,
}


def reputations_of(learner: kl.Learner, group: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Of the units [R, U], and whether they are of the backbone."""
    backbone: NDArray[np.bool_] = learner.state()[f"Recruitment.{group}.backbone"].astype(bool)
    return learner.net.units[group].utility, backbone


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"transfer_mean_to_bias": True, "reset_optimizer_state": False},
        {"backprop_in_fringe": False, "threshold": 0.2},
        {"replacement_rate": 1.0, "maturity": 0, "threshold": 0.1},
        {
            "replacement_rate": np.array([0.05, 0.5, 1.0]),
            "maturity": np.array([2, 5, 9]),
            "threshold": np.array([0.1, 0.7, 1.2]),
            "utility_decay": np.array([0.5, 0.9, 0.99]),
            "reputation_decay": np.array([0.0, 0.9, 0.999]),
            "dormancy": np.array([0.0, 0.5, 2.0]),
        },
    ],
    ids=["plain", "transfer", "own goals alone", "at once", "per run"],
)
def test_lockstep(rule: dict[str, Any], network: str, optimizer: str) -> None:
    specs, shape = NETWORKS[network]
    pair = Lockstep(
        specs, shape, RUNS, "cross_entropy", OPTIMIZERS[optimizer], RULE | rule, replacing="Recruitment"
    )
    batch, steps = (24, 20) if network == "normalised" else (6, 40)
    tolerance = TOLERANCES.get(network, TOLERANCE)
    total, sizes = 0, set[int]()
    for _, (x, y) in zip(range(steps), data(shape, batch), strict=False):
        engine, references = pair.step(x, y)
        for run in range(RUNS):
            assert [list(units) for units in engine[run]] == [list(units) for units in references[run]]
            total += sum(len(units) for units in engine[run])
            twin = pair.rules[run]
            assert isinstance(twin, Recruitment)
            for group, units in enumerate(pair.networks[run].units):
                reputation, backbone = reputations_of(pair.engine, group)
                assert relative_error(reputation[run], twin.reputations[group]) < tolerance
                assert np.array_equal(backbone[run], twin.backbone[group])
                promoted = pair.engine.state()[f"Recruitment.{group}.promoted"][run]
                assert np.array_equal(promoted, twin.promoted[group])
                variance = pair.engine.state()[f"Recruitment.{group}.variance"][run]
                assert relative_error(variance, units.variance) < tolerance
                sizes.add(int(backbone[run].sum()))
    assert total > 0
    assert len(sizes) > 1  # of backbones


def hand_made(**options: Any) -> kl.Learner:
    """Two hidden layers of four units that do not learn. Of the first, 0 and 1 feed 0 of the second, which
    feeds the output; 2 feeds 1 of the second, which nothing hears; 3 is constant."""
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(3), kl.ReLU(), kl.Linear(1)], (4,))
    state = {name: np.zeros_like(array) for name, array in net.state_dict().items()}
    state["0.weight"][0, :3, :3] = np.diag([1.0, 1.0, 1.0])
    state["0.bias"][0] = [2, 2, 2, 5]
    state["2.weight"][0, 0] = [1, 2, 0, 1]
    state["2.weight"][0, 1, 2] = 1
    state["2.bias"][0] = 9
    state["4.weight"][0, 0] = [1, 0, 0]
    net.load_state_dict(state)
    rule = kl.Recruitment(
        **{"replacement_rate": 0.0, "utility_decay": 0.99, "reputation_decay": 0.999} | options
    )
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.0), rules=[rule])


def stream(steps: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs +1 or -1, one a step."""
    x = np.random.default_rng(seed).choice([-1.0, 1.0], size=(steps, 4)).astype(np.float32)
    return x, np.zeros((steps, 1), np.float32)


def test_who_is_of_the_backbone() -> None:
    made = hand_made()
    made.run(*stream(3000), batch_size=1, epochs=1, shuffle=False)
    reputation, backbone = reputations_of(made, 0)
    assert backbone.tolist() == [[True, True, False, False]]
    assert reputation[0, 1] / reputation[0, 0] == pytest.approx(4, rel=0.1)  # weights 2 and 1, squared
    assert reputation[0, 2] == 0
    assert reputation[0, 3] < 1e-6  # rounding of its mean
    assert reputations_of(made, 1)[1].tolist() == [[True, False, False]]


def test_reputation_survives_a_new_head() -> None:
    made = hand_made()
    made.run(*stream(3000), batch_size=1, epochs=1, shuffle=False)
    before = [reputations_of(made, group)[0] for group in (0, 1)]
    made.net.reset([-1], to="zero")
    made.run(*stream(200), batch_size=1, epochs=1, shuffle=False)
    assert np.array_equal(reputations_of(made, 1)[0], before[1])  # nobody hears it: no shares
    assert reputations_of(made, 1)[1].tolist() == [[True, False, False]]
    assert reputations_of(made, 0)[1].tolist() == [[True, True, False, False]]


def test_earned_fast_lost_slowly() -> None:
    """Where the second layer listens to another unit, that rises within hundreds of steps, and those before
    sink by the slow decay alone."""
    made = hand_made()
    made.run(*stream(3000), batch_size=1, epochs=1, shuffle=False)
    before = reputations_of(made, 0)[0][0]
    state = made.net.state_dict()
    state["2.weight"][0, 0] = [0, 0, 3, 0]
    made.net.load_state_dict(state)
    made.run(*stream(500), batch_size=1, epochs=1, shuffle=False)
    after = reputations_of(made, 0)[0][0]
    assert after[2] > 0.95
    assert (after[:2] > 0.999**500 * before[:2]).all()
    assert (after[:2] < before[:2]).all()


def test_a_dormant_unit_has_no_reputation() -> None:
    """One that no longer varies loses it fast; one that nobody hears, but varies, does not."""
    for dormancy, remembers in ((0.0, [True, True]), (0.01, [False, True])):
        made = hand_made(dormancy=dormancy)
        made.run(*stream(3000), batch_size=1, epochs=1, shuffle=False)
        before = reputations_of(made, 0)[0][0, :2]
        state = made.net.state_dict()
        state["0.weight"][0, 0] = 0
        state["2.weight"][0, 0] = [2, 0, 3, 0]
        made.net.load_state_dict(state)
        made.run(*stream(3000), batch_size=1, epochs=1, shuffle=False)
        kept = reputations_of(made, 0)[0][0, :2] / before
        assert (kept > 0.01).tolist() == remembers


def test_only_the_fringe_is_replaced() -> None:
    made = hand_made(replacement_rate=1.0, maturity=1000)
    gone = [made.step(x[None], y[None]).replaced for x, y in zip(*stream(1100), strict=True)]
    first, second = (np.stack([masks[group][0] for masks in gone]) for group in (0, 1))
    assert first.any(axis=0).tolist() == [False, False, True, True]
    assert second.any(axis=0).tolist() == [False, True, True]
    assert first.sum() == 2 and second.sum() == 2
    assert np.flatnonzero(first.any(axis=1)).tolist() == [1000]
    assert (made.net.units[0].age[0] == [1100, 1100, 99, 99]).all()


def test_age_at_promotion() -> None:
    """That at which a unit first was of the backbone, whatever comes later; a new unit has none."""
    made = hand_made(
        replacement_rate=0.1, maturity=20, utility_decay=0.8, reputation_decay=0.8, threshold=0.5
    )
    state = made.net.state_dict()
    expected, sizes = np.zeros(4), set[int]()
    rng = np.random.default_rng(4)
    gone_once = False
    for x, y in zip(*stream(400), strict=True):
        if rng.random() < 0.05:  # the second layer listens to others
            state = made.net.state_dict()
            state["2.weight"][0, 0] = rng.normal(size=4)
            made.net.load_state_dict(state)
        age = made.net.units[0].age[0] + 1
        step = made.step(x[None], y[None])
        assert step.replaced is not None
        gone = np.asarray(step.replaced[0][0], bool)
        backbone = reputations_of(made, 0)[1][0]
        expected = np.where(backbone & (expected == 0), age, expected)
        gone_once |= bool((gone & (expected > 0)).any())
        expected[gone] = 0
        assert made.state()["Recruitment.0.promoted"][0].tolist() == expected.tolist()
        sizes.add(int(backbone.sum()))
    assert len(sizes) > 2 and gone_once
    assert made.state()["Recruitment.0.promoted"].dtype == np.int32
    made.restart()
    assert not made.state()["Recruitment.0.promoted"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, r"\[Recruitment\] threshold must be in \[0, infinity\), got -1"),
        ({"utility_decay": 1.0}, r"\[Recruitment\] utility_decay must be in \[0, 1\), got 1"),
        ({"reputation_decay": -0.5}, r"\[Recruitment\] reputation_decay must be in \[0, 1\), got -0.5"),
        ({"replacement_rate": 2.0}, r"\[Recruitment\] replacement_rate must be in \[0, 1\], got 2"),
        ({"init": "kaimin"}, "kaimin"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        hand_made(**options)


@pytest.mark.parametrize(
    "optimizer",
    [kl.ObGD(), kl.AdaptiveObGD(), kl.SGD(step_size=0.01), kl.Adam(), kl.Intentional(), kl.IDBD()],
)
def test_the_loss_says_nothing_to_the_fringe_of_an_agent(optimizer: Any) -> None:
    """Nor where traces are made without gradients; where all are of the backbone, nothing is held back."""
    x = np.random.default_rng(0).normal(size=(11, 2, 4)).astype(np.float32)

    def learned(**options: Any) -> tuple[bool, bool]:
        net = kl.Network([kl.Linear(6), kl.LeakyReLU(), kl.Linear(1)], (4,), runs=2)
        rule = kl.Recruitment(replacement_rate=0.0, **options)
        agent = kl.StreamAgent(None, net, method="td", value_optimizer=optimizer, rules=[rule])
        before, no = net.state_dict(), np.zeros(2, bool)
        for now, after in itertools.pairwise(x):
            agent.learn(now, None, np.ones(2), after, no)
        moved = {name: bool((array != before[name]).any()) for name, array in net.state_dict().items()}
        return moved["0.weight"] or moved["0.bias"], moved["2.weight"]

    assert learned(backprop_in_fringe=False, threshold=1e9) == (False, True)
    assert learned(backprop_in_fringe=False, threshold=0.0) == (True, True)
    assert learned(threshold=1e9) == (True, True)
