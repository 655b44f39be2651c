"""Layers, optimizers, rules and networks as plain values, as saved files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf import _core
from klopf.network import Network

Rule = (
    _core.ContinualBackprop
    | _core.Recruitment
    | _core.ReDo
    | _core.SNR
    | _core.Rewire
    | _core.Goal
    | _core.ShrinkAndPerturb
)
Optimizer = (
    _core.SGD
    | _core.Adam
    | _core.AdamW
    | _core.UPGD
    | _core.IDBD
    | _core.Autostep
    | _core.ObGD
    | _core.AdaptiveObGD
    | _core.MetaOptimize
    | _core.Intentional
    | _core.SwiftTD
)
Loss = str | _core.ClippedPolicy
PerRun = float | Sequence[float] | NDArray[Any]  # one number, or one for each run


def describe(value: Any) -> Any:
    """A spec as {"kind": ..., options}; a word stays one."""
    return value if isinstance(value, str) else {"kind": type(value).__name__, **value.fields()}


def plain(value: Any) -> Any:
    """A number, a word, or an array as a list."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return np.asarray(value, dtype=np.float64).tolist()


def made(described: Any) -> Any:
    """What `describe` was given."""
    if isinstance(described, str):
        return described
    options = dict(described)
    return getattr(_core, options.pop("kind"))(**options)


def describe_network(net: Network) -> dict[str, Any]:
    """What a network is made from, but for where it lives."""
    return {
        "layers": [describe(layer) for layer in net.layers],
        "input_shape": list(net.input_shape),
        "seeds": list(net.seeds),
        "init": net.init,
        "stream": net.stream,
    }


def made_network(about: dict[str, Any], device: str, precision: str) -> Network:
    """A network of that description, newly drawn."""
    return Network(
        [made(layer) for layer in about["layers"]],
        tuple(about["input_shape"]),
        runs=len(about["seeds"]),
        seeds=about["seeds"],
        init=about["init"],
        device=device,
        precision=precision,
        stream=about.get("stream", 0),
    )
