"""Learners that save themselves."""

from __future__ import annotations

from os import PathLike
from typing import Any

from klopf import _core, checkpoint
from klopf.arguments import explain_arguments
from klopf.network import Network

_FORMAT = "klopf learner 1"
Rule = _core.ContinualBackprop | _core.ShrinkAndPerturb
Optimizer = _core.SGD | _core.Adam


def _spec(value: Any) -> dict[str, Any]:
    return {"kind": type(value).__name__, **value.fields()}


def _from_spec(spec: dict[str, Any]) -> Any:
    options = dict(spec)
    return getattr(_core, options.pop("kind"))(**options)


class Learner(_core.Learner):
    __doc__ = _core.Learner.__doc__

    def __init__(
        self, network: Network, *, loss: str, optimizer: Optimizer, rules: list[Rule] | None = None
    ) -> None:
        super().__init__(network, loss=loss, optimizer=optimizer, rules=rules or [])
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
            "network": {
                "layers": [_spec(layer) for layer in self.net.layers],
                "input_shape": list(self.net.input_shape),
                "seeds": list(self.net.seeds),
                "init": self.net.init,
            },
            "loss": self.loss,
            "optimizer": _spec(self.optimizer),
            "rules": [_spec(rule) for rule in self.rules],
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
        arrays, settings = checkpoint.read(path)
        if settings.get("format") != _FORMAT:
            raise _core.Error(f"[load] {path} is not a learner saved by klopf")
        about = settings["network"]
        net = Network(
            [_from_spec(layer) for layer in about["layers"]],
            tuple(about["input_shape"]),
            runs=len(about["seeds"]),
            seeds=about["seeds"],
            init=about["init"],
            device=device,
            precision=precision,
        )
        saved = [_from_spec(rule) for rule in settings["rules"]]
        learner = cls(
            net,
            loss=settings["loss"],
            optimizer=_from_spec(settings["optimizer"]),
            rules=saved if rules is None else rules,
        )
        learner.load_state(arrays)
        checkpoint.warn_of_other_arithmetic(path, settings["arithmetic"], net._arithmetic)
        return learner


explain_arguments(
    Learner,
    "learner",
    ("__init__", "step", "run", "evaluate", "forward", "forward_on_device", "backward", "load_state"),
)
