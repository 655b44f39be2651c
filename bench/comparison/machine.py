"""What a measurement depends on beside the code: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import klopf as kl

BUSY = 0.5  # load average above which a warning is due
ROOT = Path(__file__).parent.parent.parent


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, level of klopf, and the processes that wanted to run of late."""
    said = _processor()
    return {
        "processor": said.get("model name", platform.machine()),
        "family": said.get("cpu family"),
        "model": said.get("model"),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "klopf_isa": kl.isa(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of what the parent runs on; the workers add those of their libraries."""
    return {"python": platform.python_version(), "numpy": np.__version__, "klopf": kl.__version__}


def commit() -> dict[str, Any]:
    """Hash of the checked-out commit, and whether files differ from it, results aside; None without git."""
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)bench/results")
    return {"hash": _git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def _processor() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
