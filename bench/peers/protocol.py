"""The pipe between the comparison and its workers: one process for each formulation, one JSON line a message.

    to the worker                                            answer
    {"case", "formulation", "cores": [..], "data": FILE}     {"version", "unit"}
    {"losses": N}                                            {"losses": [..]}            the first N steps
    {"run": STEPS, "warm": STEPS}                            {"wall": s, "cpu": s, "loss"}

A worker that waits sleeps in `read`; at the end of its input it leaves.  A mistake is answered by {"error"}.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from peers.cases import CASES, Case, Formulation


class WorkerError(Exception):
    """What a worker could not do, in one line."""


class Runnable(Protocol):
    """A formulation, ready to go: what `build(case, how, data, threads)` of a library's file returns.

    version: of the library.  unit: steps of the smallest block, all others are multiples.
    """

    version: str
    unit: int

    def losses(self, count: int) -> list[float]:
        """Do the first steps of all and return the loss before each update, summed over the networks."""
        ...

    def run(self, steps: int) -> float:
        """Go on for so many steps, batches in order and over again; returns a late loss, so all is done."""
        ...


def environment(threads: int) -> dict[str, str]:
    """Variables that hold every library to so many threads of the CPU; read when it is imported."""
    count = str(threads)
    names = ("KLOPF", "OMP", "MKL", "OPENBLAS")
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": count for name in names},
        "NPROC": count,  # the thread pool of XLA
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else helpers that compile stay around
    }


class Worker:
    """The parent's end: a process with one formulation, on `threads` cores."""

    def __init__(self, case: Case, formulation: Formulation, threads: int, data: Path) -> None:
        self.formulation = formulation
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.protocol"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            cwd=Path(__file__).parent.parent,
            env=environment(threads),
        )
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        about = {"case": case.name, "formulation": formulation.name, "cores": cores, "data": str(data)}
        try:
            answer = self._ask(about)
        except BaseException:
            self.close()
            raise
        self.version: str = answer["version"]
        self.unit: int = answer["unit"]

    def losses(self, count: int) -> list[float]:
        """Losses of the first `count` steps; compiles what is compiled."""
        return [float(value) for value in self._ask({"losses": count})["losses"]]

    def run(self, steps: int, warm: int = 0) -> dict[str, float]:
        """Time of `steps` steps in seconds, "wall" and "cpu" of the process, after `warm` steps untimed."""
        return self._ask({"run": steps, "warm": warm})

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise WorkerError(f"{self.formulation.name}: {answer['error']}")
        return dict(answer)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with code {self._process.wait()}" + (f", {lines[-1]}" if lines else "")


# --- the worker's end ---------------------------------------------------------------------------------------


def serve() -> None:
    """Answer messages until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the messages
    runnable: Runnable | None = None
    for line in sys.stdin:
        try:
            message = json.loads(line)
            if runnable is None:
                runnable = _build(**message)
                answer: dict[str, Any] = {"version": runnable.version, "unit": runnable.unit}
            elif "losses" in message:
                answer = {"losses": runnable.losses(message["losses"])}
            else:
                answer = _timed(runnable, message["run"], message["warm"])
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        pipe.write(json.dumps(answer) + "\n")


def _build(case: str, formulation: str, cores: Sequence[int], data: str) -> Runnable:
    os.sched_setaffinity(0, cores)  # before the import: libraries count the cores then
    asked = CASES[case]
    found = next(one for one in asked.formulations if one.name == formulation)
    with np.load(data) as arrays:
        loaded = dict(arrays)
    library = importlib.import_module(f"peers.{found.library}_peer")
    return library.build(asked, found.how, loaded, len(cores))  # type: ignore[no-any-return]


def _timed(runnable: Runnable, steps: int, warm: int) -> dict[str, float]:
    if warm:
        runnable.run(warm)
    wall, cpu = time.perf_counter(), time.process_time()
    loss = runnable.run(steps)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss}


if __name__ == "__main__":
    serve()
