"""Layers with room for more units, and units that choose their wires, as options of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import klopf as kl
from klopf.experiments.settings import option


@dataclass(frozen=True)
class WithRoom:
    """What methods with hidden layers have."""

    living: float | None = option(
        None,
        "share of each hidden layer's units, rounded, that live at birth; --growth-period adds others "
        "(default: all)",
        minimum=0,
    )
    wires: int | None = option(
        None, "inputs that each unit of a hidden linear layer listens to (default: all)", minimum=1
    )
    rewiring_rate: float | None = option(
        None,
        "share of a unit's mature wires dropped for others at each step, with --wires (default: none)",
        minimum=0,
    )

    def place(self, units: int) -> dict[str, Any]:
        """Of a hidden layer of so many units, what it says of who lives there.  Raises kl.Error."""
        grows = getattr(self, "growth_period", 0) > 0
        if self.living is None:
            if grows:
                raise kl.Error("--growth-period needs places where no unit lives: --living, a share below 1")
            return {}
        if self.living > 1:
            raise kl.Error(f"--living must be a share, at most 1, got {self.living}")
        if round(self.living * units) == 0 and not grows:
            raise kl.Error(
                f"--living {self.living:g} of {units} units is none, and nothing adds one: --growth-period"
            )
        return {"living": round(self.living * units)}

    def linear(self, units: int) -> Any:
        """A hidden linear layer."""
        return kl.Linear(units, **self.place(units), **({"wires": self.wires} if self.wires else {}))

    def rewiring(self) -> list[Any]:
        """The rule by which wires change.  Raises kl.Error where there is nothing to rewire."""
        if self.rewiring_rate is None:
            return []
        if self.wires is None:
            raise kl.Error("--rewiring-rate needs units that listen to some of their inputs: --wires")
        return [kl.Rewire(replacement_rate=self.rewiring_rate)]
