"""Every step-size rule along eligibility traces, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klopf as kl
import test_step_sizes
import twins
from reference.arrays import relative_error
from reference.step_sizes import RULES
from reference.traces import ALONG_TRACES, SwiftTD, TraceLearner

INPUTS = 5

TRACE_CASES: list[tuple[str, dict[str, Any]]] = [
    ("Intentional", {}),
    *(("Intentional", {"step_size": 0.02, "scope": scope}) for scope in ("layer", "unit")),
    ("Intentional", {"step_size": 0.05, "normalise_error": True}),
    (
        "Intentional",
        {
            "step_size": test_step_sizes.PER_RUN,
            "beta2": 1 - test_step_sizes.PER_RUN,
            "clip": 10 * test_step_sizes.PER_RUN,
            "clip_decay": 1 - test_step_sizes.PER_RUN,
        },
    ),
]


def test_trace_cases_cover_every_rule() -> None:
    assert {kind for kind, _ in TRACE_CASES} == set(ALONG_TRACES)


@pytest.mark.parametrize("case", [*test_step_sizes.CASES, *TRACE_CASES], ids=test_step_sizes.named)
@pytest.mark.usefixtures("device")
def test_step_size_rules_along_traces(case: tuple[str, dict[str, Any]]) -> None:
    """TD(lambda) with every rule against NumPy: a hundred steps; fewer of those that take large ones."""
    kind, options = case
    layers = [
        ("Linear", (5,)),
        ("LayerNorm", (1e-5, False)),
        ("LeakyReLU", ()),
        ("Linear", (4,)),
        ("Tanh", ()),
        ("Linear", (1,)),
    ]
    runs = test_step_sizes.RUNS
    net = twins.engine_network(layers, (INPUTS,), runs)
    state = twins.draw_weights(net, np.random.default_rng(1))
    made = kl.StreamAgent(
        None, net, method="td", value_optimizer=getattr(kl, kind)(**options), discount=0.9, trace_decay=0.8
    )
    references = [
        TraceLearner(one, {**RULES, **ALONG_TRACES}[kind](**twins.option_of_run(options, run)), 0.9, 0.8)
        for run, one in enumerate(twins.reference_networks(layers, (INPUTS,), state))
    ]
    rng = np.random.default_rng(3)
    x = rng.normal(size=(runs, INPUTS)).astype(np.float32)
    for _ in range({"ObGD": 10, "AdaptiveObGD": 20, "Intentional": 10}.get(kind, 100)):
        following = rng.normal(size=(runs, INPUTS)).astype(np.float32)
        rewards, ends = rng.normal(size=runs), rng.random(runs) < 0.1
        found = made.learn(x, None, rewards, following, ends)
        expected = [
            twin.step(x[run], rewards[run], following[run], bool(ends[run]))
            for run, twin in enumerate(references)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        x = following
    weights = net.state_dict()
    for run, twin in enumerate(references):
        for name, value in twin.network.parameters().items():
            assert relative_error(weights[name][run], value) < 1e-4, (run, name)


SWIFT: list[dict[str, Any]] = [
    {},
    {"step_size": 0.03, "meta_step_size": 0.01, "bound": 0.2, "decay": 0.9},
    {"bound": 0.5, "step_size": 0.005},
    {"step_size": test_step_sizes.PER_RUN, "bound": 5 * test_step_sizes.PER_RUN, "decay": np.full(3, 0.99)},
]


@pytest.mark.parametrize("trace_decay", [0.0, 0.95])
@pytest.mark.parametrize("options", SWIFT, ids=range(len(SWIFT)))
@pytest.mark.parametrize("ends", [0.0, 0.1])
@pytest.mark.usefixtures("device")
def test_swift_td(
    options: dict[str, Any], trace_decay: float, ends: float, tmp_path: Path, device: str
) -> None:
    """Three hundred steps against NumPy; an input is now and then zero.  Saved and loaded on the way."""
    runs, rng = 3, np.random.default_rng(6)
    net = kl.Network([kl.Linear(1)], (INPUTS,), runs=runs)
    net.reset([-1], to="zero")
    made = kl.StreamAgent(
        None,
        net,
        method="td",
        value_optimizer=kl.SwiftTD(**options),
        discount=0.9,
        trace_decay=trace_decay,
        normalise_observations=False,
        scale_rewards=False,
    )
    twins_of = [
        SwiftTD(INPUTS + 1, 0.9, trace_decay, **twins.option_of_run(options, run)) for run in range(runs)
    ]

    def draw() -> Any:
        return rng.normal(size=(runs, INPUTS)) * (rng.random((runs, INPUTS)) < 0.8)

    def features(run: int, x: Any) -> Any:
        return np.append(x[run].astype(np.float32), 1.0)  # the bias is a weight

    x = draw()
    made.begin(x)
    for run, twin in enumerate(twins_of):
        twin.see(features(run, x))
    for step in range(300):
        if step == 150:
            made.save(tmp_path / "agent")
            made = kl.StreamAgent.load(tmp_path / "agent", device=device)
            net = made.value
        rewards, ended, x = x[:, 0] + 0.5 * rng.normal(size=runs), rng.random(runs) < ends, draw()
        found = made.step(x, rewards, ended, np.zeros(runs, bool))
        for run, twin in enumerate(twins_of):
            if ended[run]:
                twin.end(rewards[run])
            twin.see(features(run, x), 0.0 if ended[run] else rewards[run])
            np.testing.assert_allclose(found[run], twin.w @ features(run, x), rtol=1e-4, atol=1e-4)
    assert made.alive.all()
    sizes = made.step_sizes()
    for run, twin in enumerate(twins_of):
        weights = np.append(net.state_dict()["0.weight"][run, 0], net.state_dict()["0.bias"][run])
        found = np.append(sizes["value.0.weight"][run, 0], sizes["value.0.bias"][run])
        assert relative_error(weights, twin.w) < 1e-4
        assert relative_error(np.log(found), twin.learned) < 1e-4
    assert len({round(float(size), 6) for size in sizes["value.0.weight"].ravel()}) > runs
