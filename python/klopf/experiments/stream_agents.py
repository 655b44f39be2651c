"""Streaming agents: they learn from every step once, as it comes.

Protocol: Elsayed, Vasan and Mahmood, "Streaming deep reinforcement learning finally works" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import klopf as kl
from klopf.experiments import acting
from klopf.experiments.acting import Acting, with_env
from klopf.experiments.lines import Line
from klopf.experiments.results import read_results
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option
from klopf.experiments.streams import KINDS, SPELLED, STREAMS, Place, Streaming
from klopf.experiments.tables import end_of_run
from klopf.experiments.walk import StreamWalk


@dataclass(frozen=True)
class Settings(Acting):
    """Streaming reinforcement learning."""

    agent: tuple[str, ...] = option(("ac",), "agents, one line each", choices=tuple(KINDS), spelled=SPELLED)
    steps: int = option(1_000_000, "steps of every run", minimum=1)


class Plan(acting.Plan[Settings, Streaming]):
    name, kind, methods, walk = "stream", Settings, STREAMS, StreamWalk

    def agent(self, line: Line[Streaming], world: Any) -> kl.StreamAgent:
        s = self.settings
        place = Place(
            world.observations,
            world.actions,
            world.discrete,
            self.seeds,
            s.steps,
            world.time_limit,
            world.image,
            s.device,
            s.precision,
        )
        return line.method.build(place)


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the agents (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_agents = Plan.sort_out(given)
    settings = with_env(settings)
    return Plan(settings, STREAMS.lines(settings.agent, "authors", of_agents, "--agent"), list(command))


def command(arguments: Sequence[str]) -> None:
    """`klopf stream`."""
    parser = Plan.parser("Agents that learn from every step once, as it comes.")
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(end_of_run(read_results(path)))
    print(report(path))
