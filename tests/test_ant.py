"""`klopf ant`: whole experiments on tiny networks, other environments, what fails, stopping and going on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from experiments import killed_and_resumed, klopf
from klopf import metrics
from klopf.cli import main
from klopf.experiments import ant, walk
from klopf.experiments.agents import AGENTS, KINDS, PROFILES
from klopf.experiments.results import read_results

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco", minversion="4.0")

from klopf.envs import vector  # noqa: E402
from klopf.envs.worlds import World  # noqa: E402

TINY = [
    *("--runs", "2", "--steps", "700", "--measure-every", "250", "--probe", "50", "--quiet"),
    *("--buffer", "128", "--minibatch", "32", "--passes", "2", "--hidden", "12", "10"),
]
REPLACING = ["--replacement-rate", "0.02", "--maturity", "5", "--period", "6"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_whole_experiment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ant", "--out", "out", "--method", *KINDS, *TINY, *REPLACING]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "results and figure in out"
    table = pd.read_csv("out/results.csv")
    assert list(table.columns) == ["line", "method", "run", "seed", "step", *walk.PpoWalk.measured]
    assert sorted(table["step"].unique()) == [250, 500, 700]
    assert len(table) == 3 * 2 * len(KINDS)
    numbers = table.drop(columns=["friction", "failed", "return", "length"])
    assert numbers[table["step"] == 700].notna().all(axis=None)
    assert table["friction"].isna().all()
    settings = json.loads((folder / "out/settings.json").read_text())
    assert settings["command"] == "klopf " + " ".join(words)
    assert settings["lines"][3]["settings"]["hidden"] == [12, 10]
    # Another method, another end.
    last = table[(table["step"] == 700) & (table["run"] == 0)]
    assert last["weight_magnitude"].nunique() == len(KINDS)
    assert [line.label for line in read_results("out")] == list(KINDS)


def test_settings_are_the_published_ones() -> None:
    for name in KINDS:
        for profile in PROFILES:
            made: Any = AGENTS.resolve(name, profile, {})
            assert (made.step_size, made.buffer, made.passes, made.minibatch) == (1e-4, 2048, 10, 128)
            assert (made.discount, made.trace_decay, made.clip, made.entropy) == (0.99, 0.95, 0.2, 0)
            assert (made.hidden, made.activation, made.init) == ((256, 256), "ReLU", "lecun")
            assert (made.beta1, made.beta2) == ((0.9, 0.999) if name == "ppo" else (0.99, 0.99))
            decay = {"ppo-l2": 1e-3, "continual-ppo": 1e-4, "ppo-redo": 1e-4}.get(name)
            assert getattr(made, "weight_decay", None) == decay
            assert made.first_fan_in == (111 if profile == "authors" else 0)
    cured: Any = AGENTS.resolve("continual-ppo", "authors", {})
    assert (cured.replacement_rate, cured.maturity, cured.utility) == (1e-4, 10_000, "contribution")
    redo: Any = AGENTS.resolve("ppo-redo", "authors", {})
    assert (redo.threshold, redo.period, redo.reset_optimizer_state) == (0.1, 100, False)


def test_the_profile_is_of_ant() -> None:
    lines = [ant.plan({"env": env, "method": ["ppo"]}, []).lines[0] for env in ("SlipperyAnt", "Hopper")]
    assert [line.method.first_fan_in for line in lines] == [111, 0]


def small_walk(env: str, seeds: list[int], **options: Any) -> walk.PpoWalk:
    world = World(env, seeds, 1, **options)
    method = AGENTS.resolve("ppo", "paper", {"hidden": (8,), "buffer": 64, "minibatch": 16, "passes": 1})
    agent = method.build(world.observations, world.actions, world.discrete, seeds)
    return walk.PpoWalk(agent, world, 40)


def test_what_is_measured() -> None:
    """Returns and lengths are those of the episodes; units are measured on the latest observations."""
    made, seeds = small_walk("Ant", [3, 4]), [3, 4]
    made.advance(200)
    found = dict(zip(walk.PpoWalk.measured, made.measure().T, strict=True))

    envs = vector.MujocoVectorEnv(vector.Ant(), 2)
    twin = small_walk("Ant", seeds)
    now, _ = envs.reset(seed=seeds)
    returns: list[list[float]] = [[], []]
    lengths: list[list[int]] = [[], []]
    sums, counts, seen = np.zeros(2), np.zeros(2, int), []
    for _ in range(200):
        seen.append(now)
        now, rewards, terminated, truncated, info = envs.step(twin.agent.act(now))
        final = now.copy()
        sums, counts = sums + rewards, counts + 1
        for run in np.flatnonzero(terminated | truncated):
            final[run] = info["final_obs"][run]
            returns[run].append(sums[run])
            lengths[run].append(counts[run])
            sums[run] = counts[run] = 0
        twin.agent.observe(rewards, terminated, truncated, final)
        if twin.agent.full:
            twin.agent.learn()
    assert min(len(each) for each in returns) > 1
    np.testing.assert_allclose(found["return"], [np.mean(each) for each in returns], rtol=1e-12)
    np.testing.assert_allclose(found["length"], [np.mean(each) for each in lengths])
    assert found["episodes"].tolist() == [len(each) for each in returns]
    probe = np.stack(seen[-40:], axis=1).astype(np.float32)
    for prefix, net in (("", twin.agent.policy), ("value_", twin.agent.value)):
        expected = metrics.measure(net, probe)
        for name in ("dormant_rate", "backbone_share", "effective_rank", "weight_magnitude"):
            np.testing.assert_array_equal(found[prefix + name], expected[name])
    # The next row begins anew.
    made.advance(1)
    assert (made.measure()[:, walk.PpoWalk.measured.index("episodes")] <= 1).all()


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "HalfCheetah", "Hopper"])
def test_other_environments(env: str) -> None:
    made = small_walk(env, [0, 1])
    made.advance(130)
    assert np.isfinite(made.measure()[:, walk.PpoWalk.measured.index("policy_loss")]).all()
    made.world.close()


def test_a_world_is_gymnasiums_environment() -> None:
    """Step by step, through ends of episodes, for spaces of both kinds."""
    for name in ("CartPole-v1", "Pendulum-v1"):
        world, one = World(name, [7, 8]), gymnasium.make(name)
        now, _ = one.reset(seed=8)
        rng = np.random.default_rng(0)
        for _ in range(250):
            np.testing.assert_array_equal(world.now[1], now)
            actions = rng.integers(0, 2, 2) if world.discrete else rng.normal(size=(2, world.actions))
            actions = actions if world.discrete else actions.astype(np.float32)
            rewards, terminated, truncated, final = world.step(actions)
            now, reward, ended, cut, _ = one.step(actions[1])
            np.testing.assert_array_equal(final[1], now)
            assert (rewards[1], terminated[1], truncated[1]) == (reward, ended, cut)
            if ended or cut:
                now, _ = one.reset()
        world.close()


def test_friction_changes_and_is_recorded() -> None:
    words = ["ant", "--out", "out", "--method", "ppo", "--env", "SlipperyAnt", "--friction-of", "all", *TINY]
    assert main([*words, "--friction-every", "100", "--measure-every", "100", "--steps", "2500"]) == 0
    frictions = pd.read_csv("out/results.csv")["friction"]
    assert frictions.between(0.02, 2).all()
    assert frictions.nunique() > 4
    assert "friction of a run changes" in Path("out/figure.svg").read_text()


def test_a_simulator_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is marked, the others go on as if nothing had happened."""
    words = ["ant", "--method", "ppo", *TINY, "--runs", "3", "--no-figure"]
    words.remove("--quiet")
    assert main([*words, "--out", "whole"]) == 0
    step, count = vector.MujocoVectorEnv.step, [0]

    def broken(self: Any, actions: NDArray[Any]) -> Any:
        count[0] += 1
        if count[0] == 300:
            self.simulators.qpos[1] = np.nan
        return step(self, actions)

    monkeypatch.setattr(vector.MujocoVectorEnv, "step", broken)
    assert main([*words, "--out", "broken"]) == 0
    assert "ppo: run 1 failed, and is left out from here on" in capsys.readouterr().err
    whole, found = pd.read_csv("whole/results.csv"), pd.read_csv("broken/results.csv")
    assert found[found["run"] == 1]["failed"].tolist() == [0, 1, 1]
    assert found[(found["run"] == 1) & (found["step"] > 250)]["dormant_rate"].isna().all()
    pd.testing.assert_frame_equal(found[found["run"] != 1], whole[whole["run"] != 1])


def test_an_environment_that_gives_nan(capsys: pytest.CaptureFixture[str]) -> None:
    """Its run is marked and stands still; the other goes on."""

    class Broken(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            self.steps, self.broken = 0, seed == 1
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            self.steps += 1
            value = np.nan if self.broken and self.steps > 300 else self.steps / 1000
            return np.full(2, value, np.float32), 1.0, False, not self.broken and self.steps == 50, {}

    gymnasium.register("Broken-v0", Broken)
    words = ["ant", "--env", "Broken-v0", "--method", "ppo", *TINY, "--out", "out", "--no-figure"]
    words.remove("--quiet")
    assert main(words) == 0
    assert "ppo: run 1 failed, and is left out from here on" in capsys.readouterr().err
    table = pd.read_csv("out/results.csv")
    assert table[table["run"] == 1]["failed"].tolist() == [0, 1, 1]
    assert table[table["run"] == 0]["return"].tolist() == [50, 50, 50]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--env", "Aunt"],
            "klopf: [env] Environment `Aunt` doesn't exist. Did you mean: `Ant`? (klopf's own",
        ),
        (["--env", "Blackjack-v1"], "[Blackjack-v1] observations must be a Box or Discrete, got Tuple"),
        (["--friction-every", "10"], "klopf: --friction-every is an option of SlipperyAnt, got --env Ant"),
        (["--method", "ppo", "--period", "3"], "--period is an option of ppo-redo, got only ppo"),
        (["--method", "pop"], "expected one of ppo, ppo-tuned-adam"),
        (["--steps", "5.5"], "--steps: expected a whole number of at least 1, got '5.5'"),
        (["--discount", "1.5"], "[ppo] discount must be in [0, 1], got 1.5"),
        (["--resume", "nowhere"], "klopf: nowhere is no results folder"),
        (["--steps", "100"], "klopf: --buffer must be at most --steps, got 2048 and 100"),
        (["--minibatch", "4096"], "klopf: --minibatch must be at most --buffer, got 4096 and 2048"),
        (["--out", ""], "klopf ant: --out: expected a word, got ''"),
        (["--run", "5"], "klopf: --run is an option of --watch FOLDER; did you mean --runs?"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(["ant", *words]))
    said = capsys.readouterr()
    assert left.value.code in (1, 2)
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not Path("results").exists() or not list(Path("results").glob("ant*/settings.json"))


def test_steps_may_be_written_short(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ant", "--env", "Hopper", "--method", "ppo", *TINY, "--steps", "2e2", "--out", "out"]
    assert main(words) == 0
    assert pd.read_csv("out/results.csv")["step"].max() == 200
    capsys.readouterr()

    # A second time there is nothing to do, and settings edited by hand are refused.
    assert main(["ant", "--resume", "out", "--no-quiet", "--no-figure"]) == 0
    assert capsys.readouterr().err == "out was finished: nothing is left to do\n"
    path = Path("out/settings.json")
    settings = json.loads(path.read_text())
    for edited, message in (
        ({"lines": []}, "klopf: expected the settings of an experiment in out/settings.json"),
        (
            {"settings": {**settings["settings"], "steps": "x"}},
            "steps: expected a whole number of at least 1",
        ),
        ({"table": {"measured": 3}}, "klopf: expected a table in out/settings.json"),
        ({"lines": [{"label": "a", "method": "b"}]}, "klopf: out is not the results folder of this"),
        ({"experiment": "stream"}, "klopf: out is a folder of klopf stream, not of klopf ant"),
        ({"seeds": [0, 2]}, "klopf: the seeds in out/settings.json are not those that its settings give"),
        (
            {"settings": {**settings["settings"], "probe": 51}},
            "klopf: out/checkpoint.safetensors was written where settings.probe was 50, and settings.json",
        ),
        (
            {"lines": [settings["lines"][0] | {"label": "mine"}]},
            'was written where lines[0].label was "ppo", and settings.json beside it says "mine"',
        ),
    ):
        path.write_text(json.dumps(settings | edited))
        command = ["plot", "out"] if "table" in edited else ["ant", "--resume", "out"]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


@pytest.mark.parametrize("env", ["Ant", "SlipperyAnt"])
def test_killed_in_the_middle_of_a_rollout(env: str, folder: Path, device: str) -> None:
    """Killed again and again, a moment after a checkpoint: the bytes of an experiment that was not."""
    words = [*("ant", "--method", "ppo", "continual-ppo", "ppo-redo", "--env", env, *TINY, *REPLACING)]
    words += ["--steps", "2500", "--measure-every", "900", "--checkpoint-every", "0.01", "--no-figure"]
    words += ["--device", device, "--out", "out"]
    if env == "SlipperyAnt":
        words += ["--friction-every", "200", "--friction-of", "all"]
    killed_and_resumed(words, folder)


def test_what_cannot_be_saved_says_so() -> None:
    """Episodes are cut: neither returns nor advantages flow into the new ones."""
    made = small_walk("CartPole-v1", [0, 1])
    made.advance(7)
    state = made.state()
    again = small_walk("CartPole-v1", [0, 1])
    again.load_state(state)
    assert again.agent.filled == 7
    assert again.agent.state()["buffer.truncated"][:, :7].tolist() == [[[0]] * 6 + [[1]]] * 2
    assert not np.array_equal(again.world.now, small_walk("CartPole-v1", [0, 1]).world.now)
    with pytest.warns(UserWarning, match="CartPole-v1 cannot be saved: its episodes begin anew"):
        again.advance(40)
    found = dict(zip(walk.PpoWalk.measured, again.measure().T, strict=True))
    ended = again.agent.state()["buffer.terminated"][:, :47, 0]
    for run in range(2):
        ends = np.flatnonzero(ended[run])
        assert found["length"][run] == (ends[-1] - 6) / len(ends)


def test_watch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ant", "--method", "ppo", "continual-ppo", *TINY, "--out", "out", "--no-figure"]
    assert main(words) == 0
    watching = ["ant", "--watch", "out", "--frames", "5", "--width", "64", "--height", "48"]
    # A process of its own: what renders is chosen when MuJoCo is imported.
    process = klopf(*watching, "--line", "ppo", "--run", "1", cwd=folder)
    said, complaint = process.communicate(timeout=60)
    if "no picture could be made" in complaint or "MuJoCo cannot be imported" in complaint:
        pytest.skip(complaint.strip())
    assert (process.returncode, complaint) == (0, "")
    assert re.search(r"return -?\d+ in 5 steps: out/walk.gif\n$", said)
    with Image.open("out/walk.gif") as picture:
        assert (picture.n_frames, picture.size) == (5, (64, 48))
    for more, message in [
        (["--line", "pop"], "--line must be one of ppo; continual-ppo, got pop"),
        (["--run", "2"], "--run must be below 2, got 2"),
        (["--movie", "walk.avi"], "--movie must end in .gif or .mp4, got walk.avi"),
        (["--steps", "10"], "--watch takes the settings from its folder, got --steps as well"),
    ]:
        assert main([*watching, *more]) == 1
        assert message in capsys.readouterr().err


def test_needs_mujoco(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; sys.modules['mujoco'] = None; from klopf.cli import main; sys.exit(main(['ant']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("klopf: [envs] MuJoCo environments need gymnasium")
    assert done.stderr.count("\n") == 1
