"""`klopf permuted`: the stream of permutations, online accuracy, every method, stopping and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import REPLACING, contents, killed_and_resumed
from klopf.cli import main
from klopf.data.synthetic import SyntheticImages
from klopf.experiments import permuted, session
from klopf.experiments.methods import NetworkSize
from klopf.experiments.permuted import METHODS, PROFILES
from klopf.experiments.permuted_stream import PermutedStream

TINY = [
    *("--size", "6", "--classes", "4", "--images", "10", "--tasks", "3", "--runs", "2"),
    *("--hidden", "6", "5", "--probe-images", "20", "--quiet"),
]
SOURCE = SyntheticImages(classes=4, images_per_class=10, size=6)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stream(seeds: list[int] | None = None, **options: Any) -> PermutedStream:
    return PermutedStream(SOURCE, seeds or [3, 4], **{"classes": 4, "images": 10, **options})


def shown(made: PermutedStream, task: int, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return made.examples_of(made.task(task), epoch, 0, made.examples)


# --- the stream ---------------------------------------------------------------------------------------------


def test_a_task_shows_every_image_once_with_its_pixels_moved() -> None:
    made = stream()
    one = made.task(1)
    images, labels = shown(made, 1)
    assert images.shape == (2, 40, 3, 6, 6) and labels.shape == (2, 40)
    for run in range(2):
        assert sorted(one.pixels[run]) == list(range(36))
        back = np.empty_like(images[run].reshape(40, 3, 36))
        back[:, :, one.pixels[run]] = images[run].reshape(40, 3, 36)
        for which in range(4):
            found = {image.tobytes() for image in back[labels[run] == which]}
            assert found == {image.tobytes() for image in SOURCE.images(which)}


def test_tasks_runs_and_epochs_have_orders_of_their_own() -> None:
    made = stream()
    pixels = [tuple(made.task(task).pixels[run]) for task in range(5) for run in range(2)]
    assert len(set(pixels)) == 10
    orders = [
        tuple(shown(made, task, epoch)[1][run]) for task in (0, 1) for epoch in (0, 1) for run in (0, 1)
    ]
    assert len(set(orders)) == 8


def test_a_task_is_the_same_whenever_and_for_whomever_it_is_made() -> None:
    images, labels = shown(stream(), 7)
    for found in (shown(stream(), 7), shown(stream([4]), 7)):
        assert np.array_equal(found[0][-1], images[1]) and np.array_equal(found[1][-1], labels[1])
    made = stream()
    shown(made, 2)
    for first, count in ((0, 1), (7, 20), (35, 5)):
        part = made.examples_of(made.task(7), 0, first, count)
        assert np.array_equal(part[0], images[:, first : first + count])
        assert np.array_equal(part[1], labels[:, first : first + count])


def test_fewer_examples_are_the_same_in_every_epoch_of_a_task() -> None:
    made = stream(examples=9)
    epochs = [shown(made, 1, epoch)[0] for epoch in (0, 1)]
    assert epochs[0].shape[1] == 9 and not np.array_equal(*epochs)
    sets = [{image.tobytes() for image in epoch[0]} for epoch in epochs]
    assert sets[0] == sets[1] and len(sets[0]) == 9


def test_grey_is_the_mean_of_the_channels_and_moments_are_those_of_the_images() -> None:
    grey, colour = stream(grey=True), stream()
    assert grey.shape == (1, 6, 6)
    mean = colour.all.astype(np.float64).mean(axis=1)
    assert np.abs(grey.all[:, 0] - mean).max() <= 0.5
    for made in (grey, colour):
        mean, deviation = made.moments()
        np.testing.assert_allclose(mean, made.all.mean(axis=(0, 2)) / 255, rtol=1e-12)
        np.testing.assert_allclose(deviation, made.all.std(axis=(0, 2)) / 255, rtol=1e-9)


# --- the experiment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "epochs"), [(1, 1), (7, 2)])
def test_online_accuracy_is_that_of_predictions_before_they_are_learned(batch: int, epochs: int) -> None:
    words = ["--method", "bp", "--batch-size", str(batch), "--epochs", str(epochs), "--no-figure"]
    assert main(["permuted", *TINY, *words, "--out", "out"]) == 0
    found = pd.read_csv("out/results.csv")
    (line,) = permuted.plan({"hidden": [6, 5]}, []).lines[:1]
    made = stream([0, 1])
    learner = line.method.build(NetworkSize((), (), (6, 5), 4), (3, 6, 6), [0, 1], "cpu")
    mean, deviation = made.moments()
    scale, offset = (1 / (255 * deviation)).astype(np.float32), (-mean / deviation).astype(np.float32)
    for task in range(3):
        correct = np.zeros(2)
        for epoch in range(epochs):
            x, y = shown(made, task, epoch)
            for first in range(0, 40, batch):
                some = slice(first, first + batch)
                images = np.ascontiguousarray(x[:, some])
                correct += (learner.net(images, scale, offset).argmax(axis=2) == y[:, some]).sum(axis=1)
                learner.step(images, y[:, some], scale=scale, offset=offset)
        told = found[found["task"] == task + 1]["accuracy"]
        np.testing.assert_allclose(told, correct / (40 * epochs), rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 6])
def test_every_method(batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    methods = [name for name in METHODS.kinds if batch > 1 or name != "batchnorm"]
    words = ["--batch-size", str(batch), "--reset-layers", "1", *REPLACING, "--metrics-every", "2"]
    command = ["permuted", "--method", *methods, *TINY, *words, "--no-figure", "--out", "out"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("online accuracy (%)") and said[-1] == "results in out"
    found = pd.read_csv("out/results.csv")
    assert list(found.columns) == ["line", "method", "run", "seed", "task", *permuted.Plan.measured]
    assert len(found) == 3 * 2 * len(methods)
    assert found["accuracy"].between(0, 1).all() and (found["diverged"] == 0).all()
    assert found[found["task"] == 2]["dormant_rate"].isna().all()
    assert found[(found["task"] == 3) & (found["method"] != "linear")]["dormant_rate"].notna().all()
    settings = json.loads(Path("out/settings.json").read_text())
    assert (settings["experiment"], settings["settings"]["profile"]) == ("permuted", "small")


def test_heads_go_on_but_for_those_that_begin_anew() -> None:
    net = NetworkSize((), (), (6, 5), 4)
    for name in ("bp", "scratch", "resets"):
        method = METHODS.resolve(name, "small", {"reset_layers": 1} if name == "resets" else {})
        learner = method.build(net, (3, 6, 6), [0, 1], "cpu")
        first = learner.net.state_dict()
        x, y = shown(stream(), 0)
        learner.run(x / np.float32(255), y, batch_size=5, epochs=2)
        before = learner.net.state_dict()
        method.begin_task(learner, 1, new_heads=False)
        after = learner.net.state_dict()
        changed = {part for part in before if not np.array_equal(before[part], after[part])}
        heads = {"5.weight", "5.bias"}
        assert changed == {"bp": set(), "scratch": set(first), "resets": heads}[name]
        assert all(np.any(after[part] != 0) for part in after if part.endswith("weight"))


@pytest.mark.parametrize("method", ["cbp", "dropout", "adam+cbp"])
def test_slices_of_training_change_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["permuted", *TINY, "--method", method, "--batch-size", "3", "--epochs", "2", "--no-figure"]
    command += REPLACING if "cbp" in method else []
    for name, seconds, work in (("long", 1000.0, 2e9), ("short", 0.0, 2e4), ("again", 1000.0, 2e4)):
        monkeypatch.setattr(session, "SLICE_SECONDS", seconds)
        monkeypatch.setattr(permuted, "WORK", work)
        assert main([*command, "--out", name]) == 0
    results = [Path(name, "results.csv").read_bytes() for name in ("long", "short", "again")]
    assert results[0] == results[1] == results[2]
    short, again = (contents(Path(name)) for name in ("short", "again"))
    assert short["checkpoint"] == again["checkpoint"]


def test_killed_and_resumed(folder: Path) -> None:
    words = ["permuted", *TINY, "--images", "500", "--epochs", "4", "--method", "cbp", "dropout"]
    words += [*REPLACING, "--out", "out", "--no-figure", "--checkpoint-every", "0.01"]
    killed_and_resumed(words, folder)


def test_profiles() -> None:
    small, authors, paper = (permuted.plan({"profile": name, "data": "synthetic"}, []) for name in PROFILES)
    assert (authors.settings.tasks, authors.settings.images, authors.settings.size) == (800, 6000, 28)
    assert authors.settings.hidden == paper.settings.hidden == (2000, 2000, 2000)
    assert (authors.settings.pixels, small.settings.pixels) == ("unit", "standardised")
    assert (authors.settings.batch_size, authors.settings.epochs, authors.settings.classes) == (1, 1, 10)
    assert small.settings.hidden == (100, 100, 100)
    mixed = permuted.plan({"profile": "authors", "tasks": 3}, []).settings
    assert (mixed.tasks, mixed.images) == (3, 6000)
    for profile in ("authors", "paper"):
        assert all(METHODS.resolve(name, profile, {}).init == "kaiming" for name in METHODS.kinds)
        cbp = METHODS.resolve("cbp", profile, {})
        assert (cbp.step_size, cbp.momentum, cbp.replacement_rate, cbp.maturity) == (0.003, 0, 1e-6, 100)
        assert METHODS.resolve("adam", profile, {}).step_size == 1e-4
        l2, snp = (METHODS.resolve(name, profile, {}) for name in ("l2", "snp"))
        assert (l2.weight_decay, snp.weight_decay, snp.noise) == (1e-4, 1e-4, 1e-5)
    assert METHODS.resolve("cbp", "authors", {}).utility == "adaptable_contribution"
    assert METHODS.resolve("cbp", "paper", {}).utility == "contribution"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--method bp batchnorm",
            "klopf: batchnorm: batch normalisation needs at least 2 images in every batch, "
            "got --batch-size 1 for 40 images",
        ),
        (
            "--method bp --normalisation batchnorm --batch-size 39",
            "klopf: bp: batch normalisation needs at least 2 images in every batch, got --batch-size 39 "
            "for 40 images",
        ),
        ("--examples 41", "klopf: [stream] expected at least 41 images to show examples of, got 40"),
        (
            "--data none.npy",
            "klopf: --size and --data-seed are options of synthetic data, got --data none.npy",
        ),
        ("--method resets --reset-layers 4", "klopf: --reset-layers must be at most 3, got 4"),
        ("--pixels raw", "klopf permuted: --pixels: expected one of unit, standardised, got 'raw'"),
        ("--profile text", "klopf permuted: --profile: expected one of small, authors, paper, got 'text'"),
        ("--channels 3", "klopf permuted: no option --channels"),
    ],
)
def test_mistakes(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(["permuted", *TINY, *words.split(), "--out", "out"]))
    assert left.value.code in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1
    assert not Path("out/settings.json").exists()


def test_figures_of_permuted_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["permuted", *TINY, "--method", "bp", "linear", "--out", "a", "--tasks", "12"]) == 0
    text = Path("a/figure.svg").read_text()
    for word in (
        "Online accuracy on each new task of the stream",
        "online accuracy (%)",
        "dormant units (%)",
    ):
        assert f"<!-- {word} -->" in text
    capsys.readouterr()
    assert main(["plot", "a", "--published"]) == 1
    message = "klopf: --published: there are curves of Continual ImageNet and of Ant only\n"
    assert capsys.readouterr().err == message


def test_a_run_that_diverges_is_marked() -> None:
    assert main(["permuted", *TINY, "--method", "bp", "--step-size", "0.01", "1e30", "--out", "out"]) == 0
    found = pd.read_csv("out/results.csv")
    wild = found["step_size"] == 1e30
    assert found[wild]["accuracy"].isna().all() and (found[wild]["diverged"] == 1).all()
    assert found[~wild]["accuracy"].notna().all()
