"""klopf against what people use: the same networks, the same data, the same number of threads, one series.

    python bench/compare.py

See bench/README.md.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import klopf as kl
from comparison import chart
from comparison.machine import BUSY, commit, machine, versions
from comparison.series import Series, measure
from comparison.summary import heading, rows, table
from klopf.experiments.settings import Parser, option
from klopf.files import atomic_write, check_writable
from peers.cases import CASES, Formulation
from peers.protocol import WorkerError

PEERS = {"torch": "PyTorch", "jax": "JAX"}


@dataclass(frozen=True)
class Settings:
    """Compare klopf with PyTorch and JAX: table.md, chart.png and results.json."""

    cases: tuple[str, ...] = option(tuple(CASES), "what is computed", choices=tuple(CASES))
    threads: tuple[int, ...] = option((1, 2), "thread counts, one after the other", minimum=1)
    rounds: int = option(15, "blocks of each formulation, taken in turns", minimum=1)
    seconds: float = option(0.5, "how long a block takes", above=0)
    out: str | None = option(
        None, "folder of the results (default: bench/results/compare)", placeholder="FOLDER"
    )
    peers: tuple[str, ...] = option(
        tuple(PEERS), "libraries to compare with, where they are installed", choices=tuple(PEERS)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 for what cannot be measured, 130 after Ctrl-C; a wrong option leaves with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("compare.py", Settings.__doc__ or "")
    parser.add_settings(Settings)
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in parser.parse(words).items()
    }
    try:
        _compare(Settings(**given), "peers" in given, words)
    except (kl.Error, WorkerError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 0


def _compare(settings: Settings, demanded: bool, words: list[str]) -> None:
    """demanded: whether a peer that is missing is an error."""
    out = Path(settings.out or Path(__file__).parent / "results" / "compare")
    cores = len(os.sched_getaffinity(0))
    if max(settings.threads) > cores:
        most = max(settings.threads)
        raise kl.Error(f"expected --threads of at most {cores}, the cores there are, got {most}")
    missing = [_what_is_missing(peer) for peer in settings.peers]
    if demanded and any(missing):
        raise kl.Error(next(filter(None, missing)))
    for line in filter(None, missing):
        _say(f"{line}: left out")
    libraries = ["klopf", *(peer for peer, lack in zip(settings.peers, missing, strict=True) if not lack)]
    check_writable(out)
    about = _about(settings, words)
    if about["machine"]["load"] > BUSY:
        _say(f"the machine is busy (load average {about['machine']['load']}): ratios will be off")
    all_series = _measure_all(settings, libraries)
    for series in all_series:
        for one in series.formulations:
            about["versions"][one.library] = one.version
    about["series"] = [_described(series) for series in all_series]
    _write(out, about, all_series)


def _what_is_missing(peer: str) -> str:
    """Why a peer cannot be measured, or nothing."""
    if find_spec(peer) is None:
        return f"{PEERS[peer]} is not installed (pip install {peer})"
    if peer == "torch" and not (os.environ.get("CXX") or shutil.which("g++")):
        return "PyTorch needs g++ to compile"
    return ""


def _measure_all(settings: Settings, libraries: Sequence[str]) -> list[Series]:
    all_series = []
    for name in dict.fromkeys(settings.cases):
        case = CASES[name]
        chosen: list[Formulation] = [one for one in case.formulations if one.library in libraries]
        for threads in dict.fromkeys(settings.threads):
            where = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            series = measure(
                case,
                chosen,
                threads,
                rounds=settings.rounds,
                seconds=settings.seconds,
                say=lambda text, where=where: _progress(f"{where}: {text}"),  # type: ignore[misc]
            )
            all_series.append(series)
    _progress("")
    return all_series


def _about(settings: Settings, words: list[str]) -> dict[str, Any]:
    """What is known before the first block."""
    return {
        "command": shlex.join(["python", "bench/compare.py", *words]),
        "settings": {**dataclasses.asdict(settings), "out": None},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


def _described(series: Series) -> dict[str, Any]:
    """Every block, and what follows from it, for the JSON."""
    described = dataclasses.asdict(series)
    for one, row in zip(described["formulations"], rows(series), strict=True):
        one["summary"] = dataclasses.asdict(row)
    return described


def _write(out: Path, about: dict[str, Any], all_series: Sequence[Series]) -> None:
    text = heading(about) + "\n" + table(all_series)
    with atomic_write(out / "results.json", "w") as file:
        json.dump(about, file, indent=1)
        file.write("\n")
    with atomic_write(out / "table.md", "w") as file:
        file.write(text)
    chart.draw(all_series, out / "chart.png")
    print(text, end="")


def _progress(text: str) -> None:
    """One line that is written over, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    _progress("")
    print("compare.py: " + " ".join(text.split()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
