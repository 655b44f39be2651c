"""A table in LaTeX: a plain tabular, which a paper can \\input."""

from __future__ import annotations

import re

from klopf.experiments.tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def tabular(table: Table) -> str:
    """The table between \\begin{tabular} and \\end{tabular}, and what is said below it as a comment."""
    rows = [[escaped(table.title), *map(escaped, table.headings)]]
    rows += [[escaped(line.label), *(_number(cell.text) for cell in row)] for line, row in table.named()]
    first, *others = (f"{' & '.join(row)} \\\\" for row in rows)
    return "\n".join(
        [
            f"% {table.remark}",
            rf"\begin{{tabular}}{{l{'r' * len(table.headings)}}}",
            r"\hline",
            first,
            r"\hline",
            *others,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _number(text: str) -> str:
    """A cell: signs are signs, not hyphens."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "$-$", escaped(text)).replace("±", r"$\pm$")
