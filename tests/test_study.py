"""The study of decentralised networks, run on a stream that is cut short."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from study import __main__ as study
from study import plan, stages

REGRESSION = plan.STREAMS["regression"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two rivals of one trial each and some of the variants, on 2,000 examples; where results go."""
    trials = {"bp": {"--step-size": ["0.01"]}, "l2": {"--step-size": ["0.01"], "--weight-decay": ["0.001"]}}
    cut = dataclasses.replace(REGRESSION, length=("--examples", 2000), trials=trials, runs=3, tune_runs=2)
    monkeypatch.setitem(plan.STREAMS, "regression", cut)
    first = plan.QUESTIONS["first"]
    few = {name: first.variants[name] for name in ("decentralised", "no recruitment")}
    monkeypatch.setitem(plan.QUESTIONS, "first", dataclasses.replace(first, variants=few))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["study", *words, "--out", str(out)])
    try:
        return study.main()
    except SystemExit as left:
        return left.code


def test_from_trials_to_figures(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, short, "run", "regression") == 0
    lines = stages.lines("regression", str(short), "first")
    assert [line.name for line in lines] == ["bp", "l2", "decentralised", "no recruitment", "linear"]
    assert all(stages.complete(short / "regression" / line.folder) for line in lines)
    capsys.readouterr()
    assert call(monkeypatch, short, "report") == 0
    said = capsys.readouterr()
    assert "| linear | 0." in said.out and "plenty: not all trials were run; left out" in said.err
    assert len((short / "regression.csv").read_text().splitlines()) == 1 + 5 * 3
    assert call(monkeypatch, short, "figure", "regression") == 0
    assert (short / "first-rivals.png").stat().st_size > 10_000
    assert call(monkeypatch, short, "report", "regression", "--question", "second") == (
        "regression: nothing was run for the second question"
    )


def test_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, tmp_path, "report", "scarce") == "scarce: not all trials were run"
    assert call(monkeypatch, tmp_path, "figure") == 1
    assert call(monkeypatch, tmp_path, "report", "sparse") == 2
    assert "no stream sparse; there are plenty; scarce" in capsys.readouterr().err


def test_a_rival_of_which_one_setting_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scarce = plan.STREAMS["scarce"]
    cut = dataclasses.replace(
        scarce,
        command=[*scarce.command, "--examples", "20"],
        length=("--tasks", 80),
        trials={"bp": {"--step-size": ["0.01"]}},
        runs=2,
        tune_runs=2,
    )
    monkeypatch.setitem(plan.STREAMS, "scarce", cut)
    whole = {"decentralised": plan.VARIANTS["decentralised"]}
    alone = dataclasses.replace(plan.QUESTIONS["first"], variants=whole, controls=False)
    monkeypatch.setitem(plan.QUESTIONS, "first", alone)
    assert call(monkeypatch, tmp_path, "run", "scarce") == 0
    shutil.rmtree(tmp_path / "scarce" / "bp-for-error")
    capsys.readouterr()
    assert call(monkeypatch, tmp_path, "report", "scarce") == 0
    assert "| bp |  | " in capsys.readouterr().out
