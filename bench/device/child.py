"""A part in a process of its own, so that a crash or the end of its time takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

Row = dict[str, Any]


def collect(
    rows: Callable[..., Iterator[Row]], seconds: float, *arguments: Any
) -> tuple[list[Row], str | None]:
    """What `rows(*arguments)` yields in so many seconds, and why it is not all, if it is not."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(theirs, rows, arguments))
    child.start()
    theirs.close()
    found: list[Row] = []
    end = time.monotonic() + seconds
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            row, last_words = ours.recv()
            if row is None:
                return found, last_words
            found.append(row)
        return found, f"stopped after {seconds:.0f} s"
    except EOFError:
        child.join()
        return found, f"the process ended with code {child.exitcode}"
    finally:
        child.kill()
        child.join()


def _send(pipe: Connection, rows: Callable[..., Iterator[Row]], arguments: tuple[Any, ...]) -> None:
    try:
        for row in rows(*arguments):
            pipe.send((row, None))
        pipe.send((None, None))
    except Exception as error:
        pipe.send((None, one_line(error)))


def one_line(error: BaseException) -> str:
    """The error's type and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
