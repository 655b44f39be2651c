"""What is left of tasks of before: fits, and `klopf imagenet --recall` on tiny networks and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import klopf as kl
from command_line import refused
from experiments import REPLACING, TINY, killed_and_resumed
from klopf.cli import main
from klopf.experiments import imagenet, retention
from klopf.experiments.methods import IMAGE_METHODS, Backprop

ASKED = [*retention.RECALL, *retention.REFIT]
LONG = [*TINY, "--tasks", "23", "--no-figure"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*words: str, out: str = "out") -> pd.DataFrame:
    """What a tiny experiment finds of tasks of before."""
    assert main(["imagenet", *LONG, "--recall", *words, "--out", out]) == 0
    return pd.read_csv(f"{out}/results.csv")


@pytest.mark.parametrize("examples", [40, 7])
def test_refitted_heads_are_ridge_regression(examples: int) -> None:
    """More examples than weights, or fewer; a run that is not finite has none."""
    rng = np.random.default_rng(0)
    seen, target = rng.normal(size=(3, examples, 9)).astype(np.float32), rng.normal(size=(3, examples, 2))
    seen[1, 2, 3] = np.inf
    heads = retention.refitted(seen, target)
    assert np.isnan(heads[1]).all() and np.isnan(retention.said(seen, heads)[1]).all()
    for run in (0, 2):
        # Ridge regression is least squares with a row more for each weight.
        known = seen[run].astype(np.float64)
        rows = np.sqrt(1e-3 * (known**2).sum() / 9) * np.eye(9)
        fitted = np.linalg.lstsq(
            np.concatenate([known, rows]), np.concatenate([target[run], np.zeros((9, 2))]), rcond=None
        )[0]
        np.testing.assert_allclose(heads[run], fitted, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(retention.said(seen, heads)[run], known @ fitted, atol=1e-8)


def test_heads_and_what_they_see_are_the_network() -> None:
    """Of networks with normalisation, and of one without hidden layers on pixels."""
    images = np.random.default_rng(0).integers(0, 256, size=(2, 5, 3, 6, 6), dtype=np.uint8)
    pixels = {"scale": np.array([0.01, 0.02, 0.03], np.float32), "offset": np.array([0, -1, 2], np.float32)}
    hidden = [kl.Conv2d(4, 3), kl.BatchNorm2d(), kl.ReLU(), kl.Flatten(), kl.Linear(5), kl.BatchNorm1d()]
    for layers in (
        [*hidden, kl.ReLU(), kl.Dropout(0.5)],
        [kl.Conv2d(4, 3), kl.Tanh(), kl.Flatten()],
        [kl.Flatten()],
    ):
        net = kl.Network([*layers, kl.Linear(3)], input_shape=(3, 6, 6), runs=2)
        learner = kl.Learner(net, loss="cross_entropy", optimizer=kl.SGD(0.1))
        learner.run(images, np.zeros((2, 5), np.int64), batch_size=5, epochs=2, **pixels)
        outputs = retention.said(retention.seen_by_head(net, images, pixels), retention.heads_of(net))
        np.testing.assert_allclose(outputs, net(images, **pixels), rtol=1e-5, atol=1e-5)


def test_as_many_heads_are_stored_as_may_be_asked_for() -> None:
    kept: dict[str, Any] = {}
    for task in range(30):
        heads = retention.stored(kept, np.full((2, 4, 3), task))
        assert heads[0, 0, 0].tolist() == list(range(max(0, task - 20), task + 1))


def test_it_is_off_unless_asked_for() -> None:
    assert main(["imagenet", *LONG, "--method", "bp", "cbp", *REPLACING, "--out", "plain"]) == 0
    plain, more = pd.read_csv("plain/results.csv", dtype=str), None
    assert list(plain.columns)[5:] == list(imagenet.MEASURED)
    assert main(["imagenet", *LONG, "--method", "bp", "cbp", *REPLACING, "--recall", "--out", "more"]) == 0
    more = pd.read_csv("more/results.csv", dtype=str)
    assert list(more.columns)[7:13] == ASKED
    pd.testing.assert_frame_equal(more.drop(columns=ASKED), plain)


def test_what_a_linear_classifier_knew_it_knows() -> None:
    """Its inputs never change, so that a stored head is as good as it was; there are tasks to ask for only
    after as many."""
    rows = asked("--method", "linear", "--epochs", "4", "--step-size", "0.01")
    for run, found in rows.groupby("run"):
        then = found["accuracy"].to_numpy()
        assert len(set(then)) > 2, run
        for lag, recall, refit in zip(retention.LAGS, retention.RECALL, retention.REFIT, strict=True):
            np.testing.assert_array_equal(found[recall].to_numpy()[lag:], then[:-lag])
            assert found[[recall, refit]].to_numpy()[:lag].size == 2 * lag
            assert np.isnan(found[[recall, refit]].to_numpy()[:lag]).all()
            assert found[refit].to_numpy()[lag:].min() >= 0


def test_what_does_not_learn_does_not_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the first task is learned, its head is worth what it was, and a new one as much for ever."""
    begin = Backprop.begin_task

    def stop(self: Backprop, learner: kl.Learner, task: int, new_heads: bool = True) -> None:
        begin(self, learner, task, new_heads)
        if task == 1:
            state = learner.state()
            learner.load_state({**state, "SGD.step_size": 0 * state["SGD.step_size"]})

    monkeypatch.setattr(Backprop, "begin_task", stop)
    rows = asked("--method", "bp", "--epochs", "20", "--test-images", "20", "--train-images", "40")
    for _, found in rows.groupby("run"):
        then = found["accuracy"].iloc[0]
        assert then != 0.5 and (found["accuracy"].iloc[1:] == 0.5).all()  # heads at zero
        assert [found[f"recall_{lag}"].iloc[lag] for lag in retention.LAGS] == [then] * 3
        assert len({found[f"refit_{lag}"].iloc[lag] for lag in retention.LAGS}) == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_against_numpy(classes: int) -> None:
    """New heads by least squares on what the network of the checkpoint says of training images."""
    rows = asked("--method", "batchnorm", "dropout", "--classes-per-task", str(classes))
    plan = imagenet.Plan.read("out", {})
    experiment = plan.experiment()
    experiment.record.load(Path("out/checkpoint.safetensors"), experiment)
    for line, learner in zip(plan.lines, experiment.parts, strict=True):
        last = rows[(rows["line"] == line.label) & (rows["task"] == 23)]
        for lag in retention.LAGS:
            task = experiment.stream.task(22 - lag)
            known, tested = (
                learner.net.activities(images, **experiment.pixels)[-1].astype(np.float64)
                for images in (task.train, task.test)
            )
            for run in range(2):
                ones = np.ones((len(known[run]), 1))
                seen = np.concatenate([known[run], ones], axis=1)
                size = seen.shape[1]
                square = seen.T @ seen
                ridge = 1e-3 * np.trace(square) / size
                labels = np.eye(classes)[task.train_labels[run]]
                head = np.linalg.inv(square + ridge * np.eye(size)) @ seen.T @ labels
                guesses = (tested[run] @ head[:-1] + head[-1]).argmax(axis=1)
                expected = (guesses == task.test_labels[run]).mean()
                assert last[f"refit_{lag}"].iloc[run] == pytest.approx(expected)


def test_every_method_and_a_run_alone() -> None:
    names = [name for name in IMAGE_METHODS.kinds if "+" not in name or name == "layernorm+l2"]
    words = ["--method", *names, "--epochs", "1", "--tasks", "7", *REPLACING]
    both, alone = asked(*words, out="both"), asked(*words, "--runs", "1", "--seed", "1", out="alone")
    columns = ["line", "task", *ASKED]
    mine = both[both["seed"] == 1][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone[columns], check_exact=True)
    assert mine[mine["task"] > 5][["recall_1", "recall_5", "refit_5"]].notna().all(axis=None)


def test_killed_and_resumed(folder: Path) -> None:
    words = [
        "imagenet",
        *TINY,
        "--tasks",
        "40",
        "--epochs",
        "4",
        "--recall",
        "--method",
        "bp",
        "cbp",
        *REPLACING,
    ]
    killed_and_resumed([*words, "--out", "out", "--no-figure", "--checkpoint-every", "0.01"], folder)


def test_runs_that_diverge_have_none() -> None:
    rows = asked("--method", "bp", "--step-size", "0.01", "1e30", "--tasks", "3")
    wild = rows["step_size"] == 1e30
    assert (
        rows[wild][ASKED].isna().all(axis=None) and rows[~wild & (rows["task"] > 1)]["recall_1"].notna().all()
    )


def test_table_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    rows = asked("--method", "bp", "cbp", *REPLACING)
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0].split("  ")[-4:] == ["1 back", "5 back", " 20 back", "20 back, refitted"]
        or "20 back" in said[0]
    )
    late = rows[(rows["task"] > 20) & (rows["line"] == "bp")].groupby("run").mean(numeric_only=True)
    assert said[1].split()[-3] == f"{100 * late['refit_20'].mean():.1f}"
    assert said[-2].startswith("tasks of before over the last tenth; means of 2 runs")
    assert main(["table", "out", "--against", "bp"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("last tenth, against bp  20 back, against bp")
    assert main(["plot", "out", "--format", "csv"]) == 0
    drawn = pd.read_csv("out/figure-recall_20.csv")
    assert set(drawn["line"]) == {"bp", "cbp"} and set(drawn["x"]) == {21, 22, 23}
    assert {path.stem for path in Path("out").glob("figure-re*.csv")} == {f"figure-{name}" for name in ASKED}


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("def recall_5(learner, inputs, **pixels):\n    return 0\n")
    said = refused(capsys, "imagenet", *LONG, "--recall", "--metric", "mine.py:recall_5")
    assert said == "klopf: --metric: there is a column recall_5 already"
