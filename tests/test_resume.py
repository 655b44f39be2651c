"""Processes killed at random moments, again and again, end with the results of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from experiments import REPLACING, TINY_NETWORK, contents, klopf

COMMAND = [
    *("imagenet", "--out", "out", *TINY_NETWORK, "--tasks", "30", "--runs", "2", "--epochs", "150"),
    *("--batch-size", "5", "--checkpoint-every", "0.02", "--quiet", "--no-figure"),
]
RESUME = ["imagenet", "--resume", "out"]
STREAMS = {
    "replacing": ["--method", "bp", "cbp", *REPLACING],
    "perturbing": ["--method", "snp", "scratch", "--split", "run"],
    "swept": ["--method", "l2", "--weight-decay", "0", "0.001", "0.01", "--metrics-every", "3"],
}
KILLS = 14  # of each stream


def finished(process: subprocess.Popen[str]) -> None:
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.endswith("results in out\n")


def begun(process: subprocess.Popen[str], results: Path, before: float) -> bool:
    """Wait until a process computes (it writes its results anew first); False where it ended before."""
    while process.poll() is None:
        if results.exists() and results.stat().st_mtime_ns > before:
            return True
        time.sleep(0.002)
    return False


def stamp(results: Path) -> float:
    return results.stat().st_mtime_ns if results.exists() else 0.0


def next_life(folder: Path, draw: random.Random) -> subprocess.Popen[str]:
    """Begin, or go on where there is something to go on from."""
    if (folder / "out" / "settings.json").exists():
        return klopf(*RESUME, "--threads", str(draw.randint(1, 2)), cwd=folder)
    return klopf(*folder.joinpath("command").read_text().split(), cwd=folder)


@pytest.mark.parametrize("name", STREAMS)
def test_killed_again_and_again(name: str, device: str, tmp_path: Path) -> None:
    draw = random.Random(name)
    (tmp_path / "command").write_text(" ".join([*COMMAND, *STREAMS[name], "--device", device]))
    finished(next_life(tmp_path, draw))
    whole = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    kills, lives = 0, 0
    while kills < KILLS:
        lives += 1
        process = next_life(tmp_path, draw)
        if draw.random() < 0.2:
            time.sleep(draw.uniform(0, 0.4))  # while it starts, perhaps
        else:
            begun(process, tmp_path / "out" / "results.csv", stamp(tmp_path / "out" / "results.csv"))
            time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:  # it was faster
            assert contents(tmp_path / "out") == whole
            (tmp_path / "out").rename(tmp_path / f"done{lives}")
    finished(next_life(tmp_path, draw))
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_politely(number: signal.Signals, code: int, tmp_path: Path) -> None:
    draw = random.Random(code)
    command = " ".join([*COMMAND, *STREAMS["replacing"]]).replace("--checkpoint-every 0.02", "")
    (tmp_path / "command").write_text(command)
    finished(next_life(tmp_path, draw))
    whole = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    stops = 0
    for _ in range(4):
        process = next_life(tmp_path, draw)
        if begun(process, tmp_path / "out" / "results.csv", stamp(tmp_path / "out" / "results.csv")):
            time.sleep(draw.uniform(0, 0.15))
            process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        if process.returncode == 0:  # it was faster
            break
        assert process.returncode == code
        assert stdout == ""
        assert stderr == f"stopped ({number.name}); resume with klopf imagenet --resume out\n"
        stops += 1
    assert stops > 0
    finished(next_life(tmp_path, draw))
    assert contents(tmp_path / "out") == whole
