"""Files appear whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klopf._core import Error
from klopf.files import atomic_write, check_writable

resource = pytest.importorskip("resource")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_writes_bytes_and_text(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin") as binary:
        binary.write(b"\x00\r\n")
    with atomic_write(str(tmp_path / "a.txt"), "w") as text:
        text.write("café\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "a.txt").read_bytes() == "café\n".encode()
    assert names(tmp_path) == ["a.bin", "a.txt"]


def test_old_content_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_exception_keeps_the_old_content(tmp_path: Path, exception: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(exception, match="stop"), atomic_write(path, "w") as file:
        file.write("new")
        raise exception("stop")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_file_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with (
        pytest.raises(Error, match=rf"^cannot write {path}: File too large$"),
        file_size_limit(4096),
        atomic_write(path) as file,
    ):
        file.write(b"x" * 100_000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_full_disk_met_when_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(Error, match=r"^cannot write .*: No space left on device$"),
        atomic_write(tmp_path / "a"),
    ):
        pass
    assert names(tmp_path) == []


def test_errors_of_other_files_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_write(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert names(tmp_path) == []


def test_unusable_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "missing" / "a", "No such file or directory"),
        (tmp_path / "file" / "a", "Not a directory"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(Error, match=rf"^cannot write {path}: {reason}$"), atomic_write(path):
            pass
    assert names(tmp_path) == ["file"]


def test_follows_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_two_writers_of_one_path(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_write(path, "w") as first:
        with pytest.raises(Error, match="another process is writing it"), atomic_write(path, "w"):
            pass
        first.write("first")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_many_writers_leave_one_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    refusals: list[str] = []

    def write(letter: str) -> None:
        for _ in range(20):
            try:
                with atomic_write(path, "w") as file:
                    file.write(letter * 10_000)
            except Error as error:
                refusals.append(str(error))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(refusal.endswith("another process is writing it") for refusal in refusals)
    content = path.read_text()
    assert content in {letter * 10_000 for letter in "abc"}
    assert names(tmp_path) == ["a"]


_ENDLESS_WRITER = """
import sys
from klopf.files import atomic_write
while True:
    for letter in "ab":
        with atomic_write(sys.argv[1], "w") as file:
            for _ in range(20):
                file.write(letter * 10_000)
        print(letter, flush=True)
"""


def test_killed_writer(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", _ENDLESS_WRITER, path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"a"
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert path.read_text() in {letter * 200_000 for letter in "ab"}
    with atomic_write(path, "w") as file:  # what the last one left behind is no obstacle, and goes
        file.write("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_check_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == []
    (tmp_path / "file").touch()
    with pytest.raises(Error, match=rf"^cannot write into {tmp_path}/file: File exists$"):
        check_writable(tmp_path / "file")
    with pytest.raises(Error, match=r"^cannot write into /proc/klopf: No such file or directory$"):
        check_writable("/proc/klopf")


def test_check_writable_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("everything is permitted to the superuser")
    tmp_path.chmod(0o500)
    with pytest.raises(Error, match=rf"^cannot write into {tmp_path}: Permission denied$"):
        check_writable(tmp_path)
