"""Medians and ratios with their spread, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparison.series import Measured, Series


@dataclass(frozen=True)
class Spread:
    """Median, quartiles, least and most of one value a round."""

    median: float
    lower: float
    upper: float
    least: float
    most: float


@dataclass(frozen=True)
class Row:
    """What there is to say about one formulation.

    seconds: of a step.  ratio: to the formulation of klopf it is compared with, round by round, so that drift
    of the machine cancels; above 1 it is slower.  cores: CPU time over wall time, in the median.
    best: the fastest of its library among those compared with the same formulation of klopf.
    """

    name: str
    library: str
    against: str
    seconds: Spread
    ratio: Spread
    cores: float
    best: bool


def spread(values: Sequence[float]) -> Spread:
    """The spread of a list that is not empty; quartiles are interpolated."""
    least, lower, median, upper, most = (float(q) for q in np.percentile(values, [0, 25, 50, 75, 100]))
    return Spread(median, lower, upper, least, most)


def rows(series: Series) -> list[Row]:
    """One row for each formulation, in the order of the series."""
    by_name = {one.name: one for one in series.formulations}
    medians = {name: float(np.median(_seconds(one))) for name, one in by_name.items()}

    def best(one: Measured) -> bool:
        rivals = [
            medians[other.name]
            for other in series.formulations
            if (other.library, other.against) == (one.library, one.against)
        ]
        return medians[one.name] == min(rivals)

    return [
        Row(
            one.name,
            one.library,
            one.against,
            spread(_seconds(one)),
            spread([a / b for a, b in zip(_seconds(one), _seconds(by_name[one.against]), strict=True)]),
            float(np.median(np.divide(one.cpu, one.wall))),
            best(one),
        )
        for one in series.formulations
    ]


def _seconds(measured: Measured) -> list[float]:
    """Seconds a step, one value a round."""
    return [wall / measured.steps for wall in measured.wall]


# --- text ---------------------------------------------------------------------------------------------------


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit in which a time is easy to read, and how many of it a second has."""
    if seconds >= 1e-3:
        return "ms", 1e3
    return ("µs", 1e6) if seconds >= 1e-6 else ("ns", 1e9)


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def heading(about: Mapping[str, Any]) -> str:
    """Markdown: what was measured where, and how to read the tables.  about: as in the JSON."""
    machine, settings, commit = about["machine"], about["settings"], about["commit"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    changed = ", with changes" if commit["dirty"] else ""
    processor = f"{machine['processor']} (family {machine['family']}, model {machine['model']})"
    return f"""# klopf and its peers

`{about["command"]}` on {about["date"][:10]}, commit {(commit["hash"] or "unknown")[:7]}{changed}.
{processor}, {machine["cores"]} cores, klopf at level {machine["klopf_isa"]}.
Versions: {versions}.

Time of a training step: median and quartiles of {settings["rounds"]} blocks of about
{settings["seconds"]:g} s, all formulations in turns. Ratio: this time over that of klopf's formulation in
the same round, median [least, most]; above 1 klopf is faster. Peers do plain backprop, also where klopf
does continual backprop (cbp). *: the fastest formulation of its library there.
"""


def table(all_series: Sequence[Series]) -> str:
    """Markdown: one table for each case, all thread counts in it."""
    parts = []
    for case in dict.fromkeys(series.case for series in all_series):
        chosen = [series for series in all_series if series.case == case]
        lines = [
            f"## {chosen[0].title}",
            "",
            "| threads | formulation | a step | quartiles | ratio | to |",
            "|--:|---|--:|--:|--:|---|",
        ]
        lines += [_line(series.threads, row) for series in chosen for row in rows(series)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(threads: int, row: Row) -> str:
    unit, factor = unit_of(row.seconds.median)
    time = f"{digits(factor * row.seconds.median)} {unit}"
    quartiles = f"{digits(factor * row.seconds.lower)} to {digits(factor * row.seconds.upper)}"
    ratio = f"{digits(row.ratio.median)} [{digits(row.ratio.least)}, {digits(row.ratio.most)}]"
    own = row.name == row.against
    cells = [
        str(threads),
        row.name + (" *" if row.best and row.library != "klopf" else ""),
        time,
        quartiles,
        "" if own else ratio,
        "" if own else row.against,
    ]
    return "| " + " | ".join(cells) + " |"
