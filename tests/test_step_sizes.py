"""Rules by which step sizes follow from what is learned, against NumPy and the equations of 1992."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference import step_sizes
from reference.arrays import relative_error
from reference.layers import build
from reference.network import Network
from reference.recording import LayerSpec

TOLERANCE = 1e-5
RUNS, INPUTS = 3, 6
MLP: list[LayerSpec] = [("Linear", (5,)), ("Tanh", ()), ("Linear", (4,)), ("ReLU", ()), ("Linear", (1,))]
CLASSES: list[LayerSpec] = [("Linear", (5,)), ("Tanh", ()), ("Linear", (2,))]

PER_RUN = np.array([0.02, 0.05, 0.01])
CASES: list[tuple[str, dict[str, Any]]] = [
    *(("IDBD", {"meta_step_size": 0.02, "scope": scope}) for scope in ("weight", "unit", "layer", "network")),
    ("IDBD", {"step_size": PER_RUN, "meta_step_size": PER_RUN}),
    *(
        ("Autostep", {"step_size": 0.1, "meta_step_size": 0.01, "scope": scope, "bound": bound})
        for scope, bound in (
            ("weight", "unit"),
            ("weight", "layer"),
            ("weight", "network"),
            ("unit", "unit"),
            ("unit", "network"),
            ("layer", "layer"),
            ("layer", "network"),
            ("network", "network"),
        )
    ),
    ("Autostep", {"step_size": 5 * PER_RUN, "meta_step_size": PER_RUN, "time_constant": 1 / PER_RUN}),
    *(
        (kind, {"step_size": 0.05, "meta_step_size": 0.1, "scope": scope, "weight_decay": 0.3} | limits)
        for kind in ("IDBD", "Autostep")
        for scope in ("weight", "unit")
        for limits in (
            {"minimum_step_size": 0.045, "maximum_step_size": 0.06},
            {"output_step_size": 0.02, "maximum_step_size": 2 * PER_RUN, "minimum_step_size": PER_RUN},
        )
    ),
    *(
        (kind, {"scope": scope, "newcomer_step_size": 2 * PER_RUN, "meta_step_size": 0.02})
        for kind in ("IDBD", "Autostep")
        for scope in ("weight", "unit")
    ),
    (
        "Autostep",
        {"meta_step_size": 0.1, "output_step_size": PER_RUN, "scope": "layer", "bound": "layer"},
    ),
    ("IDBD", {"meta_step_size": 0.05, "output_step_size": PER_RUN, "scope": "network"}),
    *(("ObGD", {"scope": scope}) for scope in ("weight", "unit", "layer", "network")),
    ("ObGD", {"step_size": 20 * PER_RUN, "kappa": 100 * PER_RUN}),
    *(
        ("AdaptiveObGD", {"step_size": 0.1, "scope": scope})
        for scope in ("weight", "unit", "layer", "network")
    ),
    (
        "AdaptiveObGD",
        {"step_size": PER_RUN, "kappa": 100 * PER_RUN, "beta2": 1 - PER_RUN, "epsilon": PER_RUN},
    ),
    *(
        ("MetaOptimize", {"meta_step_size": 0.02, "weight_decay": 0.1, "scope": scope})
        for scope in ("unit", "layer", "network")
    ),
    (
        "MetaOptimize",
        {
            "step_size": PER_RUN,
            "meta_step_size": PER_RUN,
            "beta1": 1 - 5 * PER_RUN,
            "beta2": 1 - PER_RUN,
            "epsilon": PER_RUN,
            "weight_decay": PER_RUN,
            "discount": 1 - PER_RUN,
        },
    ),
]


def named(case: tuple[str, dict[str, Any]]) -> str:
    kind, options = case
    return "-".join(
        [
            kind,
            *(
                str(options[name])
                for name in ("scope", "bound", "minimum_step_size", "newcomer_step_size", "output_step_size")
                if name in options
            ),
        ]
    )


def test_cases_cover_every_rule() -> None:
    assert {kind for kind, _ in CASES} == set(step_sizes.RULES)


class Pair:
    """R runs of the engine, and a reference for each."""

    def __init__(
        self,
        layers: list[LayerSpec],
        kind: str,
        options: dict[str, Any],
        loss: str = "squared_error",
        shape: tuple[int, ...] = (INPUTS,),
        runs: int = RUNS,
    ) -> None:
        self.net = twins.engine_network(layers, shape, runs)
        state = twins.draw_weights(self.net, np.random.default_rng(1))
        self.engine = kl.Learner(self.net, loss=loss, optimizer=getattr(kl, kind)(**options))
        self.references = [
            step_sizes.Learner(
                Network(build(layers), shape, twins.of_run(state, run)),
                loss,
                step_sizes.RULES[kind](**twins.option_of_run(options, run)),
            )
            for run in range(runs)
        ]

    def step(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """x and y are [R, B, ...]."""
        found = self.engine.step(x, y).loss
        expected = [twin.step(x[run], y[run]) for run, twin in enumerate(self.references)]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)

    def compare(self, tolerance: float = TOLERANCE) -> None:
        weights, sizes = self.net.state_dict(), self.engine.step_sizes()
        assert sizes.keys() == weights.keys()
        for run, twin in enumerate(self.references):
            expected = twin.rule.step_sizes()
            for name, value in twin.network.parameters().items():
                assert relative_error(weights[name][run], value) < tolerance, (run, name)
                assert relative_error(sizes[name][run], expected[name]) < tolerance, (run, name)


def regression(rng: np.random.Generator, batch: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x = rng.normal(size=(RUNS, batch, INPUTS)).astype(np.float32)
    return x, np.sin(x.sum(axis=2, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.usefixtures("device")
def test_many_steps(case: tuple[str, dict[str, Any]]) -> None:
    """A hundred; AdaptiveObGD amplifies rounding, and takes twenty."""
    pair, rng = Pair(MLP, *case), np.random.default_rng(12)
    for step in range(20 if case[0] == "AdaptiveObGD" else 100):
        pair.step(*regression(rng, 1 + step % 3))
    pair.compare(1e-4)


@pytest.mark.parametrize("kind", step_sizes.RULES)
@pytest.mark.usefixtures("device")
def test_batches_in_chunks(kind: str) -> None:
    """The mean over a batch is the same however it is worked on."""
    pair, rng = Pair(MLP, kind, {}), np.random.default_rng(3)
    for _ in range(2):
        pair.step(*regression(rng, 300))
    pair.compare(1e-4)


@pytest.mark.parametrize("kind", ["IDBD", "Autostep"])
@pytest.mark.parametrize(
    ("loss", "outputs"), [("cross_entropy", 2), ("mse", 1), ("squared_error", 3), ("mse", 3)]
)
@pytest.mark.usefixtures("device")
def test_curvature_of_losses(kind: str, loss: str, outputs: int) -> None:
    """Exact for one output, two classes, and the weights of a last layer."""
    layers: list[LayerSpec] = (
        [("Linear", (outputs,))] if outputs == 3 else [*CLASSES[:-1], ("Linear", (outputs,))]
    )
    pair, rng = Pair(layers, kind, {"step_size": 0.1, "meta_step_size": 0.05}, loss), np.random.default_rng(4)
    for _ in range(50):
        x = rng.normal(size=(RUNS, 4, INPUTS)).astype(np.float32)
        y = x[..., :outputs].astype(np.float32)
        pair.step(x, y.argmax(axis=2) if loss == "cross_entropy" else y)
    pair.compare(1e-4)


@pytest.mark.parametrize(("loss", "outputs"), [("cross_entropy", 4), ("squared_error", 3), ("mse", 3)])
@pytest.mark.usefixtures("device")
def test_curvature_by_chance_is_unbiased(loss: str, outputs: int) -> None:
    """With several outputs one draw a sample takes the place of their sum: right on average."""
    runs = 1000
    layers: list[LayerSpec] = [("Linear", (3,)), ("Tanh", ()), ("Linear", (outputs,))]
    options = {"step_size": 0.1, "meta_step_size": 0.0}
    net = twins.engine_network(layers, (2,), runs)
    first = twins.draw_weights(twins.engine_network(layers, (2,)), np.random.default_rng(5))
    net.load_state_dict({name: np.repeat(value, runs, axis=0) for name, value in first.items()})
    learner = kl.Learner(net, loss=loss, optimizer=kl.IDBD(**options))
    twin = step_sizes.Learner(
        Network(build(layers), (2,), twins.of_run(first, 0)), loss, step_sizes.RULES["IDBD"](**options)
    )
    rng = np.random.default_rng(6)
    for _ in range(2):
        x = rng.normal(size=(2, 2)).astype(np.float32)
        y: Any = rng.normal(size=(2, outputs)).astype(np.float32)
        y = y.argmax(axis=1) if loss == "cross_entropy" else y
        learner.step(x, y)
        twin.step(x, y)
    found, expected = learner.state(), twin.rule.state["trace"]
    for name, value in expected.items():
        trace = found[f"optimizer.trace.{name}"].astype(np.float64)
        spread = trace.std(axis=0) / np.sqrt(runs)
        assert (np.abs(trace.mean(axis=0) - value) < 5 * spread + 1e-6).all(), name


@pytest.mark.usefixtures("device")
def test_convolutions_take_positions_for_independent() -> None:
    """c of a filter's weight is the sum over positions of the squares that a linear layer would have."""
    net = kl.Network([kl.Conv2d(2, 2), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten(), kl.Linear(1)], (1, 5, 5))
    twins.draw_weights(net, np.random.default_rng(7))
    learner = kl.Learner(net, loss="squared_error", optimizer=kl.IDBD(step_size=0.1, meta_step_size=0.0))
    rng, x = np.random.default_rng(8), np.zeros((1, 1, 5, 5), np.float32)
    traces = []
    for _ in range(2):
        weights = {name: value[0].astype(np.float64) for name, value in net.state_dict().items()}
        x[...] = rng.normal(size=x.shape)
        learner.step(x, np.ones((1, 1), np.float32))
        traces.append({name: learner.state()[f"optimizer.trace.{name}"][0] for name in weights})
    # By hand: patches, the output's derivative at each pixel, and which pixel of each window counts.
    patches = np.array([[x[0, 0, i : i + 2, j : j + 2] for j in range(4)] for i in range(4)])
    maps = np.einsum("ijkl,okl->oij", patches, weights["0.weight"][:, 0]) + weights["0.bias"][:, None, None]
    slopes = np.zeros_like(maps)
    pooled = weights["4.weight"][0].reshape(2, 2, 2)
    for o, i, j in np.ndindex(2, 2, 2):
        window = maps[o, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(window.argmax(), (2, 2))
        if window[a, b] > 0:
            slopes[o, 2 * i + a, 2 * j + b] = pooled[o, i, j]
    active = np.maximum(maps, 0).reshape(2, 2, 2, 2, 2).max(axis=(2, 4)).reshape(-1)
    error = weights["4.weight"][0] @ active + weights["4.bias"][0] - 1
    gradient = error * np.einsum("oij,ijkl->okl", slopes, patches)[:, None]
    curvature = np.einsum("oij,ijkl->okl", slopes**2, patches**2)[:, None]
    expected = np.maximum(1 - 0.1 * curvature, 0) * traces[0]["0.weight"] - 0.1 * gradient
    assert relative_error(traces[1]["0.weight"], expected) < 1e-4


def test_equations_of_1992(device: str) -> None:
    """IDBD on a linear network under squared_error, ten thousand examples of the tracking task (a thousand on
    other devices)."""
    runs, steps = 2, 10_000 if device == "cpu" else 1_000
    rng = np.random.default_rng(9)
    x = rng.normal(size=(runs, steps, 20)).astype(np.float32)
    signs = np.ones((runs, 5))
    target = np.zeros((runs, steps, 1), np.float32)
    for t in range(steps):
        if t % 20 == 0:
            signs[np.arange(runs), rng.integers(5, size=runs)] *= -1
        target[:, t, 0] = (signs * x[:, t, :5]).sum(axis=1)
    net = kl.Network([kl.Linear(1)], (20,), runs=runs)
    net.reset([-1], to="zero")
    learner = kl.Learner(net, loss="squared_error", optimizer=kl.IDBD(step_size=0.05, meta_step_size=0.01))
    learner.run(x, target, batch_size=1, shuffle=False)
    inputs = np.concatenate([x, np.ones((runs, steps, 1))], axis=2, dtype=np.float64)  # the bias is a weight
    weights, sizes = net.state_dict(), learner.step_sizes()
    for run in range(runs):
        w, h, beta = np.zeros(21), np.zeros(21), np.full(21, np.log(0.05))
        for t in range(steps):
            now = inputs[run, t]
            delta = target[run, t, 0] - w @ now
            beta += 0.01 * delta * now * h
            alpha = np.exp(beta)
            w += alpha * delta * now
            h = h * np.maximum(1 - alpha * now**2, 0) + alpha * delta * now
        found = [np.append(part["0.weight"][run, 0], part["0.bias"][run]) for part in (weights, sizes)]
        assert relative_error(found[0], w) < TOLERANCE
        assert relative_error(found[1], np.exp(beta)) < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.usefixtures("device")
def test_a_replaced_unit_begins_anew(case: tuple[str, dict[str, Any]], tmp_path: Path, device: str) -> None:
    """Its weights' state is zero and its step sizes the first ones; others keep theirs.

    Saved and loaded: the same bits."""
    kind, options = case
    net = twins.engine_network(MLP, (INPUTS,), RUNS)
    rule = kl.ContinualBackprop(replacement_rate=0.05, maturity=20)
    learner = kl.Learner(net, loss="squared_error", optimizer=getattr(kl, kind)(**options), rules=[rule])
    rng, seen = np.random.default_rng(10), 0
    for step in range(60):
        out = learner.step(*regression(rng, 2))
        for k, mask in enumerate(out.replaced):
            if not mask.any():
                continue
            seen += 1
            layer, after = (0, 2)[k], (2, 4)[k]
            state = learner.state()
            default = getattr(kl, kind)().step_size
            initial = np.broadcast_to(options.get("step_size", default), RUNS)
            begins = np.broadcast_to(options.get("newcomer_step_size", initial), RUNS)
            for name, value in state.items():
                if not name.startswith("optimizer.") or not name.endswith(".weight"):
                    continue
                birth = np.log(begins / initial) if "log_step" in name else np.zeros(RUNS)
                expected = np.broadcast_to(birth[:, None, None], value.shape)
                if name.endswith(f".{layer}.weight"):
                    np.testing.assert_allclose(value[mask], expected[mask], rtol=1e-6, err_msg=name)
                    assert not (value[~mask] == 0).all() or kind == "ObGD", name
                if name.endswith(f".{after}.weight"):
                    outgoing, anew = value.transpose(0, 2, 1), expected.transpose(0, 2, 1)
                    np.testing.assert_allclose(outgoing[mask], anew[mask], rtol=1e-6, err_msg=name)
            owned = options.get("scope", "network" if kind == "MetaOptimize" else "weight")
            if kind in ("IDBD", "Autostep", "MetaOptimize") and owned in ("weight", "unit"):
                first = begins[:, None, None]
                sizes = learner.step_sizes()[f"{layer}.weight"]
                np.testing.assert_allclose(sizes[mask], np.broadcast_to(first, sizes.shape)[mask], rtol=1e-6)
        if step == 30:
            learner.save(tmp_path / "learner")
            again = kl.Learner.load(tmp_path / "learner", device=device)
            x, y = regression(np.random.default_rng(11), 2)
            for one in (learner, again):
                one.step(x, y)
            ours, theirs = learner.state(), again.state()
            assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert seen > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kl.IDBD(scope="all"),
            r"\[IDBD\] scope must be one of network, layer, unit, weight, got \"all\"",
        ),
        (
            lambda: kl.Autostep(bound="weight"),
            r"\[Autostep\] bound must be one of network, layer, unit, got \"weight\"",
        ),
        (
            lambda: kl.Autostep(scope="network", bound="unit"),
            r"\[Autostep\] bound must be at least as wide as scope",
        ),
        (
            lambda: kl.Autostep(time_constant=0.5),
            r"\[Autostep\] time_constant must be in \[1, infinity\), got 0.5",
        ),
        (
            lambda: kl.IDBD(minimum_step_size=0.1, maximum_step_size=0.05),
            r"\[IDBD\] maximum_step_size must be at least minimum_step_size, got 0.05 and 0.1",
        ),
        (
            lambda: kl.Autostep(newcomer_step_size=-1),
            r"\[Autostep\] newcomer_step_size must be in \[0, infinity\), got -1",
        ),
        (
            lambda: kl.IDBD(newcomer_step_size=0.1, scope="layer"),
            r"\[IDBD\] newcomer_step_size is of step sizes that units or weights own, got scope=\"layer\"",
        ),
        (lambda: kl.AdaptiveObGD(beta2=1), r"\[AdaptiveObGD\] beta2 must be in \[0, 1\), got 1"),
        (lambda: kl.ObGD(kappa=-1), r"\[ObGD\] kappa must be in \[0, infinity\), got -1"),
        (
            lambda: kl.MetaOptimize(scope="weight"),
            r"\[MetaOptimize\] scope must be one of network, layer, unit, got \"weight\"",
        ),
        (kl.SwiftTD, r"\[SwiftTD\] is of temporal-difference errors and traces: for a StreamAgent"),
        (kl.Intentional, r"\[Intentional\] is of temporal-difference errors and traces: for a StreamAgent"),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    net = kl.Network([kl.Linear(1)], (2,))
    with pytest.raises(kl.Error, match=message):
        kl.Learner(net, loss="mse", optimizer=make())


def test_what_needs_a_curvature_says_so() -> None:
    net = kl.Network([kl.Linear(1)], (2,))
    learner = kl.Learner(net, loss="mse", optimizer=kl.IDBD())
    learner.forward(np.ones((1, 2)))
    with pytest.raises(kl.Error, match=r"\[backward\] the optimizer needs the curvature of the loss"):
        learner.backward(np.ones((1, 1, 1)))
    with pytest.raises(kl.Error, match=r"\[step_sizes\] the optimizer has one step size for all weights"):
        kl.Learner(net, loss="mse", optimizer=kl.SGD()).step_sizes()
    policy = kl.Network([kl.Linear(1), kl.LogStd()], (2,))
    with pytest.raises(kl.Error, match="need the curvature of the loss, and ClippedPolicy has none"):
        kl.Learner(policy, loss=kl.ClippedPolicy(), optimizer=kl.Autostep())
    kl.Learner(policy, loss=kl.ClippedPolicy(), optimizer=kl.ObGD()).step_sizes()
