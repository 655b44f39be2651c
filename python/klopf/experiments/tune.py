"""Two stages: settings are chosen on some seeds by the first part of a stream, and reported on others.

    on the seeds for tuning, every line (a method with each combination of its values) learns the first part
    of each method, the line that did best there is chosen
    on the other seeds, the chosen lines learn the whole stream

The first stage is a results folder of its own, `tuning` in that of the second, whose settings.json holds
every trial.  Either stage goes on after a kill as every experiment does: what is chosen follows from the
first folder alone.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klopf._core import Error
from klopf.experiments.measures import WHOLE, measure_of
from klopf.experiments.results import SETTINGS, Folder, LineResults, read_results
from klopf.experiments.settings import option, option_of
from klopf.experiments.statistics import mean
from klopf.experiments.stop import Stopped

if TYPE_CHECKING:
    from klopf.experiments.plan import Plan

FOLDER = "tuning"  # in the results folder
AnyPlan = Any  # a Plan[Any, Any]
Hold = Callable[..., None]


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen before the experiment."""

    tune_runs: int | None = option(
        None,
        "choose first, on so many runs, the best of the values given for each method (default: no choice)",
        minimum=2,
        maximum=100_000,
    )
    tune_seed: int = option(1_000_000, "seed of the first of these runs", minimum=0)
    tune_part: float = option(0.1, "share of the stream, from its beginning, to choose by", above=0)


def taken_from(given: dict[str, Any]) -> Tuning | None:
    """The options of `Tuning`, which are removed from those that were given; None without --tune-runs."""
    own = {name: given.pop(name) for name in ("tune_runs", "tune_seed", "tune_part") if name in given}
    if own and "tune_runs" not in own:
        raise Error(f"{option_of(next(iter(own)))} goes with --tune-runs, which says to tune")
    tuning = Tuning(**own)
    if tuning.tune_part > 1:
        raise Error(f"--tune-part must be at most 1, got {tuning.tune_part:g}")
    return tuning if own else None


def first_stage(plan: Plan[Any, Any], tuning: Tuning) -> AnyPlan:
    """The plan of the first stage, for that of the experiment with all its lines.

    Raises kl.Error where there is nothing to choose, where the part is shorter than a measurement, or where
    both stages would have a seed in common.
    """
    assert tuning.tune_runs is not None
    if not any(line.swept for line in plan.lines):
        raise Error("--tune-runs chooses among values, and no option of a method has several")
    rows = int(tuning.tune_part * plan.length + 1e-9) // plan.table.every
    if rows < 1:
        raise Error(
            f"--tune-part {tuning.tune_part:g} of {plan.length} {plan.table.counter}s is less than "
            f"the {plan.table.every} that a measurement takes"
        )
    runs, seed = plan.settings.runs, plan.settings.seed
    ends = tuning.tune_seed + tuning.tune_runs, seed + runs
    if tuning.tune_seed < ends[1] and seed < ends[0]:
        raise Error(
            f"tuning and experiment must have seeds of their own, got {tuning.tune_seed} to {ends[0] - 1} "
            f"and {seed} to {ends[1] - 1}; choose another --tune-seed"
        )
    settings = dataclasses.replace(plan.settings, runs=tuning.tune_runs, seed=tuning.tune_seed)
    about = {"part": tuning.tune_part, "rows": rows, "runs": runs, "seed": seed}
    return dataclasses.replace(plan, settings=settings, tuning=about)


def second_stage(plan: Plan[Any, Any], found: list[LineResults]) -> AnyPlan:
    """The plan of the experiment, for that of the first stage and what its lines achieved.

    Raises kl.Error where every setting of a method failed.
    """
    assert plan.tuning is not None
    measure = measure_of(found[0])
    trials: list[dict[str, Any]] = []
    best: dict[str, tuple[tuple[float, float], Any]] = {}
    for line, results in zip(plan.lines, found, strict=True):
        achieved = measure.of(results, WHOLE)
        level = float(mean(achieved))
        failed = len({*results.lost, *np.flatnonzero(np.isnan(achieved)).tolist()})
        trials.append(
            {
                "label": line.label,
                "method": results.method,
                "swept": line.swept,
                "mean": None if math.isnan(level) else level,
                "of_runs": [None if math.isnan(one) else one for one in achieved.tolist()],
                "failed_runs": failed,
            }
        )
        # Runs that fail are the worst there is: fewer of them first, then the column, then the order given.
        rank = (failed, -level if measure.higher else level)
        if not math.isnan(level) and (results.method not in best or rank < best[results.method][0]):
            best[results.method] = rank, line
    methods = list(dict.fromkeys(results.method for results in found))
    for method in methods:
        if method not in best:
            raise Error(f"no setting of {method} was still learning after tuning; give it other values")
    chosen = [best[method][1] for method in methods]
    selection = {
        "criterion": {
            "measure": measure.title,
            "column": measure.column,
            "better": "higher" if measure.higher else "lower",
            "statistic": "mean",
            "part": [0.0, plan.tuning["part"]],
        },
        "seeds": plan.seeds,
        "trials_of_method": {name: sum(one["method"] == name for one in trials) for name in methods},
        "trials": [{**one, "chosen": one["label"] in [line.label for line in chosen]} for one in trials],
        "chosen": {name: best[name][1].swept for name in methods},
    }
    settings = dataclasses.replace(plan.settings, runs=plan.tuning["runs"], seed=plan.tuning["seed"])
    return dataclasses.replace(plan, settings=settings, lines=chosen, tuning=None, selection=selection)


def begin(plan: Plan[Any, Any], tuning: Tuning, path: str, hold: Hold, program: str, overwrite: bool) -> None:
    """Both stages, from the beginning.  hold: does one, as `session.hold`.  Raises as that does."""
    first, inner = first_stage(plan, tuning), Path(path) / FOLDER
    if overwrite:
        Folder(path).discard()  # else a kill in the first stage would leave an older second one to go on with
    else:
        Folder(path).refuse_results(inner)
    _through(first, path, hold, program, overwrite=overwrite)


def going_on(path: str, planned: Callable[[str | Path], AnyPlan], hold: Hold, program: str) -> bool:
    """The rest of both stages, where the second has not begun; else False, and nothing is done."""
    inner = Path(path) / FOLDER
    if (Path(path) / SETTINGS).exists() or not (inner / SETTINGS).exists():
        return False
    _through(planned(inner), path, hold, program, resume=True)
    return True


def _through(first: AnyPlan, path: str, hold: Hold, program: str, **how: bool) -> None:
    inner = Path(path) / FOLDER
    if first.tuning is None:
        raise Error(f"{inner} is not the first stage of an experiment: it does not say what comes next")
    try:
        hold(first, inner, program=program, **how)
    except Stopped as stopped:
        said = str(stopped).replace(f"--resume {inner}", f"--resume {path}")
        raise Stopped(said, stopped.signal) from None
    plan = second_stage(first, read_results(inner))
    if not plan.settings.quiet:
        print(
            f"chosen by tuning: {'; '.join(line.label for line in plan.lines)}", file=sys.stderr, flush=True
        )
    hold(plan, path, program=program)


def checked(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """What settings.json says of a first stage.  Raises ValueError where it could not have been written."""
    whole = {name: tuning[name] for name in ("rows", "runs", "seed")}
    if not all(type(value) is int and value >= 0 for value in whole.values()) or not 0 < tuning["part"] <= 1:
        raise ValueError(f"tuning: {dict(tuning)}")
    return dict(tuning)
