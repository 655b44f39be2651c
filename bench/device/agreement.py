"""Whether networks learn as well on the device as on the CPU: the same stream, seeds and settings on both.

A network that is trained on after a difference in the last bit soon is another network, so single accuracies
differ by some points. What has to agree is their mean: over the later tasks of a stream for each run, then
over runs, which are pairs. Tasks are short ones of the built-in images with the published network. On the
CPU, between instruction-set levels, which also round differently, the difference of a run's mean over 45
tasks deviates by about 0.7 points: 30 runs and 75 tasks give an interval of about +-0.2.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.child import Row, one_line
from device.experiment import imagenet
from device.settings import About, Measured, Settings
from klopf.experiments.results import read_results

CAP = 150.0  # seconds
ON_DEVICE = 0.25  # share of them for each precision, at most
MARGIN = 0.5  # percentage points that do not matter
LEVEL = 0.9
TASK = ["--epochs", "10", "--batch-size", "20", "--train-images", "60", "--metrics-every", "1000000"]


def measure(settings: Settings, seconds: float) -> Measured:
    end = time.monotonic() + seconds
    words = ["--method", "cbp", "--runs", str(settings.many), "--tasks", str(settings.compared), *TASK]
    found: list[Row] = []
    missing = []
    with tempfile.TemporaryDirectory() as scratch:
        devices = {}
        for precision in settings.precision:
            where = ["--device", settings.device, "--precision", precision]
            try:
                imagenet(Path(scratch) / precision, [*words, *where], ON_DEVICE * seconds)
                devices[precision] = _accuracy(Path(scratch) / precision)
            except Exception as error:
                missing.append(f"agreement of {precision}: {one_line(error)}")
        if devices:
            imagenet(Path(scratch) / "host", words, end - time.monotonic())
            host = _accuracy(Path(scratch) / "host")
            found = [{"precision": name, **compare(host, device)} for name, device in devices.items()]
    return found, missing


def _accuracy(folder: Path) -> NDArray[np.float64]:
    """In percent, [R, T]."""
    return 100 * read_results(folder)[0].values["accuracy"]


def compare(host: NDArray[np.float64], device: NDArray[np.float64]) -> dict[str, Any]:
    """The device's accuracy less the host's, in points; the first quarter of the tasks is left out."""
    tasks = min(host.shape[1], device.shape[1])
    later = slice(tasks // 4, tasks)
    each = (device[:, later] - host[:, later]).mean(axis=1)
    each = each[np.isfinite(each)]  # a run that diverged is no pair
    mean, error = float(each.mean()), float(each.std(ddof=1)) / math.sqrt(len(each))
    half = t_quantile((1 + LEVEL) / 2, len(each) - 1) * error
    return {
        "runs": len(each),
        "tasks": tasks - tasks // 4,
        "accuracy": float(np.nanmean(host[:, later])),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "within": mean - half > -MARGIN and mean + half < MARGIN,
    }


def t_quantile(p: float, degrees: int) -> float:
    """Of Student's distribution, to 0.001 from five degrees of freedom (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def table(about: About) -> list[str]:
    lines = [
        "## Accuracy on the device and on the CPU\n",
        f"Test accuracy, device less CPU, in percentage points: mean over the later of up to "
        f"{about['settings']['compared']} short tasks of the built-in images, and {LEVEL:.0%} t interval "
        "over runs, which are pairs. The published network.\n",
        f"| precision | runs | tasks | CPU (%) | difference | interval | within ±{MARGIN} |",
        "|---|--:|--:|--:|--:|---|---|",
    ]
    for row in about.get("agreement", []):
        cells = [row["precision"], str(row["runs"]), str(row["tasks"]), f"{row['accuracy']:.2f}"]
        cells += [f"{row['difference']:+.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]"]
        lines.append(f"| {' | '.join([*cells, 'yes' if row['within'] else 'no'])} |")
    return lines
