"""The engine for neural networks that must keep learning: R independent runs in lockstep."""

from typing import TYPE_CHECKING, Any

from klopf import checkpoint
from klopf._core import (
    IDBD,
    SGD,
    SNR,
    UPGD,
    Adam,
    AdamW,
    AdaptiveObGD,
    Autostep,
    BatchNorm1d,
    BatchNorm2d,
    ClippedPolicy,
    ContinualBackprop,
    Conv2d,
    DeviceArray,
    Dropout,
    Error,
    Evaluation,
    Flatten,
    Goal,
    History,
    Intentional,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogStd,
    MaxPool2d,
    MetaOptimize,
    ObGD,
    PPOUpdate,
    Recruitment,
    ReDo,
    ReLU,
    Rewire,
    ShrinkAndPerturb,
    Sigmoid,
    Step,
    SwiftTD,
    Tanh,
    __version__,
    advantages,
    devices,
    get_threads,
    initialisers,
    isa,
    layers,
    losses,
    optimizers,
    rules,
    set_threads,
    utilities,
)
from klopf.learner import Learner
from klopf.meters import FunctionChange
from klopf.network import Network, UnitGroup
from klopf.own_rules import StepSizeRule, UnitRule, UtilityRule, WatchedUnits
from klopf.ppo import PPO
from klopf.pruning import Pruned
from klopf.stream import StreamAgent

if TYPE_CHECKING:
    from klopf import data

__all__ = [
    "IDBD",
    "PPO",
    "SGD",
    "SNR",
    "UPGD",
    "Adam",
    "AdamW",
    "AdaptiveObGD",
    "Autostep",
    "BatchNorm1d",
    "BatchNorm2d",
    "ClippedPolicy",
    "ContinualBackprop",
    "Conv2d",
    "DeviceArray",
    "Dropout",
    "Error",
    "Evaluation",
    "Flatten",
    "FunctionChange",
    "Goal",
    "History",
    "Intentional",
    "LayerNorm",
    "LeakyReLU",
    "Learner",
    "Linear",
    "LogStd",
    "MaxPool2d",
    "MetaOptimize",
    "Network",
    "ObGD",
    "PPOUpdate",
    "Pruned",
    "ReDo",
    "ReLU",
    "Recruitment",
    "Rewire",
    "ShrinkAndPerturb",
    "Sigmoid",
    "Step",
    "StepSizeRule",
    "StreamAgent",
    "SwiftTD",
    "Tanh",
    "UnitGroup",
    "UnitRule",
    "UtilityRule",
    "WatchedUnits",
    "__version__",
    "advantages",
    "checkpoint",
    "data",
    "devices",
    "get_threads",
    "initialisers",
    "isa",
    "layers",
    "losses",
    "optimizers",
    "rules",
    "set_threads",
    "utilities",
]


def __getattr__(name: str) -> Any:
    """`klopf.data`, imported when it is first asked for."""
    if name == "data":
        import klopf.data

        return klopf.data
    raise AttributeError(f"module 'klopf' has no attribute {name!r}")
