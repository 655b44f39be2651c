"""Writing files so that a reader, or the next start after a crash, never sees half of one."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, Any, Literal, overload

from klopf._core import Error

try:
    import fcntl
except ImportError:  # not a POSIX system: two writers of one path are then not kept apart
    fcntl = None  # type: ignore[assignment]

StrPath = str | os.PathLike[str]


@overload
def atomic_write(path: StrPath, mode: Literal["wb"] = "wb") -> AbstractContextManager[IO[bytes]]: ...


@overload
def atomic_write(path: StrPath, mode: Literal["w"]) -> AbstractContextManager[IO[str]]: ...


def atomic_write(path: StrPath, mode: Literal["wb", "w"] = "wb") -> AbstractContextManager[IO[Any]]:
    """Open a new file that takes the place of `path` when, and only when, the block ends without an
    exception.

    The content goes into `.NAME.tmp` in the same folder, is flushed to the disk, and is then renamed, so that
    `path` holds the old content or the new one and nothing in between, whatever kills the process. A
    temporary file that a killed process left behind is overwritten by the next write of the same path. A
    symbolic link is followed. `mode` is "wb" for bytes or "w" for text (UTF-8, lines end in a single newline
    character).

    Raises `klopf.Error`, "cannot write PATH: No space left on device" and the like, where the system refuses
    (no such folder, no permission, disk full, file-size limit), where `path` is a folder or a device, or
    where another process is writing the same path; the temporary file is gone then. Exceptions of the block
    itself pass unchanged.
    """
    return _atomic_write(path, mode)


@contextmanager
def _atomic_write(path: StrPath, mode: str) -> Iterator[IO[Any]]:
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.tmp")
    with clear_errors(path, ours=(temporary, target)):
        refuse_what_is_no_file(target)
        file = _open_empty(temporary, mode)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(
                temporary, target
            )  # while still locked, so that nobody else can take the temporary file
        except BaseException:
            with suppress(OSError):
                os.remove(temporary)
            with suppress(OSError):  # closing flushes, and fails again on a full disk
                file.close()
            raise
        file.close()
    flush_folder(folder)


def check_writable(folder: StrPath) -> None:
    """Create `folder` (and its parents) where missing and make sure that files can be created in it.

    Raises `klopf.Error`, "cannot write into FOLDER: Permission denied" and the like.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Error(f"cannot write into {os.fspath(folder)}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The system's words for an error ("No such file or directory"), without number and path."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def clear_errors(path: StrPath, ours: tuple[str, ...]) -> Iterator[None]:
    """Turn an OSError that names one of the files `ours`, or none, into a `klopf.Error` about `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and error.filename not in ours:
            raise  # the block was reading something else
        raise Error(f"cannot write {os.fspath(path)}: {reason(error)}") from error


def refuse_what_is_no_file(target: str) -> None:
    """Raise OSError where `target` is a folder, a device or a pipe: renaming would replace a device."""
    try:
        kind = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "not a regular file", target)


def open_alone(temporary: str) -> int:
    """A descriptor of the file `temporary`, made where it is missing and locked against every other writer.

    What it holds stays. Raises OSError, "another process is writing it", where it is locked.
    """
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if _lock(descriptor, temporary):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open_empty(temporary: str, mode: str) -> IO[Any]:
    """Open `temporary` for writing from its start, locked against every other writer of it."""
    descriptor = open_alone(temporary)
    try:
        os.ftruncate(descriptor, 0)
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        return open(descriptor, mode, **text)  # type: ignore[call-overload, no-any-return]
    except BaseException:
        os.close(descriptor)
        raise


def _lock(descriptor: int, temporary: str) -> bool:
    """Lock an open file; False where its writer has renamed it meanwhile."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, "another process is writing it", temporary) from error
    except OSError:
        return True  # a file system without locks
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(temporary))
    except FileNotFoundError:
        return False


def flush_folder(folder: str) -> None:
    """Ask the system to put the renaming itself on the disk; where it refuses, no harm is done."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
