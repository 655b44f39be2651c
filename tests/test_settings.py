"""A settings dataclass becomes options; every mistake is one line and exit code 2."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pytest

from klopf.experiments.settings import Parser, option, options, restored, suggestion, written


@dataclass(frozen=True)
class Example:
    """An example."""

    step_size: float = option(0.01, "how far", above=0)
    runs: int = option(3, "how often", minimum=1)
    channels: tuple[int, ...] = option((1, 2), "how wide", minimum=1)
    split: str = option("fixed", "which", choices=("fixed", "run"))
    size: int | None = option(None, "how large")
    figure: bool = option(True, "whether")


def parser() -> Parser:
    made = Parser("klopf example", "An example.")
    made.add_settings(Example)
    return made


def test_only_what_was_given_comes_back() -> None:
    assert parser().parse([]) == {}
    given = parser().parse(["--step-size", "0.5", "--channels", "4", "5", "6", "--size", "7", "--no-figure"])
    assert given == {"step_size": 0.5, "channels": [4, 5, 6], "size": 7, "figure": False}


def test_every_field_is_in_the_help_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for one in options(Example):
        assert one.flag in text
        assert one.metadata["help"] in text
    assert "(default: 0.01)" in text
    assert "(default: 1 2)" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--stepsize 0.1", "klopf example: no option --stepsize; did you mean --step-size?"),
        ("--stepsize=0.1", "klopf example: no option --stepsize; did you mean --step-size?"),
        ("--qqq", "klopf example: no option --qqq"),
        ("--runs 0", "klopf example: --runs: expected a whole number of at least 1, got '0'"),
        ("--runs 1.5", "klopf example: --runs: expected a whole number of at least 1, got '1.5'"),
        ("--step-size nan", "klopf example: --step-size: expected a number above 0, got 'nan'"),
        ("--step-size inf", "klopf example: --step-size: expected a number above 0, got 'inf'"),
        ("--split runs", "klopf example: --split: expected one of fixed, run, got 'runs'"),
        ("--channels 3 0", "klopf example: --channels: expected a whole number of at least 1, got '0'"),
        ("surprise", "klopf example: unexpected 'surprise'"),
        ("--run 3", "klopf example: no option --run; did you mean --runs?"),
    ],
)
def test_a_mistake_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse(words.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == line + "\n"


def test_a_missing_value_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse(["--runs"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_values_are_written_as_they_are_typed() -> None:
    assert [written(value) for value in (0.0003, 5, True, "run", (1, 2))] == [
        "0.0003",
        "5",
        "yes",
        "run",
        "1 2",
    ]
    assert suggestion("imagnet", ["imagenet", "demo"]) == "; did you mean imagenet?"
    assert suggestion("zzz", ["imagenet"]) == ""


def test_settings_come_back_from_a_file() -> None:
    saved = {**asdict(Example(channels=(5,), size=3)), "channels": [5]}
    assert restored(Example, saved) == Example(channels=(5,), size=3)
    assert restored(Example, {}) == Example()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("runs", "x", "runs: expected a whole number of at least 1, got 'x'"),
        ("runs", 1.5, "runs: expected a whole number of at least 1, got '1.5'"),
        ("runs", True, "runs: expected a whole number of at least 1, got 'True'"),
        ("runs", None, "runs: expected a whole number of at least 1, got 'None'"),
        ("runs", [1], "runs: expected no list"),
        ("channels", 3, "channels: expected a list"),
        ("channels", [3, 0], "channels: expected a whole number of at least 1, got '0'"),
        ("split", "runs", "split: expected one of fixed, run, got 'runs'"),
        ("figure", 1, "figure: expected yes or no, got '1'"),
        ("step_size", float("nan"), "step_size: expected a number above 0, got 'nan'"),
    ],
)
def test_a_file_edited_by_hand(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as stopped:
        restored(Example, {name: value})
    assert str(stopped.value) == message
