"""Packing that is killed or interrupted goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import klopf
from image_folders import cifar_10, class_arrays, imagenet_batches, python3
from image_trees import contents, ilsvrc, save
from klopf._core import Error
from klopf.data import ArrayImages, pack, partial, stored

LAYOUTS: dict[str, Callable[[Path], object]] = {
    "tree": ilsvrc,
    "arrays": class_arrays,
    "imagenet-batches": lambda folder: imagenet_batches(folder, dump=python3(3)),
    "npz": imagenet_batches,
    "cifar-10": cifar_10,
}
PROGRAM = """
import os, signal, sys
from klopf.data import pack, partial, stored

partial.SECONDS, stored.CHUNK = 0, 150
begun = []

def kill(done, all):
    begun.append(done)
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

pack(sys.argv[1], sys.argv[2], progress=kill)
"""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in the journal after every piece, and few images in a piece."""
    monkeypatch.setattr(partial, "SECONDS", 0)
    monkeypatch.setattr(stored, "CHUNK", 150)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_and_gone_on_with(tmp_path: Path, layout: str, often: None) -> None:
    LAYOUTS[layout](tmp_path / "in")
    expected = pack(tmp_path / "in", tmp_path / "out.npy")
    images = expected.classes * expected.images_per_class
    whole = contents(tmp_path)
    for name in whole:
        (tmp_path / name).unlink()
    for moment in (images // 3, 2 * images // 3):
        program = [
            sys.executable,
            "-c",
            PROGRAM,
            str(tmp_path / "in"),
            str(tmp_path / "out.npy"),
            str(moment),
        ]
        assert subprocess.run(program, capture_output=True).returncode == -signal.SIGKILL
        assert names(tmp_path) == [".out.npy.journal", ".out.npy.part"]
    seen: list[int] = []
    pack(tmp_path / "in", tmp_path / "out.npy", progress=lambda done, _: seen.append(done))
    assert seen[0] >= 2 * images // 3
    assert seen[-1] == images
    assert contents(tmp_path) == whole


def test_killed_at_any_moment(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in "ab":
        np.save(tmp_path / f"in/{name}.npy", generator.integers(0, 256, (4000, 3, 32, 32), dtype=np.uint8))
    pack(tmp_path / "in", tmp_path / "out.npy", 16)
    whole = contents(tmp_path)
    for name in whole:
        (tmp_path / name).unlink()
    draw = random.Random(0)
    for _ in range(4):
        process = klopf("data", "pack", "in", "--out", "out.npy", "--size", "16", cwd=tmp_path)
        time.sleep(draw.uniform(0.3, 0.7))
        process.kill()
        process.communicate()
    assert (
        klopf("data", "pack", "in", "--out", "out.npy", "--size", "16", cwd=tmp_path).communicate()[1] == ""
    )
    assert contents(tmp_path) == whole


def interrupted(folder: Path, at: int) -> None:
    """Begin to pack, and stop after so many images."""

    def stop(done: int, all: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(folder, folder.parent / "out.npy", progress=stop)


def begins_at(folder: Path, size: int | None = None, **options: object) -> int:
    """Pack, and say how many images were done when it was first heard of."""
    seen: list[int] = []
    pack(folder, folder.parent / "out.npy", size, None, lambda done, _: seen.append(done), **options)  # type: ignore[arg-type]
    return seen[0]


def test_interrupted_by_the_keyboard(tmp_path: Path, often: None) -> None:
    class_arrays(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out.npy")
    whole = contents(tmp_path)
    interrupted(tmp_path / "in", 5)
    assert {name: content for name, content in contents(tmp_path).items() if name[0] != "."} == whole
    journal = json.loads((tmp_path / ".out.npy.journal").read_bytes())
    assert (journal["format"], journal["version"], journal["done"]) == ("klopf packing", 1, 6)
    assert begins_at(tmp_path / "in") == 6
    assert contents(tmp_path) == whole


def test_progress_may_be_over_when_it_goes_on(tmp_path: Path, often: None) -> None:
    class_arrays(tmp_path / "in")
    interrupted(tmp_path / "in", 9)
    assert begins_at(tmp_path / "in") == 9


def touched(folder: Path) -> None:
    os.utime(folder / "a10.npy", ns=(1, 1))


def other_size(folder: Path) -> None:
    images = np.load(folder / "b.npy")
    np.save(folder / "b.npy", images[:-1])


def another_class(folder: Path) -> None:
    np.save(folder / "c.npy", np.load(folder / "b.npy"))


def other_name(folder: Path) -> None:
    (folder / "b.npy").rename(folder / "c.npy")


def other_journal(folder: Path) -> None:
    path = folder.parent / ".out.npy.journal"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "plan": "another"}))


def no_journal(folder: Path) -> None:
    (folder.parent / ".out.npy.journal").unlink()


def copied_part(folder: Path) -> None:
    path = folder.parent / ".out.npy.part"
    content = path.read_bytes()
    path.rename(folder.parent / "moved")
    path.write_bytes(bytes(len(content)))


def truncated_part(folder: Path) -> None:
    os.truncate(folder.parent / ".out.npy.part", 100)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_a_journal_of_something_else(tmp_path: Path, often: None, content: bytes) -> None:
    class_arrays(tmp_path / "in")
    interrupted(tmp_path / "in", 5)
    (tmp_path / ".out.npy.journal").write_bytes(content)
    assert begins_at(tmp_path / "in") < 6


@pytest.mark.parametrize("done", [-1, "6", None, 1.5])
def test_a_journal_that_says_nonsense(tmp_path: Path, often: None, done: object) -> None:
    class_arrays(tmp_path / "in")
    interrupted(tmp_path / "in", 5)
    path = tmp_path / ".out.npy.journal"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "done": done}))
    assert begins_at(tmp_path / "in") < 6


@pytest.mark.parametrize(
    "change",
    [touched, other_size, another_class, other_name, other_journal, no_journal, copied_part, truncated_part],
)
def test_a_part_of_other_images_is_not_used(
    tmp_path: Path, often: None, change: Callable[[Path], None]
) -> None:
    class_arrays(tmp_path / "in")
    interrupted(tmp_path / "in", 5)
    change(tmp_path / "in")
    assert begins_at(tmp_path / "in") < 5
    resumed = contents(tmp_path)
    pack(tmp_path / "in", tmp_path / "out.npy")
    assert contents(tmp_path) == resumed
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_part_with_other_options_is_not_used(tmp_path: Path, often: None) -> None:
    class_arrays(tmp_path / "in")
    interrupted(tmp_path / "in", 5)
    assert begins_at(tmp_path / "in", size=2) < 5


def test_an_error_removes_the_part(tmp_path: Path, often: None) -> None:
    ilsvrc(tmp_path / "in")
    save(tmp_path / "in/train/n02/n02_10.JPEG", 1)
    interrupted(tmp_path / "in", 5)
    (tmp_path / "in/train/n02/n02_10.JPEG").write_bytes(b"not an image")
    with pytest.raises(Error, match=r"expected an image in .*n02_10\.JPEG"):
        pack(tmp_path / "in", tmp_path / "out.npy")
    assert names(tmp_path) == []


def test_two_at_once_are_kept_apart(tmp_path: Path, often: None) -> None:
    class_arrays(tmp_path / "in")

    def pack_again(done: int, all: int) -> None:
        with pytest.raises(Error, match=r"^cannot write .*out\.npy: another process is writing it$"):
            pack(tmp_path / "in", tmp_path / "out.npy")

    pack(tmp_path / "in", tmp_path / "out.npy", progress=pack_again)
    assert names(tmp_path) == ["out.json", "out.npy"]


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, often: None) -> None:
    class_arrays(tmp_path / "in")

    def cut(done: int, all: int) -> None:
        os.truncate(tmp_path / "in" / "b.npy", 200)

    with pytest.raises(Error, match=r"^\[data pack\] expected \d+ more bytes in .*b\.npy: truncated$"):
        pack(tmp_path / "in", tmp_path / "out.npy", progress=cut)
    assert names(tmp_path) == []


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    class_arrays(tmp_path / "in")
    process = klopf(
        *("data", "pack", "in", "--out", "out.npy"),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)),
    )
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == "klopf: cannot write out.npy: File too large\n"
    assert names(tmp_path) == []


def test_arrays_in_memory_go_on_too(tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 3, 2, 2), dtype=np.uint8)
    source = ArrayImages(images)

    def stop(self: partial.Partial, done: int) -> None:
        reached(self, done)
        raise KeyboardInterrupt

    reached = partial.Partial.reached
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partial.Partial, "reached", stop)
        source.save(tmp_path / "out.npy")
    assert names(tmp_path) == [".out.npy.journal", ".out.npy.part"]
    np.testing.assert_array_equal(np.load(source.save(tmp_path / "out.npy").path), images)
    assert names(tmp_path) == ["out.json", "out.npy"]
