"""Backbones of networks made by hand, against units replaced one by one, and networks pruned to them."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl
from klopf import backbone, metrics
from probed import GRID, drawn_net, made, networks, random

pytestmark = pytest.mark.usefixtures("device")

Array = NDArray[Any]


def found(net: kl.Network, probe: Array, tolerance: float = 0.01) -> list[list[int]]:
    """Backbone units of the first run, by group."""
    return [np.flatnonzero(mask[0]).tolist() for mask in net.backbone(probe, tolerance)]


def test_dead_constant_and_unheard_units() -> None:
    net = made(
        [kl.Linear(6), kl.ReLU(), kl.Linear(2)],
        (2,),
        #   live    dead    constant unheard  live    weak
        w0=[[1, 0], [1, 1], [0, 0], [1, -1], [0, 1], [1, 0]],
        b0=[0, -9, 5, 0, 0, 0],
        w2=[[1, 7, 7, 0, 0, 0], [0, 7, 7, 0, 1, 0.02]],
    )
    observed = backbone.observe(net, GRID)
    (strengths,) = observed.strengths()
    np.testing.assert_allclose(strengths, [[1, 0, 0, 0, 1 / 1.02, 0.02 / 1.02]], rtol=1e-6)
    np.testing.assert_allclose(observed.output_scale(), [[1, 1.02]], rtol=1e-6)
    assert found(net, GRID) == [[0, 4, 5]]
    assert found(net, GRID, 0) == [[0, 4, 5]]
    assert found(net, GRID, 0.02) == [[0, 4]]
    assert found(net, GRID, 1) == [[]]
    assert metrics.backbone_share(net, GRID) == [0.5]
    assert metrics.measure(net, GRID)["backbone_share"] == [0.5]


def test_chains_that_lead_nowhere() -> None:
    """0 -> 0 -> output; 1 -> 1 -> nothing; 2 -> a dead unit; 3 -> a constant one; 0 -> 4, unheard."""
    net = made(
        [kl.Linear(4), kl.ReLU(), kl.Linear(5), kl.ReLU(), kl.Linear(1)],
        (2,),
        w0=[[1, 0], [0, 1], [1, 1], [1, 1]],
        w2=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1], [1, 0, 0, 0]],
        b2=[0, 0, -5, 0, 0],
        w4=[1, 0, 1, 1, 0],
    )
    assert found(net, GRID) == [[0], [0]]
    (pruned,) = net.prune(GRID)
    assert [mask.tolist() for mask in pruned.kept] == [[True] + [False] * 3, [True] + [False] * 4]
    assert pruned.difference == 0 and pruned.removed == 7
    assert str(pruned) == "Pruned(2 of 9 units, difference=0)"


def test_a_way_is_as_strong_as_its_weakest_step() -> None:
    net = made(
        [kl.Linear(2), kl.ReLU(), kl.Linear(2), kl.ReLU(), kl.Linear(1)],
        (2,),
        w0=[[1, 0], [0, 1]],
        w2=[[1, 0], [0.25, 1]],  # the second unit moves by 1.25, of which 0.25 are the first one's
        w4=[0.1, 1],  # and the output by 1.35
    )
    first, second = backbone.observe(net, GRID).strengths()
    np.testing.assert_allclose(second, [[0.1 / 1.35, 1.25 / 1.35]], rtol=1e-6)
    np.testing.assert_allclose(first, [[0.25 / 1.25, 1 / 1.25]], rtol=1e-6)  # not 0.1 / 1.35, the other way


def images(count: int = 12, runs: int = 0) -> Array:
    shape = (count, 1, 6, 6) if runs == 0 else (runs, count, 1, 6, 6)
    return random(1).uniform(0, 1, size=shape).astype(np.float32)


def conv_net(**arrays: Any) -> kl.Network:
    w0 = np.zeros((4, 1, 3, 3))
    w0[:, 0, 1, 1] = [1, 1, 0, 1]  # the first and the last hand on the image's inside
    weights = np.zeros((1, 4, 2, 2))
    weights[0, 0, 1, 0] = weights[0, 1] = weights[0, 2] = 1  # the first at one of its places
    given: dict[str, Any] = {"w0": w0, "b0": [0, -9, 2, 0], "w4": weights, **arrays}
    return made([kl.Conv2d(4, 3), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten(), kl.Linear(1)], (1, 6, 6), **given)


def test_filters_behind_flatten() -> None:
    net = conv_net()
    assert found(net, images()) == [[0]]
    (strengths,) = backbone.observe(net, images()).strengths()
    np.testing.assert_allclose(strengths[0], [1, 0, 0, 0], rtol=1e-5)
    # A filter that differs between places, but not between inputs, is as constant as any other there.
    same = np.broadcast_to(images(1), (5, 1, 6, 6))
    assert found(net, np.ascontiguousarray(same)) == [[]]
    (pruned,) = net.prune(images())
    assert pruned.removed == 3 and pruned.difference < 1e-5
    assert [layer.fields() for layer in pruned.network.layers[:1]] == [{**kl.Conv2d(1, 3).fields()}]


@pytest.mark.parametrize("padding", [0, 1])
def test_a_constant_in_front_of_padding(padding: int) -> None:
    """Zeros around it make borders visible, so it is folded into a bias only where there are none."""
    w0 = np.zeros((2, 1, 3, 3))
    w0[0, 0, 1, 1] = 1
    net = made(
        [kl.Conv2d(2, 3), kl.ReLU(), kl.Conv2d(1, 3, padding=padding), kl.ReLU(), kl.Flatten(), kl.Linear(1)],
        (1, 6, 6),
        w0=w0,
        b0=[0, 2],
        w2=np.ones((1, 2, 3, 3)),
        b2=[-15],
        w5=np.ones((1, (2 + 2 * padding) ** 2)),
    )
    assert found(net, images(), 0.05) == [[0, 1] if padding else [0], [0]]
    (pruned,) = net.prune(images(), 0.05)
    assert pruned.removed == (0 if padding else 1) and pruned.difference < 1e-5


# --- against units replaced one by one ----------------------------------------------------------------------


def spreads(values: Array) -> tuple[Array, Array]:
    """Least and greatest of each unit [U] of activities [B, U, ...]."""
    axes = (0, *range(2, values.ndim))
    return values.min(axes), values.max(axes)


@settings(deadline=None, max_examples=40)
@given(networks, st.integers(0, 10_000), st.data())
def test_effects_bound_what_replacing_a_unit_does(spec: Any, seed: int, data: st.DataObject) -> None:
    """By any constant within its range, or the padded image's, which goes into the next biases."""
    net, probe = drawn_net(*spec, seed)
    observed = backbone.observe(net, probe)
    before, outputs = net.activities(probe), net(probe)[0]
    for group, units in enumerate(net.units):
        (effects,) = observed.effects(group)
        last = group + 1 == len(net.units)
        whole = net.state_dict()
        activity = before[group][0]
        low, high = spreads(activity)
        for unit in range(units.size):
            part = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
            gone = units.outgoing
            if gone.shape[-1:] != () and gone.ndim == 4:  # behind Flatten: a constant for each place
                places = activity[:, unit].reshape(len(probe), -1)
                constant = places.min(0) + part * (places.max(0) - places.min(0))
                moved = (gone[0, unit] * constant).sum(-1)
            else:
                constant = low[unit] + part * (high[unit] - low[unit])
                moved = gone[0, unit].reshape(gone.shape[2], -1).sum(-1) * constant
            gone[:, unit] = 0
            units.outgoing = gone
            bias = f"{units.next_layer}.bias"
            net.load_state_dict({**net.state_dict(), bias: (whole[bias] + moved).astype(np.float32)})
            if last:
                after, was, scale = net(probe)[0], outputs, observed.output_scale()[0]
            else:
                after, was = net.activities(probe)[group + 1][0], before[group + 1][0]
                least, most = spreads(was)
                scale = most - least
            change = spreads(np.abs(after - was))[1]
            with np.errstate(invalid="ignore"):
                bound = np.where(scale > 0, effects[unit] * scale, np.inf)
            assert (change <= bound + 1e-5 * (1 + np.abs(was).max())).all()
            net.load_state_dict(whole)


@settings(deadline=None, max_examples=40)
@given(networks, st.integers(0, 10_000))
def test_strengths_are_those_of_all_ways(spec: Any, seed: int) -> None:
    net, probe = drawn_net(*spec, seed)
    observed = backbone.observe(net, probe)
    effects = [next(observed.effects(group)) for group in range(len(net.units))]
    outputs = range(net.outputs)
    for group, strengths in enumerate(observed.strengths()):
        later = [range(units.size) for units in net.units[group + 1 :]]
        for unit in range(net.units[group].size):
            ways = [
                min(effects[group + k][a, b] for k, (a, b) in enumerate(pairwise((unit, *way))))
                for way in product(*later, outputs)
            ]
            assert strengths[0, unit] == max(ways)


def test_effects_of_a_dense_network_by_formula() -> None:
    net, probe = drawn_net([kl.Linear(5), kl.Tanh(), kl.Linear(4), kl.Sigmoid(), kl.Linear(2)], (3,), 4)
    observed, state = backbone.observe(net, probe), net.state_dict()
    first, second = (activity[0].astype(np.float64) for activity in net.activities(probe))
    effects = np.abs(state["2.weight"][0]).T * np.ptp(first, 0)[:, None] / np.ptp(second, 0) / 4
    np.testing.assert_allclose(next(observed.effects(0)), effects, rtol=1e-6)
    effects = np.abs(state["4.weight"][0]).T * np.ptp(second, 0)[:, None] / np.ptp(net(probe)[0], 0)
    np.testing.assert_allclose(next(observed.effects(1)), effects, rtol=1e-5)


def test_layer_norm() -> None:
    """The slope is the gain over the least deviation that a sample has in front of it."""
    layers = [kl.Linear(5), kl.ReLU(), kl.Linear(6), kl.LayerNorm(), kl.ReLU(), kl.Linear(2)]
    net, probe = drawn_net(layers, (3,), 5)
    state, (first, second) = net.state_dict(), net.activities(probe)
    summed = first[0].astype(np.float64) @ state["2.weight"][0].T + state["2.bias"][0]
    slope = np.abs(state["3.weight"][0]) / np.sqrt(summed.var(axis=1).min() + 1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.abs(state["2.weight"][0]).T * np.ptp(first[0], 0)[:, None] * slope / np.ptp(second[0], 0)
    there = np.ptp(second[0], 0) > 0
    np.testing.assert_allclose(
        next(backbone.observe(net, probe).effects(0))[:, there], effects[:, there], 1e-4
    )
    with pytest.raises(
        kl.Error, match=r"^\[prune\] expected no LayerNorm behind hidden units, got one as layer 3"
    ):
        net.prune(probe)


def test_layer_norm_of_images_and_of_inputs() -> None:
    layers = [
        kl.LayerNorm(),
        kl.Conv2d(3, 3),
        kl.LayerNorm(),
        kl.ReLU(),
        kl.Flatten(),
        kl.LayerNorm(1e-3, False),
    ]
    net, probe = drawn_net([*layers, kl.Linear(2)], (2, 6, 7), 6, runs=2)
    assert all(mask.any(axis=1).all() for mask in net.backbone(probe))
    net, probe = drawn_net([kl.LayerNorm(), kl.Linear(8), kl.ReLU(), kl.Linear(2), kl.LayerNorm()], (4,), 7)
    assert net.backbone(probe)[0].any()
    assert net.prune(probe, 0.1)[0].difference < 0.1
