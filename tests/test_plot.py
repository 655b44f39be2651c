"""The figure: any number of lines and tasks, the same bytes every time, and the published curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klopf as kl
from experiments import made_up
from klopf.experiments import figure_ant, walk
from klopf.experiments.agents import AGENTS, KINDS
from klopf.experiments.drawing import looks_of
from klopf.experiments.imagenet import MEASURED
from klopf.experiments.methods import METHODS
from klopf.experiments.plot import plot
from klopf.experiments.published import curves, published_curve
from klopf.experiments.results import Folder, Table, read_results


def drawn(folder: Path, **options: Any) -> str:
    """Draw a folder and return the SVG's text, once both files look like what they are."""
    png, svg = plot([folder], folder / "figure.png", **options)
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.startswith("<?xml")
    return text


@pytest.mark.parametrize(
    ("tasks", "runs", "every"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (10, 2, 3), (11, 2, 5)]
)
@pytest.mark.parametrize("interval", ["se", "bootstrap"])
def test_short_streams(tmp_path: Path, tasks: int, runs: int, every: int, interval: str) -> None:
    drawn(made_up(tmp_path / "a", ["linear", "bp"], tasks, runs, every=every), interval=interval)


def test_all_methods_over_a_long_stream(tmp_path: Path) -> None:
    text = drawn(made_up(tmp_path / "a", list(METHODS), 1200, 3, every=10), published=True)
    assert "mean of 3 runs, shaded: one standard error; beyond the first 10 tasks in bins of 50" in text
    for word in (*METHODS, "published (30 runs)", "all 1,200 tasks", "dormant units (%)"):
        assert f"<!-- {word} -->" in text


def test_more_lines_than_colours(tmp_path: Path) -> None:
    sizes = [0.1 / 2**n for n in range(12)]
    text = drawn(made_up(tmp_path / "a", ["bp"], 30, 2, step_size=sizes), bin=7)
    assert "bp, step size 0.1 -->" in text
    assert "in bins of 7" in text


def test_only_the_linear_baseline(tmp_path: Path) -> None:
    text = drawn(made_up(tmp_path / "a", ["linear"], 20, 2))
    assert "dormant" not in text


def test_diverged_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    def diverge(values: np.ndarray) -> None:
        values[7:, 0, 1, :-1] = np.nan
        values[7:, 0, 1, -1] = 1

    assert "bp (1 diverged)" in drawn(made_up(tmp_path / "a", ["bp", "cbp"], 30, 3, change=diverge))


def test_several_folders_together(tmp_path: Path) -> None:
    first, second = made_up(tmp_path / "a", ["bp"], 12, 2), made_up(tmp_path / "b", ["bp", "cbp"], 20, 5)
    _, svg = plot([first, second], tmp_path / "both.svg")
    text = svg.read_text()
    assert "mean of 2 to 5 runs" in text
    assert "bp (a)" in text
    assert "bp (b)" in text


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "a", ["bp", "cbp"], 40, 3)
    first = [path.read_bytes() for path in plot([folder], tmp_path / "x.png", interval="bootstrap")]
    again = [path.read_bytes() for path in plot([folder], tmp_path / "y.png", interval="bootstrap")]
    assert first == again


def test_pdf_and_numbers(tmp_path: Path) -> None:
    """Letters stay letters; a CSV file for each panel has what is drawn; equal results give equal bytes."""
    folder = made_up(tmp_path / "a", ["linear", "bp"], 40, 3, every=2)
    options: dict[str, Any] = {"interval": "bootstrap", "format": ("pdf", "csv"), "bin": 4}
    paths = plot([folder], tmp_path / "x.pdf", **options)
    panels = (
        "first_tasks",
        "accuracy",
        "dormant_rate",
        "backbone_share",
        "effective_rank",
        "weight_magnitude",
    )
    assert [path.name for path in paths] == ["x.pdf", *(f"x-{panel}.csv" for panel in panels)]
    assert b"/CIDFontType2" in paths[0].read_bytes() and b"/FontFile2" in paths[0].read_bytes()
    assert b"/Type3" not in paths[0].read_bytes() and b"/CreationDate" not in paths[0].read_bytes()
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plot([folder], tmp_path / "x.pdf", **options)] == first
    linear, bp = read_results(folder)
    header, level, *rows = (line.split(",") for line in paths[2].read_text().splitlines())
    assert header == ["line", "x", "mean", "low", "high", "runs"]
    assert level[:2] == ["linear", ""]
    assert float(level[2]) == pytest.approx(100 * linear.values["accuracy"].mean())
    assert [row[:2] for row in rows] == [["bp", repr(4.0 * k + 2.5)] for k in range(10)]
    expected = 100 * bp.values["accuracy"].reshape(3, 10, 4).mean(axis=2)
    assert [float(row[2]) for row in rows] == pytest.approx(expected.mean(axis=0))
    assert all(float(row[3]) <= float(row[2]) <= float(row[4]) and row[5] == "3" for row in rows)
    with pytest.raises(kl.Error, match=r"^cannot write .*nowhere/x\.pdf: No such file"):
        plot([folder], tmp_path / "nowhere" / "x.pdf", **options)


def test_interquartile_means(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "a", ["bp"], 5, 6)
    assert "interquartile mean of 6 runs, shaded: 95% bootstrap interval" in drawn(
        folder, statistic="iqm", interval="bootstrap"
    )
    path = plot([folder], tmp_path / "x.png", statistic="iqm", format=("csv",))[1]
    rows = [line.split(",") for line in path.read_text().splitlines()]
    values = np.sort(100 * read_results(folder)[0].values["accuracy"], axis=0)
    assert rows[0][2] == "iqm"
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(values[1:5].mean(axis=0))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    kept: list[np.ndarray] = []
    folder = made_up(tmp_path / "a", ["bp", "l2"], 4, 3, every=2, change=kept.append, step_size=[0.1, 0.2])
    found = read_results(folder)
    assert [line.label for line in found] == [f"{m}, step size {s}" for m in ("bp", "l2") for s in (0.1, 0.2)]
    for index, line in enumerate(found):
        for column, name in enumerate(MEASURED):
            assert np.array_equal(line.values[name], kept[0][:, index, :, column].T, equal_nan=True)


def test_results_that_were_cut_short(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "a", ["bp", "l2"], 4, 3)
    path = folder / "results.csv"
    path.write_bytes(path.read_bytes()[:-20])
    bp, l2 = read_results(folder)
    assert (bp.values["accuracy"].shape, l2.values["accuracy"].shape) == ((3, 4), (3, 3))
    drawn(folder)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(kl.Error, match=r"is no results folder: cannot read .*: No such file"):
        plot([tmp_path], tmp_path / "figure.png")
    folder = made_up(tmp_path / "a", ["bp"], 2, 2)
    with pytest.raises(kl.Error, match=r"figure's name to end in \.png, \.svg or \.pdf, got figure\.gif"):
        plot([folder], "figure.gif")
    with pytest.raises(kl.Error, match=r"^cannot write .*: No such file"):
        plot([folder], tmp_path / "nowhere" / "figure.png")
    (folder / "results.csv").write_text("line,method\n")
    with pytest.raises(kl.Error, match="expected the columns accuracy"):
        plot([folder], tmp_path / "figure.png")
    (folder / "settings.json").write_text("{")
    with pytest.raises(kl.Error, match="expected JSON in"):
        plot([folder], tmp_path / "figure.png")
    with pytest.raises(kl.Error, match="nothing was measured"):
        plot([made_up(tmp_path / "b", ["bp"], 0, 2)], tmp_path / "figure.png")


def test_published_curves() -> None:
    assert curves()["source"]
    assert published_curve("bp", {"step_size": 0.01}, first_tasks=True)[1] == 89.4
    assert published_curve("bp", {"step_size": 0.01})[1950] == 74.0
    assert published_curve("bp", {"step_size": 0.001})[5] == 88.4
    assert published_curve("bp", {"step_size": 0.5}) == {}
    assert published_curve("cbp", {})[4900] == 90.4
    assert published_curve("scratch", {}) == {}
    assert published_curve("linear", {}) == {1: 77.1}


def walked(path: Path, methods: list[str], rows: int, runs: int, env: str = "Ant") -> Path:
    """A results folder of agents with invented numbers."""
    described = [line.describe() for line in AGENTS.lines(methods, "authors", {})]
    values = np.random.default_rng(0).uniform(
        0.1, 0.9, size=(rows, len(methods), runs, len(walk.PpoWalk.measured))
    )
    values[..., -1] = 0
    table, folder, seeds = (
        Table(walk.PpoWalk.measured, "step", 20_480, rows * 20_480 - 7),
        Folder(path),
        list(range(runs)),
    )
    settings = {"env": env}
    folder.create({"settings": settings, "lines": described, "seeds": seeds, "table": table.describe()})
    folder.begin_results(table, described, seeds, list(values.reshape(-1, runs, len(walk.PpoWalk.measured))))
    folder.close()
    return path


def test_agents(tmp_path: Path) -> None:
    folder = walked(tmp_path / "a", list(KINDS), 300, 3)
    text = drawn(folder, published=True)
    for word in (
        *KINDS,
        "million steps",
        "means over 3 measurements",
        "Return on Ant, as agents",
        "published (30 runs, an earlier Ant)",
    ):
        assert word in text, word
    found = read_results(folder)[0]
    assert found.at[:2].tolist() == [20_480, 40_960]
    assert found.at[-1] == 300 * 20_480 - 7
    hopper = walked(tmp_path / "h", ["ppo"], 300, 3, "Hopper")
    assert "Return on Hopper" in drawn(hopper)
    with pytest.raises(kl.Error, match="the curves are of Ant, and begin at 3 million steps"):
        drawn(hopper, published=True)
    images = made_up(tmp_path / "b", ["bp"], 3, 2)
    with pytest.raises(kl.Error, match="expected folders of one kind of experiment, got "):
        plot([folder, images], tmp_path / "x.png")


def test_returns_of_runs_whose_episodes_are_long(tmp_path: Path) -> None:
    """The latest one counts until there is another; not after a failure."""
    folder = walked(tmp_path / "a", ["ppo"], 4, 2)
    (line,) = read_results(folder)
    line.values["return"][:] = [[1, np.nan, 2, np.nan], [np.nan, 5, np.nan, np.nan]]
    line.values["failed"][1, 3] = 1
    (look,) = looks_of([line])
    expected = [[1, 1, 2, 2], [np.nan, 5, 5, np.nan]]
    np.testing.assert_array_equal(figure_ant._latest_returns(look), expected)
