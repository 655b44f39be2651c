"""`klopf track`, `regression` and `recall`: streams, experiments by every method, stopping, going on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import klopf as kl
from experiments import killed_and_resumed
from klopf.cli import main
from klopf.experiments import decentralised, recall, regression, track
from klopf.experiments.figure_steps import read_step_sizes
from klopf.experiments.results import read_results

COMMANDS = {
    "track": (track, ["--examples", "1300", "--measure-every", "500"]),
    "regression": (
        regression,
        [*("--examples", "1300", "--measure-every", "500", "--flip-every", "300", "--hidden", "4", "3")],
    ),
    "recall": (recall, ["--tasks", "3", "--examples", "400", "--hidden", "4", "3"]),
}
ROWS = {
    "track": ("example", [500, 1000, 1300]),
    "regression": ("example", [500, 1000, 1300]),
    "recall": ("task", [1, 2, 3]),
}
LONG = {name: ["--examples", "200e3"] for name in ("track", "regression")} | {
    "recall": ["--tasks", "60", "--examples", "3000"]
}
OPTIMIZERS = {
    "bp": kl.SGD,
    "adam": kl.Adam,
    "adamw": kl.AdamW,
    "upgd": kl.UPGD,
    "idbd": kl.IDBD,
    "autostep": kl.Autostep,
    "obgd": kl.ObGD,
    "adaptive-obgd": kl.AdaptiveObGD,
    "meta-optimize": kl.MetaOptimize,
}
RULES = {
    "cbp": kl.ContinualBackprop,
    "recruitment": kl.Recruitment,
    "noise": kl.ShrinkAndPerturb,
    "redo": kl.ReDo,
    "snr": kl.SNR,
}
NAMED = ("linear", "l2", "l2-init", "layernorm", "layernorm+l2", "dropout", "snp")  # of regression
REPLACING = ["--replacement-rate", "0.01", "--maturity", "10", "--period", "20", "--silence", "10"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (experiment, words), (counter, rows) = COMMANDS[name], ROWS[name]
    methods = list(experiment.Plan.methods.kinds)
    words = [name, "--method", *methods, *words, "--runs", "2", "--quiet", "--out", "out"]
    assert main(words + (REPLACING if name != "track" else [])) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1 : 1 + len(methods)]] == methods
    assert said[-1] == "results and figure in out"
    found = pd.read_csv("out/results.csv")
    measured = list(experiment.Plan.measured)
    assert list(found.columns) == ["line", "method", "run", "seed", counter, *measured]
    assert sorted(found[counter].unique()) == rows
    assert len(found) == 3 * 2 * len(methods)
    assert found["error"].notna().all() and (found["diverged"] == 0).all()
    last = found[(found[counter] == rows[-1]) & (found["run"] == 0)]
    same = {"decentralised", "autostep+recruitment"} if name == "recall" else {"decentralised"}
    assert last["error"].nunique() >= len(methods) - len(same) + 1
    settings = json.loads(Path("out/settings.json").read_text())
    assert settings["experiment"] == name
    assert [line.label for line in read_results("out")] == methods


def test_runs_that_give_out_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables name them; the picture of step sizes leaves them blank."""
    words = ["track", "--method", "idbd", "lms", "--meta-step-size", "1", "--examples", "300"]
    assert main([*words, "--measure-every", "100", "--runs", "3", "--quiet", "--out", "a"]) == 0
    assert "; idbd lost runs 0 1 2\n" in capsys.readouterr().out
    (line, other) = read_results("a")
    assert (line.lost, other.lost) == ([0, 1, 2], [])
    assert np.isnan(read_step_sizes("a")["idbd"]["0"]).all()
    assert main(["plot", "a", "--step-sizes", "0"]) == 1
    assert capsys.readouterr().err == "klopf: all step sizes are zero or not finite\n"


def test_methods_are_optimizers_and_rules() -> None:
    combined = {
        name: kind for name, kind in regression.KINDS.items() if name not in (*NAMED, "decentralised")
    }
    assert len(combined) == len(OPTIMIZERS) * (1 + len(RULES))
    for name, kind in combined.items():
        made: Any = kind()
        assert made.name == name
        words = name.split("+")
        optimizer = next((OPTIMIZERS[word] for word in words if word in OPTIMIZERS), kl.SGD)
        assert type(made.optimizer()) is optimizer
        assert [type(one) for one in made.rules()] == [RULES[word] for word in words if word in RULES]


@pytest.mark.parametrize("goal", decentralised.GOALS)
def test_decentralised(goal: str) -> None:
    """Autostep with a step size a unit, recruitment, and a goal."""
    given = {} if goal == "none" else {"goal": goal, "goal_step_size": 0.02}
    made: Any = regression.METHODS.resolve("decentralised", "authors", given)
    optimizer, (replacing, *goals) = made.optimizer(), made.rules()
    assert isinstance(optimizer, kl.Autostep) and isinstance(replacing, kl.Recruitment)
    limits = (optimizer.scope, optimizer.minimum_step_size, optimizer.output_step_size)
    assert limits == (
        "unit",
        0.001,
        0.005,
    )
    wanted = [] if goal == "none" else [(goal, 0.02, "fringe" if goal == "listened" else "all")]
    assert [(one.goal, one.step_size, one.units) for one in goals] == wanted
    net = kl.Network(made.layers((5, 4)), (3,))
    kl.Learner(net, loss="mse", optimizer=optimizer, rules=[replacing, *goals])


def test_decentralised_by_perturbation() -> None:
    given = {"goal": "listened", "listened_by": "perturbation", "listened_noise": 0.5}
    made: Any = regression.METHODS.resolve("decentralised", "authors", given)
    goal = made.rules()[1]
    assert (goal.by, goal.noise, goal.units, goal.hold) == ("perturbation", 0.5, "fringe", None)
    plain: Any = regression.METHODS.resolve("decentralised", "authors", {"goal": "listened"})
    assert plain.rules()[1].by is None


@pytest.mark.parametrize("name", NAMED)
def test_methods_by_other_names(name: str) -> None:
    """Are backprop with other settings."""
    made = regression.METHODS.resolve(name, "authors", {})
    assert made.name == name
    s = {"normalisation": "none", "dropout": 0.0, **asdict(made)}
    optimizer: Any = made.optimizer()
    assert isinstance(optimizer, kl.SGD) and optimizer.step_size == s["step_size"] == 0.01
    assert (s["weight_decay"] > 0) == (name in ("l2", "l2-init", "layernorm+l2", "snp"))
    assert (s["decay_to"] == "initial") == (name == "l2-init")
    assert (s["normalisation"] == "layernorm") == name.startswith("layernorm")
    assert (s["dropout"] > 0) == (name == "dropout")
    assert [type(rule) for rule in made.rules()] == ([kl.ShrinkAndPerturb] if name == "snp" else [])
    if isinstance(made, regression.Deep):
        kinds = [type(layer).__name__ for layer in made.layers((5, 4))]
        block = ["Linear", "LayerNorm", "ReLU", "Dropout"]
        left = {"LayerNorm"} if s["normalisation"] == "none" else set()
        left |= {"Dropout"} if s["dropout"] == 0 else set()
        assert kinds == [kind for kind in block if kind not in left] * 2 + ["Linear"]


def test_picture_of_step_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runs", "3", "--examples", "2000", "--measure-every", "1000", "--quiet", "--no-figure"]
    assert main(["track", "--method", "lms", "idbd", "autostep", *words, "--out", "a"]) == 0
    sizes = read_step_sizes("a")
    assert list(sizes) == ["idbd", "autostep"]
    told = pd.read_csv("a/results.csv").query("method == 'idbd' and example == 2000")["step_size_relevant"]
    np.testing.assert_allclose(sizes["idbd"]["0"][:, 0, :5].mean(axis=1), told, rtol=1e-6)
    assert main(["plot", "a", "--step-sizes", "2"]) == 0
    first = Path("a/step_sizes.svg").read_bytes(), Path("a/step_sizes.png").read_bytes()
    assert main(["plot", "a", "--step-sizes", "2"]) == 0
    assert (Path("a/step_sizes.svg").read_bytes(), Path("a/step_sizes.png").read_bytes()) == first
    assert main(["track", "--method", "lms", *words, "--out", "b"]) == 0
    assert main(["regression", *words, "--out", "c"]) == 0
    capsys.readouterr()
    for given, message in (
        (["a", "c"], "a figure of several folders needs --out"),
        (
            ["a", "c", "--out", "d.png"],
            "expected folders of one kind of experiment, got regression and track",
        ),
        (["a", "--step-sizes", "3"], "--step-sizes must be below 3, the number of runs, got 3"),
        (
            ["a", "--step-sizes", "0", "--bin", "2"],
            "--step-sizes goes with --out and --format alone, got --bin",
        ),
        (["a", "b", "--step-sizes", "0"], "--step-sizes is of one folder, got 2"),
        (["b", "--step-sizes", "0"], "no line of b has step sizes that follow from what is learned"),
    ):
        assert main(["plot", *given]) == 1
        assert capsys.readouterr().err == f"klopf: {message}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_do_not_depend_on_how_they_are_asked_for(name: str) -> None:
    experiment, _ = COMMANDS[name]
    given = {"examples": 5000, "runs": 2, "seed": 7}
    stream = experiment.plan(given, []).stream()
    whole = stream.examples(0, 5000)
    for first, count in ((0, 1), (990, 20), (1000, 1000), (2500, 2500)):
        for part, all_of_it in zip(stream.examples(first, count), whole, strict=True):
            np.testing.assert_array_equal(part, all_of_it[:, first : first + count])
    alone = experiment.plan({**given, "runs": 1, "seed": 8}, []).stream().examples(0, 5000)
    for part, all_of_it in zip(alone, whole, strict=True):
        np.testing.assert_array_equal(part[0], all_of_it[1])


def test_tracking_is_that_of_1992() -> None:
    x, y = track.plan({"examples": 20_000, "runs": 2}, []).stream().examples(0, 20_000)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
    for run in range(2):
        # Least squares on every twenty examples give the signs, of which one changes from one to the next.
        blocks = zip(x[run].reshape(1000, 20, 20), y[run].reshape(1000, 20), strict=True)
        signs = np.array([np.linalg.lstsq(a[:, :5], b, rcond=None)[0] for a, b in blocks])
        np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-4)
        changes = (np.sign(signs[1:]) != np.sign(signs[:-1])).sum(axis=0)
        assert changes.sum() == 999 and (changes > 150).all()


@pytest.mark.parametrize("flip", ["one", "all"])
@pytest.mark.parametrize("threshold", ["paper", "authors"])
def test_regression_is_that_of_the_paper(flip: str, threshold: str) -> None:
    given = {"examples": 4000, "flip_every": 100, "runs": 2, "flip": flip, "target_threshold": threshold}
    stream = regression.plan(given, []).stream()
    x, y = stream.examples(0, 4000)
    assert set(np.unique(x)) == {0, 1}
    assert abs(x[..., 15:].mean() - 0.5) < 0.02
    for run in range(2):
        held = x[run, :, :15].reshape(40, 100, 15)
        assert (held == held[:, :1]).all()
        changed = (held[1:, 0] != held[:-1, 0]).sum(axis=1)
        assert (changed == 1).all() if flip == "one" else 5 < changed.mean() < 10
        # The target network, example by example.
        target = stream._targets[run]
        for k in range(0, 4000, 577):
            total = 0.0
            for unit in range(100):
                total += target._out[unit] * (target._weights[unit] @ x[run, k] > target._above[unit])
            assert y[run, k, 0] == total
        assert np.abs(target._weights).min() == np.abs(target._weights).max() == 1
    # Thresholds: 0.7 of the inputs, less the number of weights of -1, as text or code count them.
    generator = np.random.Generator(np.random.Philox(key=0, counter=[0, 0, 0, 4]))
    signs = generator.choice(np.array([-1.0, 1.0], np.float32), size=(100, 22))
    weights, bias = signs[:, :20], signs[:, 20]
    count = (signs[:, :21] < 0).sum(axis=1) if threshold == "paper" else (20 - weights.sum(axis=1) + bias) / 2
    np.testing.assert_allclose(stream._targets[0]._above, 14.7 - count - bias, rtol=1e-6)


def test_profiles() -> None:
    paper, authors = (regression.plan({"profile": name}, []).settings for name in ("paper", "authors"))
    assert (paper.flip, paper.examples, paper.target_threshold) == ("one", 3_000_000, "paper")
    assert (authors.flip, authors.examples, authors.target_threshold) == ("all", 1_000_000, "authors")
    mixed = regression.plan({"profile": "authors", "flip": "one"}, []).settings
    assert (mixed.flip, mixed.examples) == ("one", 1_000_000)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_resumed(name: str, folder: Path) -> None:
    _, words = COMMANDS[name]
    methods = ["--method", "idbd", *(["autostep"] if name == "track" else ["cbp", "autostep+redo"])]
    words = [name, *methods, *words, *LONG[name], "--runs", "2", "--out", "out", "--quiet"]
    words += ["--no-figure", "--checkpoint-every", "0.01"]
    killed_and_resumed(words, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["track", "--relevant", "21"], "klopf: --relevant must be at most --inputs, got 21 and 20"),
        (["regression", "--held", "21"], "klopf: --held must be at most --bits, got 21 and 20"),
        (
            ["regression", "--held", "0", "--flip", "one"],
            "klopf: --flip one needs a bit that is held, got --held 0",
        ),
        (
            ["regression", "--method", "linear", "--hidden", "9"],
            "klopf: --hidden is an option of networks, got only linear",
        ),
        (["track", "--method", "cbp"], "klopf track: --method: expected one of lms, adam, adamw, upgd, idbd"),
        (
            ["track", "--method", "lms", "--scope", "unit"],
            "klopf: --scope is an option of idbd, autostep, obgd",
        ),
        (["regression", "--profile", "text"], "klopf regression: --profile: expected one of authors, paper"),
        (
            ["regression", "--method", "autostep", "--scope", "network"],
            'klopf: [Autostep] bound must be at least as wide as scope, got scope="network" and bound="unit"',
        ),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(words))
    said = capsys.readouterr()
    assert left.value.code in (1, 2)
    assert message in said.err and said.err.count("\n") == 1


def test_a_run_that_diverges_is_marked() -> None:
    words = [
        "track",
        "--method",
        "lms",
        "idbd",
        "--step-size",
        "0.03",
        "--meta-step-size",
        "1",
        "--runs",
        "2",
    ]
    assert main([*words, "--examples", "2000", "--quiet", "--out", "out"]) == 0
    found = pd.read_csv("out/results.csv")
    assert found[found["method"] == "lms"]["error"].notna().all()
    assert found[found["method"] == "idbd"]["diverged"].all()
