"""Learners that save themselves."""

from __future__ import annotations

from os import PathLike

from klopf import _core, checkpoint
from klopf.arguments import explain_arguments
from klopf.network import Network
from klopf.specs import (
    Loss,
    Optimizer,
    PerRun,
    Rule,
    describe,
    describe_network,
    made,
    made_network,
    plain,
)

_FORMAT = "klopf learner 1"


class Learner(_core.Learner):
    __doc__ = _core.Learner.__doc__

    def __init__(
        self,
        network: Network,
        *,
        loss: Loss,
        optimizer: Optimizer,
        rules: list[Rule] | None = None,
        max_gradient_norm: PerRun | None = None,
    ) -> None:
        super().__init__(
            network,
            loss=loss,
            optimizer=optimizer,
            rules=rules or [],
            max_gradient_norm=max_gradient_norm,
        )
        self.max_gradient_norm = max_gradient_norm
        self.net = network
        self.loss = loss
        self.optimizer = optimizer
        self.rules = list(rules or [])

    def save(self, path: str | PathLike[str]) -> None:
        """Writes everything to one safetensors file, atomically: exact resume with `Learner.load`.

        Raises:
            klopf.Error: the file cannot be written.
        """
        settings = {
            "format": _FORMAT,
            "arithmetic": self.net._arithmetic,
            "network": describe_network(self.net),
            "loss": describe(self.loss),
            "optimizer": describe(self.optimizer),
            "rules": [describe(rule) for rule in self.rules],
            "max_gradient_norm": plain(self.max_gradient_norm),
        }
        checkpoint.write(path, self.state(), settings)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        rules: list[Rule] | None = None,
        device: str = "cpu",
        precision: str = "float32",
    ) -> Learner:
        """A learner that goes on exactly where the saved one stood, bit for bit at the same level, on the
        same device and at the same precision.

        Args:
            path: what `save` wrote
            rules: in place of the saved ones, of the same kinds
            device: where it goes on
            precision: of dense products there

        Raises:
            klopf.Error: missing, truncated or corrupt file; a file of something else.
        """
        arrays, settings = checkpoint.read_saved(path, _FORMAT, "a learner")
        net = made_network(settings["network"], device, precision)
        saved = [made(rule) for rule in settings["rules"]]
        learner = cls(
            net,
            loss=made(settings["loss"]),
            optimizer=made(settings["optimizer"]),
            rules=saved if rules is None else rules,
            max_gradient_norm=settings.get("max_gradient_norm"),
        )
        learner.load_state(arrays)
        checkpoint.warn_of_other_arithmetic(path, settings["arithmetic"], net._arithmetic)
        return learner


explain_arguments(
    Learner,
    "learner",
    ("__init__", "step", "run", "evaluate", "forward", "forward_on_device", "backward", "load_state"),
)
