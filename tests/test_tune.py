"""Two stages: what is chosen, on which seeds, what is recorded; and going on after a kill at any point."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import refused
from experiments import contents, klopf
from klopf.cli import main
from klopf.experiments import session
from klopf.experiments.results import read_results

STREAM = ["--examples", "5000", "--measure-every", "500", "--runs", "3", "--quiet", "--threads", "1"]
TRACK = ["track", "--method", "lms", "idbd", "--step-size", "0.0001", "0.03", "0.3", *STREAM]
TUNED = [*TRACK, "--tune-runs", "2", "--tune-part", "0.4", "--tune-seed", "50", "--no-figure"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(path: str) -> Any:
    return json.loads((Path(path) / "settings.json").read_text())


def everything(path: Path) -> dict[str, Any]:
    """Both stages' files, the timings left out."""
    return {**contents(path), "tuning": contents(path / "tuning")}


def test_the_best_is_chosen_and_every_trial_recorded(folder: Path) -> None:
    """The first stage is the experiment itself on its seeds, as far as it goes."""
    assert main([*TUNED, "--out", "out"]) == 0
    assert main([*TRACK, "--runs", "2", "--seed", "50", "--no-figure", "--out", "all"]) == 0
    assert main([*TRACK, "--no-figure", "--out", "fresh"]) == 0
    whole = read_results("all")
    for line, found in zip(whole, read_results("out/tuning"), strict=True):
        assert found.values["error"].shape == (2, 4)
        np.testing.assert_array_equal(found.values["error"], line.values["error"][:, :4])
    selection = settings_of("out")["selection"]
    assert selection["criterion"] == {
        "measure": "error",
        "column": "error",
        "better": "lower",
        "statistic": "mean",
        "part": [0.0, 0.4],
    }
    assert selection["seeds"] == settings_of("out/tuning")["seeds"] == [50, 51]
    assert settings_of("out")["seeds"] == [0, 1, 2]
    assert selection["trials_of_method"] == {"lms": 3, "idbd": 3}
    assert selection["chosen"] == {name: {"step_size": 0.03} for name in ("lms", "idbd")}
    for trial, line in zip(selection["trials"], whole, strict=True):
        errors = line.values["error"][:, :4].mean(axis=1)
        assert trial["label"] == line.label
        assert trial["chosen"] == (line.settings["step_size"] == 0.03)
        if line.settings["step_size"] == 0.3:  # it diverges
            assert (trial["mean"], trial["of_runs"], trial["failed_runs"]) == (None, [None, None], 2)
        else:
            assert trial["of_runs"] == pytest.approx(errors.tolist())
            assert (trial["mean"], trial["failed_runs"]) == (pytest.approx(errors.mean()), 0)
    fresh = {line.label: line for line in read_results("fresh")}
    reported = read_results("out")
    assert [line.label for line in reported] == ["lms, step size 0.03", "idbd, step size 0.03"]
    for line in reported:
        np.testing.assert_array_equal(line.values["error"], fresh[line.label].values["error"])


def test_stages_go_on(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Between the stages, and after a stop in the first one."""
    assert main([*TUNED, "--out", "out"]) == 0
    whole = everything(folder / "out")
    for path in (folder / "out").iterdir():
        if path.is_file():
            path.unlink()
    assert main(["track", "--resume", "out"]) == 0
    assert everything(folder / "out") == whole
    shutil.rmtree(folder / "out")
    served: list[int] = []

    def serve(self: session.Session) -> None:
        served.append(0)
        if len(served) == 3:
            signal.raise_signal(signal.SIGTERM)
        before(self)

    before = session.Session.serve
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "serve", serve)
        capsys.readouterr()
        assert main([*TUNED, "--out", "out"]) == 143
    said = capsys.readouterr().err
    assert said == "stopped (SIGTERM); resume with klopf track --resume out\n"
    assert not (folder / "out" / "settings.json").exists()
    assert main(["track", "--resume", "out"]) == 0
    assert everything(folder / "out") == whole
    assert main(["track", "--resume", "out"]) == 0
    assert everything(folder / "out") == whole
    assert main([*TUNED, "--out", "out", "--overwrite"]) == 0
    assert {k: v for k, v in contents(folder / "out").items() if k == "results.csv"} == {
        "results.csv": whole["results.csv"]
    }


def test_killed_and_resumed(folder: Path) -> None:
    """Twice in the first stage, twice in the second, each time a moment after a checkpoint."""
    words = [*TUNED, "--out", "out", "--checkpoint-every", "0.0001"]
    assert main(words) == 0
    whole = everything(folder / "out")
    (folder / "out").rename(folder / "whole")
    process, kills = klopf(*words, cwd=folder), 0
    for path in ("tuning/checkpoint.safetensors",) * 2 + ("checkpoint.safetensors",) * 2:
        checkpoint = folder / "out" / path
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.001)
        process.kill()
        process.communicate()
        kills += process.returncode != 0
        process = klopf("track", "--resume", "out", cwd=folder)
    assert process.communicate(timeout=120)[1] == ""
    assert kills > 1
    assert everything(folder / "out") == whole


def test_higher_is_better_where_it_is(folder: Path) -> None:
    from experiments import TINY_NETWORK

    size = ["--tasks", "6", "--runs", "2", "--epochs", "10", "--batch-size", "5", "--quiet", "--no-figure"]
    tuned = ["--tune-runs", "2", "--tune-part", "0.5", "--step-size", "1e-7", "0.05"]
    assert main(["imagenet", "--method", "bp", "--out", "out", *TINY_NETWORK, *size, *tuned]) == 0
    selection = settings_of("out")["selection"]
    assert selection["criterion"]["better"] == "higher"
    assert selection["chosen"] == {"bp": {"step_size": 0.05}}
    low, high = selection["trials"]
    assert low["mean"] < high["mean"]
    assert read_results("out/tuning")[0].values["accuracy"].shape == (2, 3)


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, line in (
        ("--tune-part 0.1", "--tune-part goes with --tune-runs, which says to tune"),
        ("--tune-runs 2 --tune-part 1.5", "--tune-part must be at most 1, got 1.5"),
        (
            "--tune-runs 2 --tune-part 0.01",
            "--tune-part 0.01 of 5000 examples is less than the 500 that a mea",
        ),
        (
            "--tune-runs 2 --tune-seed 2",
            "tuning and experiment must have seeds of their own, got 2 to 3 and 0",
        ),
        (
            "--tune-runs 4 --seed 3 --tune-seed 0",
            "tuning and experiment must have seeds of their own, got 0 ",
        ),
        ("--tune-runs 2 --step-size 0.1", "--tune-runs chooses among values, and no option of a method has "),
        ("--resume none --tune-runs 2", "--resume takes the settings from its folder, got "),
    ):
        out = [] if "--resume" in words else ["--out", "out"]
        start = ["track"] if "--resume" in words else TRACK
        assert refused(capsys, *start, *words.split(), *out).startswith(f"klopf: {line}")
        assert not (folder / "out").exists()
    failing = [*TUNED, "--step-size", "10", "20", "--out", "out"]
    said = refused(capsys, *failing)
    assert said == "klopf: no setting of lms was still learning after tuning; give it other values"
    assert refused(capsys, *failing).startswith(
        "klopf: out already has results; choose another --out, go on w"
    )
    path = folder / "out/tuning/settings.json"
    good = json.loads(path.read_text())
    for edited, line in (
        ({"tuning": {"rows": -1}}, "klopf: out/tuning is not the results folder of this version: "),
        ({"tuning": {**good["tuning"], "part": 7}}, "klopf: out/tuning is not the results folder of this ve"),
        (
            {"tuning": {**good["tuning"], "rows": 5}},
            "klopf: out/tuning/checkpoint.safetensors was written wh",
        ),
    ):
        path.write_text(json.dumps({**good, **edited}))
        assert refused(capsys, "track", "--resume", "out").startswith(line)
