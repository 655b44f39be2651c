"""PPO in MuJoCo: it learns to walk, then collapses under prolonged training, and what cures that.

    for each stretch of steps
        for each line (a method with its settings; all runs of it in lockstep)
            act, step the simulators, remember; when the buffer is full, learn
            returns of the episodes that ended, and metrics of the units

Protocol: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632 (2024).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import klopf as kl
from klopf.experiments import acting
from klopf.experiments.acting import Acting, with_env
from klopf.experiments.agents import AGENTS, KINDS, PROFILES, Ppo
from klopf.experiments.lines import Line
from klopf.experiments.results import read_results
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option, option_of
from klopf.experiments.tables import end_of_run
from klopf.experiments.walk import PpoWalk
from klopf.experiments.watch import Watching, watch


@dataclass(frozen=True)
class Settings(Acting):
    """PPO in MuJoCo; the defaults are the published experiment."""

    method: tuple[str, ...] = option(("ppo", "continual-ppo"), "methods, one line each", choices=tuple(KINDS))
    profile: str = option("authors", "where unset options of the methods come from", choices=tuple(PROFILES))


class Plan(acting.Plan[Settings, Ppo]):
    name, kind, methods, walk = "ant", Settings, AGENTS, PpoWalk

    def agent(self, line: Line[Ppo], world: Any) -> kl.PPO:
        settings = self.settings
        shape = (world.observations, world.actions, world.discrete)
        return line.method.build(*shape, self.seeds, settings.device, settings.precision)


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    command: the words of the command line, for the settings file.  Raises kl.Error where options do not fit
    together.
    """
    settings, of_methods = Plan.sort_out(given)
    settings = with_env(settings)
    if settings.env not in ("Ant", "SlipperyAnt"):
        of_methods.setdefault("first_fan_in", [0])  # the profile's is Ant's
    lines = AGENTS.lines(settings.method, settings.profile, of_methods)
    for line in lines:
        limits = {"minibatch": "buffer", "buffer": "steps"}  # or nothing would be learned from
        sizes = {**dataclasses.asdict(line.method), "steps": settings.steps}
        for small, large in limits.items():
            if sizes[small] > sizes[large]:
                given_sizes = f"{sizes[small]} and {sizes[large]}"
                raise kl.Error(f"{option_of(small)} must be at most {option_of(large)}, got {given_sizes}")
    return Plan(settings, lines, list(command))


def _watch(given: dict[str, Any]) -> None:
    own = [field.name for field in dataclasses.fields(Watching)]
    if "watch" not in given:
        asked = next(name for name in own if name in given)
        hint = "; did you mean --runs?" if asked == "run" else ""
        raise kl.Error(f"{option_of(asked)} is an option of --watch FOLDER{hint}")
    others = [name for name in given if name not in own]
    if others:
        raise kl.Error(f"--watch takes the settings from its folder, got {option_of(others[0])} as well")
    path, total, steps = watch(Watching(**given))
    print(f"return {total:,.0f} in {steps} steps: {path}")


# --- the command --------------------------------------------------------------------------------------------


def command(arguments: Sequence[str]) -> None:
    """`klopf ant`."""
    parser = Plan.parser("PPO in MuJoCo: agents that learn to walk, for longer than PPO can.", Watching)
    given = parser.parse(arguments)
    if any(field.name in given for field in dataclasses.fields(Watching)):
        return _watch(given)
    path = carry_out(Plan.name, given, arguments, plan, Plan.read)
    print(end_of_run(read_results(path)))
    print(report(path))
