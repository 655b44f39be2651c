"""What is kept in mind of replaced units, and how far a replacement moves what a network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")

RUNS = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(RUNS, 40, 6)).astype(np.float32)
Y = RNG.normal(size=(RUNS, 40, 2)).astype(np.float32)
LAYERS = [kl.Linear(20), kl.ReLU(), kl.Linear(11), kl.ReLU(), kl.Linear(2)]


class Every(kl.UnitRule):
    """Replaces one unit of each group in every step, in turn."""

    def begin(self, units: Any) -> None:
        self.state["step"] = np.zeros((), np.int64)

    def step(self, units: Any) -> Any:
        at = int(self.state["step"])
        self.state["step"] += 1
        return [np.arange(group.size)[None] == np.full((RUNS, 1), at % group.size) for group in units]


RULES: dict[str, Any] = {
    "ContinualBackprop": lambda: kl.ContinualBackprop(replacement_rate=0.1, maturity=3),
    "Recruitment": lambda: kl.Recruitment(replacement_rate=0.3, maturity=3, threshold=0.8, utility_decay=0.9),
    "ReDo": lambda: kl.ReDo(threshold=0.4, period=3),
    "SNR": lambda: kl.SNR(threshold=8, period=5),
    "Every": Every,
}


def learner(rule: str, events: int = 1000) -> kl.Learner:
    net = kl.Network(LAYERS, (6,), runs=RUNS)
    rules = [kl.ShrinkAndPerturb(noise=1e-3), RULES[rule]()]
    return kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=0.1), rules=rules, events=events)


def rows(events: dict[str, Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in events.values()), strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_every_replacement_is_told(rule: str) -> None:
    made = learner(rule)
    expected = []
    for step in range(25):
        before = [units.age for units in made.net.units]
        out = made.step(X[:, step : step + 8], Y[:, step : step + 8])
        for group, (units, mask) in enumerate(zip(made.net.units, out.replaced, strict=True)):
            for run, unit in np.argwhere(mask).tolist():
                expected.append((run, units.layer, unit, step, int(before[group][run, unit]) + 1))
    found = made.events()
    assert list(found) == ["run", "layer", "unit", "step", "age", "utility", "cause"]
    expected.sort(key=lambda row: (row[0], row[3], row[1], row[2]))
    assert [row[:5] for row in rows(found)] == expected
    assert set(found["cause"]) == {rule}
    assert (found["utility"] >= 0).all() and (rule == "SNR" or found["utility"].any())
    assert made.events_counted.sum() == len(expected) > 10


def test_the_last_ones_are_kept() -> None:
    whole, few = learner("Every"), learner("Every", events=5)
    for made in (whole, few):
        made.run(X, Y, batch_size=8, epochs=2, allow_host_rules=True)
    for run in range(RUNS):
        mine = [row for row in rows(few.events()) if row[0] == run]
        assert mine == [row for row in rows(whole.events()) if row[0] == run][-5:]
    assert few.events_counted.tolist() == [20] * RUNS
    assert rows(learner("Every", events=0).events()) == []


def test_saved_and_loaded(tmp_path: Path) -> None:
    first, whole = learner("ContinualBackprop", events=7), learner("ContinualBackprop", events=7)
    whole.run(X, Y, batch_size=8, epochs=6)
    first.run(X, Y, batch_size=8, epochs=3)
    first.save(tmp_path / "learner.safetensors")
    second = kl.Learner.load(tmp_path / "learner.safetensors")
    second.run(X, Y, batch_size=8, epochs=3)
    assert rows(second.events()) == rows(whole.events()) != []


def test_more_than_can_be() -> None:
    for events in (-1, 2**30):
        with pytest.raises(kl.Error, match=r"\[learner\] events must be from 0 to 16777216, got"):
            learner("ReDo", events=events)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_how_far_a_replacement_moves_the_function(momentum: float) -> None:
    """As far as the outputs without the units differ, and nothing where nothing is replaced."""
    probe = RNG.normal(size=(30, 6)).astype(np.float32)
    net = kl.Network(LAYERS, (6,), runs=RUNS)
    meter = kl.FunctionChange(probe)
    rate = np.array([0.0, 0.02, 0.2])
    rule = kl.ContinualBackprop(replacement_rate=rate, maturity=2)
    optimizer = kl.SGD(step_size=0.0, momentum=momentum)
    made = kl.Learner(net, loss="mse", optimizer=optimizer, rules=meter.around(rule))
    expected = []
    for step in range(8):
        before = net(probe).astype(np.float64)
        out = made.step(X, Y)
        if any(mask.any() for mask in out.replaced):
            moved = np.sqrt(((net(probe) - before) ** 2).mean(axis=(1, 2)))
            expected.append((step, moved / np.sqrt((before**2).mean(axis=(1, 2)))))
    assert meter.steps.tolist() == [step for step, _ in expected] != []
    np.testing.assert_allclose(meter.change, [change for _, change in expected], rtol=1e-12)
    assert not meter.change[:, 0].any() and meter.change[0, 2] > 0.01
