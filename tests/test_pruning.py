"""Networks pruned to their backbones: what is reported of them is so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import klopf as kl
from klopf import backbone, metrics
from klopf.pruning import Pruned
from probed import GRID, drawn_net, made, networks, random

pytestmark = pytest.mark.usefixtures("device")

Array = NDArray[Any]

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
    net = kl.Network([kl.Linear(4), kl.LayerNorm(), kl.ReLU(), kl.Linear(1)], (2,), runs=3)
    net.load_state_dict({**net.state_dict(), "0.weight": state["0.weight"]})
    assert np.isnan(metrics.backbone_share(net, GRID)).tolist() == [False, True, False]


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
