"""`klopf imagenet` as a person runs it, for as long as there is time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import klopf as kl

GRACE = 20.0  # seconds to write the last checkpoint after SIGTERM


def imagenet(folder: Path, words: Sequence[str], seconds: float) -> bool:
    """Whether it came to its end in that time; else it was stopped well, and what it has done counts."""
    command = [
        sys.executable,
        "-m",
        "klopf",
        "imagenet",
        "--out",
        str(folder),
        "--no-figure",
        "--quiet",
        *words,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stopped = False
    try:
        try:
            said, _ = process.communicate(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            stopped = True
            process.terminate()
            said, _ = process.communicate(timeout=GRACE)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0 and not stopped:
        raise kl.Error((said.strip().splitlines() or [f"code {process.returncode}"])[-1])
    return not stopped
