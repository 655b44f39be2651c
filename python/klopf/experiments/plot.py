"""`klopf plot`: the figure of an experiment; the same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import klopf as kl
from klopf.experiments.drawing import STYLE, looks_of
from klopf.experiments.figure_ant import ant_figure
from klopf.experiments.figure_imagenet import imagenet_figure
from klopf.experiments.figure_online import online_figure
from klopf.experiments.results import read_results, read_settings, table_of
from klopf.experiments.settings import Parser, option
from klopf.experiments.statistics import INTERVALS
from klopf.files import atomic_write

FIGURES = {"task": imagenet_figure, "step": ant_figure, "example": online_figure}  # by what the results count


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


def command(arguments: Sequence[str]) -> None:
    """`klopf plot`."""
    parser = Parser("klopf plot", Settings.__doc__ or "")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_settings(Settings)
    given = parser.parse(arguments)
    folders = given.pop("folders")
    out = given.pop("out", str(Path(folders[0]) / "figure.png"))
    for path in plot(folders, out, **given):
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
    import matplotlib as mpl

    target = Path(out)
    if target.suffix not in (".png", ".svg"):
        raise kl.Error(f"expected a figure's name to end in .png or .svg, got {target}")
    counters = {table_of(folder, read_settings(folder)).counter for folder in folders}
    if len(counters) > 1:
        raise kl.Error(
            f"expected folders of one kind of experiment, got counts of {'s and of '.join(sorted(counters))}s"
        )
    looks = looks_of([(str(folder), line) for folder in folders for line in read_results(folder)])
    with mpl.rc_context(STYLE):
        figure = FIGURES[counters.pop()](looks, interval, bin, published)
        paths = [target.with_suffix(".png"), target.with_suffix(".svg")]
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
            with atomic_write(path) as file:
                file.write(buffer.getvalue())
    return paths
