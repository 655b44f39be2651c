"""Sensitivity curves: their numbers are those computed by hand, their axis fits the values."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import klopf as kl
from experiments import made_up
from klopf.cli import main
from klopf.experiments.plot import plot
from klopf.experiments.results import read_results
from klopf.experiments.sensitivity import curves_over, geometric
from klopf.experiments.statistics import standard_error


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def test_numbers(tmp_path: Path) -> None:
    def diverge(values: np.ndarray) -> None:
        values[5:, 0, 1, :-1] = np.nan
        values[5:, 0, 1, -1] = 1

    folder = made_up(tmp_path / "a", ["bp", "l2"], 20, 3, change=diverge, step_size=[0.1, 0.01, 0.03])
    paths = plot([folder], tmp_path / "a.svg", over="step_size", part=(0.5, 1.0), format=("csv",))
    assert "bp (1 diverged)" in paths[0].read_text()
    header, *rows = rows_of(paths[1])
    assert paths[1].name == "a-step_size.csv"
    assert header == ["line", "x", "mean", "low", "high", "runs"]
    assert [row[:2] for row in rows] == [[m, s] for m in ("bp", "l2") for s in ("0.01", "0.03", "0.1")]
    line = {(one.method, str(one.settings["step_size"])): one for one in read_results(folder)}
    for method, size, *found, runs in rows:
        achieved = 100 * line[method, size].values["accuracy"][:, 10:]
        there = achieved[np.isfinite(achieved).any(axis=1)].mean(axis=1)
        error = standard_error(there)
        expected = [there.mean(), there.mean() - error, there.mean() + error]
        assert [float(one) for one in found] == pytest.approx(expected)
        assert int(runs) == len(there) == (2 if (method, size) == ("bp", "0.1") else 3)
    again = plot([folder], tmp_path / "b.svg", over="step_size", part=(0.5, 1.0), format=("csv",))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_one_curve_for_each_value_of_the_others(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "a", ["bp", "l2"], 4, 2, step_size=[0.1, 0.2], weight_decay=[0.0, 1e-4, 1e-3])
    curves = curves_over(read_results(folder), "weight_decay")
    assert [(curve.label, list(curve.lines)) for curve in curves] == [
        ("bp, step size 0.1", [None]),
        ("bp, step size 0.2", [None]),
        ("l2, step size 0.1", [0.0, 1e-4, 1e-3]),
        ("l2, step size 0.2", [0.0, 1e-4, 1e-3]),
    ]
    path = plot([folder], tmp_path / "a.png", over="weight_decay", statistic="iqm", format=("csv",))[1]
    assert [row[:2] for row in rows_of(path)[1:3]] == [["bp, step size 0.1", ""], ["bp, step size 0.2", ""]]


def test_words_are_places(tmp_path: Path) -> None:
    words = ["contribution", "weight", "random"]
    folder = made_up(tmp_path / "a", ["cbp"], 4, 2, utility=words)
    svg, table = plot([folder], tmp_path / "a.svg", over="utility", format=("csv",))
    assert all(f"<!-- {word} -->" in svg.read_text() for word in words)
    assert [row[1] for row in rows_of(table)[1:]] == words


def test_spread() -> None:
    assert geometric([0.01, 0.03, 0.1]) and geometric([1, 2, 4, 8]) and geometric([1e-4, 1e-3])
    assert not geometric([1, 2, 3]) and not geometric([5, 10, 15, 20]) and not geometric([0.1, 0.2])


def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_up(tmp_path / "a", ["bp"], 4, 2, step_size=[0.1, 0.2])
    for words, line in (
        ("a --over stepsize", "--over stepsize: no line has such a setting; did you mean step_size?"),
        ("a --over momentum", "--over momentum: every line has 0.9, and no other value"),
        ("a --over step-size --bin 2", "--over goes without --bin"),
        ("a --over step-size --published", "--over goes without --published"),
        ("a --part 0 1", "--part is an option of --over"),
        ("a --column dead_units", "--column is an option of --over"),
        ("a --over step-size --column dead", "--column: there is no column dead; there are accuracy, "),
        ("a --over step-size --part 1 0", "--part must be two numbers from 0 to 1, the first below, got 1 0"),
        (
            "a a --over step_size --out b.png",
            "--over step_size: bp, step size 0.1 (a) and bp, step size 0.1 ",
        ),
    ):
        assert main(["plot", *words.split()]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        assert said.err.startswith(f"klopf: {line}")
    assert main(["plot", "a", "--over", "step-size"]) == 0
    assert capsys.readouterr().out == "a/over_step_size.png\na/over_step_size.svg\n"
    with pytest.raises(kl.Error, match="nothing was measured"):
        plot([made_up(tmp_path / "b", ["bp"], 0, 2)], tmp_path / "b.png", over="step_size")
