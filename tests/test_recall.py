"""`klopf recall`: its worlds, what is measured of tasks of before, its tables and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import klopf as kl
from command_line import refused
from klopf.cli import main
from klopf.experiments import recall, retention
from klopf.experiments.measures import is_relative, relative
from klopf.experiments.results import read_results
from reference.arrays import relative_error

SHORT = ["--runs", "2", "--quiet", "--out", "out"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def world(seed: int = 0, **given: Any) -> recall.World:
    return recall.World(recall.plan({"tasks": 40, **given}, []).settings, seed)


def test_worlds_are_functions_of_the_seed() -> None:
    tasks, others, fewer = world(3).tasks, world(4).tasks, world(3, tasks=7, examples=1, hidden=(5,)).tasks
    for one, other in zip(tasks, fewer, strict=False):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert (tasks[0][0] != others[0][0]).any()


@pytest.mark.parametrize("every", [0, 5, 3])
def test_features_and_tasks(every: int) -> None:
    tasks = world(replace_every=every, inputs=11, features=6, feature_inputs=5, mixed=3).tasks
    for features, signs in tasks:
        assert features.shape == (6, 11) and set(np.unique(features)) == {-1, 0, 1}
        assert (np.abs(features).sum(axis=1) == 5).all()
        assert signs.shape == (6,) and np.abs(signs).sum() == 3
    assert len({signs.tobytes() for _, signs in tasks}) > 30
    for task in range(1, len(tasks)):
        changed = (tasks[task][0] != tasks[task - 1][0]).any(axis=1).sum()
        assert changed == (every > 0 and task % every == 0)


def test_targets() -> None:
    """Of variance 1, over tasks; bits are signs moved up, so that only the head's bias differs."""
    x = np.random.default_rng(0).choice([-1, 1], size=(4000, 20)).astype(np.float32)
    signs, bits = world(), world(feature_values="bits")
    found = np.concatenate([signs.target(task, x) for task in range(40)], axis=1)
    assert abs(found.var(axis=0).mean() - 1) < 0.05 and np.abs(found.mean(axis=0)).max() < 0.1
    features, mix = signs.tasks[9]
    for k in range(5):
        total = sum(int(mix[f]) * (1 if features[f] @ x[k] > 0 else -1) for f in range(12))
        assert found[k, 9] == total / 2
    np.testing.assert_allclose(bits.target(9, x)[:, 0], found[:, 9] + mix.sum() / 2, rtol=1e-6, atol=1e-6)


def test_what_is_measured() -> None:
    """Against NumPy, on weights of a learner that does the same."""
    given = {"tasks": 23, "examples": 60, "runs": 2, "seed": 7, "hidden": (6, 5), "method": ("bp",)}
    words = ["--tasks", "23", "--examples", "60", "--hidden", "6", "5", "--method", "bp", "--seed", "7"]
    assert main(["recall", *words, *SHORT, "--no-figure"]) == 0
    rows = pd.read_csv("out/results.csv")
    stream = recall.plan(given, []).stream()
    net = kl.Network(
        [kl.Linear(6), kl.ReLU(), kl.Linear(5), kl.ReLU(), kl.Linear(1)],
        input_shape=(20,),
        runs=2,
        seeds=[7, 8],
    )
    learner = kl.Learner(net, loss="squared_error", optimizer=kl.SGD(step_size=0.005))
    heads: list[np.ndarray] = []
    for task in range(23):
        net.reset([-1], to="zero")
        loss = learner.run(*stream.examples(60 * task, 60), batch_size=1, shuffle=False).loss[:, 0]
        weights = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
        heads.append(np.concatenate([weights["4.weight"][:, 0], weights["4.bias"]], axis=1))
        found = rows[rows["task"] == task + 1]
        np.testing.assert_array_equal(found["error"], 2 * loss)
        variance = stream.examples(60 * task, 60)[1].astype(np.float64).var(axis=1)[:, 0]
        np.testing.assert_allclose(found["constant"], variance, rtol=1e-6)
        for lag in retention.LAGS:
            columns = [f"recall_{lag}", f"refit_{lag}"]
            if lag > task:
                assert found[columns].isna().all(axis=None)
                continue
            x, y = stream.probe(task, [lag])
            for run in range(2):
                seen = x[run].astype(np.float64)
                for layer in (0, 2):
                    seen = np.maximum(
                        seen @ weights[f"{layer}.weight"][run].T + weights[f"{layer}.bias"][run], 0
                    )
                seen = np.concatenate([seen, np.ones((2000, 1))], axis=1)
                target = stream.worlds[run].target(task - lag, x[run])[:, 0]
                np.testing.assert_array_equal(y[run, :, 0], target)
                # Ridge regression is least squares with a row more for each weight.
                root = np.sqrt(1e-3 * (seen[:1000] ** 2).sum() / 6)
                fitted = np.linalg.lstsq(
                    np.concatenate([seen[:1000], root * np.eye(6)]),
                    np.concatenate([target[:1000], np.zeros(6)]),
                    rcond=None,
                )[0]
                for column, head in zip(columns, (heads[task - lag][run], fitted), strict=True):
                    expected = np.mean((seen[1000:] @ head - target[1000:]) ** 2)
                    assert relative_error(found[column].iloc[run], expected) < 1e-5


def test_what_is_asked_was_not_shown() -> None:
    stream = recall.plan({"tasks": 3, "runs": 1}, []).stream()
    shown = [stream.examples(5000 * task, 1000)[0] for task in range(3)]
    asked = [stream.probe(task, [1])[0][:, :1000] for task in (1, 2)]
    both = np.concatenate(shown + asked)
    assert all((both[i] != both[j]).any() for i in range(5) for j in range(i))


def test_a_task_begins_with_a_new_head() -> None:
    plan = recall.plan({"tasks": 2, "examples": 50, "runs": 2, "method": ("adam",)}, [])
    learner = plan.learner(plan.lines[0].method, 0)
    before = learner.net.state_dict()
    learner.run(*plan.stream().examples(0, 50), batch_size=1)
    learned = learner.net.state_dict()
    plan.begin(plan.lines[0].method, learner, 1)
    for name, array in learner.net.state_dict().items():
        assert (learned[name] != before[name]).any()
        np.testing.assert_array_equal(array, 0 if name.startswith("2.") else learned[name])


def test_frozen_layers() -> None:
    """Only the head learns, by gradient descent."""
    plan = recall.plan({"tasks": 1, "examples": 20, "runs": 1, "hidden": (6, 5), "method": ("frozen",)}, [])
    learner = plan.learner(plan.lines[0].method, 0)
    plan.begin(plan.lines[0].method, learner, 0)
    before = learner.net.state_dict()
    x, y = plan.stream().examples(0, 20)
    seen, head = retention.seen_by_head(learner.net, x)[0], np.zeros(6)
    for one, target in zip(seen, y[0, :, 0], strict=True):
        head -= 0.005 * (head @ one - target) * one
    learner.run(x, y, batch_size=1, shuffle=False)
    *hidden, weight, bias = learner.net.state_dict().items()
    for name, array in hidden:
        np.testing.assert_array_equal(array, before[name])
    assert relative_error(np.concatenate([weight[1][0, 0], bias[1][0]]), head) < 1e-5


def test_runs_feel_nothing_of_each_other() -> None:
    words = ["recall", "--tasks", "7", "--examples", "300", "--method", "bp", "cbp", "autostep", "linear"]
    words += ["--quiet", "--no-figure"]
    assert main([*words, "--runs", "3", "--seed", "5", "--out", "a"]) == 0
    assert main([*words, "--runs", "1", "--seed", "6", "--threads", "1", "--out", "b"]) == 0
    three, one = (pd.read_csv(f"{name}/results.csv", dtype=str).drop(columns="run") for name in "ab")
    pd.testing.assert_frame_equal(three[three["seed"] == "6"].reset_index(drop=True), one)


def test_settings() -> None:
    """Lines have settings of this stream, and those that are asked for."""
    lines = recall.plan({"method": ("bp", "l2", "cbp", "linear", "frozen", "adam")}, []).lines
    sizes = [line.method.step_size for line in lines]  # type: ignore[attr-defined]
    assert sizes == [0.005] * 5 + [0.001]
    assert recall.METHODS.resolve("cbp", "ours", {}).replacement_rate == 1e-4  # type: ignore[attr-defined]
    for name in ("autostep", "autostep+cbp", "idbd", "idbd+redo"):
        own: Any = recall.METHODS.resolve(name, "ours", {"meta_step_size": 0.2})
        assert (own.scope, own.output_step_size, own.meta_step_size) == ("unit", 0.005, 0.2)


def test_table_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns without values are told by a dash, and panels left out."""
    words = ["--examples", "100", "--method", "bp", "cbp", "autostep", "--hidden", "5"]
    assert main(["recall", "--tasks", "30", *words, *SHORT]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["error", "1", "back", "5", "back", "20", "back", "20", "back,", "refitted"]
    found = pd.read_csv("out/results.csv").query("line == 'cbp' and task > 15")
    shown = ("error", "recall_1", "recall_20", "refit_20")
    cells = [found.groupby("run")[name].mean().mean() for name in shown]
    told = said[2].split()
    assert [told[1], told[4], told[10], told[13]] == [f"{cell:.3f}" for cell in cells]
    assert said[4].startswith("errors over the second half; means of 2 runs")

    assert main(["table", "out", "--against", "bp"]) == 0
    headings = capsys.readouterr().out.splitlines()[0]
    assert headings.endswith("error, against bp  20 back, against bp")
    assert main(["plot", "out", "--format", "csv", "--interval", "bootstrap"]) == 0
    panels = {path.stem for path in Path("out").glob("figure-*.csv")}
    assert panels == {f"figure-{name}" for name in recall.Plan.measured[:-1] if name != "constant"}
    later = pd.read_csv("out/figure-recall_20.csv")
    assert set(later["line"]) == {"bp", "cbp", "autostep"} and set(later["x"]) == set(range(21, 31))
    assert main(["plot", "out", "--step-sizes", "1"]) == 0
    capsys.readouterr()
    said_line = refused(capsys, "plot", "out", "--published")
    assert said_line.startswith("klopf: --published: there are curves of")

    assert main(["recall", "--tasks", "6", *words, "--runs", "1", "--quiet", "--out", "few"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["-", "-"]
    assert main(["plot", "few", "--format", "csv"]) == 0
    assert not Path("few/figure-recall_20.csv").exists() and Path("few/figure-recall_5.csv").exists()


def test_errors_relative_to_a_constant(capsys: pytest.CaptureFixture[str]) -> None:
    """Each over the variance of the target of the task that it is about, wherever errors are shown."""
    words = ["--tasks", "24", "--examples", "100", "--hidden", "5", "--method", "bp", "linear"]
    assert main(["recall", *words, *SHORT, "--step-size", "0.001", "0.01", "--no-figure"]) == 0
    rows = pd.read_csv("out/results.csv")
    lines = read_results("out")
    for line in lines:
        found = rows[rows["line"] == line.label].pivot(index="run", columns="task")
        constant, told = found["constant"].to_numpy(), relative(line).values
        assert (told["constant"] == 1).all() and is_relative(relative(line)) and not is_relative(line)
        np.testing.assert_array_equal(told["error"], found["error"] / constant)
        for lag in retention.LAGS:
            for name in (f"recall_{lag}", f"refit_{lag}"):
                np.testing.assert_array_equal(
                    told[name][:, lag:], found[name].to_numpy()[:, lag:] / constant[:, :-lag]
                )
                assert np.isnan(told[name][:, :lag]).all()
        assert (told["dormant_rate"] == line.values["dormant_rate"]).all() or line.method == "linear"
    capsys.readouterr()
    assert main(["table", "out", "--relative", "--csv", "a.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("errors relative to a constant's; errors over the second half; ")
    assert said[1].split()[4] == f"{relative(lines[0]).values['error'][:, 12:].mean():.3f}"
    assert set(pd.read_csv("a.csv")["measure"]) == {"error, relative"}
    assert main(["plot", "out", "--relative", "--format", "csv", "svg"]) == 0
    drawn = pd.read_csv("out/figure-recall_5.csv").query("line == 'bp, step size 0.01'")
    assert drawn["mean"].iloc[0] == pytest.approx(relative(lines[1]).values["recall_5"][:, 5].mean())
    assert "error relative to a constant's" in Path("out/figure.svg").read_text()
    assert main(["table", "out", "--relative", "--columns", "dormant_rate"]) == 0
    assert "relative" not in capsys.readouterr().out
    words = ["--over", "step-size", "--column", "recall_20", "--part", "0.9", "1", "--format", "csv"]
    for more, factor in (([], lines), (["--relative"], list(map(relative, lines)))):
        assert main(["plot", "out", *words, *more]) == 0
        drawn = pd.read_csv("out/over_step_size_recall_20-step_size.csv")
        expected = [line.values["recall_20"][:, 21:].mean() for line in factor]
        assert drawn["mean"].tolist() == pytest.approx(expected)
    assert main(["plot", "out", "--over", "step-size", "--column", "recall_20", "--part", "0", "0.5"]) == 1
    assert "--column recall_20: it was not measured in this part of the stream" in capsys.readouterr().err


def test_settings_are_chosen_and_drawn() -> None:
    words = ["recall", "--tasks", "6", "--examples", "200", "--method", "bp", "--step-size", "0.0001", "0.01"]
    assert main([*words, "--tune-runs", "2", "--tune-part", "0.5", *SHORT, "--no-figure"]) == 0
    selection = json.loads(Path("out/settings.json").read_text())["selection"]
    assert selection["criterion"]["column"] == "error" and selection["chosen"] == {"bp": {"step_size": 0.01}}
    assert main(["plot", "out/tuning", "--over", "step-size", "--part", "0", "1"]) == 0
    assert Path("out/tuning/over_step_size.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--feature-inputs", "21"], "--feature-inputs must be at most --inputs, got 21 and 20"),
        (["--mixed", "13"], "--mixed must be at most --features, got 13 and 12"),
        (
            ["--feature-inputs", "6"],
            "--feature-inputs must be odd, so that a feature is as often on as off, got 6",
        ),
        (["--method", "linear", "--hidden", "9"], "--hidden is an option of networks, got only linear"),
        (["--method", "bp", "--events", "9"], "--events: none of the methods replaces units"),
        (["--metric", "none.py:f"], "--metric: cannot read none.py: No such file or directory"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "recall", *words) == f"klopf: {message}"
    assert not Path("results").exists()
