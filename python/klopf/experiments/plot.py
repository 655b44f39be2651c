"""`klopf plot`: the figure of an experiment, and its numbers; the same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import klopf as kl
from klopf.experiments import measures
from klopf.experiments.drawing import STYLE, looks_of
from klopf.experiments.figure_ant import ant_figure
from klopf.experiments.figure_imagenet import imagenet_figure
from klopf.experiments.figure_incremental import incremental_figure
from klopf.experiments.figure_online import online_figure
from klopf.experiments.figure_society import society_figure
from klopf.experiments.figure_steps import read_step_sizes, steps_figure
from klopf.experiments.figure_units import read_population, units_figure
from klopf.experiments.results import read_together
from klopf.experiments.sensitivity import sensitivity_figure
from klopf.experiments.settings import Parser, option, option_of
from klopf.experiments.society import read_societies
from klopf.experiments.standing import expect_run
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
FIGURES = {  # by what the results count, or the experiment
    "task": imagenet_figure,
    "classes": incremental_figure,
    "step": ant_figure,
    "example": online_figure,
    "recall": online_figure,
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
    over: str | None = option(
        None, "draw what methods achieve over a setting that was swept", placeholder="SETTING"
    )
    part: tuple[float, ...] | None = option(
        None, "of the stream, for --over: from, to (default: what the table compares)", minimum=0
    )
    column: str | None = option(
        None, "of results.csv, for --over (default: what the table compares)", placeholder="NAME"
    )
    relative: bool = option(False, "errors over that of the best constant on the same task; of klopf recall")
    step_sizes: int | None = option(
        None, "draw step sizes instead, those of this run one by one", minimum=0, placeholder="RUN"
    )
    units: int | None = option(
        None,
        "draw the lives of units instead, of --events, those of this run one by one",
        minimum=0,
        placeholder="RUN",
    )
    society: int | None = option(
        None,
        "draw the units of this run instead: utility, age, who listens to whom, births and deaths",
        minimum=0,
        placeholder="RUN",
    )


def command(arguments: Sequence[str]) -> None:
    """`klopf plot`."""
    parser = Parser("klopf plot", Settings.__doc__ or "")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")
    parser.add_settings(Settings)
    parser.add_settings(Summary)
    given = parser.parse(arguments)
    folders = given.pop("folders")
    instead = [name for name in INSTEAD if name in given]
    if not instead and len(folders) > 1 and "out" not in given:
        raise kl.Error("a figure of several folders needs --out")
    over = ["over", *(_name(given[one]) for one in ("over", "column") if one in given)]
    name = instead[0] if instead else "_".join(over) if "over" in given else "figure"
    kind = next((one for one in given.get("format", ()) if one in METADATA), "png")
    out = given.pop("out", str(Path(folders[0]) / f"{name}.{kind}"))
    if not instead:
        paths = plot(folders, out, **given)
    else:
        run, (draw, beside) = given.pop(name), INSTEAD[name]
        *flags, last = map(option_of, ("out", "format", *beside))
        others = [one for one in given if one not in ("format", *beside)]
        if others:
            raise kl.Error(
                f"{option_of(name)} goes with {', '.join(flags)} and {last} alone, got {option_of(others[0])}"
            )
        if len(folders) > 1:
            raise kl.Error(f"{option_of(name)} is of one folder, got {len(folders)}")
        paths = draw(folders[0], out, run=run, **given)
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
    over: str | None = None,
    part: Sequence[float] | None = None,
    column: str | None = None,
    relative: bool = False,
    format: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw the results of the folders into `out` and, beside it, in the other formats; returns the paths.

    statistic, interval: see `statistics`.  bin: tasks or measurements a point.  format: of `FORMATS`; that of
    `out` is one of them in any case.
    over: a setting; what is drawn is then what lines achieve, by its value.  part: of the stream, from one
    share of it to another.  column: of the results, in place of what they are judged by.
    relative: errors over those of a constant.  Raises kl.Error where there is nothing to draw.
    """
    lines = read_together(folders)
    if relative:
        lines = list(map(measures.relative, lines))
    summary = Summary(statistic, interval)
    if over is not None:
        if published or bin is not None:
            raise kl.Error(f"--over goes without {'--published' if published else '--bin'}")
        setting, share = _name(over), measures.part_of(part)
        return _saved(
            out, lambda: sensitivity_figure(lines, setting, share, summary, column), format, summary
        )
    for name, value in (("part", part), ("column", column)):
        if value is not None:
            raise kl.Error(f"{option_of(name)} is an option of --over")
    looks = looks_of(lines)
    figure = FIGURES.get(lines[0].name) or FIGURES[lines[0].counter]
    return _saved(out, lambda: figure(looks, summary, bin, published), format, summary)


def _name(setting: str) -> str:
    """A setting's name, if it was written as its option."""
    return setting.removeprefix("--").replace("-", "_")


def plot_step_sizes(
    folder: str | Path, out: str | Path, *, run: int = 0, format: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw the step sizes that the last checkpoint of a results folder has into `out`, as `plot` does.

    Raises kl.Error where there is nothing to draw.
    """
    sizes = read_step_sizes(folder)
    _expect("step_sizes", run, len(next(iter(next(iter(sizes.values())).values()))), format, "checkpoint")
    return _saved(out, lambda: steps_figure(sizes, run), format, Summary())


def plot_units(
    folder: str | Path,
    out: str | Path,
    *,
    run: int = 0,
    statistic: str = "mean",
    interval: str = "se",
    format: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw when the units of a results folder were replaced into `out`, as `plot` does.

    Raises kl.Error where there is nothing to draw.
    """
    populations = read_population(folder)
    _expect("units", run, next(iter(populations.values())).runs, format, "events.csv")
    summary = Summary(statistic, interval)
    return _saved(out, lambda: units_figure(populations, run, summary), format, summary)


def plot_society(
    folder: str | Path, out: str | Path, *, run: int = 0, format: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw the units of one run, as the last checkpoint of a results folder has them, into `out`, as `plot`
    does; csv: units, and the lines between them.

    Raises kl.Error where there is nothing to draw.
    """
    societies = read_societies(folder, run)
    return _saved(out, lambda: society_figure(societies, run), format, Summary())


def _expect(name: str, run: int, runs: int, format: Sequence[str], where: str) -> None:
    """Raises kl.Error for a run that is not there, and for numbers that are elsewhere already."""
    expect_run(name, run, runs)
    if "csv" in format:
        raise kl.Error(f"--format csv is not for {option_of(name)}: the numbers are in the folder's {where}")


# Drawn in place of results: of one folder and one run, with these options beside --out and --format.
INSTEAD: dict[str, tuple[Callable[..., list[Path]], tuple[str, ...]]] = {
    "step_sizes": (plot_step_sizes, ()),
    "units": (plot_units, ("statistic", "interval")),
    "society": (plot_society, ()),
}


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
