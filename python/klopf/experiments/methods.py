"""The methods that streams of images compare.

A method knows how to build its learner and what happens between two tasks.
Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024), and its public
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.decentralised import Decentralised
from klopf.experiments.lines import Methods
from klopf.experiments.replacing import Replacing
from klopf.experiments.room import WithRoom
from klopf.experiments.settings import option
from klopf.experiments.stepping import BEGIN, DECAY, OPTIMIZERS, combinations, combined, spelled

# By name: the layers behind a convolution, and behind a linear layer.
NORMALISATIONS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "none": ((), ()),
    "layernorm": ((kl.LayerNorm,), (kl.LayerNorm,)),
    "batchnorm": ((kl.BatchNorm2d,), (kl.BatchNorm1d,)),
}


@dataclass(frozen=True)
class NetworkSize:
    """The network of the experiment: blocks of Conv2d-ReLU-MaxPool2d(2), then linear layers with ReLU.

    channels: filters of each block.  kernels: their height and width.  hidden: units of each hidden linear
    layer.
    outputs: classes of a task, one head each.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    kernels: tuple[int, ...] = (5, 3, 3)
    hidden: tuple[int, ...] = (128, 128)
    outputs: int = 2

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.kernels):
            raise kl.Error(
                f"[network] expected one of --kernels for each of --channels, got {len(self.kernels)} "
                f"for {len(self.channels)}"
            )

    def layers(
        self, normalisation: str = "none", dropout: float = 0.0, room: WithRoom | None = None
    ) -> list[Any]:
        """The layers, input side first; no padding.

        normalisation: before each ReLU, one of NORMALISATIONS.  dropout: behind those of linear layers.
        room: who lives in hidden layers, and their wires.
        """
        room = room or WithRoom()
        of_images, of_vectors = NORMALISATIONS[normalisation]
        made: list[Any] = []
        for channels, kernel in zip(self.channels, self.kernels, strict=True):
            made += [
                kl.Conv2d(channels, kernel, **room.place(channels)),
                *(kind() for kind in of_images),
                kl.ReLU(),
                kl.MaxPool2d(2),
            ]
        made.append(kl.Flatten())
        for units in self.hidden:
            made += [room.linear(units), *(kind() for kind in of_vectors), kl.ReLU()]
            if dropout > 0:
                made.append(kl.Dropout(dropout))
        return [*made, kl.Linear(self.outputs)]


@dataclass(frozen=True)
class ImageMethod:
    """What every method has: weights are initialised once; at a task switch at most the heads begin anew."""

    name: ClassVar[str]

    init: str = option("pytorch", "how weights are drawn before the first task", choices=kl.initialisers)

    def layers(self, size: NetworkSize) -> list[Any]:
        """The network of this method."""
        raise NotImplementedError

    def optimizer(self) -> Any:
        """The step-size rule."""
        raise NotImplementedError

    def rules(self) -> list[Any]:
        """The unit rules that follow the optimizer in every step."""
        return []

    def rewiring(self) -> list[Any]:
        """The rule, behind all others, by which units' wires change."""
        return []

    def build(
        self,
        size: NetworkSize,
        input_shape: tuple[int, ...],
        seeds: Sequence[int],
        device: str,
        precision: str = "float32",
        events: int = 0,
    ) -> kl.Learner:
        """A learner with one run for each seed."""
        network = kl.Network(
            self.layers(size),
            input_shape=input_shape,
            runs=len(seeds),
            seeds=list(seeds),
            init=self.init,
            device=device,
            precision=precision,
        )
        rules = [*self.rules(), *self.rewiring()]
        return kl.Learner(
            network, loss="cross_entropy", optimizer=self.optimizer(), rules=rules, events=events
        )

    def begin_task(self, learner: kl.Learner, task: int, new_heads: bool = True) -> None:
        """What happens before task number `task` (from 0); momentum is kept.

        new_heads: whether the stream has heads of every task's own; they begin at zero.
        """
        if new_heads:
            learner.net.reset([-1], to="zero")


@dataclass(frozen=True)
class Momentum(ImageMethod):
    """SGD with momentum."""

    step_size: float = option(0.01, BEGIN, above=0)
    momentum: float = option(0.9, "momentum of SGD", minimum=0)

    def optimizer(self) -> Any:
        return kl.SGD(step_size=self.step_size, momentum=self.momentum)


@dataclass(frozen=True)
class Linear(Momentum):
    """A linear classifier of the pixels: the baseline that has no features to lose."""

    name: ClassVar[str] = "linear"

    def layers(self, size: NetworkSize) -> list[Any]:
        return [kl.Flatten(), kl.Linear(size.outputs)]


@dataclass(frozen=True)
class Deep(WithRoom, ImageMethod):
    """What methods with hidden layers have."""

    normalisation: str = option(
        "none", "of what hidden units sum up, before their ReLU", choices=tuple(NORMALISATIONS)
    )
    dropout: float = option(0.0, "probability of a unit of hidden linear layers to be left out", minimum=0)

    def layers(self, size: NetworkSize) -> list[Any]:
        return size.layers(self.normalisation, self.dropout, self)


@dataclass(frozen=True)
class Backprop(Deep, Momentum):
    """Backprop with momentum."""

    name: ClassVar[str] = "bp"


@dataclass(frozen=True)
class L2(Backprop):
    """Backprop with L2 regularisation, coupled: the decay is part of the gradient, biases included."""

    name: ClassVar[str] = "l2"

    weight_decay: float = option(0.0, DECAY, minimum=0)

    def optimizer(self) -> Any:
        return kl.SGD(step_size=self.step_size, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class ShrinkAndPerturb(L2):
    """Shrink and Perturb: L2 shrinks; Gaussian noise is added to every weight and bias after every step."""

    name: ClassVar[str] = "snp"

    noise: float = option(1e-5, "standard deviation of the noise added at every step", minimum=0)

    def rules(self) -> list[Any]:
        return [kl.ShrinkAndPerturb(noise=self.noise)]


@dataclass(frozen=True)
class ContinualBackprop(Replacing, L2):
    """Continual backprop: mature units of least utility are replaced by new ones, a few at a time."""

    name: ClassVar[str] = "cbp"

    utility: str = option("adaptable_contribution", "utility of a unit", choices=kl.utilities)
    reset_optimizer_state: bool = option(False, "whether a new unit's weights begin without momentum")
    transfer_mean_to_bias: bool = option(
        False, "whether the mean activity of a replaced unit moves into the biases that it fed"
    )
    replacement_init: str = option(
        "pytorch", "how a new unit's weights are drawn", choices=("network", *kl.initialisers)
    )

    def rules(self) -> list[Any]:
        return [
            self.replacement(
                transfer_mean_to_bias=self.transfer_mean_to_bias,
                init=None if self.replacement_init == "network" else self.replacement_init,
            )
        ]


@dataclass(frozen=True)
class Scratch(L2):
    """A new network for every task: the line against which a loss of plasticity is seen."""

    name: ClassVar[str] = "scratch"

    def begin_task(self, learner: kl.Learner, task: int, new_heads: bool = True) -> None:
        if task > 0:
            learner.restart()
        super().begin_task(learner, task, new_heads)


@dataclass(frozen=True)
class L2Init(Backprop):
    """Backprop with decay towards the initial weights, of the heads towards zero (Kumar et al. 2023)."""

    name: ClassVar[str] = "l2-init"

    weight_decay: float = option(0.0, DECAY, minimum=0)

    def optimizer(self) -> Any:
        return kl.SGD(
            step_size=self.step_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_to="initial",
        )


@dataclass(frozen=True)
class Dropout(Backprop):
    """Backprop with dropout."""

    name: ClassVar[str] = "dropout"


@dataclass(frozen=True)
class BatchNorm(Backprop):
    """Backprop with batch normalisation."""

    name: ClassVar[str] = "batchnorm"


@dataclass(frozen=True)
class LayerNorm(Backprop):
    """Backprop with layer normalisation."""

    name: ClassVar[str] = "layernorm"


@dataclass(frozen=True)
class LayerNormL2(L2):
    """Layer normalisation and L2 regularisation (Lyle et al. 2024)."""

    name: ClassVar[str] = "layernorm+l2"


@dataclass(frozen=True)
class Resets(Backprop):
    """The last layers are drawn anew at every task switch (Nikishin et al. 2022)."""

    name: ClassVar[str] = "resets"

    reset_layers: int = option(2, "layers that begin anew at a task switch, heads included", minimum=1)

    def begin_task(self, learner: kl.Learner, task: int, new_heads: bool = True) -> None:
        layers = sum(isinstance(layer, kl.Linear | kl.Conv2d) for layer in learner.net.layers)
        if self.reset_layers > layers:
            raise kl.Error(f"--reset-layers must be at most {layers}, got {self.reset_layers}")
        redrawn = list(range(-self.reset_layers, -1 if new_heads else 0))
        if task > 0 and redrawn:
            learner.net.reset(redrawn, to="initial")
        super().begin_task(learner, task, new_heads)


METHODS: dict[str, type[ImageMethod]] = {
    method.name: method
    for method in (
        *(Linear, Backprop, L2, ShrinkAndPerturb, ContinualBackprop, Scratch),
        *(L2Init, Dropout, BatchNorm, LayerNorm, LayerNormL2, Resets),
    )
}
# With the other optimizers and rules; noise alone is snp without decay.
OTHERS = {
    **{
        name: kind for name, kind in combinations(Deep, OPTIMIZERS).items() if name not in (*METHODS, "noise")
    },
    "decentralised": combined("decentralised", Deep, Decentralised),
}
SPELLED = spelled([*METHODS, "decentralised", "recruitment", "redo", "snr"])

# What paper and code agree on.
PUBLISHED: dict[str, dict[str, Any]] = {
    "bp": {"step_size": 0.01},
    "l2": {"step_size": 0.03, "weight_decay": 3e-6},
    "snp": {"step_size": 0.01, "weight_decay": 1e-5, "noise": 1e-5},
    "cbp": {
        "step_size": 0.01,
        "replacement_rate": 3e-4,
        "maturity": 100,
        "utility_decay": 0.99,
        "count_mode": "accumulate",
        "transfer_mean_to_bias": False,
    },
    "scratch": {"step_size": 0.01},
}
# No settings were published: these are ours.
OURS: dict[str, dict[str, Any]] = {
    # Better after 250 epochs on pairs of photographs (74.1% correct) than 0.001 (73.0%) and 0.01 (71.4%).
    "linear": {"step_size": 0.0001},
    "l2-init": {"step_size": 0.01, "weight_decay": 1e-4},
    "dropout": {"step_size": 0.01, "dropout": 0.1},
    "batchnorm": {"step_size": 0.01, "normalisation": "batchnorm"},
    "layernorm": {"step_size": 0.01, "normalisation": "layernorm"},
    "layernorm+l2": {"step_size": 0.01, "normalisation": "layernorm", "weight_decay": 1e-4},
    "resets": {"step_size": 0.01, "reset_layers": 2},
}

_INIT = {
    # The text says Kaiming; the code leaves the layers as its framework draws them, U(-b, b) with b = 1 /
    # sqrt(fan_in).
    "paper": "kaiming",
    "authors": "pytorch",
}

PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    profile: {name: {"init": init} for name in METHODS} for profile, init in _INIT.items()
}
PROFILES["paper"]["cbp"].update(
    utility="contribution",
    count_from="eligible",
    replacement_init="network",
    reset_optimizer_state=True,  # the text makes the replaced unit a new one
)
PROFILES["authors"]["cbp"].update(
    utility="adaptable_contribution",
    count_from="all",
    replacement_init="pytorch",  # whatever the initialisation of the network
    reset_optimizer_state=False,  # momentum is never touched
)

# Not published: the network's initialisation, momentum and replacement as above.
_LIKE = {
    name: {
        **({"momentum": 0.9} if name in ("recruitment", "redo", "snr") else {}),
        **({"replacement_rate": 3e-4, "maturity": 100} if name.endswith("+cbp") else {}),
    }
    for name in OTHERS
}


def _others(profile: str) -> dict[str, dict[str, Any]]:
    utilities = {"paper": "corrected", "authors": "uncorrected"}[profile]
    return {
        name: {
            "init": _INIT[profile],
            **({"upgd_maximum": utilities} if name.startswith("upgd") else {}),
        }
        for name in OTHERS
    }


IMAGE_METHODS: Methods[ImageMethod] = Methods(
    {**METHODS, **OTHERS},
    {**PUBLISHED, **OURS, **_LIKE},
    {profile: {**PROFILES[profile], **_others(profile)} for profile in ("authors", "paper")},
)
