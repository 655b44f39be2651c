"""The experiment on tiny networks and images: results, sharing, divergence, stopping and going on."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import REPLACING, TINY, contents
from klopf.cli import main
from klopf.experiments import session
from klopf.experiments.imagenet import MEASURED
from klopf.experiments.stream import Task, TaskStream


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that every command can be given the same relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with open(path / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def measured(path: Path, label: str, run: int) -> list[list[str]]:
    return [
        [row[name] for name in MEASURED]
        for row in rows(path)
        if row["line"] == label and row["run"] == str(run)
    ]


def test_a_whole_experiment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["linear", "bp", "l2", "snp", "cbp", "scratch"]
    command = ["imagenet", "--out", "out", "--method", *methods, *TINY, "--metrics-every", "2"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:-2]] == methods
    assert said[-2:] == ["means of 2 runs ± one standard error", "results and figure in out"]
    table = pd.read_csv("out/results.csv")
    tasks = table[table["method"] == "bp"].groupby("task")["accuracy"].mean()
    assert said[2].split()[1] == f"{100 * tasks[1]:.1f}" and said[2].split()[4] == f"{100 * tasks[3]:.1f}"
    assert list(table.columns) == ["line", "method", "run", "seed", "task", *MEASURED]
    assert len(table) == len(methods) * 2 * 3
    assert table["task"].is_monotonic_increasing
    assert table["accuracy"].between(0, 1).all()
    assert (table["train_loss"] > 0).all()
    assert (table["diverged"] == 0).all()
    hidden = table[table["method"] != "linear"]
    assert hidden[hidden["task"] == 2]["dormant_rate"].isna().all()
    assert hidden[hidden["task"] != 2][list(MEASURED)].notna().all(axis=None)
    settings = json.loads((folder / "out/settings.json").read_text())
    assert settings["command"] == "klopf " + " ".join(command)
    assert settings["seeds"] == [0, 1]
    assert settings["settings"]["epochs"] == 2
    assert [line["label"] for line in settings["lines"]] == methods
    assert settings["lines"][4]["settings"]["utility"] == "adaptable_contribution"
    assert settings["isa"]
    assert {"klopf", "numpy", "python"} <= set(settings["versions"])
    assert "train bp" in json.loads((folder / "out/timings.json").read_text())["seconds"]
    assert (folder / "out/figure.png").exists()
    assert (folder / "out/figure.svg").exists()


def test_swept_settings_are_columns_and_every_value_is_a_line(folder: Path) -> None:
    sweep = ["--step-size", "0.1", "0.001", "--replacement-rate", "0", "0.1", "--maturity", "2"]
    assert main(["imagenet", "--out", "out", "--method", "bp", "cbp", *TINY, *sweep, "--no-figure"]) == 0
    table = pd.read_csv("out/results.csv")
    lines = table.drop_duplicates("line")
    assert lines["step_size"].tolist() == [0.1, 0.001, 0.1, 0.1, 0.001, 0.001]
    assert lines["replacement_rate"].isna().tolist() == [True, True, False, False, False, False]
    assert lines["replacement_rate"].tolist()[2:] == [0, 0.1, 0, 0.1]
    assert not (folder / "out/figure.png").exists()
    # Replacing nothing is backprop: same draws, same shuffles, same bits.
    without, backprop = "cbp, step size 0.1, replacement rate 0", "bp, step size 0.1"
    assert measured(folder / "out", without, 1) == measured(folder / "out", backprop, 1)
    assert measured(folder / "out", "cbp, step size 0.1, replacement rate 0.1", 1) != measured(
        folder / "out", backprop, 1
    )


def test_lines_share_the_images_of_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = TaskStream.task

    def note(self: TaskStream, task: int) -> Task:
        made.append(task)
        return make(self, task)

    monkeypatch.setattr(TaskStream, "task", note)
    assert main(["imagenet", "--out", "out", "--method", "bp", "cbp", "scratch", *TINY, "--no-figure"]) == 0
    assert made == [0, 1, 2]


def test_a_run_is_the_same_alone(folder: Path) -> None:
    methods = ["--method", "snp", "cbp", "scratch", *REPLACING, "--no-figure"]
    assert main(["imagenet", "--out", "both", *TINY, *methods]) == 0
    assert main(["imagenet", "--out", "alone", *TINY, *methods, "--runs", "1", "--seed", "1"]) == 0
    for label in ("snp", "cbp", "scratch"):
        assert measured(folder / "both", label, 1) == measured(folder / "alone", label, 0)


def test_slices_of_training_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*TINY, "--epochs", "5", "--method", "cbp", "--no-figure"]
    monkeypatch.setattr(session, "SLICE_SECONDS", 1000.0)
    assert main(["imagenet", "--out", "long", *command]) == 0
    monkeypatch.setattr(session, "SLICE_SECONDS", 0.0)
    assert main(["imagenet", "--out", "short", *command]) == 0
    assert rows(folder / "long") == rows(folder / "short")


def test_a_diverged_run_is_marked_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [word for word in TINY if word != "--quiet"]
    sweep = ["--method", "bp", "--step-size", "0.01", "1e30"]
    assert main(["imagenet", "--out", "out", *loud, *sweep]) == 0
    table = pd.read_csv("out/results.csv")
    wild = table[table["step_size"] == 1e30]
    assert (wild["diverged"] == 1).all()
    assert wild["accuracy"].isna().all()
    assert "bp, step size 1e+30: run 1 diverged in task 1\n" in capsys.readouterr().err
    assert main(["imagenet", "--out", "calm", *TINY, "--method", "bp", "--step-size", "0.01"]) == 0
    for run in (0, 1):
        assert measured(folder / "out", "bp, step size 0.01", run) == measured(folder / "calm", "bp", run)


def stop_in(monkeypatch: pytest.MonkeyPatch, line: int, slice: int, number: signal.Signals) -> None:
    """Send this process a signal before the given slice (counted over all tasks) of a line."""
    choose, count = session.Session.slice, [0]

    def choose_and_stop(self: session.Session, which: int, left: int) -> int:
        if which == line:
            count[0] += 1
            if count[0] == slice:
                signal.raise_signal(number)
        return choose(self, which, left)

    monkeypatch.setattr(session.Session, "slice", choose_and_stop)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("slice", [1, 4, 5])
def test_stopping_and_resuming_gives_the_same_bytes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
    slice: int,
) -> None:
    monkeypatch.setattr(session, "SLICE_SECONDS", 0.0)
    before = signal.getsignal(signal.SIGINT)
    figure = "--figure" if slice == 5 else "--no-figure"
    command = ["imagenet", "--out", "out", *TINY, *REPLACING, "--method", "bp", "cbp", figure]
    assert main(command) == 0
    whole = contents(folder / "out")
    (folder / "out").rename("whole")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stop_in(patch, 1, slice, number)
        assert main(command) == code
    said = capsys.readouterr()
    assert said.err == f"stopped ({number.name}); resume with klopf imagenet --resume out\n"
    assert len(rows(folder / "out")) < len(rows(folder / "whole"))
    assert main(["imagenet", "--resume", "out", "--threads", "1", "--quiet"]) == 0
    assert contents(folder / "out") == whole
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_what_is_finished_changes_nothing(folder: Path) -> None:
    assert main(["imagenet", "--out", "out", *TINY, "--method", "bp"]) == 0
    before = contents(folder / "out")
    assert main(["imagenet", "--resume", "out"]) == 0
    assert contents(folder / "out") == before


def test_a_second_interrupt_ends_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose = session.Session.slice

    def interrupt(self: session.Session, which: int, left: int) -> int:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return choose(self, which, left)

    monkeypatch.setattr(session.Session, "slice", interrupt)
    assert main(["imagenet", "--out", "out", *TINY]) == 130
    assert capsys.readouterr().err == "klopf: interrupted\n"


def test_the_default_folder_is_the_next_free_one(folder: Path) -> None:
    for name in ("imagenet", "imagenet-2"):
        assert main(["imagenet", *TINY, "--tasks", "1", "--method", "linear", "--no-figure"]) == 0
        assert (folder / "results" / name / "results.csv").exists()


def test_overwriting_is_asked_for(folder: Path) -> None:
    short = [*TINY, "--method", "linear", "--no-figure"]
    assert main(["imagenet", "--out", "out", *short]) == 0
    assert main(["imagenet", "--out", "out", *short, "--tasks", "1", "--overwrite"]) == 0
    assert len(rows(folder / "out")) == 2


def test_floats_survive_being_written(folder: Path) -> None:
    assert main(["imagenet", "--out", "out", *TINY, "--method", "bp", "--no-figure"]) == 0
    for row in rows(folder / "out"):
        for name in MEASURED[:-1]:
            assert repr(float(row[name])) == row[name]


def test_more_classes_a_task(folder: Path) -> None:
    more: list[Any] = ["--classes-per-task", "3", "--split", "run", "--method", "scratch", "--no-figure"]
    assert main(["imagenet", "--out", "out", *TINY, *more]) == 0
    losses = pd.read_csv("out/results.csv")["train_loss"]
    assert np.all(losses < 1.5)


def test_progress_where_there_is_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("klopf.experiments.progress.LINE_SECONDS", 0.0)
    loud = [word for word in TINY if word != "--quiet"]
    assert main(["imagenet", "--out", "out", *loud, "--method", "bp", "--no-figure"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("task 1/3, ")
    assert "left" in lines[-1]
    assert "bp " in lines[-1]
    assert "dormant" in lines[-1]
