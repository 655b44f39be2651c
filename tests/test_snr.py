"""SNR: how silences are counted, who goes, and how the limit follows, against the published procedure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")

RUNS, UNITS = 3, 24


class Silences:
    """One unit (Farias and Jozefiak 2024, and their code), its silences as a list."""

    def __init__(self, percentile: float, period: int, threshold: int, longest: int) -> None:
        self.percentile, self.period, self.longest = percentile, period, longest
        self.limit, self.silence, self.steps = threshold, 0, 0
        self.gaps: list[int] = []

    def step(self, fired: bool, samples: int) -> bool:
        if fired and self.silence:
            self.gaps.append(self.silence)
        self.silence = 0 if fired else self.silence + samples
        gone = self.silence >= self.limit
        if gone:
            self.gaps.append(self.silence)
            self.silence = 0
        self.steps += 1
        if self.steps % self.period == 0:
            self.look(samples)
        return gone

    def look(self, samples: int) -> None:
        found = 0
        if self.gaps:
            ordered = sorted(longest_of_bin(gap) for gap in self.gaps)
            found = ordered[int(np.ceil(self.percentile * len(ordered))) - 1]
        limit = found if found < self.limit else 2 * self.limit
        self.limit = max(samples, min(limit, self.longest))
        self.gaps = []


def longest_of_bin(gap: int) -> int:
    """Below 16 the gap itself; then there are eight bins to a doubling."""
    width = max(1, 1 << gap.bit_length() >> 4)
    return gap // width * width + width - 1


def learner(**options: Any) -> kl.Learner:
    """Units from ones that hardly ever fire to ones that nearly always do, and do not learn."""
    net = kl.Network([kl.Linear(UNITS), kl.ReLU(), kl.Linear(2)], (5,), runs=RUNS)
    state = net.state_dict()
    state["0.bias"][:] = np.linspace(-7, 1, UNITS)
    net.load_state_dict(state)
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.0), rules=[kl.SNR(**options)])


@pytest.mark.parametrize(
    ("percentile", "period", "threshold", "longest"),
    [(0.99, 50, 60, 1000), (0.5, 20, 10, 200), (0.8, 7, 200, 30)],
)
def test_who_goes_and_when(percentile: float, period: int, threshold: int, longest: int) -> None:
    made = learner(percentile=percentile, period=period, threshold=threshold, longest=longest)
    twins = [[Silences(percentile, period, threshold, longest) for _ in range(UNITS)] for _ in range(RUNS)]
    rng = np.random.default_rng(0)
    replaced, seen = 0, set[int]()
    for _ in range(120):
        samples = int(rng.choice([1, 2, 5]))
        x = rng.normal(size=(RUNS, samples, 5)).astype(np.float32)
        fired = (made.net.activities(x)[0] > 0).any(axis=1)
        mask = made.step(x, np.zeros((RUNS, samples, 2), np.float32)).replaced[0]
        expected = [
            [unit.step(bool(fires), samples) for unit, fires in zip(run, row, strict=True)]
            for run, row in zip(twins, fired, strict=True)
        ]
        assert np.array_equal(mask, np.array(expected))
        limits = made.state()["SNR.0.limit"]
        assert np.array_equal(limits, [[unit.limit for unit in run] for run in twins])
        seen.update(limits.ravel().tolist())
        replaced += int(mask.sum())
    assert replaced > RUNS
    assert len(seen) > 4


def test_a_filter_is_silent_at_all_positions() -> None:
    layers = [kl.Conv2d(3, 2), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten(), kl.Linear(2)]
    net = kl.Network(layers, (1, 5, 5))
    state = net.state_dict()
    state["0.weight"][:] = 1.0
    state["0.bias"][0] = [-3.5, -4.5, 0.5]
    net.load_state_dict(state)
    made = kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.0), rules=[kl.SNR(threshold=2)])
    x = np.zeros((2, 1, 5, 5), np.float32)
    x[1, 0, 1:3, 1:3] = 1.0  # one patch of one image sums up to 4
    assert made.step(x, np.zeros((2, 2), np.float32)).replaced[0].tolist() == [[False, True, False]]


def test_what_becomes_of_a_unit() -> None:
    made = learner(threshold=4)
    units = made.net.units[0]
    silent, before = units.bias < 0, units.incoming
    gone = made.step(np.zeros((4, 5), np.float32), np.zeros((4, 2), np.float32)).replaced[0]
    assert np.array_equal(gone, silent)
    assert not units.bias[gone].any()
    assert not units.outgoing[gone].any()
    assert (units.incoming[gone] != before[gone]).all()
    assert np.array_equal(units.incoming[~gone], before[~gone])


@pytest.mark.parametrize("reset", [True, False])
def test_what_the_optimizer_keeps(reset: bool) -> None:
    net = kl.Network([kl.Linear(UNITS), kl.ReLU(), kl.Linear(2)], (5,))
    rule = kl.SNR(threshold=2, reset_optimizer_state=reset)
    made = kl.Learner(net, loss="mse", optimizer=kl.Adam(), rules=[rule])
    gone = made.step(np.full((2, 5), -1, np.float32), np.ones((2, 2), np.float32)).replaced[0]
    assert gone.any() and not gone.all()
    assert (made.state()["optimizer.steps.0.weight"][gone] == (0 if reset else 1)).all()


def test_units_that_neither_fire_nor_are_silent() -> None:
    def of_layers(*layers: Any) -> None:
        net = kl.Network([kl.Linear(4), *layers, kl.Linear(2)], (3,))
        kl.Learner(net, loss="mse", optimizer=kl.SGD(), rules=[kl.SNR()])

    of_layers(kl.LayerNorm(), kl.ReLU(), kl.Dropout(0.1))
    for layers in ([kl.Tanh()], [kl.LeakyReLU()], [], [kl.ReLU(), kl.LayerNorm()], [kl.ReLU(), kl.Tanh()]):
        with pytest.raises(kl.Error, match=r"^\[SNR\] units must be ReLUs.*; those of layer 0 are not$"):
            of_layers(*layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 1.0}, r"\[SNR\] percentile must be in \[0, 1\), got 1"),
        ({"period": 0.5}, r"\[SNR\] period must be a whole number, got 0.5"),
        ({"threshold": 0}, r"\[SNR\] threshold must be in \[1"),
        ({"longest": 1e12}, r"\[SNR\] longest must be in \[1"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(kl.Error, match=message):
        learner(**options)


def test_values_of_every_run() -> None:
    made = learner(threshold=np.array([3.0, 20.0, 300.0]))
    x, y = np.zeros((10, 5), np.float32), np.zeros((10, 2), np.float32)
    gone = [made.step(x, y).replaced[0].any(axis=1).tolist() for _ in range(2)]
    assert gone == [[True, False, False], [True, True, False]]
