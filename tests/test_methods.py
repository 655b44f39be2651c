"""The methods: settings by profile, the lines of a call, learners that train, and task switches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import klopf as kl
from klopf.experiments import recall, regression, streams
from klopf.experiments.agents import AGENTS
from klopf.experiments.lines import Methods
from klopf.experiments.methods import IMAGE_METHODS, METHODS, OURS, PROFILES, PUBLISHED, NetworkSize
from klopf.experiments.settings import options

resolve, lines, line_of = IMAGE_METHODS.resolve, IMAGE_METHODS.lines, IMAGE_METHODS.line_of
SIZE = NetworkSize(channels=(3,), kernels=(3,), hidden=(5,))
SHAPE = (3, 8, 8)


def learner_of(name: str, seeds: list[int] | None = None, **given: Any) -> kl.Learner:
    return resolve(name, "authors", given).build(SIZE, SHAPE, seeds or [0, 1], "cpu")


def batch(runs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(runs, 20, *SHAPE)).astype(np.float32), rng.integers(0, 2, size=(runs, 20))


@pytest.mark.parametrize(
    "methods",
    [IMAGE_METHODS, AGENTS, regression.METHODS, recall.METHODS, streams.STREAMS],
    ids=["images", "agents", "regression", "recall", "streams"],
)
def test_every_option_of_every_method_is_documented(methods: Methods[Any]) -> None:
    for method in methods.kinds.values():
        assert len(options(method)) == len(dataclasses.fields(method))
        assert method.__doc__
    for name, one in methods.options().items():
        assert methods.defaults_text(name) or "(default: " in one.metadata["help"]


def test_profiles_spell_out_where_text_and_code_differ() -> None:
    assert set(PROFILES) == {"paper", "authors"}
    for profile in PROFILES.values():
        assert set(profile) == set(METHODS) == set(PUBLISHED) | set(OURS)
    paper, authors = (resolve("cbp", profile, {}) for profile in ("paper", "authors"))
    assert (paper.utility, authors.utility) == ("contribution", "adaptable_contribution")
    assert (paper.init, authors.init) == ("kaiming", "pytorch")
    assert (paper.replacement_init, authors.replacement_init) == ("network", "pytorch")
    assert (paper.count_from, authors.count_from) == ("eligible", "all")
    assert (paper.reset_optimizer_state, authors.reset_optimizer_state) == (True, False)
    for profile in PROFILES:
        assert resolve("l2", profile, {}).step_size == 0.03
        assert resolve("l2", profile, {}).weight_decay == 3e-6
        snp = resolve("snp", profile, {})
        assert (snp.step_size, snp.weight_decay, snp.noise) == (0.01, 1e-5, 1e-5)
        cbp = resolve("cbp", profile, {})
        assert (cbp.step_size, cbp.replacement_rate, cbp.maturity, cbp.utility_decay) == (
            0.01,
            3e-4,
            100,
            0.99,
        )
        assert all(resolve(name, profile, {}).momentum == 0.9 for name in METHODS)


def test_defaults_are_told_briefly() -> None:
    kappa = streams.STREAMS.defaults_text("kappa")
    assert kappa == "default: ac 3, q/sarsa 2"
    assert streams.STREAMS.defaults_text("scope") == (
        "default: ac/q/sarsa network, +idbd/+autostep weight, +decentralised unit"
    )
    assert IMAGE_METHODS.defaults_text("count_from") == ("authors: cbp all, +cbp eligible; paper: eligible")


def test_what_is_given_comes_before_the_profile() -> None:
    assert resolve("cbp", "paper", {"utility": "weight"}).utility == "weight"


def test_lines_are_all_combinations() -> None:
    made = lines(["bp", "cbp"], "authors", {"step_size": [0.1, 0.01], "replacement_rate": [1e-4, 1e-5]})
    assert [line.label for line in made] == [
        "bp, step size 0.1",
        "bp, step size 0.01",
        "cbp, step size 0.1, replacement rate 0.0001",
        "cbp, step size 0.1, replacement rate 1e-05",
        "cbp, step size 0.01, replacement rate 0.0001",
        "cbp, step size 0.01, replacement rate 1e-05",
    ]
    assert made[5].method.replacement_rate == 1e-5
    assert made[5].swept == {"step_size": 0.01, "replacement_rate": 1e-5}
    assert made[0].swept == {"step_size": 0.1}
    assert [line_of(line.describe()) for line in made] == made


def test_a_single_value_is_not_swept() -> None:
    (line,) = lines(["bp"], "authors", {"step_size": [0.1]})
    assert (line.label, line.swept, line.method.step_size) == ("bp", {}, 0.1)


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["bp", "l2"], {"noise": [0.1]}, "--noise is an option of snp, \\+noise, got only bp, l2"),
        (["bp", "bp"], {}, "--method names bp twice"),
        (["bp"], {"step_size": [0.1, 0.1]}, "--step-size names 0.1 twice"),
    ],
)
def test_options_that_do_not_fit(names: list[str], given: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(kl.Error, match=f"^{message}$"):
        lines(names, "authors", given)


def test_one_kernel_for_each_convolution() -> None:
    with pytest.raises(kl.Error, match="one of --kernels for each of --channels, got 1 for 2"):
        NetworkSize(channels=(3, 4), kernels=(5,))


@pytest.mark.parametrize("name", IMAGE_METHODS.kinds)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_method_trains(name: str, profile: str) -> None:
    learner = resolve(name, profile, {}).build(SIZE, SHAPE, [3, 7], "cpu")
    assert learner.net.runs == 2
    IMAGE_METHODS.kinds[name]().begin_task(learner, 0)
    x, y = batch()
    history = learner.run(x, y, batch_size=10, epochs=3, shuffle=True)
    assert history.loss.shape == (2, 3)
    assert np.isfinite(history.loss).all()
    assert history.loss[:, 0] == pytest.approx(np.log(2), abs=0.2)  # the heads began at zero


@pytest.mark.parametrize("name", METHODS)
def test_a_task_switch_zeroes_the_heads_and_only_two_forget_more(name: str) -> None:
    learner = learner_of(name)
    x, y = batch()
    learner.run(x, y, batch_size=10, epochs=2, shuffle=True)
    before = learner.net.state_dict()
    METHODS[name]().begin_task(learner, 1)
    after = learner.net.state_dict()
    forgotten = {"scratch": ("0.weight", "4.weight"), "resets": ("4.weight",)}.get(name, ())
    *body, weight, bias = (part for part in before if "running" not in part)
    assert np.all(after[weight] == 0)
    assert np.all(after[bias] == 0)
    for part in body:
        if part in forgotten:
            assert not np.any(np.all(after[part] == before[part], axis=tuple(range(1, after[part].ndim))))
        elif part.replace("bias", "weight") not in forgotten:
            assert np.array_equal(after[part], before[part])


def test_scratch_redraws_as_a_run_of_its_own_would() -> None:
    together, alone = learner_of("scratch", [4, 5]), learner_of("scratch", [5])
    for learner in (together, alone):
        METHODS["scratch"]().begin_task(learner, 1)
    for part, weights in together.net.state_dict().items():
        assert np.array_equal(weights[1:], alone.net.state_dict()[part])
