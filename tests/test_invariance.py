"""A run feels nothing of its neighbours, of the number of threads, or of interruptions: the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")

SEEDS = [3, 11, 4, 900, 5, 6, 2**63 + 1]
ROOT = np.random.default_rng(0)
IMAGES = ROOT.integers(0, 256, (7, 30, 3, 8, 9), dtype=np.uint8)
LABELS = ROOT.integers(0, 3, (7, 30))
PIXELS: dict[str, Any] = {"scale": [0.01, 0.02, 0.015], "offset": -1.5}

RULES: dict[str, Callable[[], list[Any]]] = {
    "none": list,
    "snp": lambda: [kl.ShrinkAndPerturb(noise=1e-3)],
    "redo": lambda: [kl.ReDo(threshold=0.6, period=3, reset_optimizer_state=True)],
    "recruitment": lambda: [
        kl.Recruitment(replacement_rate=0.3, maturity=3, threshold=0.8, utility_decay=0.9)
    ],
    "goals": lambda: [
        kl.Recruitment(replacement_rate=0.1, maturity=3, threshold=0.8, utility_decay=0.9),
        kl.Goal("active", share=0.9, step_size=0.01),
        kl.Goal("unit_variance", step_size=0.01, units="fringe"),
        kl.Goal("decorrelated", step_size=0.01, layers=[2]),
        kl.Goal("listened", step_size=0.01, units="fringe", layers=[2]),
    ],
    "growth": lambda: [
        kl.Recruitment(replacement_rate=0.1, maturity=3, utility_decay=0.9, growth_period=2, candidates=5),
        kl.Rewire(replacement_rate=0.1, maturity=2),
    ],
    "perturbation": lambda: [
        kl.Recruitment(maturity=3, threshold=0.8, utility_decay=0.9, backprop_in_fringe=False),
        kl.Goal("listened", by="perturbation", step_size=0.01, hold=2, trace_decay=0.5, units="fringe"),
    ],
    "snr": lambda: [kl.SNR(percentile=0.7, period=4, threshold=9)],
    **{
        f"cbp {utility}": lambda utility=utility: [
            kl.ContinualBackprop(replacement_rate=0.1, utility=utility, maturity=3)
        ]
        for utility in kl.utilities
    },
    "cbp bernoulli and snp": lambda: [
        kl.ContinualBackprop(replacement_rate=0.02, count_mode="bernoulli", maturity=2, init="sparse"),
        kl.ShrinkAndPerturb(noise=1e-4),
    ],
}
OPTIMIZERS = {
    "sgd": lambda: kl.SGD(step_size=0.02, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: kl.Adam(step_size=0.003, weight_decay=1e-3),
    "adamw": lambda: kl.AdamW(step_size=0.003, decay_to="initial"),
    "upgd": lambda: kl.UPGD(step_size=0.02, weight_decay=1e-3),
    "idbd": lambda: kl.IDBD(step_size=0.01, meta_step_size=0.001),
    "idbd-unit": lambda: kl.IDBD(step_size=0.01, meta_step_size=0.001, scope="unit"),
    "autostep": lambda: kl.Autostep(step_size=0.01),
    "obgd": lambda: kl.ObGD(),
    "adaptive-obgd": lambda: kl.AdaptiveObGD(scope="layer"),
    "meta-optimize": lambda: kl.MetaOptimize(scope="unit"),
}
# Every optimizer with rules of each kind, and every rule with optimizers of each kind; networks of plain
# layers, and those with layers that know whether they learn, and units behind ReLU.
PAIRS = [
    (rule, optimizer, "plain")
    for rule in RULES
    for optimizer in OPTIMIZERS
    if rule not in ("snr", "growth")
    if rule in ("none", "redo", "cbp contribution") or optimizer in ("sgd", "idbd-unit")
]
PAIRS += [(rule, "sgd", "normalised") for rule in ("none", "snr", "cbp contribution")]
PAIRS += [("growth", optimizer, "growing") for optimizer in ("sgd", "adamw", "idbd-unit", "obgd")]
PAIRS += [("snr", "adamw", "normalised"), ("redo", "upgd", "normalised")]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = kl.get_threads()
    yield
    kl.set_threads(before)


LAYERS = {
    "plain": [
        *[kl.Conv2d(5, 3), kl.ReLU(), kl.MaxPool2d(2)],
        *[kl.Conv2d(6, 2, padding=1), kl.LeakyReLU(), kl.MaxPool2d(2, 1), kl.Flatten()],
        *[kl.Linear(17), kl.Tanh(), kl.Linear(3)],
    ],
    "normalised": [
        *[kl.Conv2d(5, 3), kl.BatchNorm2d(), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten()],
        *[kl.Linear(17), kl.LayerNorm(), kl.ReLU(), kl.Dropout(0.2)],
        *[kl.Linear(6), kl.BatchNorm1d(), kl.ReLU(), kl.Linear(3)],
    ],
    "growing": [
        *[kl.Conv2d(5, 3, living=2), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten()],
        *[kl.Linear(17, living=3, wires=9), kl.Tanh(), kl.Linear(9, living=0), kl.ReLU(), kl.Linear(3)],
    ],
}


def learner(rule: str, optimizer: str, seeds: list[int], layers: str = "plain") -> kl.Learner:
    net = kl.Network(LAYERS[layers], input_shape=(3, 8, 9), runs=len(seeds), seeds=seeds)
    return kl.Learner(net, loss="cross_entropy", optimizer=OPTIMIZERS[optimizer](), rules=RULES[rule]())


def train(made: kl.Learner, runs: slice = slice(None), epochs: int = 3) -> Any:
    return made.run(IMAGES[runs], LABELS[runs], batch_size=8, epochs=epochs, **PIXELS)


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def test_every_optimizer_is_here() -> None:
    of_agents = {kl.Intentional, kl.SwiftTD}  # see test_traces and test_stream
    assert {type(make()) for make in OPTIMIZERS.values()} == set(kl.optimizers) - of_agents
    assert {type(rule) for make in RULES.values() for rule in make()} == set(kl.rules)


@pytest.mark.parametrize(("rule", "optimizer", "layers"), PAIRS)
def test_alone_among_others_and_on_threads(rule: str, optimizer: str, layers: str) -> None:
    kl.set_threads(1)
    together = learner(rule, optimizer, SEEDS, layers)
    history = train(together)
    state = together.state()
    kl.set_threads(2)
    on_two = learner(rule, optimizer, SEEDS, layers)
    assert train(on_two).loss.tobytes() == history.loss.tobytes()
    assert_same_state(on_two.state(), state)
    for run in (0, 4, 6):
        alone = learner(rule, optimizer, [SEEDS[run]], layers)
        assert train(alone, slice(run, run + 1)).loss.tobytes() == history.loss[run : run + 1].tobytes()
        assert_same_state(alone.state(), {name: value[run : run + 1] for name, value in state.items()})


@pytest.mark.parametrize("rule", ["none", "cbp adaptable_contribution", "perturbation"])
def test_threads_that_share_a_run(rule: str) -> None:
    """Batches of several chunks, and a last one that is smaller."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 110, 3, 24, 24), dtype=np.float32)
    y = rng.integers(0, 3, (2, 110))
    layers = [
        kl.Conv2d(8, 5),
        kl.ReLU(),
        kl.MaxPool2d(2),
        kl.Flatten(),
        kl.Linear(9),
        kl.ReLU(),
        kl.Linear(3),
    ]

    def trained(threads: int, runs: list[int]) -> tuple[dict[str, Any], list[bytes]]:
        kl.set_threads(threads)
        net = kl.Network(layers, input_shape=(3, 24, 24), runs=len(runs), seeds=runs)
        made = kl.Learner(net, loss="cross_entropy", optimizer=OPTIMIZERS["sgd"](), rules=RULES[rule]())
        history = made.run(x[runs], y[runs], batch_size=60, epochs=3)
        step = made.step(x[runs], y[runs])
        evaluation = made.evaluate(x[runs], y[runs])
        return made.state(), [a.tobytes() for a in (history.loss, step.loss, evaluation.loss, net(x[runs]))]

    alone = trained(1, [1])
    for threads in (2, 3, 5):
        shared = trained(threads, [1])
        assert shared[1] == alone[1]
        assert_same_state(shared[0], alone[0])
    together = trained(3, [0, 1])[0]
    assert_same_state({name: value[1:] for name, value in together.items()}, alone[0])


def test_a_step_with_more_chunks_ends_what_forward_began() -> None:
    x, y = np.zeros((60, 3, 24, 24), np.float32), np.zeros(60, np.int64)
    layers = [kl.Conv2d(8, 5), kl.ReLU(), kl.MaxPool2d(2), kl.Flatten(), kl.Linear(3)]
    net = kl.Network(layers, input_shape=(3, 24, 24))
    made = kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD())
    made.forward(x[:20])
    made.step(x, y)
    with pytest.raises(kl.Error, match="needs a forward"):
        made.backward(np.zeros((1, 20, 3)))


@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_sample_is_learned_as_one_of_a_batch_is(momentum: float, decay: float) -> None:
    """The path that stores no gradients, and the one that does: the same bits."""

    def made() -> kl.Learner:
        net = kl.Network(
            [kl.Linear(19), kl.ReLU(), kl.Linear(6), kl.Tanh(), kl.Linear(2)], input_shape=(37,), runs=2
        )
        optimizer = kl.SGD(step_size=0.01, momentum=momentum, weight_decay=decay)
        rules = [kl.ContinualBackprop(replacement_rate=0.05, maturity=5)]
        return kl.Learner(net, loss="squared_error", optimizer=optimizer, rules=rules)

    online, stored = made(), made()
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.standard_normal((1, 37), dtype=np.float32), rng.standard_normal((1, 2), dtype=np.float32)
        online.step(x, y)
        out = stored.forward(x)
        stored.backward((out.astype(np.float64) - y).astype(np.float32))
        stored.apply()
    assert_same_state(online.state(), stored.state())


@pytest.mark.parametrize(("rule", "optimizer", "layers"), PAIRS)
def test_saved_and_loaded(rule: str, optimizer: str, layers: str, tmp_path: Path) -> None:
    whole, first = (learner(rule, optimizer, SEEDS, layers) for _ in range(2))
    train(whole, epochs=3)
    train(first, epochs=1)
    first.save(tmp_path / "learner.safetensors")
    second = kl.Learner.load(tmp_path / "learner.safetensors")
    train(second, epochs=2)
    assert_same_state(second.state(), whole.state())


def test_replacement_happened_and_runs_differ() -> None:
    made = learner("cbp contribution", "sgd", SEEDS)
    out = [made.step(IMAGES[:, :8], LABELS[:, :8], **PIXELS) for _ in range(20)]
    masks = np.sum([step.replaced[2] for step in out], axis=0)
    assert masks.sum(axis=1).min() > 0
    assert len({row.tobytes() for row in masks}) > 1


def test_shared_samples_are_the_same_as_copies() -> None:
    shared, copied = learner("none", "sgd", SEEDS), learner("none", "sgd", SEEDS)
    x, y = IMAGES[0], LABELS[0]
    shared.run(x, y, batch_size=7, epochs=2, **PIXELS)
    copied.run(np.stack([x] * 7), np.stack([y] * 7), batch_size=7, epochs=2, **PIXELS)
    assert_same_state(shared.state(), copied.state())


@pytest.mark.parametrize("outputs", [64, 133, 300])
def test_zeros_left_out_change_no_bit(outputs: int) -> None:
    """Half a batch of rows full of zeros, alone or before rows that have none."""
    rng = np.random.default_rng(outputs)

    bias = rng.normal(size=(1, outputs)).astype(np.float32)

    def made() -> kl.Learner:
        net = kl.Network([kl.Linear(outputs)], (170,))
        net.load_state_dict({**net.state_dict(), "0.bias": bias})
        return kl.Learner(net, loss="mse", optimizer=kl.SGD())

    few, many = made(), made()
    x = np.where(rng.random((50, 170)) < 0.6, 0, rng.normal(size=(50, 170))).astype(np.float32)
    more = rng.normal(size=(200, 170)).astype(np.float32)
    np.testing.assert_array_equal(few.forward(x), many.forward(np.concatenate([x, more]))[:, :50])

    # The gradient of weights: all of it dense, or most of it zero.
    grad = rng.normal(size=(1, 50, outputs)).astype(np.float32)
    few.backward(grad)
    many.backward(np.concatenate([grad, np.zeros((1, 200, outputs), np.float32)], axis=1))
    for name, expected in few.gradients().items():
        np.testing.assert_array_equal(many.gradients()[name], expected, err_msg=name)


def test_own_loss_is_the_same_as_the_built_in_one() -> None:
    built_in, own = learner("cbp weight", "adam", SEEDS), learner("cbp weight", "adam", SEEDS)
    for _ in range(6):
        built_in.step(IMAGES[:, :8], LABELS[:, :8], **PIXELS)
        y = own.forward(IMAGES[:, :8], **PIXELS).astype(np.float64)
        p = np.exp(y - y.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        own.backward((p - np.eye(3)[LABELS[:, :8]]) / 8)
        own.apply()
    a, b = built_in.state(), own.state()
    for name in a:
        if a[name].dtype == np.float32:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-3, atol=1e-4, err_msg=name)


FORK = """
import os, signal, threading, time
import numpy as np
import klopf as kl

def made():
    net = kl.Network([kl.Linear(64), kl.ReLU(), kl.Linear(3)], (50,), runs=3)
    return kl.Learner(net, loss="mse", optimizer=kl.SGD())

kl.set_threads(2)
x, y, busy, stop = np.ones((2000, 50), np.float32), np.ones((2000, 3), np.float32), made(), []

def work():
    while not stop:
        busy.run(x, y, batch_size=50, epochs=5)

thread = threading.Thread(target=work)
thread.start()
time.sleep(0.1)
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        made().step(x, y)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.append(1)
thread.join()
"""


def test_a_process_may_fork_while_another_thread_learns() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


def test_a_diverged_run_is_frozen_and_the_others_go_on() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(1)], input_shape=(5,), runs=3)
    rate = np.array([0.01, 1e30, 0.01])
    made = kl.Learner(net, loss="mse", optimizer=kl.SGD(step_size=rate), rules=[kl.ContinualBackprop()])
    alone = kl.Learner(
        kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(1)], input_shape=(5,), seeds=[2]),
        loss="mse",
        optimizer=kl.SGD(step_size=0.01),
        rules=[kl.ContinualBackprop()],
    )
    x = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    y = x[:, :1]
    history = made.run(x, y, batch_size=5, epochs=4)
    assert made.alive.tolist() == [True, False, True]
    assert np.isnan(history.loss[1]).any() and np.isfinite(history.loss[[0, 2]]).all()
    frozen = {name: value[1].tobytes() for name, value in net.state_dict().items()}
    assert np.isnan(made.step(x, y).loss[1])
    assert {name: value[1].tobytes() for name, value in net.state_dict().items()} == frozen
    alone.run(x, y, batch_size=5, epochs=4)
    alone.step(x, y)
    assert alone.net.state_dict()["0.weight"].tobytes() == net.state_dict()["0.weight"][2:].tobytes()
    made.restart()
    assert made.alive.all()


def test_new_weights_depend_on_seed_and_draw() -> None:
    net = kl.Network([kl.Linear(4), kl.ReLU(), kl.Linear(1)], input_shape=(5,), runs=3, seeds=[1, 2, 1])
    before = net.state_dict()["0.weight"]
    assert before[0].tobytes() == before[2].tobytes() != before[1].tobytes()
    net.reset([0], to="initial")
    after = net.state_dict()["0.weight"]
    assert after[0].tobytes() == after[2].tobytes() != before[0].tobytes()
    net.reset([-1], to="zero")
    assert not net.state_dict()["2.weight"].any()
    with pytest.raises(kl.Error, match="layers must be from -2 to 1"):
        net.reset([2], to="zero")


def test_an_interrupt_stops_between_epochs_and_nothing_is_lost() -> None:
    class Interrupted(Exception):
        pass

    def stop(*_: object) -> None:
        raise Interrupted

    made, whole = learner("cbp weight", "sgd", SEEDS), learner("cbp weight", "sgd", SEEDS)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Interrupted):
            train(made, epochs=1_000_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    epochs = int(made.state()["epoch"][0])
    assert 0 < epochs < 1_000_000
    train(whole, epochs=epochs)
    assert_same_state(made.state(), whole.state())
