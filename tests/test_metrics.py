"""Each metric against an independent formula in float64, and on cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from klopf import metrics
from klopf._core import Error

pytestmark = pytest.mark.usefixtures("device")

Array = NDArray[Any]

shapes = st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 5)) | st.tuples(*[st.integers(1, 3)] * 5)
levels = st.sampled_from([-1.0, -0.02, -0.01, -0.005, -0.0, 0.0, 0.005, 0.02, 1.0])


def activities_of(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float32, shape, elements=levels.map(lambda value: float(np.float32(value))))


def is_active(values: Array, signed: bool) -> bool:
    return any(abs(float(y)) > 1e-2 if signed else float(y) > 0 for y in values.ravel())


@settings(deadline=None)
@given(shapes.flatmap(activities_of), st.booleans(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5]))
def test_dormant_and_dead_by_counting(activity: Array, signed: bool, threshold: float) -> None:
    runs, inputs, units = activity.shape[:3]
    dormant, dead = np.zeros(runs), np.zeros(runs)
    for r in range(runs):
        for u in range(units):
            times = sum(is_active(activity[r, b, u], signed) for b in range(inputs))
            dormant[r] += times <= threshold * inputs
            dead[r] += not activity[r, :, u].any()
    # the same group twice, so that shares over several groups are seen too
    np.testing.assert_allclose(metrics.dormant_rate([activity, activity], threshold, signed), dormant / units)
    np.testing.assert_allclose(metrics.dead_units([activity, activity]), dead / units)


def test_dormant_at_exactly_one_percent() -> None:
    for inputs in (100, 300, 700, 1000):
        activity = np.zeros((1, inputs, 3), dtype=np.float32)
        activity[0, : inputs // 100, 0] = 1  # exactly 1%: dormant
        activity[0, : inputs // 100 + 1, 1] = 1  # more: not
        activity[0, : inputs // 100, 2] = 1
        assert metrics.dormant_rate([activity]) == [2 / 3]
        assert metrics.dead_units([activity]) == [0]


def test_groups_weigh_by_their_units() -> None:
    alive, dead = np.ones((2, 5, 6), dtype=np.float32), np.zeros((2, 5, 2, 3, 3), dtype=np.float32)
    dead[1, 2, 0, 1, 1] = 1  # one position of one filter on one of five inputs
    np.testing.assert_array_equal(metrics.dormant_rate([alive, dead]), [0.25, 0.125])
    np.testing.assert_array_equal(metrics.dead_units([alive, dead]), [0.25, 0.125])


def test_redo_dormant_by_hand() -> None:
    first = np.array([[[4.0, 0.0, -0.2], [2.0, 0.0, 0.4]], np.ones((2, 3))])  # [R=2, B=2, U=3]
    silent = np.zeros((2, 2, 1))
    assert metrics.redo_dormant([first]).tolist() == [1 / 3, 0]  # means 3, 0, 0.3 over 1.1
    assert metrics.redo_dormant([first], threshold=0.3).tolist() == [2 / 3, 0]
    assert metrics.redo_dormant([first, silent]).tolist() == [2 / 4, 1 / 4]
    filters = np.stack([first, -first], axis=-1)[..., None]  # both positions alike
    assert metrics.redo_dormant([filters]).tolist() == [1 / 3, 0]
    assert np.isnan(metrics.redo_dormant([np.where(first > 3, np.nan, first)])).tolist() == [True, False]


def test_what_follows_the_activation_decides_about_signs() -> None:
    import klopf as kl
    from klopf.metrics import _signed_groups

    layers = [
        kl.Linear(2),
        kl.LayerNorm(),
        kl.ReLU(),
        kl.Linear(2),
        kl.ReLU(),
        kl.BatchNorm1d(),
        kl.Linear(2),
    ]
    assert _signed_groups([*layers, kl.Tanh(), kl.Linear(1)], 3) == [False, True, True]


def test_signed_flag_per_group() -> None:
    negative = np.full((1, 4, 2), -0.5, dtype=np.float32)
    assert metrics.dormant_rate([negative, negative]) == [1]
    assert metrics.dormant_rate([negative, negative], signed=True) == [0]
    assert metrics.dormant_rate([negative, negative], signed=[True, False]) == [0.5]
    assert metrics.dead_units([negative]) == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2, 2)])
def test_not_finite_is_nan_for_its_run_alone(bad: float, shape: tuple[int, ...]) -> None:
    good = np.random.default_rng(0).random(shape, dtype=np.float32)
    broken = good.copy()
    broken[1].flat[7] = bad
    functions = (metrics.effective_rank, metrics.stable_rank, metrics.stable_rank_99)
    for function in (
        lambda a: metrics.dormant_rate([a, good]),
        lambda a: metrics.dead_units([good, a]),
        *functions,
    ):
        expected = function(good)
        expected[1] = np.nan
        np.testing.assert_array_equal(function(broken), expected)
    state = {"0.weight": good, "2.weight": broken}
    assert np.isnan(metrics.weight_magnitude(state)).tolist() == [False, True, False]


def test_ranks_of_known_matrices() -> None:
    rng = np.random.default_rng(1)
    left, right = np.linalg.qr(rng.normal(size=(50, 50)))[0], np.linalg.qr(rng.normal(size=(20, 20)))[0]
    cases = [[1.0] * 20, [1.0, 0.0], [3.0, 1.0], [98.5, 1.0, 0.5], [1.0] * 3 + [1e-5] * 4]
    features = np.zeros((len(cases) + 1, 50, 20))  # the last one is zero throughout
    for r, values in enumerate(cases):
        features[r] = (left[:, : len(values)] * values) @ right[: len(values)]
    entropy = [-sum(v / sum(c) * math.log(v / sum(c)) for v in c if v > 0) for c in cases]
    np.testing.assert_allclose(metrics.effective_rank(features), [*map(math.exp, entropy), 0], rtol=1e-9)
    frobenius = [sum(v**2 for v in c) / c[0] ** 2 for c in cases]
    np.testing.assert_allclose(metrics.stable_rank(features), [*frobenius, 0], rtol=1e-9)
    np.testing.assert_array_equal(metrics.stable_rank_99(features), [20, 1, 2, 2, 3, 0])


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float32, (2, 7, 4), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_ranks_are_bounded_and_free_of_scale(features: Array, factor: float) -> None:
    features = np.where(np.abs(features) < 1e-3, 0, features).astype(np.float64)
    for function in (metrics.effective_rank, metrics.stable_rank, metrics.stable_rank_99):
        ranks = function(features)
        nonzero = features.any(axis=(1, 2))
        assert (ranks[~nonzero] == 0).all()
        assert (ranks[nonzero] >= 1 - 1e-12).all()
        assert (ranks <= 4 + 1e-12).all()
        np.testing.assert_allclose(function(features * factor), ranks, rtol=1e-6)


def test_rank_counts_positions_of_filters_as_columns() -> None:
    features = np.random.default_rng(2).normal(size=(2, 30, 3, 2, 2))
    flat = features.reshape(2, 30, 12)
    np.testing.assert_array_equal(metrics.effective_rank(features), metrics.effective_rank(flat))


def test_weight_magnitude() -> None:
    rng = np.random.default_rng(3)
    state = {
        "0.weight": rng.normal(size=(3, 4, 2, 5, 5)).astype(np.float32),
        "0.bias": np.full((3, 4), 100, dtype=np.float32),
        "1.weight": np.full((3, 4), 100, dtype=np.float32),  # the scales of a normalisation
        "2.weight": np.full((3, 4, 5, 5), 100, dtype=np.float32),
        "2.bias": np.full((3, 4, 5, 5), 100, dtype=np.float32),
        "policy.5.weight": rng.normal(size=(3, 2, 7)).astype(np.float32),
    }
    layers = metrics.layer_weight_magnitude(state)
    assert list(layers) == ["0.weight", "policy.5.weight"]
    for r in range(3):
        sums = [math.fsum(abs(float(w)) for w in state[name][r].ravel()) for name in layers]
        sizes = [state[name][r].size for name in layers]
        np.testing.assert_allclose(
            [layer[r] for layer in layers.values()], np.divide(sums, sizes), rtol=1e-12
        )
        np.testing.assert_allclose(metrics.weight_magnitude(state)[r], sum(sums) / sum(sizes), rtol=1e-12)


def test_a_run_feels_nothing_of_its_neighbours() -> None:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(5, 40, 33)).astype(np.float32)
    state = {"0.weight": rng.normal(size=(5, 101, 211)).astype(np.float32)}
    for function in (metrics.effective_rank, metrics.stable_rank, metrics.stable_rank_99):
        alone = [function(features[r : r + 1])[0] for r in range(5)]
        np.testing.assert_array_equal(function(features), alone)
    alone = [metrics.weight_magnitude({"0.weight": state["0.weight"][r : r + 1]})[0] for r in range(5)]
    np.testing.assert_array_equal(metrics.weight_magnitude(state), alone)


def test_mistakes() -> None:
    one = np.zeros((2, 3, 4))
    calls: tuple[Callable[[], object], ...] = (
        lambda: metrics.dormant_rate([]),
        lambda: metrics.dead_units([np.zeros((2, 3))]),
        lambda: metrics.dormant_rate([one, np.zeros((2, 4, 4))]),
        lambda: metrics.dormant_rate([one], signed=[True, False]),
        lambda: metrics.effective_rank(np.zeros((2, 0, 4))),
        lambda: metrics.weight_magnitude({"0.bias": one}),
    )
    for call in calls:
        with pytest.raises(Error, match=r"^\[metrics\] expected"):
            call()


class Linear:
    pass


class ReLU:
    pass


class Tanh:
    pass


class TwoLayers:
    """A network of NumPy: 6 inputs, 5 ReLU units, 4 tanh units, 2 outputs."""

    runs = 3
    input_shape = (6,)
    layers: tuple[object, ...] = (Linear(), ReLU(), Linear(), Tanh(), Linear())

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.weights = {"0.weight": rng.normal(size=(3, 5, 6)), "2.weight": rng.normal(size=(3, 4, 5))}
        self.weights |= {"4.weight": rng.normal(size=(3, 2, 4)), "4.bias": rng.normal(size=(3, 2))}
        self.weights["2.weight"][1, 2] = 0
        self.weights["0.weight"][2, :3] = 0
        self.largest_chunk = 0

    def activities(self, x: Array, scale: Any = None, offset: Any = None) -> list[Array]:
        self.largest_chunk = max(self.largest_chunk, x.shape[-2])
        x = x * (1 if scale is None else scale) + (0 if offset is None else offset)
        first = np.maximum(x @ self.weights["0.weight"].swapaxes(1, 2), 0)
        return [first, np.tanh(first @ self.weights["2.weight"].swapaxes(1, 2))]

    def __call__(self, x: Array, scale: Any = None, offset: Any = None) -> Array:
        raise NotImplementedError  # of a last linear layer outputs follow from activities

    def state_dict(self) -> dict[str, Array]:
        return self.weights


def test_measure_in_chunks_equals_the_whole() -> None:
    net = TwoLayers()
    probe = np.random.default_rng(6).normal(size=(257, 6))
    whole = net.activities(probe * 2 + 1)
    expected = {
        "dormant_rate": metrics.dormant_rate(whole, signed=[False, True]),
        "redo_dormant": metrics.redo_dormant(whole),
        "dead_units": metrics.dead_units(whole),
        "backbone_share": metrics.backbone_share(net, probe, 0.01, scale=2, offset=1),
        "effective_rank": metrics.effective_rank(whole[-1]),
        "stable_rank": metrics.stable_rank(whole[-1]),
        "stable_rank_99": metrics.stable_rank_99(whole[-1]),
        "weight_magnitude": metrics.weight_magnitude(net.weights),
    }
    net.largest_chunk = 0
    for one_probe in (probe, np.stack([probe] * 3)):
        measured = metrics.measure(net, one_probe, scale=2, offset=1)
        assert measured.keys() == expected.keys()
        for name, values in expected.items():
            assert measured[name].shape == (3,)
            np.testing.assert_allclose(measured[name], values, rtol=1e-12, err_msg=name)
    assert net.largest_chunk <= metrics.PROBE_CHUNK
    assert expected["dormant_rate"][1] == pytest.approx(1 / 9)
    assert expected["dead_units"][2] == pytest.approx(3 / 9)


def test_measure_of_a_diverged_run() -> None:
    net = TwoLayers()
    net.weights["2.weight"][1, 0, 0] = np.nan
    measured = metrics.measure(net, np.ones((10, 6)))
    for values in measured.values():
        assert np.isnan(values).tolist() == [False, True, False]


def test_measure_without_hidden_units() -> None:
    class OneLayer(TwoLayers):
        layers = (Linear(),)

        def activities(self, x: Array, scale: Any = None, offset: Any = None) -> list[Array]:
            return []

    measured = metrics.measure(OneLayer(), np.ones((10, 6)))
    assert np.isfinite(measured.pop("weight_magnitude")).all()
    assert all(np.isnan(values).all() and values.shape == (3,) for values in measured.values())


def test_measure_refuses_a_probe_of_the_wrong_shape() -> None:
    for shape in ((6,), (0, 6), (1, 1, 10, 6)):
        with pytest.raises(Error, match=r"^\[metrics\] expected a probe \[B, 6\]"):
            metrics.measure(TwoLayers(), np.ones(shape))
