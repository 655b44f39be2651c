"""Reads a recorded trajectory of continual backprop (see tests/data/README.md)."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Integers

FOLDER = Path(__file__).parent.parent / "data"
NAMES: list[str] = sorted(path.stem for path in FOLDER.glob("cbp_*.npz"))

# (layer name, arguments) as both the reference and the engine spell them
LayerSpec: TypeAlias = tuple[str, tuple[Any, ...]]

CONVOLUTIONAL: list[LayerSpec] = [
    *[("Conv2d", (32, 5)), ("ReLU", ()), ("MaxPool2d", (2,))],
    *[("Conv2d", (64, 3)), ("ReLU", ()), ("MaxPool2d", (2,))],
    *[("Conv2d", (128, 3)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Flatten", ())],
    *[("Linear", (128,)), ("ReLU", ()), ("Linear", (128,)), ("ReLU", ()), ("Linear", (2,))],
]


@dataclass
class Recording:
    """One file: settings, data, initial and final parameters, and what happened to every unit."""

    config: dict[str, Any]
    layers: list[LayerSpec]
    x: NDArray[np.float32]  # [T, B, ...]
    y: NDArray[Any]  # [T, B] labels or [T, B, O] targets
    loss: Array  # [T]
    initial: dict[str, NDArray[Any]]  # "0.weight", "0.bias", ...
    final: dict[str, NDArray[Any]]
    replaced: Integers  # [N, 3] rows (step, group, unit) in the order of replacement
    new_incoming: list[NDArray[np.float32]]  # of every group [its replacements, ...]
    utility: list[Array]  # of every group [T, U], over the sum of outgoing weights, before replacement
    age: list[Array]  # of every group [T, U], before replacement

    def replaced_at(self, step: int, group: int) -> Integers:
        """The units of a group replaced at a step, in order."""
        at = (self.replaced[:, 0] == step) & (self.replaced[:, 1] == group)
        units: Integers = self.replaced[at, 2]
        return units

    def incoming_at(self, step: int, group: int) -> NDArray[np.float32]:
        """The incoming weights those units were given, in the same order."""
        rows = self.replaced[self.replaced[:, 1] == group]
        incoming: NDArray[np.float32] = self.new_incoming[group][rows[:, 0] == step]
        return incoming

    @property
    def loss_name(self) -> str:
        return "mse" if self.config["loss"] == "mse" else "cross_entropy"

    @property
    def optimizer(self) -> tuple[str, dict[str, Any]]:
        """The optimizer's name and arguments."""
        c = self.config
        if c["optimizer"] == "adam":
            beta1, beta2 = c["adam_betas"]
            arguments = {"beta1": beta1, "beta2": beta2, "epsilon": c["adam_eps"], "epsilon_at": "raw"}
            return "Adam", {"step_size": c["step_size"], "weight_decay": c["weight_decay"], **arguments}
        arguments = {"momentum": c["momentum"], "weight_decay": c.get("weight_decay", 0.0)}
        return "SGD", {"step_size": c["step_size"], **arguments}

    @property
    def rule(self) -> dict[str, Any]:
        """The arguments of continual backprop."""
        c = self.config
        return {
            "replacement_rate": c["replacement_rate"],
            "utility": c["utility"].split()[0],
            "utility_decay": c["decay_rate"],
            "maturity": c["maturity_threshold"],
            "count_from": "all" if "all units" in c["replacement_count"] else "eligible",
            "reset_optimizer_state": c["optimizer"] == "adam",
        }


def read(name: str) -> Recording:
    """The recording tests/data/NAME.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        entries = {key: file[key] for key in file.files}
    config = ast.literal_eval(str(entries["config"]))
    layers = multilayer(config["layers"]) if "layers" in config else CONVOLUTIONAL
    x = entries["x"] if "x" in entries else entries["x_times_16"].astype(np.float32) / 16.0
    initial = state_dict(layers, entries, "init")
    groups = range(sum(key.startswith("util") for key in entries))
    scales = [float(n) if "adaptation" not in config["utility"] else 1.0 for n in outgoing_counts(initial)]
    return Recording(
        config=config,
        layers=layers,
        x=x,
        y=entries["y"],
        loss=entries["loss"],
        initial=initial,
        final=state_dict(layers, entries, "final"),
        replaced=entries["replaced"],
        new_incoming=[entries[f"new_in_{group}"] for group in groups],
        utility=[entries[f"util{group}"] * scales[group] for group in groups],
        age=[entries[f"age{group}"] for group in groups],
    )


def outgoing_counts(initial: dict[str, NDArray[Any]]) -> list[int]:
    """The number of outgoing weights that a position of a unit has, for every group."""
    weights = [w for name, w in initial.items() if name.endswith("weight")]
    return [len(w) * (w.shape[2] * w.shape[3] if w.ndim == 4 else 1) for w in weights[1:]]


def multilayer(sizes: list[int]) -> list[LayerSpec]:
    """Linear layers with ReLU between them; sizes[0] is the input."""
    layers: list[LayerSpec] = []
    for size in sizes[1:]:
        layers += [("Linear", (size,)), ("ReLU", ())]
    return layers[:-1]


def state_dict(
    layers: list[LayerSpec], entries: dict[str, NDArray[Any]], prefix: str
) -> dict[str, NDArray[Any]]:
    """The numbered parameters of a file under the names of a state dict."""
    parametric = [i for i, (name, _) in enumerate(layers) if name in ("Linear", "Conv2d")]
    names = [f"{i}.{kind}" for i in parametric for kind in ("weight", "bias")]
    return {name: entries[f"{prefix}{number}"] for number, name in enumerate(names)}
