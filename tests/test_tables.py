"""`klopf table`: what the experiment says at its end, as CSV and LaTeX too, and paired by seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command_line import refused
from experiments import made_up
from klopf.cli import main
from klopf.experiments.latex import escaped, tabular
from klopf.experiments.measures import over_part
from klopf.experiments.results import LineResults, read_results
from klopf.experiments.statistics import Summary, bootstrap_interval
from klopf.experiments.tables import end_of_run, table_of_lines

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def known(*levels: float) -> Callable[[np.ndarray], None]:
    """Every line at its level, and runs 1, 2, 4, ... percent above that in the last tenth."""

    def change(values: np.ndarray) -> None:
        values[..., 0] = np.array(levels)[:, None]
        values[-2:, ..., 0] += 0.01 * 2.0 ** np.arange(values.shape[2])

    return change


def test_it_says_what_the_experiment_says(folder: Path, capsys: Capture) -> None:
    made_up(folder / "a", ["bp", "cbp"], 20, 3, change=known(0.5, 0.6))
    assert main(["table", "a"]) == 0
    said = capsys.readouterr().out
    assert said == end_of_run(read_results("a")) + "\n"
    last = 50 + np.array([1, 2, 4])
    error = last.std(ddof=1) / np.sqrt(3)
    row = f"50.0 ± 0.0  {last.mean():.1f} ± {error:.1f}  {last.mean() - 50:.1f} ± {error:.1f}"
    assert said.splitlines()[1].split() == ["bp", *row.split()]
    assert said.splitlines()[-1] == "means of 3 runs ± one standard error"


def test_csv_has_the_numbers(folder: Path) -> None:
    made_up(folder / "a", ["bp"], 20, 5, change=known(0.5))
    words = ["--statistic", "iqm", "--interval", "bootstrap", "--csv", "a.csv"]
    assert main(["table", "a", *words]) == 0
    first = (folder / "a.csv").read_bytes()
    rows = rows_of(folder / "a.csv")
    assert list(rows[0]) == ["line", "method", "measure", "column", "iqm", "low", "high", "runs"]
    assert [row["column"] for row in rows] == ["first tenth", "last tenth", "change"]
    assert float(rows[1]["iqm"]) == pytest.approx(50 + (2 + 4 + 8) / 3)
    assert 50 + 1 <= float(rows[1]["low"]) < float(rows[1]["iqm"]) < float(rows[1]["high"]) <= 50 + 16
    assert rows[1]["runs"] == "5"
    assert main(["table", "a", *words]) == 0
    assert (folder / "a.csv").read_bytes() == first


def test_latex(folder: Path) -> None:
    def change(values: np.ndarray) -> None:
        values[..., 0] = 0.5
        values[-1:, 0, 0, 0] = 0.25

    made_up(folder / "a", ["bp", "l2-init"], 10, 1, change=change)
    assert main(["table", "a", "--latex", "a.tex"]) == 0
    assert (folder / "a.tex").read_text().splitlines() == [
        "% of one run",
        r"\begin{tabular}{lrrr}",
        r"\hline",
        r"accuracy (\%) & first tenth & last tenth & change \\",
        r"\hline",
        r"bp & 50.0 & 25.0 & $-$25.0 \\",
        r"l2-init & 50.0 & 50.0 & 0.0 \\",
        r"\hline",
        r"\end{tabular}",
    ]
    assert escaped("a_b & 5% of {x} #1 \\ $") == r"a\_b \& 5\% of \{x\} \#1 \textbackslash{} \$"
    text = tabular(table_of_lines(read_results(made_up(folder / "b", ["bp"], 20, 3))))
    assert text.count(r" $\pm$ ") == 3
    assert text.count("&") == 2 * 3


def test_differences_are_paired_by_seed(folder: Path, capsys: Capture) -> None:
    """Seeds that one of them does not have are left out, whatever the order of folders."""
    made_up(folder / "a", ["bp"], 20, 4, change=known(0.5))
    made_up(folder / "b", ["cbp"], 20, 3, change=known(0.6))
    settings = json.loads((folder / "b" / "settings.json").read_text())
    (folder / "b" / "settings.json").write_text(json.dumps({**settings, "seeds": [2, 3, 7]}))
    assert main(["table", "a", "b", "--against", "bp", "--interval", "bootstrap", "--csv", "c.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    differences = np.array([60 + 1 - (50 + 4), 60 + 2 - (50 + 8)])
    assert said[0].endswith("last tenth, against bp")
    assert said[2].endswith(f"{differences.mean():.1f} [{differences.min():.1f}, {differences.max():.1f}]")
    assert said[-1].endswith("; against bp: differences of 2 runs of equal seed")
    (row,) = [row for row in rows_of(folder / "c.csv") if "against" in row["column"]]
    assert (row["line"], row["runs"], float(row["mean"])) == ("cbp", "2", pytest.approx(5.5))


def test_columns_and_parts_that_are_asked_for(folder: Path, capsys: Capture) -> None:
    """Means of any column over any part, in the units of the table, and paired differences of each."""
    made_up(folder / "a", ["bp", "cbp"], 20, 4)
    words = ["--columns", "accuracy", "dormant_rate", "--part", "0.25", "0.5", "--against", "bp"]
    assert main(["table", "a", *words, "--interval", "bootstrap", "--csv", "a.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    headings = [heading.strip() for heading in said[0].split("  ") if heading]
    assert headings[-2:] == ["accuracy (%), against bp", "dormant_rate, against bp"]
    assert said[-1].startswith("over tasks 6 to 10; means of 4 runs; in brackets: 95% bootstrap intervals; ")
    bp, cbp = (
        {name: v[:, 5:10].mean(axis=1) for name, v in line.values.items()} for line in read_results("a")
    )
    expected = {
        "accuracy (%)": 100 * cbp["accuracy"],
        "dormant_rate": cbp["dormant_rate"],
        "accuracy (%), against bp": 100 * (cbp["accuracy"] - bp["accuracy"]),
        "dormant_rate, against bp": cbp["dormant_rate"] - bp["dormant_rate"],
    }
    found = {row["column"]: row for row in rows_of(folder / "a.csv") if row["line"] == "cbp"}
    assert set(found) == set(expected)
    for name, values in expected.items():
        interval = bootstrap_interval(values)
        for column, value in (("mean", interval.centre), ("low", interval.low), ("high", interval.high)):
            assert float(found[name][column]) == pytest.approx(float(value))

    assert main(["table", "a", "--part", "0", "1"]) == 0  # what the experiment is judged by
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["accuracy", "(%)"] and said[-1].startswith("over tasks 1 to 20; means of 4")
    assert main(["table", "a", "--columns", "accuracy"]) == 0  # where it is judged
    assert "over tasks 19 to 20; " in capsys.readouterr().out
    made_up(folder / "b", ["l2"], 10, 4)
    assert main(["table", "a", "b", "--part", "0.5", "1"]) == 0  # of lines that are not as far
    assert "over part from 0.5 to 1; " in capsys.readouterr().out


def test_looking_differently_is_no_other_stream_and_what_is_unfinished_is_said(
    folder: Path, capsys: Capture
) -> None:
    for name, method, settings in (
        ("a", "bp", {"tasks": 20, "metric": ["mine.py:f"], "events": 9}),
        ("b", "cbp", {"tasks": 20, "metric": [], "events": 0}),
        ("c", "l2", {"tasks": 4000}),
    ):
        made_up(folder / name, [method], 20, 3)
        path = folder / name / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "settings": settings}))
    assert main(["table", "a", "b", "--against", "bp"]) == 0
    assert "so far" not in capsys.readouterr().out
    assert main(["table", "c"]) == 0
    assert capsys.readouterr().out.endswith("; l2 so far: task 20 of 4,000\n")


def test_mistakes(folder: Path, capsys: Capture) -> None:
    made_up(folder / "a", ["bp", "cbp"], 20, 2, step_size=[0.1, 0.2])
    made_up(folder / "b", ["l2"], 20, 2)
    made_up(folder / "c", ["snp"], 20, 2)
    for name, changed in (("b", {"seeds": [5, 6]}), ("c", {"settings": {"tasks": 7}})):
        path = folder / name / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    for words, line in (
        ("a --against", "klopf table: --against: expected one argument"),
        ("a --statistic median", "klopf table: --statistic: expected one of mean, iqm, got 'median'"),
        ("none", "klopf: none is no results folder: cannot read none/settings.json: No such file or direct"),
        ("b --against l2", "klopf: --against l2: there is no other line to compare it with"),
        ("b --against l", "klopf: --against l: there is no such line; did you mean l2?; there are l2"),
        ("a --against bp", "klopf: --against bp: several lines are of it, name one of 'bp, step size 0.1'; "),
        ("a b --against l2", "klopf: --against l2: bp, step size 0.1 has no seed in common with it, 0 to 1 "),
        ("a c --against snp", "klopf: --against snp: runs of bp, step size 0.1 saw another stream, --tasks"),
        ("b --csv none/a.csv", "klopf: cannot write none/a.csv: No such file or directory"),
        ("b --latex a", "klopf: cannot write a: "),
        (
            "b --columns acuracy",
            "klopf: --columns: there is no column acuracy; did you mean accuracy?; there ",
        ),
        (
            "b --columns diverged",
            "klopf: --columns: there is no column diverged; there are accuracy, train_l",
        ),
        ("b --part 0.5", "klopf: --part must be two numbers from 0 to 1, the first below, got 0.5"),
        (
            "b --relative",
            "klopf: --relative: l2 has no errors of a constant, as results of klopf recall have",
        ),
    ):
        code = 2 if line.startswith("klopf table") else 1
        assert refused(capsys, "table", *words.split(), code=code).startswith(line)


@pytest.mark.parametrize("rows", [1, 3, 10, 25, 30])
def test_parts_of_a_stream(rows: int) -> None:
    values = {"accuracy": np.arange(1.0, rows + 1)[None], "diverged": np.zeros((1, rows))}
    line = LineResults("bp", "bp", {}, values, np.arange(1, rows + 1), {})
    for begin in range(10):
        inside = [row for row in range(1, rows + 1) if begin * rows < 10 * row <= (begin + 1) * rows]
        expected = np.mean(inside) if inside else -(-(begin + 1) * rows // 10)
        assert over_part(line, "accuracy", (begin / 10, (begin + 1) / 10)) == pytest.approx(expected)
    assert over_part(line, "accuracy", (0.0, 1.0)) == pytest.approx((rows + 1) / 2)


def test_every_summary_of_lost_runs(folder: Path) -> None:
    def diverge(values: np.ndarray) -> None:
        values[5:, 0, 1:, 0] = np.nan
        values[5:, 0, 1:, -1] = 1

    lines = read_results(made_up(folder / "a", ["bp", "cbp"], 20, 3, change=diverge))
    for statistic in ("mean", "iqm"):
        for interval in ("se", "bootstrap"):
            table = table_of_lines(lines, Summary(statistic, interval))
            assert [cell.numbers.runs.item() for cell in table.cells[0] if cell.numbers] == [3, 1, 1]
            assert "bp lost runs 1 2" in table.remark
