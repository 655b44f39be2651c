"""What the study of decentralised networks runs: streams, rivals and their trials, ablations, controls.

Written before any of it was run; docs/decentralised.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Options = dict[str, list[str]]  # of the command line; several values are as many trials

TUNE_SEED, TUNE_PART = 1_000_000, 0.3
SECOND_HALF = (0.5, 1.0)


@dataclass(frozen=True)
class Stream:
    """A stream, and how methods are judged on it.

    command: words behind `klopf`.  length: the option that says how long it is, and its value.
    criteria: columns of the results.  tuned_for: those of them that rivals are tuned for, each.
    higher: whether more of them is better.  runs: of a comparison.  tune_runs: of a trial.
    trials: which grids rivals have.  controls: methods that are shown beside.  like_all: options of all
    methods.  of_networks: of all that have hidden units.
    """

    command: list[str]
    length: tuple[str, int]
    criteria: tuple[str, ...]
    tuned_for: tuple[str, ...]
    trials: dict[str, Options]
    controls: tuple[str, ...]
    higher: bool = False
    runs: int = 20
    tune_runs: int = 5
    like_all: Options = field(default_factory=dict)
    of_networks: Options = field(default_factory=dict)


def _grid(**options: list[float]) -> Options:
    return {
        "--" + name.replace("_", "-"): [f"{value:g}" for value in values] for name, values in options.items()
    }


# Twelve trials of every rival.
ONLINE: dict[str, Options] = {
    "bp": _grid(step_size=[0.0005, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1]),
    "l2": _grid(step_size=[0.003, 0.005, 0.01, 0.02], weight_decay=[1e-4, 1e-3, 1e-2]),
    "layernorm+l2": _grid(step_size=[0.003, 0.005, 0.01, 0.02], weight_decay=[1e-4, 1e-3, 1e-2]),
    "l2-init": _grid(step_size=[0.003, 0.005, 0.01, 0.02], weight_decay=[1e-4, 1e-3, 1e-2]),
    "upgd": _grid(step_size=[0.003, 0.01, 0.03], weight_decay=[0, 1e-3], gradient_noise=[1e-3, 1e-2]),
    "cbp": _grid(step_size=[0.003, 0.01], replacement_rate=[1e-5, 1e-4], weight_decay=[0, 1e-4, 1e-3]),
}
IMAGES: dict[str, Options] = {
    "bp": _grid(step_size=[5e-4, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.0125, 0.02, 0.03, 0.05, 0.1]),
    "l2": _grid(step_size=[0.003, 0.01, 0.03], weight_decay=[1e-4, 3e-4, 1e-3, 3e-3]),
    "layernorm+l2": _grid(step_size=[0.003, 0.01, 0.03], weight_decay=[1e-4, 3e-4, 1e-3, 3e-3]),
    "l2-init": _grid(step_size=[0.003, 0.01, 0.03], weight_decay=[1e-4, 3e-4, 1e-3, 3e-3]),
    "upgd": _grid(step_size=[0.003, 0.01, 0.03], weight_decay=[0, 1e-3], gradient_noise=[1e-3, 1e-2]),
    "cbp": _grid(step_size=[0.003, 0.01, 0.03], replacement_rate=[1e-4, 1e-3, 3e-3, 1e-2]),
}

# The whole, as it is by default everywhere, and what is taken out of it or put into it.
WHOLE = "decentralised"
VARIANTS: dict[str, tuple[str, Options]] = {
    "decentralised": (WHOLE, {}),
    "one step size": (WHOLE, {"--scope": ["network"], "--bound": ["network"]}),
    "step size of a weight": (WHOLE, {"--scope": ["weight"]}),
    "fixed step sizes": (WHOLE, {"--meta-step-size": ["0"]}),
    "no floor": (WHOLE, {"--minimum-step-size": ["0"]}),
    "no decay": (WHOLE, {"--weight-decay": ["0"]}),
    "no recruitment": (WHOLE, {"--replacement-rate": ["0"]}),
    "replacement as cbp's": (
        "autostep+cbp",
        {
            **_grid(
                step_size=[0.01], meta_step_size=[0.1], minimum_step_size=[0.001], maximum_step_size=[0.1]
            ),
            **_grid(output_step_size=[0.005], weight_decay=[3e-4], replacement_rate=[1e-3], maturity=[1000]),
            "--scope": ["unit"],
            "--bound": ["unit"],
        },
    ),
    "listened, gradient": (WHOLE, {"--goal": ["listened"]}),
    "listened, perturbation": (WHOLE, {"--goal": ["listened"], "--listened-by": ["perturbation"]}),
    "fringe by gradient alone": (WHOLE, {"--goal": ["listened"], "--backprop-in-fringe": ["no"]}),
    "fringe by reward alone": (
        WHOLE,
        {"--goal": ["listened"], "--listened-by": ["perturbation"], "--backprop-in-fringe": ["no"]},
    ),
    "active": (WHOLE, {"--goal": ["active"]}),
    "unlike peers": (WHOLE, {"--goal": ["decorrelated"]}),
    "growth": (WHOLE, {"--living": ["0.25"], "--growth-period": ["1000"]}),
    "all pieces": (
        WHOLE,
        {"--goal": ["listened"], "--living": ["0.25"], "--growth-period": ["1000"]},
    ),
}


@dataclass(frozen=True)
class Question:
    """One question.  streams: those it is asked of.  seed: of the first run.  whole: the variant that all
    others are compared with.  variants: methods with their options.  controls: whether streams' controls
    are run."""

    streams: tuple[str, ...]
    seed: int
    whole: str
    variants: dict[str, tuple[str, Options]]
    controls: bool


_RECALL = ("recall_1", "recall_5", "recall_20")
_CONTROLS = ("frozen", "frozen-after-first", "scratch", "joint")


def _recall(*hidden: int) -> Stream:
    command = ["recall", "--hidden", *map(str, hidden)]
    return Stream(command, ("--tasks", 200), ("error", *_RECALL), ("error", "recall_20"), ONLINE, _CONTROLS)


def _images(command: list[str], tasks: int, oldest: str, runs: int, **others: Any) -> Stream:
    measured, beside = ("accuracy", *_RECALL), ("linear", "scratch")
    return Stream(
        ["imagenet", "--recall", *command],
        ("--tasks", tasks),
        measured,
        ("accuracy", oldest),
        IMAGES,
        beside,
        True,
        runs,
        **others,
    )


_DEMO = [
    *("--size", "16", "--classes", "1000", "--epochs", "15", "--batch-size", "20"),
    *("--train-images", "60", "--test-images", "60", "--channels", "8", "16", "--kernels", "5", "3"),
    *("--hidden", "32", "--metrics-every", "5", "--probe-images", "500"),
]
_TINY = [
    *("--data", "tiny60-32.npy", "--epochs", "20", "--train-images", "450"),
    *("--test-images", "100", "--metrics-every", "5"),
]
STREAMS = {
    "plenty": _recall(48),
    "scarce": _recall(24),
    "plenty, two layers": _recall(48, 48),
    "scarce, two layers": _recall(24, 24),
    "regression": Stream(
        ["regression", "--flip", "one"],
        ("--examples", 2_000_000),
        ("error",),
        ("error",),
        ONLINE,
        ("linear",),
        of_networks={"--hidden": ["20"]},
    ),
    "images": _images(_DEMO, 180, "recall_20", 12, like_all={"--init": ["xavier"]}),
    # Their trials end before a task is 20 back.
    "photographs": _images(_TINY, 30, "recall_5", 3, tune_runs=2),
    "photographs, Kaiming": _images(_TINY, 30, "recall_5", 4, tune_runs=2, like_all={"--init": ["kaiming"]}),
}

# What answers before led to, tried on the trials' seeds alone: the second setting, and the third question's
# weights.
_SECOND_SETTING = {"--dormancy": ["0.1"], "--maturity": ["300"], "--meta-step-size": ["0.03"]}
_THIRD = "photographs, Kaiming"
_PLANNED = tuple(name for name in STREAMS if name != _THIRD)
QUESTIONS = {
    "first": Question(_PLANNED, 30_000, WHOLE, VARIANTS, True),
    "second": Question(
        _PLANNED,
        40_000,
        "second setting",
        {
            "second setting": (WHOLE, _SECOND_SETTING),
            "dormancy alone": (WHOLE, {"--dormancy": ["0.1"]}),
            WHOLE: (WHOLE, {}),
        },
        False,
    ),
    "third": Question(
        (_THIRD,), 50_000, WHOLE, {WHOLE: (WHOLE, {}), "second setting": (WHOLE, _SECOND_SETTING)}, False
    ),
}
