"""kl.StreamAgent: agents know nothing of each other, save themselves, and say what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
from reference.arrays import relative_error

INPUTS, ACTIONS = 5, 3
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "ObGD": kl.ObGD,
    "ObGD-unit": lambda: kl.ObGD(scope="unit"),
    "ObGD-weight": lambda: kl.ObGD(scope="weight"),
    "AdaptiveObGD": kl.AdaptiveObGD,
    "IDBD": lambda: kl.IDBD(step_size=1e-3, meta_step_size=1e-3),
    "Autostep": lambda: kl.Autostep(step_size=1e-3),
    "MetaOptimize": kl.MetaOptimize,
    "Intentional": lambda: kl.Intentional(step_size=0.05, normalise_error=True),
    "SGD": lambda: kl.SGD(step_size=1e-3),
    "Adam": lambda: kl.Adam(step_size=1e-3),
}
EXPLORING = {"epsilon": 0.5, "last_epsilon": 0.1, "exploration_steps": 50}
METHODS = ("ac", "ac-discrete", "q", "sarsa", "td")


def network(seeds: list[int], outputs: int, stream: int, inputs: int = INPUTS) -> kl.Network:
    body = [layer for _ in range(2) for layer in (kl.Linear(9), kl.LayerNorm(affine=False), kl.LeakyReLU())]
    return kl.Network(
        [*body, kl.Linear(outputs)], (inputs,), runs=len(seeds), seeds=seeds, init="lecun", stream=stream
    )


def agent(
    seeds: list[int], method: str = "ac", optimizer: str = "ObGD", inputs: int = INPUTS, **settings: Any
) -> kl.StreamAgent:
    outputs = {"ac": 1, "ac-discrete": 1, "td": 1}.get(method, ACTIONS)
    policy = {"ac": 2 * ACTIONS, "ac-discrete": ACTIONS}.get(method)
    made_optimizer = OPTIMIZERS.get(optimizer) or getattr(kl, optimizer)
    return kl.StreamAgent(
        policy and network(seeds, policy, 1, inputs),
        network(seeds, outputs, 0, inputs),
        method=method.removesuffix("-discrete"),
        distribution="categorical" if method == "ac-discrete" else None,
        optimizer=made_optimizer() if policy else None,
        value_optimizer=made_optimizer(),
        **{**({} if policy or method == "td" else EXPLORING), **settings},
    )


def world(seeds: list[int], step: int, actions: NDArray[Any]) -> tuple[Any, ...]:
    """What a made-up environment answers: observation, reward, terminated, truncated, final observation."""
    drawn = [np.random.default_rng([seed, step]) for seed in seeds]
    observations = np.stack([rng.normal(size=INPUTS) for rng in drawn])
    final = np.stack([rng.normal(size=INPUTS) for rng in drawn])
    rewards = observations[:, 0] - 0.1 * np.square(actions.reshape(len(seeds), -1)).mean(axis=1)
    ends = np.array([rng.random() for rng in drawn])
    return observations, rewards, ends < 0.05, (ends > 0.95), final


def live(made: kl.StreamAgent, seeds: list[int], steps: range, actions: Any = None) -> Any:
    """So many steps: the last actions."""
    if actions is None:
        actions = made.begin(np.zeros((len(seeds), INPUTS)))
    for step in steps:
        actions = made.step(*world(seeds, step, actions))
    return actions


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("device")
def test_agents_know_nothing_of_each_other(method: str, optimizer: str) -> None:
    """Runs together, or one by one, on one thread or two: the same bits."""
    seeds, before = [3, 900], kl.get_threads()
    rules = [kl.ContinualBackprop(replacement_rate=0.05, maturity=5)]
    together = agent(seeds, method, optimizer, rules=rules)
    try:
        kl.set_threads(2)
        live(together, seeds, range(25))
        kl.set_threads(1)
        state = together.state()
        assert together.alive.all()
        for run, seed in enumerate(seeds):
            alone = agent([seed], method, optimizer, rules=rules)
            live(alone, [seed], range(25))
            for name, value in alone.state().items():
                if name != "counts":
                    assert value[0].tobytes() == state[name][run].tobytes(), name
    finally:
        kl.set_threads(before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded(method: str, optimizer: str, tmp_path: Path, device: str) -> None:
    seeds = [3, 4]
    whole = agent(seeds, method, optimizer, truncation="bootstrap")
    actions = live(whole, seeds, range(20))
    whole.save(tmp_path / "agent")
    again = kl.StreamAgent.load(tmp_path / "agent", device=device)
    for made in (whole, again):
        live(made, seeds, range(20, 40), actions)
    ours, theirs = whole.state(), again.state()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.usefixtures("device")
def test_step_sizes_of_every_weight() -> None:
    """IDBD's begin at the initial one; an optimizer may have one for all."""
    made = agent([3, 4], optimizer="IDBD")
    assert all((values == np.float32(1e-3)).all() for values in made.step_sizes().values())
    live(made, [3, 4], range(30))
    sizes = made.step_sizes()
    weights = {f"policy.{name}": value.shape for name, value in made.policy.state_dict().items()}
    weights |= {f"value.{name}": value.shape for name, value in made.value.state_dict().items()}
    assert {name: value.shape for name, value in sizes.items()} == weights
    for net in ("policy", "value"):
        logarithms = made.state()[f"{net}.optimizer.log_step.0.weight"]
        np.testing.assert_allclose(sizes[f"{net}.0.weight"], 1e-3 * np.exp(logarithms), rtol=1e-5)
        assert np.ptp(logarithms) > 0
    with pytest.raises(kl.Error, match="one step size for all weights"):
        agent([3], optimizer="SGD").step_sizes()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("device")
def test_step_is_learn_with_what_was_seen(method: str) -> None:
    """The same update as from a transition handed in, where nothing is normalised."""
    plain = {"normalise_observations": False, "scale_rewards": False}
    one, other = agent([5], method, **plain), agent([5], method, **plain)
    actions, now = one.begin(np.ones((1, INPUTS))), np.ones((1, INPUTS))
    for step in range(30):
        observation, reward, terminated, truncated, final = world([5], step, actions)
        ended = terminated | truncated
        greedy = one.state()["greedy"].astype(bool)
        taken = actions if method != "td" else None
        actions = one.step(observation, reward, terminated, truncated, final)
        next_action = one.state()["next_index"] if method == "sarsa" else None
        other.learn(
            now,
            taken,
            reward,
            np.where(ended[:, None], final, observation),
            ended,
            next_action=next_action,
            greedy=greedy if method == "q" else None,
        )
        if method == "q" and truncated[0]:
            break
        now = observation
        ours, theirs = one.state(), other.state()
        for name in ours:
            if name.startswith(("policy.", "value.")):
                assert relative_error(theirs[name], ours[name]) < 1e-5, (step, name)


@pytest.mark.usefixtures("device")
def test_traces_that_never_fade() -> None:
    for optimizer in OPTIMIZERS:
        made = agent([3], optimizer=optimizer, discount=1.0, trace_decay=1.0)
        live(made, [3], range(20))
        assert np.isfinite(made.value.state_dict()["0.weight"]).all(), optimizer


@pytest.mark.parametrize("truncation", ["terminal", "bootstrap"])
@pytest.mark.usefixtures("device")
def test_time_follows_the_observation(truncation: str) -> None:
    """t / T - 1/2 after t steps of an episode, whose last observation has it too; nothing scales it."""
    seeds, limit = [5, 6], 20
    made, plain = agent(seeds, inputs=INPUTS + 1, time_limit=limit), agent(seeds)
    actions = made.begin(np.zeros((2, INPUTS)))
    plain.begin(np.zeros((2, INPUTS)))
    time = np.zeros(2)
    for step in range(60):
        what = world(seeds, step, actions)
        actions = made.step(*what)
        plain.step(*what)
        time = np.where(what[2] | what[3], 0, time + 1)
        assert made.observation[:, -1].tolist() == np.float32(time / limit - 0.5).tolist()
        assert (made.observation[:, :-1] == plain.observation).all()
    assert made.begin(np.zeros((2, INPUTS))).shape == actions.shape
    assert made.observation[:, -1].tolist() == [-0.5, -0.5]


@pytest.mark.usefixtures("device")
def test_time_of_what_an_episode_led_to() -> None:
    """The value it goes on in is that of the last observation at its time."""
    net = kl.Network([kl.Linear(1)], (2,))
    net.load_state_dict(
        {"0.weight": np.array([[[0, 1]]], np.float32), "0.bias": np.zeros((1, 1), np.float32)}
    )
    made = kl.StreamAgent(
        None,
        net,
        method="td",
        value_optimizer=kl.SGD(step_size=0),
        discount=0.5,
        truncation="bootstrap",
        time_limit=10,
        normalise_observations=False,
        scale_rewards=False,
    )
    one, no, yes = np.ones((1, 1)), np.array([False]), np.array([True])
    values = [made.begin(one), made.step(one, np.ones(1), no, no), made.step(one, np.ones(1), no, yes, one)]
    np.testing.assert_allclose(np.ravel(values), [-0.5, -0.4, -0.5], rtol=1e-6)
    np.testing.assert_allclose(made.state()["delta"], [1 + 0.5 * -0.3 - -0.4], rtol=1e-6)


@pytest.mark.parametrize("reward_trace", ["reference", "episode"])
@pytest.mark.usefixtures("device")
def test_rewards_are_scaled_by_the_deviation_of_their_sum(reward_trace: str) -> None:
    net = kl.Network([kl.Linear(1)], (1,))
    made = kl.StreamAgent(
        None, net, method="td", value_optimizer=kl.SGD(step_size=0), discount=0.9, reward_trace=reward_trace
    )
    net.load_state_dict({"0.weight": np.zeros((1, 1, 1), np.float32), "0.bias": np.zeros((1, 1), np.float32)})
    rng, sums, total = np.random.default_rng(0), [], 0.0
    made.begin(np.zeros((1, 1)))
    for step in range(40):
        reward, ends = rng.normal(), step % 7 == 6
        total = (0 if ends and reward_trace == "reference" else 0.9 * total) + reward
        sums.append(total)
        if ends and reward_trace == "episode":
            total = 0.0
        made.step(np.zeros((1, 1)), np.array([reward]), np.array([ends]), np.array([False]))
        scale = np.var(sums, ddof=1) if len(sums) > 1 else 1.0
        np.testing.assert_allclose(made.state()["delta"], [reward / np.sqrt(scale + 1e-8)], rtol=1e-9)


@pytest.mark.parametrize("first_action", ["drawn", "kept"])
@pytest.mark.usefixtures("device")
def test_sarsa_begins_an_episode(first_action: str) -> None:
    """With the action drawn for the last one's end, as published, or one for its own first observation."""
    seeds = list(range(8))
    made = agent(seeds, "sarsa", first_action=first_action, epsilon=0.0, last_epsilon=0.0)
    actions = made.begin(np.zeros((8, INPUTS)))
    differ = 0
    for step in range(40):
        what = world(seeds, step, actions)
        actions = made.step(*what)
        ended = what[2] | what[3]
        kept = made.state()["next_index"]
        best = made.value(made.observation[:, None]).argmax(axis=-1).ravel()
        assert (actions[~ended] == kept[~ended]).all()
        assert (actions[ended] == (kept if first_action == "kept" else best)[ended]).all()
        differ += int((kept != best)[ended].sum())
    assert differ > 0
    if first_action == "kept":
        with pytest.raises(
            kl.Error, match="final_observation must be given where an episode ends, for the action"
        ):
            made.step(*what[:2], np.ones(8, bool), np.zeros(8, bool))


@pytest.mark.usefixtures("device")
def test_truncated_transitions() -> None:
    """They go on in the next observation's value, and traces end; a terminal one has no such value."""
    one, no, yes = np.ones((1, 2)), np.array([False]), np.array([True])
    weights = {"0.weight": np.ones((1, 1, 2), np.float32), "0.bias": np.zeros((1, 1), np.float32)}
    found = {}
    for name, (terminated, truncated) in {"": (no, None), "cut": (no, yes), "end": (yes, None)}.items():
        net = kl.Network([kl.Linear(1)], (2,))
        net.load_state_dict(weights)
        optimizer = kl.SGD(step_size=0)
        made = kl.StreamAgent(
            None, net, method="td", value_optimizer=optimizer, discount=0.5, trace_decay=0.5
        )
        found[name] = made.learn(one, None, np.ones(1), one, terminated, truncated)[0]
        made.learn(one, None, np.ones(1), one, no)
        found[f"{name} trace"] = made.state()["value.optimizer.traces.0.weight"][0, 0, 0]
    assert [found[name] for name in ("", "cut", "end")] == [0, 0, -1]
    assert [found[f"{name} trace"] for name in ("", "cut", "end")] == [1.25, 1, 1]


@pytest.mark.usefixtures("device")
def test_prediction_learns() -> None:
    """TD(lambda) on a chain: the values of its states."""
    made = kl.StreamAgent(
        None,
        kl.Network([kl.Linear(1)], (4,)),
        method="td",
        value_optimizer=kl.SGD(step_size=0.2),
        discount=0.9,
        normalise_observations=False,
        scale_rewards=False,
    )
    states = np.eye(4)
    made.begin(states[:1])
    for step in range(2000):
        at = step % 4
        ends = np.array([at == 3])
        made.step(states[[(at + 1) % 4]], np.array([float(at == 3)]), ends, np.array([False]), states[:1])
    values = np.array([made.begin(states[[k]])[0] for k in range(4)])
    np.testing.assert_allclose(values, 0.9 ** np.arange(3, -1, -1), atol=0.02)


@pytest.mark.usefixtures("device")
def test_a_first_layer_of_zeros_learns() -> None:
    """Of few inputs sparse weights leave none, so that LayerNorm sees zeros: learning begins all the same."""
    layers = [kl.Linear(32), kl.LayerNorm(affine=False), kl.LeakyReLU(0.01), kl.Linear(ACTIONS)]
    net = kl.Network(layers, (INPUTS,), runs=2, init="sparse")
    before = net.state_dict()
    assert (before["0.weight"] == 0).all()
    assert ((before["3.weight"] == 0).sum(axis=2) == 29).all()  # ceil(0.9 x 32) of every row
    live(kl.StreamAgent(None, net, method="q"), [3, 4], range(30))
    after = net.state_dict()["0.weight"]
    assert np.isfinite(after).all() and (np.abs(after).max(axis=(1, 2)) > 1e-4).all()


@pytest.mark.usefixtures("device")
def test_a_run_that_is_no_longer_finite_stands_still() -> None:
    seeds = [3, 4]
    made = agent(seeds)
    state = made.state()
    state["value.0.weight"][1] = np.nan
    made.load_state(state)
    actions = live(made, seeds, range(10))
    assert made.alive.tolist() == [True, False]
    assert (actions[1] == 0).all() and (actions[0] != 0).all()
    alone = agent([3])
    live(alone, [3], range(10))
    name = "policy.0.weight"
    assert made.state()[name][0].tobytes() == alone.state()[name][0].tobytes()


def test_mistakes() -> None:
    made = agent([3, 4])
    ones, yes, zeros = np.ones((2, INPUTS)), np.ones(2, bool), np.zeros(2)
    with pytest.raises(kl.Error, match=r"\[stream\] step\(\) needs a begin\(\) before it"):
        made.step(ones, zeros, yes, yes)
    with pytest.raises(kl.Error, match=r"\[begin\] observation must be numbers of shape \[2, 5\], got"):
        made.begin(np.ones((2, 4)))
    made.begin(ones)
    before = made.state()
    for method, given, message in (
        ("ac", {"action": None}, "action must be given, got none"),
        ("td", {"action": zeros}, "action must not be given where nothing is chosen"),
        ("q", {"action": zeros, "next_action": zeros}, "next_action must be given for sarsa alone"),
        ("sarsa", {"action": zeros}, "next_action must be given for sarsa, got none"),
        ("ac-discrete", {"action": zeros, "greedy": yes}, "greedy must be given for q alone"),
        ("q", {"action": zeros + 3}, "actions must be whole numbers from 0 to 2, got 3"),
    ):
        with pytest.raises(kl.Error, match=message):
            agent([3, 4], method).learn(
                observation=ones, reward=zeros, next_observation=ones, terminated=yes, **given
            )
    for bad, message in (
        ((np.full((2, INPUTS), np.nan), zeros, yes, yes), r"\[step\] observation must be finite, got nan"),
        (
            (-1e16 * ones, zeros, yes, yes),
            r"\[stream\] observations must be at most 1e15 in size, got -1e\+16",
        ),
        ((ones, np.full(2, np.inf), yes, yes), r"\[step\] reward must be finite, got inf"),
        ((ones, zeros, zeros, yes), r"\[step\] terminated must be booleans of shape \[2\], got float64"),
    ):
        with pytest.raises(kl.Error, match=message):
            made.step(*bad)
    assert all(np.array_equal(made.state()[name], before[name]) for name in before)
    bootstrapped = agent([3], truncation="bootstrap")
    bootstrapped.begin(ones[:1])
    with pytest.raises(kl.Error, match="final_observation must be given where an episode is truncated"):
        bootstrapped.step(ones[:1], zeros[:1], ~yes[:1], yes[:1])
    for make, message in (
        (lambda: agent([3], trace_decay=1.5), r"\[stream\] trace_decay must be in \[0, 1\], got 1.5"),
        (lambda: agent([3], epsilon=0.1), 'epsilon is an option of q, sarsa, got method="ac"'),
        (lambda: agent([3], "td", entropy=0.1), 'entropy is an option of ac, got method="td"'),
        (lambda: agent([3], reward_trace="never"), "reward_trace must be one of reference, episode"),
        (lambda: agent([3], time_limit=-1), "time_limit must be at least 1, got -1"),
        (lambda: agent([3], "td", "SwiftTD"), r"\[SwiftTD\] is of linear networks: of one Linear layer"),
        (lambda: agent([3], "ac", "SwiftTD"), "SwiftTD is of values, and no policy's"),
        (lambda: agent([3], inputs=1, time_limit=5), "the networks have one input more than an observation"),
        (
            lambda: kl.StreamAgent(None, network([3], 2, 0), method="q", optimizer=kl.ObGD()),
            "optimizer is the policy's, and there is none",
        ),
        (lambda: agent([3], "q", trace_cut="never"), "trace_cut must be one of reference, watkins"),
        (lambda: kl.StreamAgent(None, network([3], 1, 0)), "an actor-critic needs a policy"),
        (
            lambda: kl.StreamAgent(network([3], 2, 1), network([3], 1, 0), method="q"),
            "only an actor-critic has a policy",
        ),
        (
            lambda: kl.StreamAgent(network([3], 2, 0), network([3], 1, 0)),
            "policy and value draw the same weights",
        ),
        (
            lambda: kl.StreamAgent(network([3], 3, 1), network([3], 1, 0)),
            "a policy by softplus has two outputs for each number of an action, got 3",
        ),
    ):
        with pytest.raises(kl.Error, match=message):
            make()
    state = made.state()
    for change in (
        {"step": None},
        {"counts": np.zeros(3, np.int64)},
        {"value.0.weight": state["value.0.weight"][:, :2]},
    ):
        broken = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises(kl.Error):
            made.load_state({**broken, "more": np.zeros(1)} if "step" in change else broken)
        assert all(np.array_equal(made.state()[name], state[name]) for name in state)
