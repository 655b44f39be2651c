"""bench/compare.py, as far as it needs no peers: data, rounds, statistics, tables, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from comparison.chart import draw
from comparison.series import Measured, Series, check_losses, measure, order
from comparison.summary import digits, heading, rows, spread, table, unit_of
from peers.cases import CASES, make_data, weights_of
from peers.protocol import WorkerError


def measured(name: str, library: str, against: str, wall: list[float], steps: int = 10) -> Measured:
    return Measured(name, library, "1", against, steps, wall, [2 * w for w in wall], [1.0] * len(wall))


def example() -> Series:
    return Series(
        "tiny",
        "A tiny network",
        2,
        [
            measured("ours", "klopf", "ours", [0.1, 0.2, 0.4]),
            measured("slow", "torch", "ours", [0.4, 0.8, 1.6]),
            measured("fast", "torch", "ours", [0.2, 0.6, 0.8]),
        ],
    )


def test_spread() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == spread([1.0, 2.0, 3.0, 4.0, 5.0])
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.least, found.lower, found.median, found.upper, found.most) == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_ratios_are_taken_round_by_round() -> None:
    ours, slow, fast = rows(example())
    assert ours.seconds.median == pytest.approx(0.02)
    assert (slow.ratio.least, slow.ratio.most) == (4.0, 4.0)  # although its own time grows fourfold
    assert (fast.ratio.least, fast.ratio.median, fast.ratio.most) == pytest.approx((2.0, 2.0, 3.0))
    assert [row.best for row in (ours, slow, fast)] == [True, False, True]
    assert slow.cores == pytest.approx(2.0)


def test_table() -> None:
    lines = table([example()]).splitlines()
    assert lines[0] == "## A tiny network"
    assert lines[4] == "| 2 | ours | 20.0 ms | 15.0 to 30.0 |  |  |"
    assert lines[6] == "| 2 | fast * | 60.0 ms | 40.0 to 70.0 | 2.00 [2.00, 3.00] | ours |"


def test_numbers_are_short() -> None:
    assert [digits(value) for value in (0.123, 1.234, 12.34, 123.4)] == ["0.12", "1.23", "12.3", "123"]
    assert [unit_of(seconds)[0] for seconds in (2.0, 2e-3, 2e-6, 2e-9)] == ["ms", "ms", "µs", "ns"]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_rounds_rotate_and_turn(count: int) -> None:
    rounds = [order(count, number) for number in range(2 * count)]
    assert all(sorted(each) == list(range(count)) for each in rounds)
    assert [each[0] for each in rounds[::2]] == list(range(count))
    assert all(there == back[::-1] for there, back in zip(rounds[::2], rounds[1::2], strict=True))


def test_losses_that_differ_stop_the_comparison() -> None:
    ours, peer, _ = example().formulations
    ours.first_losses, peer.first_losses = [1.0, 0.5], [1.0005, 0.4997]
    check_losses(peer, ours)
    for wrong in (0.51, float("nan")):
        peer.first_losses = [1.0, wrong]
        with pytest.raises(WorkerError, match=r"slow computes something else than ours: .* in step 2"):
            check_losses(peer, ours)


@pytest.mark.parametrize("case", [CASES["tiny"], CASES["ppo"]], ids=lambda case: case.name)
def test_every_batch_comes_with_opposite_targets(case: Any) -> None:
    data = make_data(case)
    assert len(data["x"]) == case.batches
    assert np.array_equal(data["x"][0::2], data["x"][1::2])
    for name in case.networks:
        assert np.array_equal(data[f"{name}.y"][0::2], -data[f"{name}.y"][1::2])
    assert {key: value.shape for key, value in weights_of(data, next(iter(case.networks))).items()}


def test_formulations_compare_with_one_of_klopf_in_their_case() -> None:
    for case in CASES.values():
        ours = {one.name for one in case.formulations if one.library == "klopf"}
        assert case.formulations[0].name in ours
        assert all(one.against in ours for one in case.formulations)


def test_a_series_of_klopf_alone(tmp_path: Path) -> None:
    case = CASES["tiny"]
    ours = [one for one in case.formulations if one.library == "klopf"]
    said: list[str] = []
    series = measure(case, ours, 1, rounds=2, seconds=0.01, say=said.append)
    assert [len(one.wall) for one in series.formulations] == [2, 2]
    assert series.formulations[1].steps % case.batches == 0
    assert said[-1] == "round 2 of 2"
    about = {
        "command": "c",
        "settings": {"rounds": 2, "seconds": 0.01},
        "date": "2026-01-01T00:00:00",
        "commit": {"hash": None, "dirty": None},
        "machine": compare.machine(),
        "versions": compare.versions(),
    }
    assert "commit unknown." in heading(about)
    json.dumps(compare._described(series))
    draw([series], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> tuple[int, str]:
        try:
            code = compare.main([*words, "--out", str(tmp_path)])
        except SystemExit as stopped:
            assert isinstance(stopped.code, int)
            code = stopped.code
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.count("\n") == 1
        return code, found.err

    code, line = said("--cases", "tiny", "huge")
    assert code == 2
    assert "expected one of imagenet, ppo, stream, tiny, large, got 'huge'" in line
    assert said("--rounds", "0")[0] == 2
    assert said("--threads", "4000")[0] == 1
    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    assert said("--peers", "jax") == (1, "compare.py: JAX is not installed (pip install jax)\n")
    assert list(tmp_path.iterdir()) == []
