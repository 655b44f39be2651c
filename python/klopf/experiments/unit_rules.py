"""Unit rules as options of methods: what follows the optimizer in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import klopf as kl
from klopf.experiments.replacing import Replacing
from klopf.experiments.settings import option, option_of


@dataclass(frozen=True)
class WithContinualBackprop(Replacing):
    """Units of least utility are replaced."""

    short: ClassVar[str] = "cbp"

    replacement_rate: float = option(1e-4, "share of the counted units replaced at each step", minimum=0)
    maturity: int = option(10, "age in steps of learning up to which a unit is protected", minimum=0)

    def rules(self) -> list[Any]:
        """The unit rules."""
        return [self.replacement()]


@dataclass(frozen=True)
class WithNoise:
    """Noise is added to every weight."""

    short: ClassVar[str] = "noise"

    noise: float = option(1e-5, "standard deviation of the noise added at every step", minimum=0)

    def rules(self) -> list[Any]:
        """The unit rules."""
        return [kl.ShrinkAndPerturb(noise=self.noise)]


@dataclass(frozen=True)
class WithRecruitment:
    """Units outside of the backbone are replaced."""

    short: ClassVar[str] = "recruitment"

    replacement_rate: float = option(1e-3, "share of the counted units replaced at each step", minimum=0)
    maturity: int = option(1000, "age in steps of learning up to which a unit is protected", minimum=0)
    utility_decay: float = option(0.999, "decay of the running averages of utility and activity", minimum=0)
    reputation_decay: float = option(0.99999, "how slowly a unit loses its reputation", minimum=0)
    dormancy: float = option(
        0.0,
        "variance, over the layer's mean, below which a unit loses its reputation as fast as it was earned",
        minimum=0,
    )
    backbone_threshold: float = option(
        0.1, "reputation, over the layer's mean share, from which a unit is never replaced", minimum=0
    )
    backprop_in_fringe: bool = option(
        True, "whether incoming weights of the fringe follow the loss, or nothing but their goal"
    )
    growth_period: int = option(
        0,
        "steps from one look at the error, which may add a unit (--living), to the next; 0: none",
        minimum=0,
    )
    candidates: int | None = option(
        None, "units of the fringe: one is added only where it has fewer (default: 1)", minimum=1
    )
    tolerated_error: float | None = option(
        None, "running loss up to which no unit is added (default: 0)", minimum=0
    )
    progress: float | None = option(
        None,
        "share by which the running loss must fall from look to look, else one is added (default: 0.05)",
        minimum=0,
    )

    def rules(self) -> list[Any]:
        """The unit rules.  Raises kl.Error where options do not go together."""
        self.belongs(self.growth_period > 0, "--growth-period", "candidates", "tolerated_error", "progress")
        return [
            kl.Recruitment(
                replacement_rate=self.replacement_rate,
                maturity=self.maturity,
                utility_decay=self.utility_decay,
                reputation_decay=self.reputation_decay,
                dormancy=self.dormancy,
                threshold=self.backbone_threshold,
                backprop_in_fringe=self.backprop_in_fringe,
                growth_period=self.growth_period,
                candidates=self.candidates,
                tolerated_error=self.tolerated_error,
                progress=self.progress,
            )
        ]

    def belongs(self, there: bool, of: str, *names: str) -> None:
        """kl.Error where an option is given that is of something else, which is not there."""
        for name in names:
            if getattr(self, name) is not None and not there:
                raise kl.Error(f"{option_of(name)} is an option of {of}, and a line is without")


@dataclass(frozen=True)
class WithReDo:
    """Dormant units are replaced."""

    short: ClassVar[str] = "redo"

    threshold: float = option(0.1, "activity over the layer's mean up to which a unit is dormant", minimum=0)
    period: int = option(100, "steps from one look at the units to the next", minimum=1)

    def rules(self) -> list[Any]:
        """The unit rules."""
        return [kl.ReDo(threshold=self.threshold, period=self.period)]


@dataclass(frozen=True)
class WithSnr:
    """Units that are silent for unusually long are replaced (SNR)."""

    short: ClassVar[str] = "snr"

    percentile: float = option(0.99, "of a unit's silences that it is replaced after", above=0)
    silences_every: int = option(1000, "steps from one look at the silences to the next", minimum=1)
    silence: int = option(1000, "silent samples up to which a unit stays before the first look", minimum=1)
    longest_silence: int = option(20000, "silent samples up to which this may grow", minimum=1)

    def rules(self) -> list[Any]:
        """The unit rules."""
        return [
            kl.SNR(
                percentile=self.percentile,
                period=self.silences_every,
                threshold=self.silence,
                longest=self.longest_silence,
            )
        ]


EVERY_UNIT: tuple[Any, ...] = (
    WithContinualBackprop,
    WithRecruitment,
    WithNoise,
    WithReDo,
)  # rules of units of any kind
RULES: tuple[Any, ...] = (*EVERY_UNIT, WithSnr)
