"""What methods by continual backprop have in common, whatever they learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import klopf as kl
from klopf.experiments.settings import option


@dataclass(frozen=True)
class Replacing:
    """The options of `kl.ContinualBackprop`."""

    replacement_rate: float = option(3e-4, "share of the counted units replaced at each step", minimum=0)
    utility: str = option("contribution", "utility of a unit", choices=kl.utilities)
    utility_decay: float = option(0.99, "decay of the running averages of utility and activity", minimum=0)
    maturity: int = option(100, "age in steps of learning up to which a unit is protected", minimum=0)
    count_from: str = option(
        "eligible", "units that the replacement rate is a share of", choices=("eligible", "all")
    )
    count_mode: str = option(
        "accumulate", "how fractions of a unit are rounded", choices=("accumulate", "bernoulli")
    )
    reset_optimizer_state: bool = option(True, "whether a new unit's weights begin with a fresh optimizer")

    def replacement(self, **others: Any) -> kl.ContinualBackprop:
        """The rule, with other settings of it."""
        return kl.ContinualBackprop(
            replacement_rate=self.replacement_rate,
            utility=self.utility,
            utility_decay=self.utility_decay,
            maturity=self.maturity,
            count_from=self.count_from,
            count_mode=self.count_mode,
            reset_optimizer_state=self.reset_optimizer_state,
            **others,
        )
