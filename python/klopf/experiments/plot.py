"""`klopf plot`: the figure of an experiment; the same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import klopf as kl
from klopf.experiments.drawing import STYLE, looks_of
from klopf.experiments.figure_ant import ant_figure
from klopf.experiments.figure_imagenet import imagenet_figure
from klopf.experiments.figure_incremental import incremental_figure
from klopf.experiments.figure_online import online_figure
from klopf.experiments.figure_steps import read_step_sizes, steps_figure
from klopf.experiments.results import read_results, read_settings, table_of
from klopf.experiments.settings import Parser, option, option_of
from klopf.experiments.statistics import INTERVALS
from klopf.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {  # by what the results count
    "task": imagenet_figure,
    "classes": incremental_figure,
    "step": ant_figure,
    "example": online_figure,
}


@dataclass(frozen=True)
class Settings:
    """Draw the figure of one results folder or of several together, as PNG and SVG."""

    out: str | None = option(
        None, "the PNG; the SVG lies beside it (default: in the folder)", placeholder="FILE"
    )
    published: bool = option(False, "overlay the published curves")
    interval: str = option(
        "se", "shade one standard error or a 95% bootstrap interval", choices=tuple(INTERVALS)
    )
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
    given = parser.parse(arguments)
    folders = given.pop("folders")
    run = given.pop("step_sizes", None)
    if run is None and len(folders) > 1 and "out" not in given:
        raise kl.Error("a figure of several folders needs --out")
    out = given.pop("out", str(Path(folders[0]) / ("figure.png" if run is None else "step_sizes.png")))
    if run is None:
        paths = plot(folders, out, **given)
    else:
        if given:
            raise kl.Error(f"--step-sizes goes with --out alone, got {option_of(next(iter(given)))}")
        if len(folders) > 1:
            raise kl.Error(f"--step-sizes is of one folder, got {len(folders)}")
        paths = plot_step_sizes(folders[0], out, run=run)
    for path in paths:
        print(path)


def plot(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    published: bool = False,
    interval: str = "se",
    bin: int | None = None,
) -> list[Path]:
    """Draw the results of the folders into `out` (.png or .svg, both are written); returns the two paths.

    interval: "se" or "bootstrap".  bin: tasks or measurements a point.  Raises kl.Error where there
    is nothing to draw.
    """
    counters, names = set(), set()
    for folder in folders:
        settings = read_settings(folder)
        counters.add(table_of(folder, settings).counter)
        names.add(settings.get("experiment", "something else"))
    # What acts may be compared, however it learns.
    if len(counters) > 1 or (counters != {"step"} and len(names) > 1):
        raise kl.Error(f"expected folders of one kind of experiment, got {' and '.join(sorted(names))}")
    looks = looks_of([(str(folder), line) for folder in folders for line in read_results(folder)])
    return _saved(out, lambda: FIGURES[counters.pop()](looks, interval, bin, published))


def plot_step_sizes(folder: str | Path, out: str | Path, *, run: int = 0) -> list[Path]:
    """Draw the step sizes that the last checkpoint of a results folder has into `out`, as `plot` does.

    Raises kl.Error where there is nothing to draw.
    """
    sizes = read_step_sizes(folder)
    runs = len(next(iter(next(iter(sizes.values())).values())))
    if run >= runs:
        raise kl.Error(f"--step-sizes must be below {runs}, the number of runs, got {run}")
    return _saved(out, lambda: steps_figure(sizes, run))


def _saved(out: str | Path, draw: Callable[[], Figure]) -> list[Path]:
    """A figure, drawn in our style, as PNG and SVG."""
    import matplotlib as mpl

    target = Path(out)
    if target.suffix not in (".png", ".svg"):
        raise kl.Error(f"expected a figure's name to end in .png or .svg, got {target}")
    with mpl.rc_context(STYLE):
        figure = draw()
        paths = [target.with_suffix(".png"), target.with_suffix(".svg")]
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
            with atomic_write(path) as file:
                file.write(buffer.getvalue())
    return paths
