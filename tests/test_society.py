"""The society of units: what is collected of a checkpoint, in numbers, and the picture of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import klopf as kl
from experiments import REPLACING, TINY, TINY_NETWORK, made_up
from klopf.cli import main
from klopf.experiments import online
from klopf.experiments.events import Replaced
from klopf.experiments.figure_network import HIGH, WIDE, columns_of
from klopf.experiments.plot import plot_society
from klopf.experiments.recall import Plan as Recall
from klopf.experiments.record import Record
from klopf.experiments.regression import Plan as Regression
from klopf.experiments.society import Layer, Society, lived, read_societies, strongest
from klopf.experiments.standing import learners_of

SHORT = ["--runs", "2", "--epochs", "3", "--batch-size", "5", "--quiet"]
COMMANDS: dict[str, list[str]] = {
    "imagenet": TINY,
    "permuted": [*SHORT, "--size", "8", "--images", "20", "--tasks", "3", "--hidden", "8", "7"],
    "incremental": [*TINY_NETWORK, *SHORT, "--classes-per-step", "2"],
    "regression": ["--runs", "2", "--examples", "4000", "--measure-every", "1000", "--quiet"],
    "recall": ["--runs", "2", "--tasks", "3", "--examples", "900", "--hidden", "5", "4", "--quiet"],
}
RECALL = ["recall", *COMMANDS["recall"], "--no-figure"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def magnitudes(net: kl.Network, run: int) -> list[np.ndarray]:
    """[from, to] of each layer, weight by weight: over taps, and over places behind a flattening."""
    state = net.state_dict()
    sizes = [group.size for group in net.units]
    names = [*(f"{group.layer}.weight" for group in net.units), f"{net.units[-1].next_layer}.weight"]
    channels = state[names[0]].shape[2]
    found = []
    for name, speakers in zip(names, [channels, *sizes], strict=True):
        weight = state[name][run]
        sums = np.zeros((speakers, len(weight)))
        for place, value in np.ndenumerate(weight):
            speaker = place[1] if weight.ndim == 4 else place[1] // (weight.shape[1] // speakers)
            sums[speaker, place[0]] += abs(float(value))
        found.append(sums)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_collected(name: str, folder: Path) -> None:
    command = [name, *COMMANDS[name], "--method", "bp", "cbp", "decentralised", "--events", "500", *REPLACING]
    assert main([*command, "--no-figure", "--out", "out"]) == 0
    found = read_societies("out", 1)
    assert list(found) == ["bp", "cbp", "decentralised"]
    events = pd.read_csv("out/events.csv").query("run == 1")
    for label, learner in learners_of("out", "units"):
        one, state, net = found[label], learner.state(), learner.net
        assert one.updates == state["step"][1] and one.alive and one.input_shape == net.input_shape
        assert one.events is not None and len(one.events.step) == (events["line"] == label).sum()
        for weights, expected in zip(one.weights, magnitudes(net, 1), strict=True):
            np.testing.assert_allclose(weights, expected, rtol=1e-5)
        for index, (layer, group) in enumerate(zip(one.layers, net.units, strict=True)):
            assert layer.place == group.layer and layer.size == group.size and layer.living.all()
            if label == "bp":
                assert (layer.age == one.updates).all() and layer.step_size is None
                assert one.utility_is == "sum of outgoing |weights|"
                np.testing.assert_allclose(layer.utility, one.weights[index + 1].sum(axis=1), rtol=1e-6)
            else:
                np.testing.assert_array_equal(layer.age, group.age[1])
                np.testing.assert_array_equal(layer.utility, group.utility[1])
                assert one.utility_is.startswith("utility (" if label == "cbp" else "reputation")
            if label == "decentralised":
                assert one.backbone_is == "as Recruitment has it"
                np.testing.assert_array_equal(layer.backbone, state[f"Recruitment.{index}.backbone"][1])
                sizes = learner.step_sizes()[f"{group.layer}.weight"][1]
                np.testing.assert_allclose(layer.step_size, [one.mean() for one in sizes], rtol=1e-5)
            else:
                assert one.backbone_is == "on its latest inputs, at tolerance 0.01"
    replaced = found["cbp"]
    for layer in replaced.layers:
        mine = events[(events["line"] == "cbp") & (events["layer"] == layer.place)]
        history = lived(replaced.events, layer.place)  # type: ignore[arg-type]
        assert len(history.births) == len(history.deaths) == len(mine) > 0
        assert sorted(history.ages) == sorted(mine["age"])
        last = mine.groupby("unit")["step"].max()
        assert (layer.age[last.index] == replaced.updates - 1 - last).all()


@pytest.mark.parametrize(("name", "kind"), [("recall", Recall), ("regression", Regression)])
def test_the_backbone_is_that_of_the_results(name: str, kind: type[online.Plan]) -> None:
    """Found again from the checkpoint: the share that was measured then."""
    assert main([name, *COMMANDS[name], "--method", "bp", "--no-figure", "--out", "out"]) == 0
    shares = pd.read_csv("out/results.csv").query("run == 1")["backbone_share"]
    masks = np.concatenate([layer.backbone for layer in read_societies("out", 1)["bp"].layers])
    assert masks.mean() == pytest.approx(shares.iloc[-1])


@pytest.mark.parametrize("name", ["imagenet", "permuted", "incremental"])
def test_the_backbone_on_images_is_that_of_the_results(name: str) -> None:
    assert main([name, *COMMANDS[name], "--method", "cbp", "--no-figure", "--out", "out"]) == 0
    shares = pd.read_csv("out/results.csv").query("run == 0")["backbone_share"]
    masks = np.concatenate([layer.backbone for layer in read_societies("out", 0)["cbp"].layers])
    assert masks.mean() == pytest.approx(shares.iloc[-1])


def test_the_picture_and_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*RECALL, "--method", "l2", "decentralised", "--events", "500", *REPLACING, "--out", "out"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["plot", "out", "--society", "1", "--format", "svg", "csv"]) == 0
    names = ["society.svg", "society-units.csv", "society-weights.csv"]
    assert capsys.readouterr().out.split() == [f"out/{name}" for name in names]
    picture = Path("out/society.svg").read_bytes()
    text = picture.decode()
    for words in ("run 1 at its last checkpoint", "step size", "age at death (units)", "layer 2", "fringe"):
        assert words in text
    for words in ("size: reputation; backbone as Recruitment has it", "births and deaths: none in run 1"):
        assert f"<!-- {words} -->" in text
    assert main(["plot", "out", "--society", "1"]) == 0
    assert Path("out/society.svg").read_bytes() == picture
    png = Path("out/society.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 50_000

    one = read_societies("out", 1)["decentralised"]
    units = pd.read_csv("out/society-units.csv").query("line == 'decentralised'")
    for layer in one.layers:
        mine = units[units["layer"] == layer.place]
        assert list(mine["unit"]) == list(range(layer.size))
        for column in ("living", "backbone", "utility", "age", "step_size"):
            np.testing.assert_array_equal(mine[column], getattr(layer, column))
    drawn = pd.read_csv("out/society-weights.csv").query("line == 'decentralised' and layer == '2'")
    assert set(drawn["next_layer"]) == {"output"} and len(drawn) == 4  # to the only output, all of them
    np.testing.assert_array_equal(drawn["weight"], one.weights[-1][:, 0])


def test_without_a_log() -> None:
    assert main([*RECALL, "--method", "cbp", *REPLACING, "--out", "out"]) == 0
    assert read_societies("out", 0)["cbp"].events is None
    _, svg = plot_society("out", "out/x.png")
    assert "births and deaths: no log in the folder" in svg.read_text()


def test_a_run_that_is_no_longer_finite() -> None:
    command = [*RECALL, "--method", "bp", "--step-size", "1e4", "--out", "out"]
    assert main(command) == 0
    one = next(iter(read_societies("out", 0).values()))
    assert not one.alive
    _, svg = plot_society("out", "out/x.png")
    assert "<!-- run 0 is no longer finite -->" in svg.read_text()


def test_vacant_places() -> None:
    """Of places where nobody lives there is nothing but the place."""
    living = ["--method", "decentralised", *REPLACING, "--living", "0.4"]
    assert main([*RECALL, *living, "--out", "out"]) == 0
    one = read_societies("out", 0)["decentralised"]
    for index, layer in enumerate(one.layers):
        vacant = np.arange(layer.size) >= 2
        assert (layer.living == ~vacant).all() and not layer.backbone[vacant].any()
        assert not layer.utility[vacant].any() and not layer.age[vacant].any()
        assert not one.weights[index][:, vacant].any() and not one.weights[index + 1][vacant].any()
        assert one.weights[index][:, ~vacant].any()
    _, svg, *_ = plot_society("out", "out/x.png", format=("csv", "svg"))
    text = svg.read_text()
    for words in ("vacant", "2 units"):
        assert f"<!-- {words} -->" in text
    units = pd.read_csv("out/x-units.csv")
    assert list(units["living"]) == [1, 1, 0, 0, 0, 1, 1, 0, 0]


def test_the_task_that_a_line_has_begun_last() -> None:
    for place, begun in (
        ({}, [0, 0, 0]),
        ({"line": 1, "done": 2}, [0, 0, 0]),
        ({"task": 4}, [3, 3, 3]),
        ({"task": 4, "line": 1}, [4, 3, 3]),
        ({"task": 4, "line": 1, "done": 2}, [4, 4, 3]),
    ):
        assert [Record(**place).latest(line) for line in range(3)] == begun


def test_births_and_deaths() -> None:
    """A row of age 0 is of a unit that was added where nobody lived."""
    rows = [(0, 3, 10, 10), (0, 1, 5, 0), (2, 0, 6, 4), (0, 1, 20, 14)]  # layer, unit, step, age
    layer, unit, step, age = np.array(rows).T
    events = Replaced(np.zeros(4, int), layer, unit, step, age, np.zeros(4), np.full(4, "x"))
    births, deaths, ages = lived(events, 0)
    assert list(births) == [5, 10, 20] and list(deaths) == [10, 20] and sorted(ages) == [10, 14]


def test_the_strongest_lines() -> None:
    """Against a loop over units."""
    weights = np.random.default_rng(0).random((7, 5))
    weights[3] = 0
    weights[0, :2] = weights[1, 0]
    for each in (1, 2, 6):
        expected = np.zeros((7, 5), bool)
        for i in range(7):
            expected[i, np.argsort(-weights[i], kind="stable")[:each]] = True
        for j in range(5):
            expected[np.argsort(-weights[:, j], kind="stable")[:each], j] = True
        np.testing.assert_array_equal(strongest(weights, each), expected & (weights > 0))


@pytest.mark.parametrize(
    "sizes", [[1], [5], [48], [20, 20], [32, 64, 128, 128, 128], [2000, 2000, 2000], [6] * 20]
)
def test_every_unit_has_a_place_of_its_own(sizes: list[int]) -> None:
    generator = np.random.default_rng(1)
    ones = [np.ones(size, bool) for size in sizes]
    layers = [
        Layer(place, mask, mask, generator.random(len(mask)), mask * 1.0, None)
        for place, mask in enumerate(ones)
    ]
    ends = [40, *sizes, 3]
    weights = [generator.random(shape) for shape in itertools.pairwise(ends)]
    one = Society(layers, weights, (40,), "", "", 10, True, None)
    assert [part.shape for part in one.shown] == [(1, sizes[0]), *(part.shape for part in weights[1:])]
    columns, pitch = columns_of(one)
    assert [len(column.x) for column in columns] == [1, *sizes, 3]
    assert columns[0].bar > 0 and columns[0].said == "40\ninputs" and columns[-1].said == "3\noutputs"
    for column, layer in zip(columns[1:-1], layers, strict=True):
        assert (column.y > 0).all() and (column.y < HIGH).all()
        places = np.column_stack([column.x, column.y])
        near = np.sort(places[:, 0])[[0, -1]]
        assert near[0] > 0 and near[1] < WIDE
        assert len(np.unique((places / pitch * 4).round(), axis=0)) == layer.size
        middle = abs(column.y - HIGH / 2)
        assert middle[layer.utility.argmax()] <= pitch and middle[layer.utility.argmin()] == middle.max()
    for left, right in itertools.pairwise(columns):
        assert left.x.max() < right.x.min()


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recall", "--runs", "2", "--tasks", "1", "--examples", "900", "--quiet", "--no-figure"]
    assert main([*words, "--method", "linear", "--out", "linear"]) == 0
    assert main([*RECALL, "--method", "bp", "--out", "out"]) == 0
    made_up(Path("other"), ["bp"], 3, 2)
    capsys.readouterr()

    def said(*words: Any) -> str:
        assert main(["plot", *words]) == 1
        return capsys.readouterr().err

    message = "klopf: no line of linear has hidden units that have learned\n"
    assert said("linear", "--society", "0") == message
    message = "klopf: --society must be below 2, the number of runs, got 2\n"
    assert said("out", "--society", "2") == message
    assert said("out", "linear", "--society", "0") == "klopf: --society is of one folder, got 2\n"
    message = "klopf: --society goes with --out and --format alone, got --bin\n"
    assert said("out", "--society", "0", "--bin", "2") == message
    assert said("other", "--society", "0").startswith(
        "klopf: units are those of imagenet, permuted, incremental"
    )
    Path("out/checkpoint.safetensors").unlink()
    assert said("out", "--society", "0").startswith("klopf: [checkpoint] cannot read out/")
