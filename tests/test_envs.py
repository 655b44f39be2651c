"""Environments of many runs against Gymnasium's own, one at a time."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import klopf as kl

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco", minversion="4.0")

from klopf.envs import NAMES  # noqa: E402

CONTACTS = {"include_cfrc_ext_in_observation": True, "contact_cost_weight": 5e-4}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES if name != "SlipperyAnt"),
    ("Ant", CONTACTS),
    ("Ant", {"exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False}),
    ("SlipperyAnt", {"friction_every": 150}),
    ("SlipperyAnt", {"friction_every": 150, "friction_of": "all"}),
]
RUNS, STEPS = 4, 600
TOLERANCE = 1e-10


def made(name: str, runs: int = RUNS, **options: Any) -> Any:
    return gymnasium.make_vec(f"klopf/{name}-v0", num_envs=runs, **options)


def play(envs: Any, steps: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    shape = envs.action_space.shape
    return [envs.step(rng.uniform(-1, 1, shape).astype(np.float32)) for _ in range(steps)]


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_each_run_is_gymnasiums(name: str, options: dict[str, Any]) -> None:
    envs = made(name, max_episode_steps=170, **options)
    singles = [
        gymnasium.make(f"klopf/{name}-v0", max_episode_steps=170, **options).unwrapped for _ in range(RUNS)
    ]
    singles = [gymnasium.wrappers.TimeLimit(single, 170) for single in singles]
    observations, _ = envs.reset(seed=7)
    expected = np.stack([single.reset(seed=7 + i)[0] for i, single in enumerate(singles)])
    np.testing.assert_allclose(observations, expected, rtol=0, atol=TOLERANCE)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(STEPS):
        actions = rng.uniform(-1.3, 1.3, envs.action_space.shape).astype(np.float32)
        observations, rewards, terminated, truncated, info = envs.step(actions)
        for i, single in enumerate(singles):
            observation, reward, *ended, parts = single.step(actions[i])
            assert ended == [terminated[i], truncated[i]]
            assert rewards[i] == pytest.approx(reward, abs=TOLERANCE)
            assert info["reward_forward"][i] == pytest.approx(parts["reward_forward"], abs=TOLERANCE)
            if any(ended):
                ends += 1
                assert info["_final_obs"][i]
                np.testing.assert_allclose(info["final_obs"][i], observation, rtol=0, atol=TOLERANCE)
                observation, _ = single.reset()
            np.testing.assert_allclose(observations[i], observation, rtol=0, atol=TOLERANCE)
    assert ends > 3


def test_the_floor_as_set_by_hand() -> None:
    """A friction that is drawn is the one that Gymnasium's Ant has after its floor's was changed."""
    whole: dict[str, Any] = {"runs": 2, "terminate_when_unhealthy": False}
    envs = made("SlipperyAnt", friction_range=(1.5, 9.0), **whole)
    observations, _ = envs.reset(seed=3)
    by_hand = []
    for i, friction in enumerate(envs.unwrapped.frictions):
        ant = gymnasium.make(
            "Ant-v5",
            include_cfrc_ext_in_observation=False,
            contact_cost_weight=0,
            terminate_when_unhealthy=False,
        )
        ant.unwrapped.model.geom("floor").friction[:] = (friction.value, 0.5, 0.5)
        np.testing.assert_array_equal(ant.reset(seed=3 + i)[0], observations[i])
        by_hand.append(ant)
    plain = made("Ant", **whole)
    plain.reset(seed=3)
    rng = np.random.default_rng(1)
    for _ in range(25):
        actions = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        observations = envs.step(actions)[0]
        other = plain.step(actions)[0]
        for i, ant in enumerate(by_hand):
            np.testing.assert_allclose(observations[i], ant.step(actions[i])[0], rtol=0, atol=TOLERANCE)
    assert np.abs(observations - other).max() > 1e-3  # than on the usual floor


@pytest.mark.parametrize(
    "name, options", [("Ant", CONTACTS), ("SlipperyAnt", {"friction_every": 40}), ("Hopper", {})]
)
def test_goes_on_from_its_state(name: str, options: dict[str, Any]) -> None:
    envs, other = made(name, **options), made(name, **options)
    envs.reset(seed=1)
    play(envs, 90, seed=2)
    other.reset(seed=5)
    play(other, 7, seed=6)
    other.unwrapped.load_state(envs.unwrapped.state())
    for a, b in zip(play(envs, 120, seed=3), play(other, 120, seed=3), strict=True):
        for here, there in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(there, here)
    with pytest.raises(kl.Error, match=r"^\[load_state\] simulators does not fit 2 of "):
        made(name, runs=2, **options).unwrapped.load_state(envs.unwrapped.state())


def test_alone_as_among_others() -> None:
    many, one = made("SlipperyAnt", friction_every=50), made("SlipperyAnt", runs=1, friction_every=50)
    many.reset(seed=4)
    one.reset(seed=6)
    rng = np.random.default_rng(0)
    for _ in range(120):
        actions = rng.uniform(-1, 1, many.action_space.shape).astype(np.float32)
        for a, b in zip(many.step(actions)[:4], one.step(actions[2:3])[:4], strict=True):
            np.testing.assert_array_equal(b[0], a[2])


@pytest.mark.parametrize("options", [{}, CONTACTS], ids=str)
def test_a_simulation_that_fails(options: dict[str, Any]) -> None:
    envs = made("Ant", **options)
    same = made("Ant", **options)
    before, _ = envs.reset(seed=1)
    same.reset(seed=1)
    actions = np.zeros(envs.action_space.shape, np.float32)
    bad = actions.copy()
    bad[1] = np.nan
    observations, rewards, terminated, _, _ = envs.step(bad)
    others = same.step(actions)[0]
    assert envs.unwrapped.failed.tolist() == [False, True, False, False]
    assert (rewards[1], terminated[1]) == (0, False)
    np.testing.assert_array_equal(observations[1], before[1])
    np.testing.assert_array_equal(observations[[0, 2, 3]], others[[0, 2, 3]])
    np.testing.assert_array_equal(envs.step(actions)[0][1], before[1])
    envs.reset(seed=1)
    assert not envs.unwrapped.failed.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_gymnasiums_checker(name: str) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(gymnasium.make(f"klopf/{name}-v0").unwrapped, skip_render_check=True)


def test_what_does_not_fit() -> None:
    with pytest.raises(kl.Error, match=r"^\[Ant\] num_envs must be at least 1, got 0$"):
        made("Ant", runs=0)
    with pytest.raises(kl.Error, match=r'^\[SlipperyAnt\] friction_of must be "floor" or "all", got "sky"$'):
        made("SlipperyAnt", friction_of="sky")
    with pytest.raises(kl.Error, match=r"^\[Ant\] friction_of needs friction_every, or klopf/SlipperyAnt"):
        made("Ant", friction_of="all")
    with pytest.raises(kl.Error, match=r"friction_range must be two rising numbers above 0, got \(2, 0.1\)"):
        made("SlipperyAnt", friction_range=(2, 0.1))
    with pytest.raises(kl.Error, match=r"^\[Ant\] threads must be at least 0, got -1$"):
        made("Ant", threads=-1)
    envs = made("Hopper")
    with pytest.raises(
        kl.Error, match=r"^\[reset\] seed must be one number or 4, one for each environment, got 2$"
    ):
        envs.reset(seed=[1, 2])
    envs.reset(seed=0)
    with pytest.raises(kl.Error, match=r"^\[step\] actions must have shape \[4, 3\], got \[3\]$"):
        envs.step(np.zeros(3))


def test_without_mujoco() -> None:
    lines = [
        "import sys",
        "sys.modules['mujoco'] = None",
        "import klopf as kl",
        "try:",
        "  import klopf.envs",
    ]
    code = "\n".join([*lines, "except kl.Error as error:", "  print(error)"])
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.startswith(
        "[envs] MuJoCo environments need gymnasium, imageio and mujoco of at least 4.0 ("
    )
    assert output.count("\n") == 1
