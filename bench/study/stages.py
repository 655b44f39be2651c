"""Running the study: trials of the rivals, the choice among them, and the lines that are compared."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klopf.cli import main as klopf
from klopf.experiments.measures import over_part
from klopf.experiments.results import LineResults, read_results
from study.plan import (
    QUESTIONS,
    SECOND_HALF,
    STREAMS,
    TUNE_PART,
    TUNE_SEED,
    Options,
    Stream,
)


class NotRun(SystemExit):
    """What is asked for was not run; said without a traceback."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a comparison.  role: rival, variant or control.  tuned_for: the column, of a rival."""

    name: str
    method: str
    options: Options
    role: str
    tuned_for: str = ""

    @property
    def folder(self) -> str:
        """Where it is in the stream's folder."""
        words = [self.name, self.tuned_for and f"for {self.tuned_for}"]
        return " ".join(filter(None, words)).replace(",", "").replace("'", "").replace(" ", "-")


def run(name: str, out: str, question: str) -> None:
    """All that is left of a stream for a question.  Trials are the same in all of them."""
    stream, folder = STREAMS[name], folder_of(name, out)
    option, length = stream.length
    for method, trials in stream.trials.items():
        words = [
            option,
            f"{int(TUNE_PART * length)}",
            "--runs",
            f"{stream.tune_runs}",
            "--seed",
            f"{TUNE_SEED}",
        ]
        _klopf(stream, method, trials, words, folder / "trials" / method)
    for line in lines(name, out, question):
        words = [option, f"{length}", "--runs", f"{stream.runs}", "--seed", f"{QUESTIONS[question].seed}"]
        _klopf(stream, line.method, line.options, words, folder_of(name, out, question) / line.folder)


def lines(name: str, out: str, question: str) -> list[Line]:
    """All lines of a stream for a question; rivals as trials chose them."""
    stream, asked, found = STREAMS[name], QUESTIONS[question], []
    for method in stream.trials:
        folder = folder_of(name, out) / "trials" / method
        if not (folder / "settings.json").exists() or not complete(folder):
            raise NotRun(f"{name}: not all trials were run")
        trials = read_results(folder)
        for criterion in stream.tuned_for:
            best = chosen(trials, criterion, stream.higher)
            options = {option: [f"{value:g}"] for option, value in swept(best, stream.trials[method]).items()}
            found.append(Line(method, method, options, "rival", criterion))
    found += [Line(label, method, options, "variant") for label, (method, options) in asked.variants.items()]
    found += [Line(method, method, {}, "control") for method in stream.controls if asked.controls]
    return found


def chosen(trials: list[LineResults], column: str, higher: bool) -> LineResults:
    """The best trial by a column over the second half of its part; runs that gave out are the worst."""

    def rank(line: LineResults) -> tuple[float, float]:
        values = over_part(line, column, SECOND_HALF)
        lost = len({*line.lost, *np.flatnonzero(np.isnan(values)).tolist()})
        mean = float(np.nanmean(values)) if lost < len(values) else np.inf
        return lost, -mean if higher else mean

    return min(trials, key=rank)


def swept(line: LineResults, grid: Options) -> dict[str, float]:
    """What a trial has of the options that were tried."""
    return {option: line.settings[option[2:].replace("-", "_")] for option in grid}


def folder_of(name: str, out: str, question: str = "first") -> Path:
    """Where a stream's lines are for a question; its trials are with the first question's."""
    folder = Path(out) / name.replace(",", "").replace(" ", "-")
    return folder if question == "first" else folder.with_name(f"{folder.name}-{question}")


def _klopf(stream: Stream, method: str, options: Options, words: list[str], folder: Path) -> None:
    """One command, or the rest of it."""
    if (folder / "settings.json").exists():
        if not complete(folder):
            _done(klopf([stream.command[0], "--resume", str(folder)]))
        return
    of_networks = stream.of_networks if method != "linear" else {}
    all_options = {**stream.like_all, **of_networks, **options}
    flat = [word for option, values in all_options.items() for word in (option, *values)]
    command = [*stream.command, "--method", method, *flat, *words, "--out", str(folder), "--no-figure"]
    print("klopf", *command, flush=True)
    _done(klopf(command))


def complete(folder: Path) -> bool:
    """Whether all lines there were run to their end."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    try:
        found = read_results(folder)
    except Exception:
        return False
    return all(int(line.at[-1]) >= line.whole for line in found) and len(found) == len(settings["lines"])


def _done(code: int) -> None:
    if code:
        print("the study goes on by the command that it was begun with", file=sys.stderr)
        raise SystemExit(code)
