"""The demo: the same experiment with a preset, ending with a table and the figure's path."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import made_up
from klopf.cli import main
from klopf.experiments import demo
from klopf.experiments.results import read_results

SMALLER = {
    "size": 8,
    "classes": 6,
    "tasks": 10,
    "epochs": 1,
    "train_images": 10,
    "test_images": 6,
    "channels": [4],
    "kernels": [3],
    "hidden": [6],
    "probe_images": 20,
}


def test_the_demo_ends_with_a_table_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "PRESET", demo.PRESET | SMALLER)
    assert main(["demo", "--out", "out", "--runs", "3", "--seed", "7", "--threads", "1", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["accuracy", "(%)", "tasks"]
    names = [line.split()[0] for line in lines[1:6]]
    assert names == ["bp", "l2", "snp", "cbp", "scratch"]
    assert lines[-2].startswith("mean of 3 runs")
    assert lines[-1] == "figure: out/figure.png"
    settings = json.loads(Path("out/settings.json").read_text())
    assert settings["seeds"] == [7, 8, 9]
    assert settings["command"].startswith("klopf demo --out out")
    capsys.readouterr()
    assert main(["demo", "--resume", "out"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_the_table_compares_run_by_run(tmp_path: Path) -> None:
    def change(values: np.ndarray) -> None:
        accuracy = values[..., 0]
        accuracy[:] = np.array([0.5, 0.6, 0.7])  # what the runs have in common
        accuracy[:, 1] += 0.1
        accuracy[90:, 0] -= 0.2

    folder = made_up(tmp_path / "a", ["bp", "scratch"], 100, 3, change=change)
    lines = demo.table(read_results(folder)).splitlines()
    assert [re.split(r"  +", line) for line in lines[:3]] == [
        ["accuracy (%)", "tasks 11-20", "tasks 91-100", "change", "late, against scratch"],
        ["bp", "60.0", "40.0", "-20.0 [-20.0, -20.0]", "-30.0 [-30.0, -30.0]"],
        ["scratch", "70.0", "70.0", "+0.0 [+0.0, +0.0]"],
    ]
