"""bench/gpu.py, as far as it needs no GPU: processes and their time, statistics, shares, ratios, table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpu
from device import agreement, clock, operations, pytorch
from device.child import collect


def counting(last: int, end: str) -> Iterator[dict[str, Any]]:
    for number in range(last):
        yield {"number": number}
    if end == "error":
        raise ValueError("one\ntwo")
    if end == "crash":
        os._exit(7)
    if end == "sleep":
        time.sleep(60)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("", None),
        ("error", "ValueError: one"),
        ("crash", "the process ended with code 7"),
        ("sleep", "stopped after 5 s"),
    ],
)
def test_rows_of_another_process_survive_its_end(end: str, why: str | None) -> None:
    assert collect(counting, 5, 2, end) == ([{"number": 0}, {"number": 1}], why)


def test_what_a_call_costs_once_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def work(count: int) -> None:
        calls.append(count)
        now[0] += 5 + 0.5 * count

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert clock.seconds_of_one(work, 60) == pytest.approx(0.5)
    assert calls == [2, 2, 6, 18]


def test_quantiles_of_the_t_distribution() -> None:
    found = [agreement.t_quantile(0.95, degrees) for degrees in (5, 11, 29)]
    assert found == pytest.approx([2.015, 1.796, 1.699], abs=2e-3)


def test_pairs_are_compared_over_the_later_tasks_of_both() -> None:
    host = np.tile([0.0, 80.0, 80.0, 80.0, 80.0], (8, 1))
    device = host[:, :4] + np.where(np.arange(8) % 2, 0.3, -0.1)[:, None]
    device[:, 0] = 50
    found = agreement.compare(host, device)
    assert (found["runs"], found["tasks"], found["accuracy"]) == (8, 3, 80.0)
    assert found["difference"] == pytest.approx(0.1)
    assert found["high"] - found["difference"] == pytest.approx(1.8946 * 0.2138 / np.sqrt(8), rel=1e-3)
    assert found["within"]
    assert not agreement.compare(host, device + 0.4)["within"]


def about(**parts: Any) -> dict[str, Any]:
    return {"settings": {"many": 30, "compared": 9}, **parts}


def test_ratios_are_to_as_many_runs_in_the_same_precision() -> None:
    def row(name: str, runs: int, seconds: float, precision: str = "tf32") -> dict[str, Any]:
        return {"name": name, "precision": precision, "runs": runs, "seconds": seconds}

    found = pytorch.ratios(
        about(
            steps=[row("klopf", 30, 2.0), row("klopf", 1, 0.1)],
            torch={
                "rows": [
                    row("PyTorch eager", 1, 1.0),
                    row("PyTorch graph", 1, 0.5),
                    row("PyTorch eager", 30, 9.0),
                    row("PyTorch graph", 30, 7.0),
                    row("PyTorch graph", 30, 1.0, "float32"),
                ]
            },
        )
    )
    assert [(one["name"], one["ratio"]) for one in found] == [
        ("PyTorch eager", 15.0),
        ("PyTorch graph", 7.5),
        ("PyTorch graph", 3.5),
    ]


def test_shares_of_the_ceilings() -> None:
    operation = {"seconds": 1e-3, "bytes": 1e9, "flop": 2e9}
    assert operations.shares(operation, {"copy": 2e12, "tf32": 8e12}, "tf32") == pytest.approx((0.5, 0.25))


def test_results_are_written_with_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "klopf-operations"
    said = {"network": "imagenet", "precision": "float32", "runs": 2, "step": 1e-3}
    said["operations"] = [{"number": 0, "name": "load_batch", "seconds": 1e-6, "flop": 0, "bytes": 4e6}]
    program.write_text(
        f"#!/bin/sh\n[ $1 = imagenet ] || {{ echo 'it broke' >&2; exit 1; }}\necho '{json.dumps(said)}'\n"
    )
    program.chmod(0o755)
    words = ["--device", "cpu", "--precision", "float32", "--parts", "operations", "--many", "2"]
    assert gpu.main([*words, "--operations", str(program), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out == text
    assert "| 0. load_batch | 1 | 4e+03 |  |  |  |" in text
    assert text.endswith("Not run: operations of imagenet-apart, float32: Error: it broke\n")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["operations"] == [said]


def test_published_tasks_are_timed(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--precision", "float32", "--parts", "tasks", "--many", "2"]
    assert gpu.main([*words, "--tasks", "1", "--epochs", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["tasks"]
    assert (found["tasks"], found["steps"]) == (1, 12)
    assert found["hours_of_published"] == pytest.approx(found["seconds_a_task"] / 1.8)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cuda:77", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("gpu.py: no device cuda:77")
