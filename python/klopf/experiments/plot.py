"""`klopf plot`: the figure of an experiment, and its numbers; the same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import klopf as kl
from klopf.experiments.drawing import STYLE, looks_of
from klopf.experiments.figure_ant import ant_figure
from klopf.experiments.figure_imagenet import imagenet_figure
from klopf.experiments.figure_incremental import incremental_figure
from klopf.experiments.figure_online import online_figure
from klopf.experiments.figure_steps import read_step_sizes, steps_figure
from klopf.experiments.results import read_settings, read_together, table_of
from klopf.experiments.settings import Parser, option, option_of
from klopf.experiments.statistics import Summary
from klopf.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf", "csv")
# What would differ from one time to the next is left out.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FIGURES = {  # by what the results count
    "task": imagenet_figure,
    "classes": incremental_figure,
    "step": ant_figure,
    "example": online_figure,
}


@dataclass(frozen=True)
class Settings:
    """Draw the figure of one results folder or of several together."""

    out: str | None = option(
        None, "the figure; its other formats lie beside it (default: in the folder)", placeholder="FILE"
    )
    format: tuple[str, ...] = option(
        ("png", "svg"), "what is written; csv: the numbers, a file for each panel", choices=FORMATS
    )
    published: bool = option(False, "overlay the published curves")
    bin: int | None = option(
        None, "tasks, or measurements, averaged into one point (default: by their number)", minimum=1
    )
    step_sizes: int | None = option(
        None, "draw step sizes instead, those of this run one by one", minimum=0, placeholder="RUN"
    )


def command(arguments: Sequence[str]) -> None:
    """`klopf plot`."""
    parser = Parser("klopf plot", Settings.__doc__ or "")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_settings(Settings)
    parser.add_settings(Summary)
    given = parser.parse(arguments)
    folders = given.pop("folders")
    run = given.pop("step_sizes", None)
    if run is None and len(folders) > 1 and "out" not in given:
        raise kl.Error("a figure of several folders needs --out")
    out = given.pop("out", str(Path(folders[0]) / ("figure.png" if run is None else "step_sizes.png")))
    if run is None:
        paths = plot(folders, out, **given)
    else:
        others = [name for name in given if name != "format"]
        if others:
            raise kl.Error(f"--step-sizes goes with --out and --format alone, got {option_of(others[0])}")
        if len(folders) > 1:
            raise kl.Error(f"--step-sizes is of one folder, got {len(folders)}")
        paths = plot_step_sizes(folders[0], out, run=run, **given)
    for path in paths:
        print(path)


def plot(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    published: bool = False,
    statistic: str = "mean",
    interval: str = "se",
    bin: int | None = None,
    format: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw the results of the folders into `out` and, beside it, in the other formats; returns the paths.

    statistic, interval: see `statistics`.  bin: tasks or measurements a point.  format: of `FORMATS`; that of
    `out` is one of them in any case.  Raises kl.Error where there is nothing to draw.
    """
    looks = looks_of(read_together(folders))
    counter = table_of(folders[0], read_settings(folders[0])).counter
    summary = Summary(statistic, interval)
    return _saved(out, lambda: FIGURES[counter](looks, summary, bin, published), format, summary)


def plot_step_sizes(
    folder: str | Path, out: str | Path, *, run: int = 0, format: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw the step sizes that the last checkpoint of a results folder has into `out`, as `plot` does.

    Raises kl.Error where there is nothing to draw.
    """
    sizes = read_step_sizes(folder)
    runs = len(next(iter(next(iter(sizes.values())).values())))
    if run >= runs:
        raise kl.Error(f"--step-sizes must be below {runs}, the number of runs, got {run}")
    if "csv" in format:
        raise kl.Error("--format csv is not for --step-sizes: they are in the checkpoint")
    return _saved(out, lambda: steps_figure(sizes, run), format, Summary())


def _saved(
    out: str | Path, draw: Callable[[], Figure], format: Sequence[str], summary: Summary
) -> list[Path]:
    """A figure, drawn in our style, in several formats."""
    import matplotlib as mpl

    target = Path(out)
    if target.suffix[1:] not in METADATA:
        raise kl.Error(f"expected a figure's name to end in .png, .svg or .pdf, got {target}")
    wanted = {*format, target.suffix[1:]}
    paths = []
    with mpl.rc_context(STYLE):
        figure = draw()
        for kind in (kind for kind in METADATA if kind in wanted):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=METADATA[kind])
            paths.append(target.with_suffix(f".{kind}"))
            with atomic_write(paths[-1]) as file:
                file.write(buffer.getvalue())
    if "csv" in wanted:
        from klopf.experiments.panels import Sheet

        assert isinstance(figure, Sheet)
        for panel, text in figure.tables(summary).items():
            paths.append(target.with_name(f"{target.stem}-{panel}.csv"))
            with atomic_write(paths[-1], "w") as table:
                table.write(text)
    return paths
