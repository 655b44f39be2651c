"""The command line: its output, and every mistake: one clear line, a non-zero exit, nothing lost."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import klopf as kl
from command_line import code_of, refused
from experiments import REPLACING, TINY, contents, klopf, made_up
from image_trees import ilsvrc
from klopf.cli import COMMANDS, main
from klopf.experiments import session
from klopf.experiments.stream import TaskStream

Said = Callable[[], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what is printed ----------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, "data pack", "data info"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*name.split(), "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: klopf {name}")


def test_version_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"klopf {kl.__version__}\n"
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in (kl.__version__, kl.isa(), np.__version__, "threads", *map(str, kl.devices())):
        assert word in text


def test_help_imports_nothing_heavy() -> None:
    heavy = "matplotlib", "tqdm", "safetensors", "PIL", "scipy"
    code = f"""
import sys
from klopf.cli import main
main(["--help"])
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_plot_says_where_the_figure_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(folder / "a", ["bp", "cbp"], 12, 2)
    assert main(["plot", "a", "--published", "--interval", "bootstrap", "--bin", "3"]) == 0
    assert capsys.readouterr().out == "a/figure.png\na/figure.svg\n"
    assert main(["plot", "a", "--out", "b.svg"]) == 0
    assert (folder / "b.png").exists()


def test_packed_images_are_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ilsvrc(folder / "tree")
    packing = ["--out", "images.npy", "--size", "8", "--images-per-class", "3"]
    assert main(["data", "pack", "tree", *packing]) == 0
    assert capsys.readouterr().out.endswith("of 3 images in images.npy\n")
    network = [
        "--channels",
        "4",
        "--kernels",
        "3",
        "--hidden",
        "6",
        "--train-images",
        "2",
        "--test-images",
        "1",
    ]
    size = ["--tasks", "2", "--runs", "2", "--epochs", "2", "--quiet", "--no-figure"]
    assert main(["imagenet", "--data", "images.npy", "--out", "out", *network, *size]) == 0


# --- mistakes on the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("imagnet", "klopf: no command imagnet; did you mean imagenet?"),
        ("xyz", "klopf: no command xyz; see klopf --help"),
        ("--verson", "klopf: no option --verson; did you mean --version?"),
        ("imagenet --stepsize 0.1", "klopf imagenet: no option --stepsize; did you mean --step-size?"),
        ("imagenet --step-size -1", "klopf imagenet: --step-size: expected a number above 0, got '-1'"),
        ("imagenet --runs none", "klopf imagenet: --runs: expected a whole number of at least 1, got 'none'"),
        (
            "imagenet --profile author",
            "klopf imagenet: --profile: expected one of paper, authors, got 'author'",
        ),
        ("demo --run 3", "klopf demo: no option --run; did you mean --runs?"),
        ("plot a --publish", "klopf plot: no option --publish; did you mean --published?"),
        ("plot", "klopf plot: the following arguments are required: FOLDER"),
        ("info --all", "klopf info: no option --all"),
        ("data unpack", "klopf data: no action unpack; did you mean pack?"),
        ("data xyz", "klopf data: no action xyz; see klopf data --help"),
        ("data --size 3", "klopf data: no option --size; see klopf data --help"),
        ("data info", "klopf data info: the following arguments are required: FILE"),
        ("data pack", "klopf data pack: the following arguments are required: SRC"),
        ("data pack a --sizes 3", "klopf data pack: no option --sizes; did you mean --size?"),
    ],
)
def test_a_misspelt_word(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *words.split(), code=2) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--method bp --noise 0.1", "klopf: --noise is an option of snp, \\+noise, got only bp"),
        ("--step-size 0.1 0.1", "klopf: --step-size names 0.1 twice"),
        ("--kernels 3 3", "klopf: [network] expected one of --kernels for each of --channels, got 2 for 1"),
        ("--classes 2 --classes-per-task 3", "klopf: [stream] expected at least 3 classes for a task, got 2"),
        ("--kernels 9", r"klopf: .*8.*"),
        ("--device tpu", r"klopf: .*tpu.*"),
        (
            "--data none.npy",
            r"klopf: --size, --classes and --data-seed are options of synthetic data, got .*",
        ),
    ],
)
def test_options_that_do_not_fit(
    words: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.fullmatch(
        line.replace("[network]", r"\[network\]").replace("[stream]", r"\[stream\]"),
        refused(capsys, "imagenet", "--out", "out", *TINY, *words.split()),
    )
    assert not (folder / "out").exists()


# --- data ---------------------------------------------------------------------------------------------------


def packed(folder: Path) -> Path:
    ilsvrc(folder / "tree")
    assert (
        main(["data", "pack", str(folder / "tree"), "--out", str(folder / "images.npy"), "--size", "8"]) == 0
    )
    return folder / "images.npy"


def test_images_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, "imagenet", "--data", "none.npy")
    assert "no" in refused(capsys, "data", "pack", "none")


def test_too_few_images_or_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed(folder)
    line = refused(capsys, "imagenet", "--data", "images.npy", "--out", "out")
    assert line.startswith("klopf: [stream] expected at least 600 training and 100 test images a class, got ")
    line = refused(capsys, "imagenet", "--data", "images.npy", "--classes-per-task", "50")
    assert line.startswith("klopf: [stream] expected at least 50 classes for a task, got ")
    assert not (folder / "out").exists()


def test_truncated_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(folder)
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refused(capsys, "imagenet", "--data", "images.npy", "--out", "out")


def test_nan_in_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(folder)
    images = np.load(path).astype(np.float32)
    images[0, 0, 0, 0, 0] = np.nan
    np.save(path, images)
    assert "expected uint8" in refused(capsys, "imagenet", "--data", "images.npy", "--out", "out")
    about = path.with_suffix(".json")
    about.write_text(about.read_text().replace('"mean": [', '"mean": [NaN, '))
    np.save(path, np.nan_to_num(images).astype(np.uint8))
    assert "NaN" in refused(capsys, "imagenet", "--data", "images.npy", "--out", "out").replace("nan", "NaN")


# --- folders ------------------------------------------------------------------------------------------------


def test_results_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [*TINY, "--tasks", "1", "--method", "linear", "--no-figure"]
    assert main(["imagenet", "--out", "out", *short]) == 0
    before = contents(folder / "out")
    for command in (["imagenet", *TINY], ["demo"]):
        line = refused(capsys, *command, "--out", "out")
        assert line.startswith(
            "klopf: out already has results; choose another --out, go on with --resume out"
        )
    refused(capsys, "imagenet", "--out", "out", "--overwrite", *TINY, "--kernels", "99")
    assert contents(folder / "out") == before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskStream, "task", None)
    (folder / "file").write_text("")
    for out in ("file", "file/out", "/proc/out"):
        assert refused(capsys, "imagenet", "--out", out, *TINY).startswith(
            f"klopf: cannot write into {out}: "
        )
    made_up(folder / "a", ["bp"], 2, 2)
    assert refused(capsys, "plot", "a", "--out", "file/figure.png").startswith(
        "klopf: cannot write file/figure"
    )


def test_nothing_to_resume_or_plot(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["imagenet", "--resume", "none"], ["demo", "--resume", "none"], ["plot", "none"]):
        assert refused(capsys, *command).startswith("klopf: none is no results folder: cannot read ")


def test_resuming_takes_no_other_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(folder / "a", ["bp"], 2, 2)
    for words, name in (("--step-size 0.1", "--step-size"), ("--tasks 5", "--tasks"), ("--out b", "--out")):
        line = refused(capsys, "imagenet", "--resume", "a", *words.split())
        assert line == f"klopf: --resume takes the settings from its folder, got {name} as well"


# --- checkpoints --------------------------------------------------------------------------------------------


COMMAND = ["imagenet", "--out", "out", *TINY, *REPLACING, "--no-figure", "--checkpoint-every", "0.0001"]


@pytest.fixture
def half_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """An experiment stopped half-way in `out`, and what it would have been without the stop."""
    assert main(COMMAND) == 0
    whole = contents(folder / "out")
    (folder / "out").rename(folder / "whole")
    make = TaskStream.task

    def stop(self: TaskStream, task: int) -> object:
        if task == 1:
            signal.raise_signal(signal.SIGTERM)
        return make(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(TaskStream, "task", stop)
        patch.setattr(session, "SLICE_SECONDS", 0.0)
        assert main(COMMAND) == 143
    return folder / "out", whole


@pytest.mark.parametrize("damage", ["truncated", "one byte", "another file", "another experiment"])
def test_a_damaged_checkpoint(
    damage: str, half_done: tuple[Path, dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = half_done
    path = out / "checkpoint.safetensors"
    good = path.read_bytes()
    middle = len(good) * 2 // 3
    bad = {
        "truncated": good[:middle],
        "one byte": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "another file": b"hello",
    }
    if damage == "another experiment":
        kl.checkpoint.write(path, {"a": np.zeros(3)}, {})
    else:
        path.write_bytes(bad[damage])
    results = (out / "results.csv").read_bytes()
    assert "checkpoint" in refused(capsys, "imagenet", "--resume", "out")
    assert (out / "results.csv").read_bytes() == results
    path.write_bytes(good)
    assert main(["imagenet", "--resume", "out"]) == 0
    assert contents(out) == whole


def test_a_write_that_fails_half_way_loses_nothing(half_done: tuple[Path, dict[str, object]]) -> None:
    out, whole = half_done
    checkpoint = (out / "checkpoint.safetensors").read_bytes()
    limit = len(checkpoint) - 1

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = klopf("imagenet", "--resume", "out", cwd=out.parent, preexec_fn=limited)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stdout == ""
    assert stderr == "klopf: cannot write out/checkpoint.safetensors: File too large\n"
    assert (out / "checkpoint.safetensors").read_bytes() == checkpoint
    assert not list(out.glob(".*"))
    assert main(["imagenet", "--resume", "out"]) == 0
    assert contents(out) == whole


def test_results_that_cannot_be_appended(half_done: tuple[Path, dict[str, object]]) -> None:
    out, whole = half_done
    limit = (out / "results.csv").stat().st_size + 10

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = klopf(
        "imagenet", "--resume", "out", "--checkpoint-every", "1000", cwd=out.parent, preexec_fn=limited
    )
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert stderr == "klopf: cannot write out/results.csv: File too large\n"
    assert main(["imagenet", "--resume", "out"]) == 0
    assert contents(out) == whole


def test_two_processes_in_one_folder(
    half_done: tuple[Path, dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    from klopf.experiments.results import Folder

    out, whole = half_done
    other = Folder(out)
    other.lock()
    assert refused(capsys, "imagenet", "--resume", "out") == "klopf: another process is writing into out"
    other.close()
    assert main(["imagenet", "--resume", "out"]) == 0
    assert contents(out) == whole


def test_another_instruction_set_is_mentioned(half_done: tuple[Path, dict[str, object]]) -> None:
    out, _ = half_done
    arrays, about = kl.checkpoint.read(out / "checkpoint.safetensors")
    kl.checkpoint.write(out / "checkpoint.safetensors", arrays, {**about, "arithmetic": "level another"})
    process = klopf("imagenet", "--resume", "out", cwd=out.parent)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert stderr.count("\n") == 1
    assert "level another" in stderr


def test_results_without_their_checkpoint_are_left_alone(
    half_done: tuple[Path, dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = half_done
    (out / "checkpoint.safetensors").unlink()
    before = (out / "results.csv").read_bytes()
    message = refused(capsys, "imagenet", "--resume", "out")
    assert (
        message == "klopf: out has results but no checkpoint.safetensors to go on from; choose another --out"
    )
    assert (out / "results.csv").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00junk\n", b"\n"])
def test_a_results_file_of_something_else(
    half_done: tuple[Path, dict[str, object]], capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (half_done[0] / "results.csv").write_bytes(content)
    assert refused(capsys, "plot", "out").startswith("klopf: expected ")


@pytest.mark.parametrize(
    "words", ["--seed 99999999999999999999", "--runs 99999999999", "--hidden 2147483648"]
)
def test_numbers_that_are_too_large(capsys: pytest.CaptureFixture[str], words: str) -> None:
    option, value = words.split()
    said = refused(capsys, "imagenet", *words.split(), code=2)
    assert said.startswith(f"klopf imagenet: {option}: expected a whole number of at most ") and value in said


def test_a_failure_before_the_first_task_leaves_the_folder_free(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *COMMAND, "--classes", "1").startswith("klopf: ")
    assert main(COMMAND) == 0
