"""Where results go, and which options may differ when an experiment goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klopf._core import Error
from klopf.experiments.settings import option, option_of


@dataclass(frozen=True)
class Where:
    """Where the results go."""

    out: str | None = option(
        None,
        "results folder (default: results/ and the command's name, or the next number that is free)",
        placeholder="FOLDER",
    )
    overwrite: bool = option(False, "replace the results that --out has")
    resume: str | None = option(None, "go on with the experiment in a results folder", placeholder="FOLDER")


OPERATIONAL = ("checkpoint_every", "threads", "figure", "quiet", "events")  # change no result


def taken_from(given: dict[str, Any]) -> Where:
    """The options of `Where`, which are removed from those that were given."""
    return Where(**{name: given.pop(name) for name in ("out", "overwrite", "resume") if name in given})


def resumable(given: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """The options that may come with --resume; kl.Error for any other."""
    refused = [name for name in given if name not in OPERATIONAL]
    refused += [name for name in ("out", "overwrite") if getattr(where, name)]
    if refused:
        raise Error(f"--resume takes the settings from its folder, got {option_of(refused[0])} as well")
    return dict(given)
