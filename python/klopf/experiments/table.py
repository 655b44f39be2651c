"""`klopf table`: the table of one or several results folders, for the terminal, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from klopf.experiments.latex import tabular
from klopf.experiments.measures import part_of, relative
from klopf.experiments.paired import compare
from klopf.experiments.results import read_together
from klopf.experiments.settings import Parser, option, options
from klopf.experiments.statistics import Summary
from klopf.experiments.tables import Table, table_of_lines
from klopf.files import atomic_write


@dataclass(frozen=True)
class Settings:
    """Print the table that an experiment ends with, of one results folder or of several together."""

    against: str | None = option(
        None, "add paired differences, by seed, from a method or a line", placeholder="METHOD"
    )
    columns: tuple[str, ...] = option(
        (), "columns of results.csv, in place of the experiment's table", placeholder="NAME"
    )
    part: tuple[float, ...] | None = option(
        None,
        "of the stream that columns are taken over: from, to, as shares (default: what the table compares)",
        minimum=0,
    )
    relative: bool = option(False, "errors over that of the best constant on the same task; of klopf recall")
    csv: str | None = option(None, "write the numbers, a row for each line and column", placeholder="FILE")
    latex: str | None = option(None, "write a tabular for LaTeX", placeholder="FILE")


def command(arguments: Sequence[str]) -> None:
    """`klopf table`."""
    parser = Parser("klopf table", Settings.__doc__ or "")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_settings(Settings)
    parser.add_settings(Summary)
    given = parser.parse(arguments)
    own = [one.name for one in options(Settings) if one.name in given]
    asked = Settings(**{name: given.pop(name) for name in own})
    lines = read_together(given.pop("folders"))
    if asked.relative:
        lines = list(map(relative, lines))
    table = table_of_lines(lines, Summary(**given), asked.columns, part_of(asked.part))
    if asked.against is not None:
        compare(table, asked.against)
    for path, text in ((asked.csv, numbers), (asked.latex, tabular)):
        if path is not None:
            with atomic_write(path, "w") as file:
                file.write(text(table))
    print(table)


def numbers(table: Table) -> str:
    """The table as CSV: a row for each line and column, in the units of the table; floats by `repr`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    statistic = table.summary.statistic
    writer.writerow(["line", "method", "measure", "column", statistic, "low", "high", "runs"])
    for line, row in table.named():
        for heading, cell in zip(table.headings, row, strict=True):
            if cell.numbers is not None:
                centre, low, high, runs = (part.item() for part in cell.numbers)
                writer.writerow(
                    [
                        line.label,
                        line.method,
                        table.measure,
                        heading,
                        repr(centre),
                        repr(low),
                        repr(high),
                        runs,
                    ]
                )
    return buffer.getvalue()
