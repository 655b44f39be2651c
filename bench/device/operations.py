"""Every operation of a step by itself, beside what the device can do: copy memory, multiply matrices."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import Any

import klopf as kl
from device.child import one_line
from device.settings import About, Measured, Settings

CAP = 90.0  # seconds
SECONDS = 0.1  # that each operation is timed
COPIES = 8  # of all memory, in turns, so that arrays are not in the GPU's cache from the play before


def measure(settings: Settings, seconds: float) -> Measured:
    program = settings.operations or shutil.which("klopf-operations")
    if program is None:
        return [], ["operations: klopf-operations is not on PATH"]
    # In the second network nothing is fused, and updates are others: only one precision matters there.
    wanted = [("imagenet", precision) for precision in reversed(settings.precision)]
    wanted.append(("imagenet-apart", settings.precision[0]))
    found, missing = [], []
    end = time.monotonic() + seconds
    for network, precision in wanted:
        copies = 1 if settings.device == "cpu" else COPIES
        of = [network, settings.many, settings.device, precision, SECONDS, copies]
        words = [program, *map(str, of)]
        try:
            left = max(1.0, end - time.monotonic())
            done = subprocess.run(words, capture_output=True, text=True, timeout=left)
            if done.returncode != 0:
                raise kl.Error((done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1])
            found.append(json.loads(done.stdout))
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            missing.append(f"operations of {network}, {precision}: {one_line(error)}")
    return found, missing


def shares(operation: dict[str, Any], ceilings: dict[str, float], precision: str) -> tuple[float, float]:
    """Of the copying bandwidth and of the rate of matrix products, NaN where that ceiling is not known."""
    nan = float("nan")
    copy, rate = ceilings.get("copy", nan), ceilings.get(precision, nan)
    seconds = operation["seconds"]
    return operation["bytes"] / seconds / copy, operation["flop"] / seconds / rate


def table(about: About) -> list[str]:
    """All operations of the first network; of others what it does not have."""
    ceilings = about.get("torch", {}).get("ceilings", {})
    lines = ["## Operations\n"]
    lines.append(
        "Bytes: every array read once and written once; FLOP: nominal, as if nothing were zero. Shares are "
        "of a large copy and of a large matrix product in the same precision, both by PyTorch.\n"
    )
    for name, rate in ceilings.items():
        lines.append(f"{name}: {rate / 1e12:.3g} {'TB/s' if name == 'copy' else 'TFLOP/s'}  ")
    seen: set[str] = set()
    for of in about.get("operations", []):
        names = {operation["name"] for operation in of["operations"]}
        shown = [one for one in of["operations"] if one["name"] not in seen or of["network"] == "imagenet"]
        seen |= names
        total = sum(operation["seconds"] for operation in of["operations"])
        lines += [
            f"\n### {of['network']}, {of['precision']}, {of['runs']} runs\n",
            f"All operations, each by itself: {1e3 * total:.3g} ms; as a step: {1e3 * of['step']:.3g} ms.\n",
            "| operation | µs | GB/s | of copy | TFLOP/s | of product |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for operation in shown:
            seconds, (copy, rate) = operation["seconds"], shares(operation, ceilings, of["precision"])
            cells = [f"{operation['number']}. {operation['name']}", f"{1e6 * seconds:.3g}"]
            cells += (
                [f"{operation['bytes'] / seconds / 1e9:.3g}", _percent(copy)]
                if operation["bytes"]
                else [""] * 2
            )
            cells += (
                [f"{operation['flop'] / seconds / 1e12:.3g}", _percent(rate)]
                if operation["flop"]
                else [""] * 2
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(share: float) -> str:
    return "" if share != share else f"{100 * share:.0f}%"
