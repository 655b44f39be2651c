"""The study's tables: every line's means, and the paired differences that answer its question."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from klopf.experiments.measures import over_part
from klopf.experiments.paired import differences
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.statistics import bootstrap_interval
from study.plan import SECOND_HALF, STREAMS, WHOLE, Stream
from study.stages import Line, folder_of, lines, tuning_criteria

Array = NDArray[np.float64]


def report(name: str, out: str) -> str:
    """Of one stream, as Markdown."""
    stream = STREAMS[name]
    folder = folder_of(name, out)
    there = [line for line in lines(name, out) if (folder / line.folder / "results.csv").exists()]
    found = {line.folder: read_results(folder / line.folder)[0] for line in there}
    return "\n".join(
        [
            f"## {name}",
            "",
            *_means(stream, there, found),
            "",
            *_differences(stream, there, found),
            "",
            *_verdict(stream, there, found),
            "",
        ]
    )


def values(line: LineResults, column: str) -> Array:
    """Of each run over the second half of the stream [R]."""
    return over_part(line, column, SECOND_HALF)


def _means(stream: Stream, there: list[Line], found: dict[str, LineResults]) -> Iterator[str]:
    columns = [*stream.criteria, *([] if len(stream.criteria) == 1 else ["refit_20"])]
    yield f"| mean of {stream.runs} runs ± one standard error | " + " | ".join(columns) + " |"
    yield "|---|" + "--:|" * len(columns)
    for line in there:
        results, cells = found[line.folder], []
        for column in columns:
            runs = values(results, column)
            cells.append(f"{np.nanmean(runs):.3f} ± {np.nanstd(runs, ddof=1) / len(runs) ** 0.5:.3f}")
        yield f"| {_said(line)} | " + " | ".join(cells) + " |"


def _said(line: Line) -> str:
    options = " ".join(" ".join((option, *given)) for option, given in line.options.items())
    if line.role == "rival":
        return f"`{line.name}` for {line.tuned_for}: `{options}`"
    return f"{line.name}" + (f": `{options}`" if options and line.role == "variant" else "")


def difference(
    stream: Stream, whole: LineResults, rival: LineResults, column: str
) -> tuple[float, float, float]:
    """How much better the whole is than another line, run by run: mean and ends of its 95% interval."""
    sign = 1.0 if stream.higher else -1.0
    runs = sign * differences(whole, rival, values(whole, column), values(rival, column))
    interval = bootstrap_interval(runs)
    return float(interval.centre), float(interval.low), float(interval.high)


def _rivals(stream: Stream, there: list[Line], column: str) -> list[Line]:
    """Those that were tuned for this column, or what is nearest to it."""
    tuned_for = column if column in tuning_criteria(stream) else stream.criteria[-1]
    return [line for line in there if line.role == "rival" and line.tuned_for == tuned_for]


def _differences(stream: Stream, there: list[Line], found: dict[str, LineResults]) -> Iterator[str]:
    whole = found.get(WHOLE)
    if whole is None:
        return
    yield f"| better than | {' | '.join(stream.criteria)} |"
    yield "|---|" + "--:|" * len(stream.criteria)
    names = list(dict.fromkeys(line.name for line in there if line.name != WHOLE))
    for name in names:
        cells = []
        for column in stream.criteria:
            others = [line for line in there if line.name == name and line.role != "rival"]
            others += [line for line in _rivals(stream, there, column) if line.name == name]
            if not others:
                cells.append("")
                continue
            mean, low, high = difference(stream, whole, found[others[0].folder], column)
            cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _verdict(stream: Stream, there: list[Line], found: dict[str, LineResults]) -> Iterator[str]:
    whole = found.get(WHOLE)
    if whole is None:
        return
    for column in stream.criteria:
        rivals = _rivals(stream, there, column)
        lows = {line.name: difference(stream, whole, found[line.folder], column)[1:] for line in rivals}
        worse = [name for name, (low, high) in lows.items() if high < 0]
        unclear = [name for name, (low, high) in lows.items() if low <= 0 <= high]
        if not worse and not unclear:
            yield f"- {column}: better than every rival."
        else:
            said = [f"worse than {', '.join(worse)}"] if worse else []
            said += [f"not told from {', '.join(unclear)}"] if unclear else []
            yield f"- {column}: {'; '.join(said)}."
