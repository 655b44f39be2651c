"""The controls of `klopf recall`: what they hold fast, draw anew, or learn together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import klopf as kl
from experiments import killed_and_resumed
from klopf.cli import main
from klopf.experiments import recall, retention
from klopf.experiments.controls import CONTROLS, Joint

Weights = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def learned(
    name: str, tasks: int, runs: int = 2, **given: Any
) -> list[tuple[kl.Learner, np.ndarray, Weights]]:
    """After each task: the learner, errors, and the weights then."""
    options = {"tasks": tasks, "examples": 60, "runs": runs, "hidden": (6, 5), **given}
    plan = recall.plan({**options, "method": (name,)}, [])
    method = plan.lines[0].method
    learner, stream, found = plan.learner(method, 0), plan.stream(), []
    for task in range(tasks):
        x, y = stream.examples(*plan.stretch(task))
        plan.begin(method, learner, task)
        errors = plan.learn(method, learner, task, x, y)
        found.append((learner, errors, learner.net.state_dict()))
    return found


@pytest.mark.parametrize("given", [{}, {"normalisation": ["layernorm"]}], ids=["plain", "layernorm"])
def test_frozen_after_first(given: dict[str, Any]) -> None:
    """The first task is backprop's; after it nothing changes but the head."""
    first, *others = learned("frozen-after-first", 4, **given)
    _, errors, weights = learned("bp", 1, **given)[0]
    np.testing.assert_array_equal(first[1], errors)
    for name, array in first[2].items():
        np.testing.assert_array_equal(array, weights[name])
    *hidden, weight, bias = weights
    assert len(hidden) == (8 if given else 4)
    for _, _, later in others:
        for name in hidden:
            np.testing.assert_array_equal(later[name], weights[name])
        assert (later[weight] != weights[weight]).any() and (later[bias] != weights[bias]).all()
    (_, _, drawn), *_ = learned("frozen", 1, **given)
    assert any((drawn[name] != weights[name]).any() for name in hidden)


def test_scratch_does_not_know_what_was_before() -> None:
    """Whatever was learned: a task begins with the same weights, and ends with the same error."""
    plan = recall.plan({"tasks": 3, "examples": 50, "runs": 2, "method": ("scratch",)}, [])
    method, stream = plan.lines[0].method, plan.stream()
    one, other = (plan.learner(method, 0) for _ in range(2))
    before = one.net.state_dict()
    for task in range(3):
        x, y = stream.examples(*plan.stretch(task))
        for learner in (one, other):
            plan.begin(method, learner, task)
        for name, array in one.net.state_dict().items():
            np.testing.assert_array_equal(array, other.net.state_dict()[name])
        drawn = one.net.state_dict()["0.weight"]
        assert (drawn != before["0.weight"]).any() == (task > 0)
        first = plan.learn(method, one, task, x, y)
        np.testing.assert_array_equal(plan.learn(method, other, task, x, y), first)
        other.run(-x, 9 * y, batch_size=1)  # which is lost


def test_joint_is_backprop_on_its_first_task() -> None:
    (_, error, weights), (_, expected, alone) = learned("joint", 1)[0], learned("bp", 1)[0]
    np.testing.assert_allclose(error, expected, rtol=1e-6)
    for name, array in alone.items():
        np.testing.assert_allclose(weights[name][:, : array.shape[1]], array, rtol=1e-5, atol=1e-7)


def test_joint_has_a_head_for_each_of_the_latest_tasks() -> None:
    """Against NumPy in float64: all heads learn from every example, a new one begins at zero where the one
    before these was, and those of no task stay zero."""
    plan = recall.plan({"tasks": 23, "examples": 30, "runs": 1, "hidden": (6,), "method": ("joint",)}, [])
    stream, net = plan.stream(), plan.learner(plan.lines[0].method, 0).net
    w, b, *_ = (array[0].astype(np.float64) for array in net.state_dict().values())
    heads, learner_of_all = np.zeros((21, 7)), learned("joint", 23, 1, examples=30, hidden=(6,))
    for task, (_, error, weights) in enumerate(learner_of_all):
        known = range(max(0, task - 20), task + 1)
        heads[task % 21] = 0
        x, errors = stream.examples(30 * task, 30)[0][0], []
        for one in x:
            sums = w @ one + b
            seen = np.append(np.maximum(sums, 0), 1)
            targets = {t % 21: stream.worlds[0].target(t, one[None])[0, 0] for t in known}
            off = np.array([heads[k] @ seen - targets[k] if k in targets else 0 for k in range(21)])
            errors.append(off[task % 21] ** 2)
            grad = (heads[:, :6].T @ off) * (sums > 0)
            heads -= 0.005 * np.outer(off, seen)
            w, b = w - 0.005 * np.outer(grad, one), b - 0.005 * grad
        np.testing.assert_allclose(error, np.mean(errors), rtol=1e-4)
        np.testing.assert_allclose(weights["2.weight"][0], heads[:, :6], atol=1e-5)
        np.testing.assert_allclose(weights["2.bias"][0], heads[:, 6], atol=1e-5)
        empty = [k for k in range(21) if k not in {t % 21 for t in known}]
        assert (weights["2.weight"][:, empty] == 0).all() and (weights["2.bias"][:, empty] == 0).all()


def test_joint_is_asked_for_its_live_heads() -> None:
    """And knows tasks of before better than backprop does."""
    words = ["recall", "--tasks", "24", "--examples", "1000", "--method", "bp", "joint", "--runs", "2"]
    assert main([*words, "--quiet", "--no-figure", "--out", "out"]) == 0
    rows = pd.read_csv("out/results.csv")
    plan = recall.Plan.read("out", {})
    experiment = plan.experiment()
    experiment.record.load(Path("out/checkpoint.safetensors"), experiment)
    assert experiment.record.kept[1] == {} and experiment.record.kept[0]["heads"].shape[3] == 21
    net, stream = experiment.parts[1].net, plan.stream()
    last = rows[(rows["task"] == 24) & (rows["method"] == "joint")]
    x, y = stream.probe(23, retention.LAGS)
    outputs = net(x[:, 1000:])
    for k, lag in enumerate(retention.LAGS):
        expected = ((outputs[..., (23 - lag) % Joint.heads] - y[:, 1000:, k]) ** 2).mean(axis=1)
        np.testing.assert_allclose(last[f"recall_{lag}"], expected, rtol=1e-4)
    late = rows[rows["task"] > 20].groupby("method")[["error", *retention.RECALL, *retention.REFIT]].mean()
    assert (late.loc["joint"] < late.loc["bp"]).all()


def test_a_run_that_diverges_is_marked_and_the_other_goes_on() -> None:
    words = ["recall", "--tasks", "3", "--examples", "200", "--method", "joint", "frozen-after-first"]
    words += ["--step-size", "0.005", "9", "--runs", "2", "--quiet", "--no-figure"]
    assert main([*words, "--out", "out"]) == 0
    rows = pd.read_csv("out/results.csv")
    for step_size, gone in ((0.005, 0), (9, 1)):
        found = rows[rows["step_size"] == step_size]
        assert (found["diverged"] == gone).all() and found["error"].isna().all() == gone


def test_runs_feel_nothing_of_each_other() -> None:
    words = ["recall", "--tasks", "7", "--examples", "200", "--method", *CONTROLS, "--quiet", "--no-figure"]
    assert main([*words, "--runs", "3", "--seed", "5", "--out", "a"]) == 0
    assert main([*words, "--runs", "1", "--seed", "6", "--threads", "1", "--out", "b"]) == 0
    three, one = (pd.read_csv(f"{name}/results.csv", dtype=str).drop(columns="run") for name in "ab")
    pd.testing.assert_frame_equal(three[three["seed"] == "6"].reset_index(drop=True), one)


def test_killed_and_resumed(folder: Path) -> None:
    methods = ["frozen-after-first", "scratch", "joint"]
    words = ["recall", "--tasks", "40", "--examples", "1000", "--runs", "2", "--hidden", "4", "--method"]
    words += [*methods, "--out", "out", "--quiet", "--no-figure", "--checkpoint-every", "0.01"]
    killed_and_resumed(words, folder)


def test_settings_are_chosen() -> None:
    words = [
        "recall",
        "--tasks",
        "4",
        "--examples",
        "200",
        "--method",
        "scratch",
        "joint",
        "frozen-after-first",
    ]
    words += ["--step-size", "0.0001", "0.01", "--tune-runs", "2", "--tune-part", "0.5", "--runs", "1"]
    assert main([*words, "--quiet", "--out", "out"]) == 0
    rows = pd.read_csv("out/results.csv")
    assert rows["method"].unique().tolist() == ["scratch", "joint", "frozen-after-first"]
    assert Path("out/figure.svg").exists()


def test_joint_training_leaves_alone_who_lives_and_who_listens_to_whom() -> None:
    given: dict[str, Any] = {"living": [0.5], "wires": [3], "hidden": (4,)}
    found = learned("joint", 24, **given)
    net = found[0][0].net
    assert net.units[0].living.sum(axis=1).tolist() == [2, 2]
    assert (net.units[0].wires.sum(axis=2) == 3).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--method", "frozen", "--wires", "3", "--rewiring-rate", "0.1"],
            "hidden units of frozen stay as they are",
        ),
        (["--method", "bp", "--rewiring-rate", "0.1"], "--rewiring-rate needs units that listen to some"),
        (["--method", "bp", "--living", "0.01"], "--living 0.01 of 48 units is none, and nothing adds one"),
        (
            ["--method", "recruitment", "--growth-period", "9"],
            "--growth-period needs places where no unit lives",
        ),
        (["--method", "decentralised", "--progress", "0.1"], "--progress is an option of --growth-period"),
        (
            ["--method", "decentralised", "--step-size", "0.01", "0.5"],
            "--step-size must be at most --maximum-step-size 0.1, got 0.5",
        ),
        (
            ["--method", "decentralised", "--step-size", "0.0001"],
            "--step-size must be at least --minimum-step-size 0.001, got 0.0001",
        ),
        (["--method", "bp", "--living", "1.5"], "--living must be a share, at most 1, got 1.5"),
        (
            ["--method", "decentralised", "--listened-by", "perturbation"],
            "--listened-by is an option of --goal listened, and a line is without",
        ),
        (
            ["--method", "decentralised", "--goal-step-size", "0.1"],
            "--goal-step-size is an option of a --goal",
        ),
        (
            ["--method", "decentralised", "--goal", "listened", "--listened-noise", "1"],
            "--listened-noise is an option of --listened-by perturbation",
        ),
    ],
)
def test_options_that_would_do_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recall", *words, "--tasks", "2", "--examples", "20", "--runs", "1", "--quiet"]) != 0
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.count("\n") == 1


def test_shares_are_of_units_that_live() -> None:
    words = ["--method", "frozen", "--living", "0.25", "--hidden", "16", "--tasks", "2", "--examples", "200"]
    assert main(["recall", *words, "--runs", "2", "--quiet", "--no-figure", "--out", "out"]) == 0
    assert (pd.read_csv("out/results.csv")["dormant_rate"] < 0.5).all()
