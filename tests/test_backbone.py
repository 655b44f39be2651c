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
from klopf.pruning import Pruned

pytestmark = pytest.mark.usefixtures("device")

Array = NDArray[Any]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(layers: list[Any], inputs: tuple[int, ...], **arrays: Any) -> kl.Network:
    """One run, with weights given as w0=... and b0=... of layer 0; the others are zero."""
    net = kl.Network(layers, inputs)
    state = {name: 0 * array for name, array in net.state_dict().items()}
    for name, value in arrays.items():
        full = f"{name[1:]}.{'weight' if name[0] == 'w' else 'bias'}"
        state[full][:] = np.array(value, np.float32).reshape(state[full].shape)
    net.load_state_dict(state)
    return net


def found(net: kl.Network, probe: Array, tolerance: float = 0.01) -> list[list[int]]:
    """Backbone units of the first run, by group."""
    return [np.flatnonzero(mask[0]).tolist() for mask in net.backbone(probe, tolerance)]


GRID = np.array(list(product([0.0, 0.5, 1.0], repeat=2)), np.float32)


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

dense = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([kl.ReLU(), kl.LeakyReLU(0.1), kl.Tanh(), kl.Sigmoid()]),
    st.booleans(),
).map(
    lambda drawn: (
        [
            layer
            for units in drawn[0]
            for layer in (kl.Linear(units), *([kl.BatchNorm1d()] if drawn[2] else []), drawn[1], kl.Dropout())
        ]
        + [kl.Linear(2)],
        (3,),
    )
)
convolutional = st.sampled_from(
    [
        [kl.Conv2d(3, 3), kl.ReLU(), kl.MaxPool2d(2), kl.Conv2d(2, 2, padding=1), kl.Tanh(), kl.Flatten()],
        [kl.Conv2d(2, 3, 2, 1), kl.BatchNorm2d(), kl.ReLU(), kl.Conv2d(3, 2), kl.MaxPool2d(2), kl.Flatten()],
        [
            kl.Conv2d(3, 3, padding=2),
            kl.LeakyReLU(),
            kl.MaxPool2d(3, 2),
            kl.Flatten(),
            kl.Linear(4),
            kl.ReLU(),
        ],
    ]
).map(lambda layers: ([*layers, kl.Linear(2)], (2, 6, 7)))
networks = dense | convolutional


def drawn_net(
    layers: list[Any], shape: tuple[int, ...], seed: int, runs: int = 1
) -> tuple[kl.Network, Array]:
    """With random biases, gains and running statistics too, and a probe."""
    net, draw = kl.Network(layers, shape, runs=runs, seeds=range(seed, seed + runs)), random(seed)
    state = net.state_dict()
    for name, array in state.items():
        if "running_var" in name:
            array[:] = draw.uniform(0.2, 3, size=array.shape)
        elif array.ndim == 2:
            array[:] += draw.normal(0, 0.5, size=array.shape)
    net.load_state_dict(state)
    return net, draw.normal(size=(9, *shape)).astype(np.float32)


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


# --- pruning ------------------------------------------------------------------------------------------------

IMAGES = [
    *[kl.Conv2d(8, 5), kl.ReLU(), kl.MaxPool2d(2), kl.Conv2d(16, 3), kl.BatchNorm2d(), kl.ReLU()],
    *[kl.MaxPool2d(2), kl.Flatten(), kl.Linear(32), kl.ReLU(), kl.Dropout(0.1), kl.Linear(2)],
]


def trained() -> tuple[kl.Network, Array, dict[str, Any]]:
    """Three runs that have learned two of the demo's classes, and a probe of other images of them."""
    source = kl.data.SyntheticImages(classes=2, images_per_class=80, size=16)
    pixels = {"scale": source.scale, "offset": source.offset}
    net = kl.Network(IMAGES, (3, 16, 16), runs=3, init="xavier")
    learner = kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD(step_size=0.0125, momentum=0.9))
    x = np.concatenate([source.images(0)[:60], source.images(1)[:60]])
    y = np.repeat([0, 1], 60)
    history = learner.run(x, y, batch_size=20, epochs=15, shuffle=True, **pixels)
    assert (history.accuracy[:, -1] > 0.9).all()
    return net, np.concatenate([source.images(0)[60:], source.images(1)[60:]]), pixels


def checked(net: kl.Network, run: int, pruned: Pruned, probe: Array, tolerance: float, **pixels: Any) -> None:
    """What is reported is so."""
    before = np.float64(net(probe, **pixels)[run])
    after = pruned.network(
        probe if probe.ndim == 1 + len(net.input_shape) else probe[run : run + 1], **pixels
    )
    difference = (np.abs(after[0] - before).max(0) / np.ptp(before, 0)).max()
    assert pruned.difference == pytest.approx(difference, rel=1e-3, abs=1e-6)
    assert pruned.difference < tolerance
    assert [units.size for units in pruned.network.units] == [int(mask.sum()) for mask in pruned.kept]
    assert pruned.removed == sum(units.size for units in net.units) - sum(map(np.sum, pruned.kept))
    backbone_of_run = [mask[run] for mask in net.backbone(probe, tolerance, **pixels)]
    assert all((kept | ~mask).all() for kept, mask in zip(pruned.kept, backbone_of_run, strict=True))
    assert pruned.network.seeds == [net.seeds[run]]


def test_pruning_what_was_trained() -> None:
    net, probe, pixels = trained()
    before = {name: array.copy() for name, array in net.state_dict().items()}
    for tolerance, least in ((0.01, 3), (0.1, 10)):
        pruned = net.prune(probe, tolerance, **pixels)
        for run, one in enumerate(pruned):
            checked(net, run, one, probe, tolerance, **pixels)
            assert one.removed >= least, one
            assert (
                one.network(probe, **pixels).argmax(-1) == net(probe, **pixels)[run].argmax(-1)
            ).mean() > 0.9
    assert all((array == before[name]).all() for name, array in net.state_dict().items())
    small = pruned[0].network  # a network like any other
    history = kl.Learner(small, loss="cross_entropy", optimizer=kl.SGD(0.01)).run(
        probe, np.repeat([0, 1], 20), batch_size=10, epochs=2, shuffle=True, **pixels
    )
    assert np.isfinite(history.loss).all()
    shares = metrics.measure(net, probe, **pixels)["backbone_share"]
    masks = net.backbone(probe, metrics.BACKBONE_TOLERANCE, **pixels)
    np.testing.assert_allclose(shares, np.concatenate(masks, axis=1).mean(axis=1))
    assert (shares < 1).all()


@settings(deadline=None, max_examples=25)
@given(networks, st.integers(0, 10_000), st.sampled_from([1e-3, 0.1, 0.5, 3.0]))
def test_pruning_keeps_its_word(spec: Any, seed: int, tolerance: float) -> None:
    net, probe = drawn_net(*spec, seed)
    (pruned,) = net.prune(probe, tolerance)
    if (np.ptp(net(probe)[0], 0) > 0).all():
        checked(net, 0, pruned, probe, tolerance)
    assert all(mask.any() for mask in pruned.kept)


def test_a_run_feels_nothing_of_its_neighbours() -> None:
    layers, shape = IMAGES, (3, 16, 16)
    net, _ = drawn_net(layers, shape, 8, runs=3)
    probe = random(2).normal(size=(3, 130, *shape)).astype(np.float32)
    strengths, pruned = backbone.observe(net, probe).strengths(), net.prune(probe, 0.2)
    for run in range(3):
        alone = kl.Network(layers, shape, seeds=[net.seeds[run]])
        alone.load_state_dict({name: array[run : run + 1] for name, array in net.state_dict().items()})
        for several, one in zip(strengths, backbone.observe(alone, probe[run]).strengths(), strict=True):
            np.testing.assert_array_equal(several[run], one[0])
        (one,) = alone.prune(probe[run], 0.2)
        checked(net, run, pruned[run], probe, 0.2)
        assert one.difference == pruned[run].difference
        for name, array in one.network.state_dict().items():
            np.testing.assert_array_equal(array, pruned[run].network.state_dict()[name])


def test_a_run_that_is_not_finite_keeps_everything() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(3), kl.ReLU(), kl.Linear(1)], (2,), runs=3)
    state = net.state_dict()
    state["0.weight"][1, 2] = np.inf  # ReLU may hide it
    net.load_state_dict(state)
    masks, pruned = net.backbone(GRID - 2, 10), net.prune(GRID - 2, 10)
    assert [mask.all(axis=1).tolist() for mask in masks] == [[False, True, False]] * 2
    assert pruned[1].removed == 0 and [one.removed for one in pruned[::2]] == [5, 5]
    assert np.isnan(metrics.backbone_share(net, GRID)).tolist() == [False, True, False]
    assert np.isnan(metrics.measure(net, GRID)["backbone_share"]).tolist() == [False, True, False]


def test_constant_outputs() -> None:
    """Such as those of a head at zero: nothing matters to them, and a layer keeps one unit."""
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(3), kl.ReLU(), kl.Linear(2)], (2,), runs=2)
    net.reset([-1], to="zero")
    assert not any(mask.any() for mask in net.backbone(GRID, 0))
    assert (metrics.backbone_share(net, GRID) == 0).all()
    for pruned in net.prune(GRID):
        assert [mask.sum() for mask in pruned.kept] == [1, 1] and pruned.difference == 0
    # One output of two, that units cancel in: by its own size, here 3.
    cancelling = made(
        [kl.Linear(2), kl.ReLU(), kl.Linear(2)], (2,), w0=[[1, 0], [1, 0]], w2=[[1, -1], [1, 0]], b2=[3, 0]
    )
    (strengths,) = backbone.observe(cancelling, GRID).strengths()
    np.testing.assert_allclose(strengths, [[1, 1 / 3]])


def test_networks_without_hidden_units_and_of_policies() -> None:
    net = kl.Network([kl.Linear(2)], (2,), runs=2)
    assert net.backbone(GRID) == []
    assert [one.removed for one in net.prune(GRID)] == [0, 0]
    assert np.isnan(metrics.backbone_share(net, GRID)).all()
    net = kl.Network([kl.Linear(30), kl.Tanh(), kl.Linear(2), kl.Tanh(), kl.LogStd(-0.5)], (2,))
    (pruned,) = net.prune(GRID, 0.2)
    checked(net, 0, pruned, GRID, 0.2)
    assert pruned.removed > 0 and (pruned.network.state_dict()["4.log_std"] == -0.5).all()


def test_mistakes() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(1)], (2,), runs=2)
    for bad in (GRID[0], GRID[:0], GRID[None, None]):
        with pytest.raises(
            kl.Error, match=r"^\[backbone\] expected a probe \[B, 2\] or \[R, B, ...\], got \["
        ):
            net.backbone(bad)
        with pytest.raises(kl.Error, match=r"^\[prune\] expected a probe"):
            net.prune(bad)
    for tolerance in (-0.1, np.nan, np.inf, "0.1"):
        with pytest.raises(kl.Error, match=r"^\[backbone\] expected a tolerance of at least 0, got "):
            net.backbone(GRID, tolerance)
    with pytest.raises(kl.Error, match=r"^\[prune\] expected a tolerance above 0, got 0"):
        net.prune(GRID, 0)
    with pytest.raises(kl.Error, match=r"^\[metrics\] expected a tolerance"):
        metrics.backbone_share(net, GRID, -1)
