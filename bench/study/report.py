"""The study's tables: every line's means, and the paired differences that answer its question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from study.comparison import Comparison
from study.record import said
from study.stages import Line


def report(of: Comparison) -> str:
    """Of one stream, as Markdown."""
    parts = [_means(of)]
    if of.whole is not None:
        parts += [_differences(of, of.whole), _counts(of), _verdict(of, of.whole)]
    return "\n\n".join([f"## {of.name}", *("\n".join(part) for part in parts)]) + "\n"


def _table(title: str, columns: Sequence[str], rows: Iterator[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"| {title} | {' | '.join(columns)} |"
    yield "|---|" + "--:|" * len(columns)
    for name, cells in rows:
        yield f"| {name} | {' | '.join(cells)} |"


def _means(of: Comparison) -> Iterator[str]:
    def rows() -> Iterator[tuple[str, list[str]]]:
        for line in of.lines:
            lost = len(of.results(line).lost)
            yield (
                _said(line) + (f" ({lost} lost)" if lost else ""),
                [
                    f"{_number(np.nanmean(runs))} ± {_number(np.nanstd(runs, ddof=1) / len(runs) ** 0.5)}"
                    for runs in (of.values(line, column) for column in of.shown)
                ],
            )

    return _table(f"mean of {of.stream.runs} runs ± one standard error", of.shown, rows())


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if abs(value) < 1000 else f"{value:{sign}.0e}"  # what runs that gave out had


def _said(line: Line) -> str:
    if line.role == "rival":
        return f"`{line.name}` for {line.tuned_for}: `{said(line.options)}`"
    return line.name


def _differences(of: Comparison, whole: Line) -> Iterator[str]:
    def rows() -> Iterator[tuple[str, list[str]]]:
        for name in dict.fromkeys(line.name for column in of.criteria for line in of.others(column)):
            cells = []
            for column in of.criteria:
                other = next((line for line in of.others(column) if line.name == name), None)
                if other is None:  # tuned for what is compared elsewhere, and not run for this yet
                    cells.append("")
                    continue
                mean, low, high = of.difference(whole, other, column)
                cells.append(f"{_number(mean, '+')} [{_number(low, '+')}, {_number(high, '+')}]")
            yield name, cells

    return _table("better than", of.criteria, rows())


def _counts(of: Comparison) -> Iterator[str]:
    rows = (
        (
            line.name,
            [" / ".join(str(len(names)) for names in of.told(line, column)) for column in of.criteria],
        )
        for line in of.lines
        if line.role != "rival"
    )
    return _table("rivals it is better than / not told from / worse than", of.criteria, rows)


def _verdict(of: Comparison, whole: Line) -> Iterator[str]:
    for column in of.criteria:
        _, unclear, worse = of.told(whole, column)
        said = [f"worse than {', '.join(worse)}"] if worse else []
        said += [f"not told from {', '.join(unclear)}"] if unclear else []
        yield f"- {column}: {'; '.join(said) or 'better than every rival'}."
