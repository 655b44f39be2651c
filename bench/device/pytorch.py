"""PyTorch on the same network: what it reaches, what the device can do at best, and klopf against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from device.child import Row, collect, one_line
from device.clock import seconds_of_one
from device.settings import About, Measured, Settings
from device.steps import CASE
from peers.cases import make_data

CAP = 180.0  # seconds; most of it compiles


def measure(settings: Settings, seconds: float) -> Measured:
    found, why = collect(rows, seconds, settings.device, settings.many, settings.seconds)
    missing = [f"PyTorch: {why}"] if why else []
    result: dict[str, Any] = {"rows": [], "ceilings": {}, "version": None}
    for row in found:
        if "failed" in row:
            missing.append(row["failed"])
        elif "seconds" in row:
            result["rows"].append(row)
        else:
            result |= row
    return result, missing


def rows(device: str, many: int, seconds: float) -> Iterator[Row]:
    """Version and ceilings, then one row for each formulation and precision, or what went wrong with it."""
    import torch

    from peers import torch_runs

    on_gpu = device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError("it sees no GPU")
    yield {"version": torch.__version__, "ceilings": torch_runs.ceilings(device) if on_gpu else {}}
    data = make_data(CASE)
    for runs, how in torch_runs.formulations(many):
        for precision in ("tf32", "float32") if on_gpu else ("float32",):
            name = "PyTorch " + (", ".join(how) or "eager")
            try:
                with torch_runs.precision(precision == "tf32"):
                    steps = torch_runs.step_of(CASE, data, runs, device, how)
                    took = seconds_of_one(steps, seconds)
                yield {"name": name, "precision": precision, "runs": runs, "seconds": took}
            except Exception as error:
                yield {"failed": f"{name}, {precision}, {runs} runs: {one_line(error)}"}


def ratios(about: About) -> list[Row]:
    """How many times as long PyTorch takes for as many runs, for each precision; to continual backprop."""
    many, found = about["settings"]["many"], []
    peers = about.get("torch", {}).get("rows", [])
    for ours in about.get("steps", []):
        if ours["runs"] != many:
            continue
        alike = [row for row in peers if row["precision"] == ours["precision"]]
        alone = [row for row in alike if row["runs"] == 1]
        eager = [row for row in alone if row["name"] == "PyTorch eager"]
        together = [row for row in alike if row["runs"] == many]
        for what, chosen, times in (
            (f"{many} eager runs, one after the other", eager, many),
            (f"{many} runs of the fastest formulation of one, one after the other", alone, many),
            (f"the fastest formulation of {many} runs at once", together, 1),
        ):
            if chosen:
                best = min(chosen, key=lambda row: float(row["seconds"]))
                found.append(
                    {
                        "what": what,
                        "name": best["name"],
                        "precision": ours["precision"],
                        "ratio": times * best["seconds"] / ours["seconds"],
                    }
                )
    return found


def table(about: About) -> list[str]:
    rows = ratios(about)
    if not rows:
        return []
    lines = [
        "## klopf and PyTorch\n",
        f"Time of PyTorch over klopf's, {about['settings']['many']} runs; above 1 klopf is faster.\n",
        "| PyTorch | formulation | precision | ratio |",
        "|---|---|---|--:|",
    ]
    for row in rows:
        lines.append(f"| {row['what']} | {row['name']} | {row['precision']} | {row['ratio']:.3g} |")
    return lines
