"""The first tasks of the published experiment, on the built-in images, with all that a task takes."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

import klopf as kl
from device.experiment import imagenet
from device.settings import About, Measured, Settings
from klopf import checkpoint
from klopf.experiments.results import CHECKPOINT, Folder

CAP = 120.0  # seconds
PUBLISHED = 2000  # tasks


def measure(settings: Settings, seconds: float) -> Measured:
    words = ["--method", "cbp", "--device", settings.device, "--precision", settings.precision[-1]]
    words += ["--runs", str(settings.many), "--tasks", str(settings.tasks), "--epochs", str(settings.epochs)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tasks"
        whole = imagenet(folder, words, seconds)
        found = {"command": shlex.join(["klopf", "imagenet", *words]), **_read(folder)}
    return found, [] if whole else [
        f"tasks: only {found['tasks']:.2f} of {settings.tasks} in {seconds:.0f} s"
    ]


def _read(path: Path) -> dict[str, Any]:
    folder = Folder(path)
    settings, took = folder.settings()["settings"], folder.read_timings()["seconds"]
    _, position = checkpoint.read(folder / CHECKPOINT)
    done = int(position["task"]) + int(position["done"]) / settings["epochs"]
    if done == 0:
        raise kl.Error("not one epoch was done in time")
    images = settings["classes_per_task"] * settings["train_images"]
    a_task = sum(value for name, value in took.items() if name != "all") / done  # "all" has the start too
    steps = done * settings["epochs"] * -(-images // settings["batch_size"])
    return {
        "runs": settings["runs"],
        "precision": settings["precision"],
        "tasks": done,
        "steps": steps,
        "seconds": took,
        "seconds_a_task": a_task,
        "ms_a_step": 1e3 * took["train cbp"] / steps,
        "hours_of_published": PUBLISHED * a_task / 3600,
    }


def table(about: About) -> list[str]:
    found = about.get("tasks")
    if not found:
        return []
    parts = ", ".join(f"{name} {value:.3g}" for name, value in found["seconds"].items() if name != "all")
    return [
        "## Tasks of the published experiment\n",
        f"`{found['command']}`: {found['tasks']:g} tasks of {found['steps'] / found['tasks']:g} steps, "
        f"{found['runs']} runs, {found['precision']}, in {found['seconds']['all']:.3g} s "
        f"with the start ({parts}).\n",
        "| | |",
        "|---|--:|",
        f"| seconds a task, all runs, evaluation included | {found['seconds_a_task']:.3g} |",
        f"| ms a training step of all runs | {found['ms_a_step']:.3g} |",
        f"| hours for {PUBLISHED} tasks of one method, extrapolated | {found['hours_of_published']:.3g} |",
    ]
