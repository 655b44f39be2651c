"""kl.PPO: its updates are the float64 reference's, runs know nothing of each other, and it saves itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from klopf._core import permutation
from reference import layers, ppo
from reference.arrays import relative_error
from reference.network import Network
from reference.optimizers import Adam

TOLERANCE = 1e-4

STEPS, INPUTS, ACTIONS = 48, 7, 3
RULES: dict[str, Any] = {
    "none": lambda: [],
    "cbp": lambda: [kl.ContinualBackprop(replacement_rate=0.05, maturity=3)],
    "redo": lambda: [kl.ReDo(threshold=0.5, period=4)],
}


def agent(seeds: list[int], rule: str = "none", **settings: Any) -> kl.PPO:
    def net(stream: int, outputs: int, *last: Any) -> kl.Network:
        layers = [kl.Linear(16), kl.ReLU(), kl.Linear(12), kl.ReLU(), kl.Linear(outputs), *last]
        return kl.Network(layers, (INPUTS,), runs=len(seeds), seeds=seeds, init="lecun", stream=stream)

    settings = {"steps": STEPS, "epochs": 3, "batch_size": 10, "discount": 0.9} | settings
    optimizer = kl.Adam(step_size=3e-3, weight_decay=1e-3)
    return kl.PPO(
        net(0, ACTIONS, kl.LogStd()), net(1, 1), optimizer=optimizer, rules=RULES[rule](), **settings
    )


def world(seeds: list[int], step: int, actions: NDArray[Any]) -> tuple[Any, ...]:
    """What a made-up environment answers: observation, reward, terminated, truncated, final observation."""
    drawn = [np.random.default_rng([seed, step]) for seed in seeds]
    final = np.stack([rng.normal(size=INPUTS) for rng in drawn])
    rewards = -(actions**2).sum(axis=1) + final[:, 0]
    ends = np.array([rng.random() for rng in drawn])
    terminated, truncated = ends < 0.05, (ends >= 0.05) & (ends < 0.1)
    now = np.where((terminated | truncated)[:, None], 0.5, final)
    return now, rewards, terminated, truncated, final


def live(made: kl.PPO, seeds: list[int], steps: range, now: Any = None) -> tuple[Any, list[Any]]:
    """So many steps: the last observation, and everything that happened."""
    now = np.zeros((len(seeds), INPUTS)) if now is None else now
    seen = []
    for step in steps:
        actions = made.act(now)
        after, *rest = world(seeds, step, actions)
        made.observe(*rest)
        seen.append((now, actions, *rest))
        now = after
        if made.full:
            made.learn()
    return now, seen


@pytest.mark.parametrize("truncation", ["bootstrap", "terminal"])
@pytest.mark.usefixtures("device")
def test_learn_is_the_references_update(truncation: str) -> None:
    made = agent([5], truncation=truncation)
    _, seen = live(made, [5], range(STEPS - 1))
    before = made.state()
    live_now = np.random.default_rng(0).normal(size=(1, INPUTS))
    actions = made.act(live_now)
    _, *rest = world([5], STEPS, actions)
    made.observe(*rest)
    seen.append((live_now, actions, *rest))
    stored = made.state()["buffer.targets"][0]
    update = made.learn()

    of_part = {
        part: {
            name[len(part) + 1 :]: array[0]
            for name, array in before.items()
            if name.startswith(f"{part}.") and name.split(".")[-1] in ("weight", "bias", "log_std")
        }
        for part in ("policy", "value")
    }
    weights = {
        part: {name: w for name, w in arrays.items() if "optimizer" not in name}
        for part, arrays in of_part.items()
    }
    log_std = weights["policy"].pop("5.log_std")

    def built(part: str, outputs: int) -> Network:
        specs = [layers.Linear(16), layers.ReLU(), layers.Linear(12), layers.ReLU(), layers.Linear(outputs)]
        return Network(specs, (INPUTS,), weights[part])

    twin = ppo.Agent(built("policy", ACTIONS), built("value", 1), log_std, Adam(3e-3, 0.9, 0.999, 1e-8, 1e-3))
    columns = [np.concatenate([row[k] for row in seen]) for k in range(6)]
    terminated, truncated = columns[3], columns[4]
    buffer = {
        "observations": columns[0],
        "actions": columns[1],
        "rewards": columns[2],
        "terminated": terminated | truncated if truncation == "terminal" else terminated,
        "truncated": truncated,
        "final_observations": columns[5],
        "log_probs": stored[:, ACTIONS],
    }
    orders = np.stack([permutation(5, 0, epoch, STEPS) for epoch in range(3)])
    losses = np.array(ppo.update(twin, buffer, orders, 10, 0.2, 0.9, 0.95))
    after = made.state()
    for name, expected in twin.parameters().items():
        part, _, short = name.partition(".")
        found = after["policy.5.log_std" if name == "log_std" else f"{part}.{short}"][0]
        assert relative_error(found, expected) < TOLERANCE, name
    sizes = np.array([len(at) for at in np.array_split(np.arange(STEPS), range(10, STEPS, 10))])
    by_epoch = losses.reshape(3, len(sizes), 2)
    means = (by_epoch * sizes[None, :, None]).sum(axis=1) / STEPS
    np.testing.assert_allclose(update.policy_loss[0], means[:, 0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(update.value_loss[0], means[:, 1], rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("device")
def test_agents_know_nothing_of_each_other(rule: str) -> None:
    """Runs together, or one by one, on one thread or two: the same bits."""
    seeds, steps = [3, 900, 4], range(2 * STEPS + 9)
    before = kl.get_threads()
    together = agent(seeds, rule)
    kl.set_threads(2)
    live(together, seeds, steps)
    kl.set_threads(1)
    all_of_them = together.state()
    for run, seed in enumerate(seeds):
        alone = agent([seed], rule)
        live(alone, [seed], steps)
        for name, array in alone.state().items():
            mine = all_of_them[name]
            if len(mine) == len(seeds):
                assert array[0].tobytes() == mine[run].tobytes(), name
            else:
                assert array.tobytes() == mine.tobytes(), name
    kl.set_threads(before)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("device")
def test_saved_between_acting_and_observing(rule: str, tmp_path: Path, device: str) -> None:
    seeds = [3, 4]
    whole = agent(seeds, rule)
    now, _ = live(whole, seeds, range(STEPS + 11))
    whole.act(now)
    whole.save(tmp_path / "agent")
    again = kl.PPO.load(tmp_path / "agent", device=device)
    for made in (whole, again):
        after, *rest = world(seeds, 10_000, np.zeros((2, ACTIONS)))
        made.observe(*rest)
        live(made, seeds, range(STEPS), after)
    ours, theirs = whole.state(), again.state()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert ours.keys() == theirs.keys()


@pytest.mark.usefixtures("device")
def test_a_run_that_is_no_longer_finite_stands_still() -> None:
    seeds = [3, 4]
    made = agent(seeds)
    state = made.state()
    state["policy.0.weight"][1] = np.nan
    made.load_state(state)
    live(made, seeds, range(STEPS))
    assert made.alive.tolist() == [True, False]
    assert (made.act(np.ones((2, INPUTS)))[1] == 0).all()
    alone = agent([3])
    live(alone, [3], range(STEPS))
    assert made.state()["policy.0.weight"][0].tobytes() == alone.state()["policy.0.weight"][0].tobytes()


def test_recent_observations() -> None:
    made = agent([3])
    _, seen = live(made, [3], range(STEPS + 5))
    expected = np.concatenate([row[0] for row in seen]).astype(np.float32)
    np.testing.assert_array_equal(made.recent(20)[0], expected[-20:])
    assert made.recent(10_000).shape == (1, STEPS, INPUTS)


@pytest.mark.usefixtures("device")
def test_normalisation_follows_recording() -> None:
    """Observations and rewards as the published streaming agents scale them, in two runs at once."""
    with np.load(Path(__file__).parent / "data" / "stream_normalisation.npz") as file:
        recorded = {name: file[name] for name in file.files}
    steps, inputs = recorded["observations"].shape
    policy = kl.Network([kl.Linear(2), kl.LogStd()], (inputs,), runs=2)
    value = kl.Network([kl.Linear(1)], (inputs,), runs=2, stream=1)
    made = kl.PPO(policy, value, steps=steps, normalise_observations=True, normalise_rewards=True)
    no, zeros = np.zeros(2, bool), np.zeros((2, inputs))
    for t in range(steps):
        made.act(np.stack([recorded["observations"][t], zeros[0]]))
        reward, done = recorded["rewards"][t], bool(recorded["done"][t])
        made.observe(np.array([reward, 0.0]), np.array([done, False]), no, zeros)
        if t == 200:  # a copy goes on from what was saved
            state = made.state()
            made = kl.PPO(policy, value, steps=steps, normalise_observations=True, normalise_rewards=True)
            made.load_state(state)
    buffer = made.state()
    assert relative_error(buffer["buffer.rewards"][0].ravel(), recorded["scaled_rewards"]) < 1e-12
    assert relative_error(buffer["buffer.observations"][0], recorded["normalised_observations"]) < 1e-6
    latest = recorded["observations"][-1]
    moments = buffer["observation_moments.mean"][0], buffer["observation_moments.squares"][0] / (steps - 1)
    expected = (latest - moments[0]) / np.sqrt(moments[1] + 1e-8)
    assert relative_error(expected, recorded["normalised_observations"][-1]) < 1e-9
    # Choosing counts the observation as well, for the moment.
    chosen = made.choose(np.stack([latest, zeros[0]]))
    every = np.concatenate([recorded["observations"], latest[None]])
    expected = (latest - every.mean(axis=0)) / np.sqrt(every.var(axis=0, ddof=1) + 1e-8)
    assert relative_error(chosen[0], policy(expected[None].astype(np.float32))[0, 0]) < 1e-6


@pytest.mark.usefixtures("device")
def test_a_constant_that_changes_is_seen_alike_before_and_after() -> None:
    """What a step led to is normalised as the next observation, which it is, would be."""
    policy = kl.Network([kl.Linear(1), kl.LogStd()], (1,))
    made = kl.PPO(policy, kl.Network([kl.Linear(1)], (1,), stream=1), steps=50, normalise_observations=True)
    no = np.zeros(1, bool)
    for t in range(50):
        made.act(np.array([[float(t > 40)]]))
        made.observe(np.zeros(1), no, no, np.array([[float(t + 1 > 40)]]))
    buffer = made.state()
    assert np.array_equal(buffer["buffer.final_observations"][0, :-1], buffer["buffer.observations"][0, 1:])
    assert np.abs(buffer["buffer.final_observations"]).max() < 10


def test_equal_advantages_teach_nothing() -> None:
    policy = kl.Network([kl.Linear(1), kl.LogStd()], (1,))
    value = kl.Network([kl.Linear(1)], (1,), stream=1)
    value.reset(to="zero")
    made = kl.PPO(policy, value, steps=300, epochs=1, discount=0.0)
    before = policy.state_dict()
    no = np.zeros(1, bool)
    for _ in range(300):
        made.act(np.ones((1, 1)))
        made.observe(np.full(1, 0.1), no, no, np.ones((1, 1)))
    made.learn()
    assert (made.state()["buffer.targets"][..., -1] == 0).all()
    assert all((w == before[name]).all() for name, w in policy.state_dict().items())


@pytest.mark.usefixtures("device")
def test_log_std_learns_from_a_single_sample() -> None:
    """As from the same one twice: the path of one sample, which stores no gradients, is not for policies."""
    x, y = np.ones((1, 2), np.float32), np.array([[0.7, -1.0, 1.0]], np.float32)
    found = []
    for repeats in (1, 2):
        net = kl.Network([kl.Linear(1), kl.LogStd()], (2,))
        learner = kl.Learner(net, loss=kl.ClippedPolicy(clip=9.0), optimizer=kl.SGD(step_size=0.1))
        learner.step(np.repeat(x, repeats, axis=0), np.repeat(y, repeats, axis=0))
        found.append(net.state_dict()["1.log_std"])
    assert found[0] != 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    with pytest.raises(kl.Error, match=r"\[backward\] a network with LogStd\(\) learns by step"):
        learner.backward(learner.forward(x))


def test_recent_knows_the_observation_just_acted_on() -> None:
    made = agent([3], steps=3, epochs=1)
    live(made, [3], range(3))
    made.act(np.full((1, INPUTS), 9.0))
    assert (made.recent(1) == 9).all()
    assert (made.recent(3)[0, -1] == 9).all()
    assert (made.recent(3)[0, 0] != 9).any()


def test_states_that_do_not_fit_change_nothing() -> None:
    made, other = agent([3]), agent([3], normalise_observations=True, normalise_rewards=True)
    live(made, [3], range(5))
    state = made.state()
    before = {name: array.copy() for name, array in state.items()}
    broken: list[tuple[dict[str, Any], str]] = [
        (other.state(), r"expected 9 arrays beside the networks', got 16"),
        ({**state, "nonsense": np.zeros(1)}, "expected 9 arrays beside the networks', got 10"),
        ({**state, "buffer.filled": np.array([10**9])}, "no buffer has 1000000000 of 5 steps"),
        ({**state, "step": np.array([-3])}, "no buffer has 5 of -3 steps"),
        (
            {name: array for name, array in state.items() if name != "value.0.bias"},
            r'\[ppo\] value\.\*: \[load_state\] "0.bias" is missing',
        ),
        ({**state, "buffer.rewards": np.zeros((1, 3, 1))}, '"buffer.rewards" does not fit'),
    ]
    for arrays, message in broken:
        with pytest.raises(kl.Error, match=message):
            made.load_state(arrays)
        after = made.state()
        assert all(np.array_equal(after[name], before[name]) for name in before)
    assert made.choose(np.ones((1, INPUTS))).shape == (1, ACTIONS)


def test_saves_whatever_numbers_are_given(tmp_path: Path) -> None:
    made = agent([3, 4], discount=[np.float32(0.9), np.float32(0.99)], max_gradient_norm=np.float32(0.5))
    made.save(tmp_path / "agent")
    assert kl.PPO.load(tmp_path / "agent").state().keys() == made.state().keys()
    with pytest.raises(kl.Error, match="discount must be a number, or one for each run"):
        agent([3], discount="0.9")
