"""`klopf stream`: whole experiments of every agent, stopping and going on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import killed_and_resumed
from klopf.cli import main
from klopf.experiments import society, stream_agents, streams, walk
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.standing import learners_of
from klopf.experiments.tables import end_of_run

pytest.importorskip("gymnasium")
pytest.importorskip("mujoco", minversion="4.0")

import gymnasium

from klopf.envs import vector

TINY = ["--runs", "2", "--steps", "500", "--measure-every", "200", "--probe", "50", "--hidden", "8", "6"]
TINY += ["--init", "lecun"]  # sparse ones leave nothing of so few weights


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_society_of_units(capsys: pytest.CaptureFixture[str]) -> None:
    """Of an actor-critic two networks."""
    words = [
        "stream",
        "--env",
        "CartPole-v1",
        "--agent",
        "ac+recruitment",
        "q",
        *TINY,
        "--quiet",
        "--no-figure",
    ]
    assert main([*words, "--maturity", "20", "--replacement-rate", "0.01", "--out", "out"]) == 0
    results = read_results("out")
    found = society.read_societies("out", 1)
    assert list(found) == ["ac+recruitment, policy", "ac+recruitment, values", "q, values"]
    assert [layer.size for layer in found["q, values"].layers] == [8, 6]
    assert [len(one.weights[0]) for one in found.values()] == [5, 5, 5]  # with the time
    masks = np.concatenate([layer.backbone for layer in found["q, values"].layers])
    assert masks.mean() == pytest.approx(results[1].values["backbone_share"][1, -1])
    recruited, learner = found["ac+recruitment, values"], next(learners_of("out", "units"))[1]
    for index, (layer, group) in enumerate(zip(recruited.layers, learner.value.units, strict=True)):
        np.testing.assert_array_equal(
            layer.backbone, learner.state()[f"value.Recruitment.{index}.backbone"][1]
        )
        np.testing.assert_array_equal(layer.age, group.age[1])
        assert layer.step_size is not None and (layer.step_size > 0).all()
    capsys.readouterr()
    assert main(["plot", "out", "--society", "1"]) == 0
    assert capsys.readouterr().out == "out/society.png\nout/society.svg\n"


@pytest.mark.parametrize(
    ("env", "agents"), [("CartPole-v1", list(streams.KINDS)), ("Ant", ["ac", "ac+adaptive-obgd", "ac+cbp"])]
)
def test_whole_experiments(env: str, agents: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stream", "--env", env, "--agent", *agents, *TINY, "--quiet", "--replacement-rate", "0.01"]
    words += ["--period", "20", "--maturity", "20"] if "ac+redo" in agents else []
    assert main([*words, "--out", "out"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1 : 1 + len(agents)]] == agents
    assert said[-1] == "results and figure in out"
    table = pd.read_csv("out/results.csv")
    assert list(table.columns) == ["line", "method", "run", "seed", "step", *walk.StreamWalk.measured]
    assert sorted(table["step"].unique()) == [200, 400, 500]
    assert len(table) == 3 * 2 * len(agents)
    assert (table["failed"] == 0).all()
    assert table["dormant_rate"].notna().all()
    assert (table["value_dormant_rate"].notna() == table["method"].str.startswith("ac")).all()
    last = table[(table["step"] == 500) & (table["run"] == 0)]
    assert last["weight_magnitude"].nunique() == len(agents)
    assert [line.label for line in read_results("out")] == agents
    settings = json.loads(Path("out/settings.json").read_text())
    assert settings["experiment"] == "stream"


class Dots(gymnasium.Env[Any, Any]):
    """Images whose numbers say where they are; episodes end by themselves, now and then."""

    observation_space = gymnasium.spaces.Box(0, 999, (5, 6, 2))
    action_space = gymnasium.spaces.Discrete(3)
    image = np.arange(60.0, dtype=np.float32).reshape(5, 6, 2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.image, {}

    def step(self, action: Any) -> Any:
        return self.image + 100 * action, float(action == 1), self.np_random.random() < 0.1, False, {}


@pytest.fixture
def dots() -> Iterator[str]:
    gymnasium.register("test/Dots-v0", Dots)
    yield "test/Dots-v0"
    del gymnasium.registry["test/Dots-v0"]


def test_images_go_through_convolutions_first(dots: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stream", "--env", dots, "--agent", "q", "ac", "--channels", "4", "3", *TINY, "--quiet"]
    assert main([*words, "--no-figure", "--out", "out"]) == 0
    assert (pd.read_csv("out/results.csv")["failed"] == 0).all()
    capsys.readouterr()
    given = {"env": dots, "runs": 2, "agent": ("ac",), "steps": 1000}
    part = stream_agents.plan(given, []).experiment().parts[0]
    assert part.agent.value.input_shape == (2, 5, 6)
    assert part.world.now[1].tolist() == np.moveaxis(Dots.image, -1, 0).ravel().tolist()
    *_, final = part.world.step(np.array([1, 2]))
    assert final[1].tolist() == np.moveaxis(Dots.image + 200, -1, 0).ravel().tolist()
    for more, message in (
        (["--time-feature", "yes"], "--time-feature needs observations that are no images"),
        (["--env", "CartPole-v1", "--channels", "3"], "--channels is an option of images"),
    ):
        assert main(["stream", "--env", dots, *more, "--out", "b"]) == 1
        assert message in capsys.readouterr().err


def test_minatar_is_an_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "minatar.gym", None)
    assert main(["stream", "--env", "MinAtar/Breakout-v1"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("needs MinAtar, which is not installed: pip install 'klopf[minatar]'\n")
    assert said.count("\n") == 1


def test_table_of_returns() -> None:
    """Means over the episodes of the last tenth: a run without any, or that failed there, is left out."""
    values = {name: np.zeros((5, 20)) for name in ("return", "episodes", "failed")}
    values["return"][:, 18:] = [[1, 4], [10, 10], [np.nan, 20], [np.nan, np.nan], [1000, 1000]]
    values["episodes"][:, 18:] = [[2, 1], [3, 3], [0, 1], [0, 0], [1, 1]]
    line = LineResults("ac", "ac", {}, values, np.arange(10, 210, 10), {})
    told = end_of_run([line]).splitlines()
    assert told[-1].endswith("means of 5 runs ± one standard error; ac: no episode ended there in run 3")
    words = told[1].split()
    found = np.array([2, 10, 20, 1000])
    error = found.std(ddof=1) / 2
    assert words == ["ac", f"{found.mean():,.0f}", "±", f"{error:,.0f}", "15", "2", "10", "20", "1,000"]
    alone = line._replace(values={name: value[1:2] for name, value in values.items()})
    assert end_of_run([alone]).splitlines()[1:] == [
        f"ac{10:>10}{10:>13}{10:>13}",
        "returns over the last tenth; of one run",
    ]


def test_returns_are_those_of_the_episodes() -> None:
    """With actions within their bounds, which the environment is given."""
    plan = stream_agents.plan({"env": "Ant", "runs": 2, "seed": 3, "hidden": [8]}, [])
    part = plan.experiment().parts[0]
    part.advance(150)
    found = dict(zip(walk.StreamWalk.measured, part.measure().T, strict=True))
    twin = plan.agent(plan.lines[0], part.world)
    envs = vector.MujocoVectorEnv(vector.Ant(), 2)
    now, _ = envs.reset(seed=[3, 4])
    actions = twin.begin(now)
    sums, returns = np.zeros(2), [[], []]
    for _ in range(150):
        now, rewards, terminated, truncated, info = envs.step(np.clip(actions, -1, 1))
        final = now.copy()
        sums = sums + rewards
        for run in np.flatnonzero(terminated | truncated):
            final[run] = info["final_obs"][run]
            returns[run].append(sums[run])
            sums[run] = 0
        actions = twin.step(now, rewards, terminated, truncated, final)
    assert found["episodes"].tolist() == [len(each) for each in returns]
    for run in range(2):
        if returns[run]:
            assert found["return"][run] == pytest.approx(np.mean(returns[run]), rel=1e-12)


def test_killed_and_resumed(folder: Path) -> None:
    words = ["stream", "--env", "Hopper", *TINY, "--steps", "3000", "--measure-every", "900", "--quiet"]
    words += ["--checkpoint-every", "0.01", "--no-figure", "--out", "out"]
    killed_and_resumed(words, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent", "q"], "klopf: --agent q chooses among actions; these are continuous: --agent ac"),
        (["--agent", "ac", "--epsilon", "0.5"], "klopf: --epsilon is an option of q, sarsa, got only ac"),
        (["--env", "Aunt"], "klopf: [env] Environment `Aunt` doesn't exist."),
        (
            ["--beta2", "0.9"],
            "klopf: --beta2 is an option of +adaptive-obgd, +intentional, +adam, +adamw, +meta-optimize, "
            "got only ac",
        ),
        (["--discount", "1.5"], "klopf: [stream] discount must be in [0, 1], got 1.5"),
        (
            ["--agent", "dqn"],
            "klopf stream: --agent: expected one of ac, q, sarsa; alone, with +adaptive-obgd",
        ),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(["stream", *words]))
    said = capsys.readouterr()
    assert left.value.code in (1, 2)
    assert message in said.err and said.err.count("\n") == 1
