"""`klopf incremental`: the order and the images of classes, every method, scratch, stopping and going on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import REPLACING, killed_and_resumed
from klopf.cli import main
from klopf.data.synthetic import SyntheticImages
from klopf.experiments import incremental
from klopf.experiments.incremental import METHODS, scratch_of
from klopf.experiments.results import read_results
from klopf.experiments.stream import GrowingStream

TINY = [
    *(
        "--size",
        "8",
        "--classes",
        "5",
        "--classes-per-step",
        "2",
        "--train-images",
        "8",
        "--test-images",
        "4",
    ),
    *("--channels", "4", "--kernels", "3", "--hidden", "6", "--probe-images", "20"),
    *("--runs", "2", "--epochs", "2", "--batch-size", "4", "--quiet"),
]
SOURCE = SyntheticImages(classes=7, images_per_class=12, size=8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stream(seeds: list[int], **options: int) -> GrowingStream:
    sizes = {"classes": 5, "classes_per_step": 2, "train_images": 8, "test_images": 4, **options}
    return GrowingStream(SOURCE, seeds, **sizes)


def test_classes_arrive_in_an_order_of_each_runs_own() -> None:
    made = stream([3, 4, 5])
    steps = [made.classes(step) for step in range(3)]
    assert [one.shape for one in steps] == [(3, 2), (3, 4), (3, 5)]
    for run in range(3):
        assert len(set(steps[2][run])) == 5 and set(steps[2][run]) <= set(range(7))
        for before, after in pairwise(steps):
            assert np.array_equal(after[run, : before.shape[1]], before[run])
    assert len({tuple(order) for order in steps[2]}) == 3
    assert np.array_equal(stream([4]).classes(2)[0], steps[2][1])


def test_images_are_those_of_all_classes_so_far() -> None:
    made = stream([3, 4])
    chosen, task = made.classes(1), made.task(1)
    assert task.train.shape == (2, 32, 3, 8, 8) and task.test.shape == (2, 16, 3, 8, 8)
    for run in range(2):
        for label in range(4):
            images = SOURCE.images(int(chosen[run, label]))
            assert np.array_equal(task.train[run][task.train_labels[run] == label], images[:8])
            assert np.array_equal(task.test[run][task.test_labels[run] == label], images[8:])


@pytest.mark.parametrize(("train_on", "learned"), [("all", [16, 32, 40]), ("new", [16, 16, 8])])
def test_what_is_trained_on(train_on: str, learned: list[int]) -> None:
    given = {"size": 8, "classes": 5, "classes_per_step": 2, "train_images": 8, "test_images": 4, "runs": 2}
    small = {"channels": [4], "kernels": [3], "hidden": [6], "train_on": train_on}
    experiment = incremental.plan({**given, **small}, []).experiment()
    for step, count in enumerate(learned):
        task = experiment.task(step)
        assert task.train.shape[1] == task.train_labels.shape[1] == count
        seen = min(2 * step + 2, 5)
        first = 0 if train_on == "all" else 2 * step
        assert set(task.train_labels.ravel()) == set(range(first, seen))
        assert set(task.test_labels.ravel()) == set(range(seen))
        whole = experiment.stream.task(step)
        assert np.array_equal(task.train, whole.train[:, -count:])


def test_outputs_of_classes_to_come_do_not_count() -> None:
    given: dict[str, Any] = {"size": 8, "classes": 5, "classes_per_step": 2, "train_images": 8, "runs": 2}
    given |= {"test_images": 4, "channels": [4], "kernels": [3], "hidden": [6], "method": ["bp"]}
    experiment = incremental.plan(given, []).experiment()
    experiment.record.carried["train_loss"] = np.zeros(2)
    task, (learner,) = experiment.task(0), experiment.parts
    state = learner.net.state_dict()
    state["6.bias"][:, 4] = 100  # a class to come that wins everywhere
    learner.net.load_state_dict(state)
    assert (learner.evaluate(task.test, task.test_labels, **experiment.pixels).accuracy == 0).all()
    scores = learner.net(task.test, **experiment.pixels)[..., :2]
    expected = (scores.argmax(axis=2) == task.test_labels).mean(axis=1)
    assert np.array_equal(experiment.tested(learner, task)["accuracy"], expected) and (expected > 0).any()


def test_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    methods = list(METHODS.kinds)
    command = ["incremental", "--method", *methods, *TINY, *REPLACING, "--no-figure", "--out", "out"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split("  ")[-1].strip() == "less scratch's"
    found = pd.read_csv("out/results.csv")
    assert list(found.columns) == ["line", "method", "run", "seed", "classes", *incremental.Plan.measured]
    assert sorted(found["classes"].unique()) == [2, 4, 5]
    assert len(found) == 3 * 2 * len(methods)
    assert found["accuracy"].between(0, 1).all() and (found["diverged"] == 0).all()
    # At the first step nothing was learned before.
    first = found[found["classes"] == 2]
    assert first[first["method"] == "l2"]["accuracy"].tolist() == (
        first[first["method"] == "scratch"]["accuracy"].tolist()
    )


def test_scratch_forgets_and_the_others_go_on() -> None:
    words = ["--method", "scratch", "bp", "--no-figure"]
    assert main(["incremental", *TINY, *words, "--step-size", "1e-9", "--out", "out"]) == 0
    magnitude = pd.read_csv("out/results.csv").pivot_table("weight_magnitude", "classes", ["line", "run"])
    still, drawn = magnitude["bp"], magnitude["scratch"]
    np.testing.assert_allclose(still.to_numpy(), np.tile(still.iloc[0], (3, 1)), rtol=1e-5)
    assert (drawn.nunique() == 3).all()


def test_a_line_is_compared_with_scratch_of_its_own_settings() -> None:
    sweep = ["--method", "bp", "l2", "scratch", "--step-size", "0.01", "0.001", "--no-figure"]
    assert main(["incremental", *TINY, *sweep, "--out", "out"]) == 0
    lines = {line.label: line for line in read_results("out")}
    every = list(lines.values())
    chosen = scratch_of(lines["l2, step size 0.001"], every)
    assert chosen is not None and chosen.label == "scratch, step size 0.001"
    assert scratch_of(lines["scratch, step size 0.01"], every) is None
    assert scratch_of(lines["bp, step size 0.01"], [lines["scratch, step size 0.001"]]) is not None
    assert scratch_of(lines["bp, step size 0.01"], []) is None


@pytest.mark.parametrize("methods", [["l2", "scratch"], ["bp"]])
def test_figures(methods: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incremental", *TINY, "--method", *methods, "--out", "a"]) == 0
    text = Path("a/figure.svg").read_text()
    assert "<!-- Accuracy on all classes so far -->" in text and "<!-- classes -->" in text
    assert ("less that of a network from scratch" in text) == ("scratch" in methods)
    capsys.readouterr()
    assert main(["plot", "a", "--published"]) == 1
    message = "klopf: --published: there are curves of Continual ImageNet and of Ant only\n"
    assert capsys.readouterr().err == message


def test_several_kinds_of_streams_are_not_drawn_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incremental", *TINY, "--method", "bp", "--no-figure", "--out", "a"]) == 0
    few = ["--size", "6", "--classes", "2", "--images", "5", "--tasks", "1", "--runs", "1", "--hidden", "4"]
    assert main(["permuted", *few, "--method", "bp", "--quiet", "--no-figure", "--out", "b"]) == 0
    capsys.readouterr()
    assert main(["plot", "a", "b", "--out", "c.png"]) == 1
    message = "klopf: expected folders of one kind of experiment, got incremental and permuted\n"
    assert capsys.readouterr().err == message


def test_killed_and_resumed(folder: Path) -> None:
    words = ["incremental", *TINY, "--epochs", "150", "--method", "cbp", "scratch", *REPLACING]
    words += ["--out", "out", "--no-figure", "--checkpoint-every", "0.01"]
    killed_and_resumed(words, folder)


def test_the_published_protocol() -> None:
    plan = incremental.plan({}, [])
    settings = plan.settings
    assert (settings.classes, settings.classes_per_step, plan.tasks) == (100, 5, 20)
    assert (settings.epochs, settings.batch_size, settings.train_images) == (200, 90, 450)
    for profile in ("authors", "paper"):
        cbp, snp, l2, scratch = (
            METHODS.resolve(name, profile, {}) for name in ("cbp", "snp", "l2", "scratch")
        )
        assert {one.weight_decay for one in (cbp, snp, l2, scratch)} == {5e-4}
        assert {one.momentum for one in (cbp, snp, l2, scratch)} == {0.9}
        assert (cbp.replacement_rate, cbp.maturity, cbp.utility) == (1e-5, 1000, "contribution")
        assert snp.noise == 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--classes-per-step 6",
            "klopf: --classes-per-step must be at most --classes, got 6 and 5",
        ),
        (
            "--method batchnorm --batch-size 3",
            "klopf: batchnorm: batch normalisation needs at least 2 images in every batch, "
            "got --batch-size 3 for 16 images",
        ),
        (
            "--data none.npy",
            "klopf: --size and --data-seed are options of synthetic data, got --data none.npy",
        ),
        ("--kernels 9", "klopf: "),
        ("--train-on some", "klopf incremental: --train-on: expected one of all, new, got 'some'"),
        ("--tasks 3", "klopf incremental: no option --tasks"),
    ],
)
def test_mistakes(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(["incremental", *TINY, *words.split(), "--out", "out"]))
    assert left.value.code in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1
    assert not Path("out/settings.json").exists()
