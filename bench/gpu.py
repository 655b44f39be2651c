"""All that is measured on a GPU: steps, PyTorch, operations, published tasks, agreement with the CPU.

    python bench/gpu.py

See bench/README.md; bench/gpu.sh builds and tests before.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import klopf as kl
from comparison.machine import commit, machine, versions
from device import agreement, operations, pytorch, steps, tasks
from device.child import one_line
from device.settings import About, Settings
from klopf.experiments.settings import Parser
from klopf.files import atomic_write, check_writable

MODULES: dict[str, Any] = {  # in the order of the table
    "steps": steps,
    "torch": pytorch,
    "operations": operations,
    "tasks": tasks,
    "agreement": agreement,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, also where the table says that parts could not be measured; 1 where nothing can."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("gpu.py", Settings.__doc__ or "")
    parser.add_settings(Settings)
    settings = Settings(**parser.parse(words))
    out = Path(settings.out or Path(__file__).parent / "results" / "gpu")
    try:
        check_writable(out)
        if settings.device not in kl.devices():
            raise kl.Error(f"no device {settings.device}: {kl._core.gpu_status()}")
    except kl.Error as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    about: About = {
        "command": shlex.join(["python", "bench/gpu.py", *words]),
        "settings": dataclasses.asdict(settings),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {**machine(), "gpu": kl._core.gpu_status()},
        "versions": versions(),
        "not_run": [],
    }
    end = time.monotonic() + settings.limit
    for name in settings.parts:
        _measure(name, settings, end, about)
        about["ratios"] = pytorch.ratios(about)
        _write(out, about)  # after each part, so that what stops a later one leaves the results of the others
    print(table(about), end="")
    return 0


def _measure(name: str, settings: Settings, end: float, about: About) -> None:
    part, start = MODULES[name], time.monotonic()
    left = end - start
    print(f"{name} ...", file=sys.stderr)
    if left < 5:
        about["not_run"].append(f"{name}: no time left")
        return
    try:
        about[name], missing = part.measure(settings, min(part.CAP, left))
    except Exception as error:  # one part that fails leaves the others
        missing = [f"{name}: {one_line(error)}"]
    about["not_run"] += missing
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)


def _write(out: Path, about: About) -> None:
    with atomic_write(out / "results.json", "w") as file:
        json.dump(about, file, indent=1)
        file.write("\n")
    with atomic_write(out / "table.md", "w") as file:
        file.write(table(about))


def table(about: About) -> str:
    """Markdown, as far as there is something."""
    hash_, where = about["commit"]["hash"] or "unknown", about["machine"]
    peer = about.get("torch", {}).get("version")
    lines = [
        "# klopf on a GPU\n",
        f"`{about['command']}` on {about['date'][:10]}, commit {hash_[:7]}. {where['gpu']}; "
        f"{where['processor']}, {where['cores']} cores{f'; PyTorch {peer}' if peer else ''}.\n",
    ]
    for part in [module.table(about) for name, module in MODULES.items() if name in about]:
        lines += [*part, ""] if part else []
    lines += [f"Not run: {what}  " for what in about["not_run"]]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
