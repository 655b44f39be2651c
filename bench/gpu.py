"""Training steps of the published ImageNet network on a GPU: klopf at several numbers of runs, and PyTorch.

    python bench/gpu.py

See bench/README.md; bench/gpu.sh builds and tests before.
"""

from __future__ import annotations

import datetime
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import klopf as kl
from comparison.machine import commit, machine, versions
from klopf.experiments.settings import Parser, option
from klopf.files import atomic_write, check_writable
from peers.cases import CASES, make_data
from peers.klopf_peer import LAYERS

CASE = CASES["imagenet"]
SAMPLES = 900  # as a task of the published stream has; nine batches


@dataclass(frozen=True)
class Settings:
    """Time steps on a GPU, of klopf and of PyTorch where it is installed: table.md and results.json."""

    device: str = option("cuda", "where klopf's networks live")
    runs: tuple[int, ...] = option((1, 8, 30, 64, 128), "numbers of runs in lockstep")
    precision: tuple[str, ...] = option(
        ("float32", "tf32"), "of klopf's dense products", choices=("float32", "tf32")
    )
    peers: tuple[int, ...] = option((1, 30), "numbers of runs of PyTorch's formulations")
    seconds: float = option(2.0, "how long each is timed", above=0)
    out: str | None = option(None, "folder of the results (default: bench/results/gpu)", placeholder="FOLDER")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 for what cannot be measured; a wrong option leaves with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("gpu.py", Settings.__doc__ or "")
    parser.add_settings(Settings)
    settings = Settings(**parser.parse(words))
    out = Path(settings.out or Path(__file__).parent / "results" / "gpu")
    try:
        check_writable(out)
        about: dict[str, Any] = {
            "command": shlex.join(["python", "bench/gpu.py", *words]),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": {**machine(), "gpu": kl._core.gpu_status()},
            "versions": versions(),
        }
        rows = [
            _klopf(settings, runs, precision) for precision in settings.precision for runs in settings.runs
        ]
    except kl.Error as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    about["ceilings"], peers, failed = _torch(settings)
    rows += peers
    about |= {"rows": rows, "failed": failed}
    with atomic_write(out / "results.json") as file:
        file.write(json.dumps(about, indent=1).encode())
    text = _table(about)
    with atomic_write(out / "table.md") as file:
        file.write(text.encode())
    print(text)
    return 0


def _klopf(settings: Settings, runs: int, precision: str) -> dict[str, Any]:
    network = next(iter(CASE.networks.values()))
    layers = [LAYERS[kind](*numbers) for kind, *numbers in network]
    net = kl.Network(layers, CASE.input_shape, runs=runs, device=settings.device, precision=precision)
    optimizer = kl.SGD(step_size=CASE.step_size, momentum=CASE.momentum)
    learner = kl.Learner(net, loss=CASE.loss, optimizer=optimizer, rules=[kl.ContinualBackprop(**CASE.cbp)])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (runs, SAMPLES, *CASE.input_shape), dtype=np.uint8)
    y = rng.integers(0, 2, (runs, SAMPLES))

    def epochs(count: int) -> None:
        learner.run(x, y, batch_size=CASE.batch, epochs=count, scale=1 / 255, offset=-0.5)

    steps = -(-SAMPLES // CASE.batch)
    return {
        "name": f"klopf cbp, {precision}",
        "runs": runs,
        "seconds": _time(epochs, settings.seconds) / steps,
    }


def _torch(settings: Settings) -> tuple[dict[str, float], list[dict[str, Any]], list[str]]:
    """Ceilings, rows, and what could not be run."""
    try:
        import torch

        from peers import torch_runs
    except ImportError as error:
        return {}, [], [f"PyTorch: {error}"]
    device = settings.device if torch.cuda.is_available() else "cpu"
    data = make_data(CASE)
    rows, failed = [], []
    for runs in settings.peers:
        for compiled in (False, True):
            for tf32 in (False, True):
                how = "compiled, graph" if compiled else "eager"
                name = f"PyTorch {how}, {'tf32' if tf32 else 'float32'}"
                try:
                    with torch_runs.precision(tf32):
                        steps = torch_runs.step_of(CASE, data, runs, device, compiled)
                        rows.append({"name": name, "runs": runs, "seconds": _time(steps, settings.seconds)})
                except Exception as error:
                    failed.append(f"{name}, {runs} runs: {str(error).splitlines()[0]}")
    return torch_runs.ceilings(device) if device != "cpu" else {}, rows, failed


def _time(work: Callable[[int], None], seconds: float) -> float:
    """Seconds for one of what `work` does, after a warm-up."""
    work(2)
    start = time.perf_counter()
    work(2)
    count = max(2, int(2 * seconds / max(time.perf_counter() - start, 1e-6)))
    start = time.perf_counter()
    work(count)
    return (time.perf_counter() - start) / count


def _table(about: dict[str, Any]) -> str:
    lines = [
        "# Training steps on a GPU\n",
        f"`{about['command']}` on {about['date'][:10]}, commit {str(about['commit']['hash'])[:7]}. "
        f"{about['machine']['gpu']}.",
        "The published ImageNet network, batch 100 a run; one time for each.\n",
        "| | runs | ms a step of all runs | ms a run |",
        "|---|--:|--:|--:|",
    ]
    for row in about["rows"]:
        ms = 1e3 * row["seconds"]
        lines.append(f"| {row['name']} | {row['runs']} | {ms:.3g} | {ms / row['runs']:.3g} |")
    for name, rate in about["ceilings"].items():
        lines.append(f"\n{name}: {rate / 1e12:.3g} {'TB/s' if name == 'copy' else 'TFLOP/s'}")
    lines += [f"\nNot run: {what}" for what in about["failed"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
