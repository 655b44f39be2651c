"""Events and metrics of one's own in experiments: the files, their columns, what is drawn of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import REPLACING, TINY, TINY_NETWORK, contents, killed_and_resumed
from klopf.cli import main
from klopf.experiments import imagenet, session
from klopf.experiments.events import Replaced, read_events
from klopf.experiments.figure_units import Population, ages, lifetimes, read_population

SHORT = ["--runs", "2", "--epochs", "3", "--batch-size", "5", "--quiet"]
COMMANDS: dict[str, list[str]] = {
    "imagenet": TINY,
    "permuted": [*SHORT, "--size", "8", "--images", "20", "--tasks", "3", "--hidden", "8", "7"],
    "incremental": [*TINY_NETWORK, *SHORT, "--classes-per-step", "2"],
    "regression": ["--runs", "2", "--examples", "4000", "--measure-every", "1000", "--quiet"],
    "recall": ["--runs", "2", "--tasks", "3", "--examples", "900", "--hidden", "5", "--quiet"],
}
OWN = """
import numpy as np

def bias(learner, inputs, **pixels):
    return next(iter(learner.net.state_dict().values())).reshape(learner.net.runs, -1).sum(axis=1)

def shown(learner, inputs, **pixels):
    return np.full(learner.net.runs, learner.net(inputs, **pixels).shape[1])

wrong = 3

def words(learner, inputs, **pixels):
    return "many"

def one(learner, inputs, **pixels):
    return 1.0

def broken(learner, inputs, **pixels):
    return 1 / 0

def nothing(learner, inputs, **pixels):
    pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_replacement_is_a_row(name: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, once each, whenever was looked; the ages are the steps between them."""
    command = [name, *COMMANDS[name], "--method", "bp", "cbp", "--events", "500", *REPLACING, "--no-figure"]
    command += ["--metric", "own.py:bias", "own.py:shown"]
    assert main([*command, "--out", "out"]) == 0
    monkeypatch.setattr(session, "SLICE_SECONDS", 0.0)
    assert main([*command, "--out", "again"]) == 0
    assert contents(Path("out")) | {"settings.json": b""} == contents(Path("again")) | {"settings.json": b""}

    results, events = pd.read_csv("out/results.csv"), pd.read_csv("out/events.csv")
    about = list(results.columns[: results.columns.get_loc("seed") + 2])
    assert list(events.columns) == [*about, "layer", "unit", "step", "age", "utility", "cause"]
    assert set(events["line"]) == {"cbp"} and set(events["cause"]) == {"ContinualBackprop"}
    assert set(events["run"]) == {0, 1} and len(events) > 5
    assert (events["run"] == events["seed"]).all() and (events["utility"] >= 0).all()
    counter = about[-1]
    assert set(events[counter]) <= set(results[counter]) and events[counter].is_monotonic_increasing
    for _, one in events.groupby(["run", "layer", "unit"]):
        births = np.array([0, *one["step"] + 1])
        assert (np.diff(births) == one["age"]).all() and (one["age"] > 2).all()
    measured = results.columns[-3:]
    assert list(measured[:2]) == ["bias", "shown"]
    assert results["bias"].nunique() > 4 and (results["shown"] >= 10).all()

    units = read_population("out")["cbp"]
    last = pd.read_csv("out/events.csv")["step"].max()
    assert units.runs == 2 and units.updates > last and len(units.replaced.step) == len(events)
    assert main(["plot", "out", "--units", "1", "--interval", "bootstrap"]) == 0
    picture = Path("out/units.svg").read_bytes()
    assert main(["plot", "out", "--units", "1", "--interval", "bootstrap"]) == 0
    assert Path("out/units.svg").read_bytes() == picture
    assert main(["plot", "out", "--format", "csv"]) == 0
    assert Path("out/figure-bias.csv").exists()


def test_killed_and_resumed(own: Path) -> None:
    words = ["imagenet", *TINY, "--tasks", "8", "--epochs", "8", "--method", "cbp", "redo", *REPLACING]
    words += ["--period", "3", "--threshold", "0.5", "--events", "500", "--metric", "own.py:bias"]
    killed_and_resumed([*words, "--out", "out", "--no-figure", "--checkpoint-every", "0.01"], own)


def test_ages_and_lifetimes() -> None:
    """Against a loop over units; where none lives at first one may be added, with an event of age 0."""
    generator = np.random.default_rng(3)
    layers, runs, updates = {0: 4, 2: 5}, 2, 60
    rows: list[list[Any]] = []
    places = [(layer, unit) for layer, size in layers.items() for unit in range(size)]
    age = {(run, *place): np.nan if place[1] > 1 else 0.0 for run in range(runs) for place in places}
    history = []
    for step in range(updates):
        history.append(dict(age))
        for key in age:
            age[key] += 1
            if generator.random() < 0.05:
                rows.append([*key, step, int(np.nan_to_num(age[key]))])
                age[key] = 0
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    replaced = Replaced(*columns, np.zeros(len(rows)), np.full(len(rows), "x"))
    living = {
        layer: np.array([[age[run, layer, unit] >= 0 for unit in range(size)] for run in range(runs)])
        for layer, size in layers.items()
    }
    assert sum((~lives).sum() for lives in living.values()) > 0
    units = Population(replaced, living, updates)
    times = np.arange(updates, dtype=np.float64)
    for run in range(runs):
        expected = [[then[key] for then in history] for key in age if key[0] == run]
        np.testing.assert_array_equal(ages(units, run, times), expected)
    for layer in layers:
        died, lives_on = lifetimes(units, layer)
        assert sorted(died) == sorted(row[4] for row in rows if row[1] == layer and row[4] > 0)
        alive = [value for key, value in age.items() if key[1] == layer and value >= 0]
        assert sorted(lives_on) == sorted(alive)


def test_what_is_said_of_mistakes(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["imagenet", *TINY, "--no-figure", "--method"]
    replacing = ["cbp", *REPLACING]
    Path("bad.py").write_text("1 +")
    for given, message in (
        ([*replacing, "--metric", "own.py"], "--metric: expected FILE:FUNCTION, got 'own.py'"),
        (
            [*replacing, "--metric", "none.py:bias"],
            "--metric: cannot read none.py: No such file or directory",
        ),
        ([*replacing, "--metric", "own.py:missing"], "--metric: own.py has no function missing"),
        ([*replacing, "--metric", "own.py:nothing"], "--metric: nothing must give numbers, got NoneType"),
        (
            [*replacing, "--metric", "own.py:broken"],
            "--metric: broken failed in line 19 of own.py: ZeroDivisionError: division by zero",
        ),
        ([*replacing, "--metric", "bad.py:f"], "--metric: bad.py failed"),
        ([*replacing, "--metric", "own.py:wrong"], "--metric: own.py has no function wrong"),
        ([*replacing, "--metric", "own.py:bias", "own.py:bias"], "--metric: there is a column bias already"),
        ([*replacing, "--metric", "own.py:accuracy"], "--metric: there is a column accuracy already"),
        ([*replacing, "--metric", "own.py:words"], "--metric: words must give numbers, got str"),
        ([*replacing, "--metric", "own.py:one"], "--metric: one must have shape [2], got []"),
        ([*replacing, "--events", "1", "--epochs", "20"], "--events 1 is too few: run"),
        (["snp", "--events", "9"], "--events: none of the methods replaces units"),
    ):
        assert main([*command, *given, "--out", "out"]) == 1
        assert capsys.readouterr().err.startswith(f"klopf: {message}")
        assert not Path("out/settings.json").exists() or "--events" in given
        shutil.rmtree("out", ignore_errors=True)


def test_a_folder_that_is_not_what_it_was(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["imagenet", *TINY, "--no-figure", "--method", "cbp", *REPLACING]
    assert main([*command, "--out", "without"]) == 0
    assert main([*command, "--out", "out", "--events", "100", "--overwrite"]) == 0
    events = Path("out/events.csv")
    text = events.read_text()
    capsys.readouterr()

    def said(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    assert said("plot", "without", "--units", "0").startswith("klopf: without has no events: cannot read")
    assert (
        said("plot", "out", "--units", "2") == "klopf: --units must be below 2, the number of runs, got 2\n"
    )
    assert said("plot", "out", "without", "--units", "0") == "klopf: --units is of one folder, got 2\n"
    message = "klopf: --units goes with --out, --format, --statistic and --interval alone, got --bin\n"
    assert said("plot", "out", "--units", "0", "--bin", "2") == message
    assert "the numbers are in the folder's events.csv" in said(
        "plot", "out", "--units", "0", "--format", "csv"
    )
    events.write_text(text.replace("layer", "place", 1))
    assert said("plot", "out", "--units", "0").startswith("klopf: expected the columns layer, unit, step")
    events.write_text(text.replace("ContinualBackprop\n", "ContinualBackprop\ncbp,cbp,x\n", 1))
    assert said("plot", "out", "--units", "0").startswith("klopf: expected numbers in out/events.csv")
    events.write_text(text.splitlines()[0] + "\n")
    assert said("plot", "out", "--units", "0") == "klopf: no line of out has replaced a unit\n"
    assert f"has {len(text.splitlines()[0]) + 1} bytes, where the checkpoint" in said(
        "imagenet", "--resume", "out"
    )
    events.write_text(text + "cut sho")
    assert set(read_events("out")) == {"cbp"}
    assert main(["imagenet", "--resume", "out"]) == 0
    assert events.read_text() == text


def test_more_events_than_are_kept(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lost: the experiment goes on with a larger number."""
    command = ["imagenet", *TINY, "--no-figure", "--method", "bp", "cbp", *REPLACING]
    assert main([*command, "--events", "500", "--out", "whole"]) == 0
    assert main([*command, "--events", "1", "--out", "out"]) == 1
    assert "give a larger number, with --resume where there is a checkpoint" in capsys.readouterr().err
    assert main(["imagenet", "--resume", "out", "--events", "0"]) == 1
    assert capsys.readouterr().err == "klopf: --events: out was begun with it\n"
    assert main(["imagenet", "--resume", "out", "--events", "400"]) == 0
    for name in ("results.csv", "events.csv"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert main([*command, "--out", "without"]) == 0
    capsys.readouterr()
    assert main(["imagenet", "--resume", "without", "--events", "9"]) == 1
    assert capsys.readouterr().err == "klopf: --events: without was begun without it\n"


def test_another_file_of_metrics_is_noticed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["imagenet", *TINY, "--no-figure", "--metric", "own.py:bias", "--out", "out"]) == 0
    (own / "own.py").write_text(OWN + "\n")
    capsys.readouterr()
    assert main(["imagenet", "--resume", "out"]) == 1
    assert capsys.readouterr().err == "klopf: --metric: own.py is not what it was when out was begun\n"


def test_names_of_methods_that_replace() -> None:
    """Lines without such a rule keep nothing in mind."""
    plan = imagenet.plan({"method": ["bp", "snp", "cbp", "redo"], "events": 7, "tasks": 1, "runs": 1}, [])
    assert [part._capacity for part in plan.experiment().parts] == [0, 0, 7, 7]
