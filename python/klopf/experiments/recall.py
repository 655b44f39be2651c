"""Recall: a stream of regression tasks, and how well those of before are still known.

for each task
    for each line (a method with its settings; all runs of it in lockstep)
        a new head, at zero
        learn every example once, as it comes
        the mean error over the task; and on tasks of before, with the head that was stored then, and with a
        new one that is fitted to what the hidden units say now

The target of a task is the sum of a few of the world's features, with signs; a feature is a threshold unit of
some of the inputs, which are random signs.  Now and then one of the features is replaced, so that a network
must go on finding some, and does well not to lose those that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import klopf as kl
from klopf import metrics
from klopf.experiments import learners, online, regression, retention, stepping
from klopf.experiments.controls import CONTROLS, Frozen, Joint
from klopf.experiments.lines import Methods
from klopf.experiments.measures import CONSTANT
from klopf.experiments.results import Table, read_results
from klopf.experiments.retention import LAGS, RECALL, REFIT
from klopf.experiments.session import carry_out, report
from klopf.experiments.settings import option, option_of
from klopf.experiments.supervised import Supervised, with_own
from klopf.experiments.tables import end_of_run

Floats = NDArray[np.float32]
Values = NDArray[np.float64]
Signs = NDArray[np.int8]

TESTED = 1000  # examples that a task of before is tested on, and as many that a new head is fitted to

KINDS: dict[str, type[learners.OnlineMethod]] = {**regression.KINDS, **CONTROLS}
# None was published for this stream, all are ours.
OWNED = {  # a step size for each hidden unit
    "scope": "unit",
    "step_size": 0.01,
    "meta_step_size": 0.1,
    "minimum_step_size": 0.001,
    "maximum_step_size": 0.1,
    "output_step_size": 0.005,
    "weight_decay": 3e-4,
}
OF_OPTIMIZERS: dict[type[Any], dict[str, Any]] = {
    stepping.Sgd: {"step_size": 0.005},
    Frozen: {"step_size": 0.005},
    stepping.Idbd: OWNED,
    stepping.Autostep: {**OWNED, "bound": "unit"},
}
OF_METHODS: dict[str, dict[str, Any]] = {
    **regression.NAMED,
    "l2": {"weight_decay": 1e-3},
    "snp": regression.PUBLISHED["snp"] | OF_OPTIMIZERS[stepping.Sgd],
    "cbp": {"replacement_rate": 1e-4},
}
OURS = {
    name: {
        **{k: v for one, own in OF_OPTIMIZERS.items() if issubclass(kind, one) for k, v in own.items()},
        **OF_METHODS.get(name, {}),
    }
    for name, kind in KINDS.items()
}
METHODS = Methods(KINDS, OURS, {"ours": {}})


@dataclass(frozen=True)
class Settings(Supervised):
    """Recall of tasks of before."""

    method: tuple[str, ...] = option(
        ("bp", "l2", "cbp"),
        "methods, one line each",
        choices=tuple(KINDS),
        spelled=f"{', '.join(CONTROLS)}, {regression.SPELLED}",
    )
    tasks: int = option(200, "tasks of the stream", minimum=1)
    examples: int = option(5000, "examples of a task", minimum=1)
    inputs: int = option(20, "inputs, each +1 or -1", minimum=1)
    features: int = option(12, "features of the world", minimum=1)
    feature_inputs: int = option(7, "inputs of a feature; odd, so that it is as often on as off", minimum=1)
    feature_values: str = option(
        "signs", "of features: +1 and -1, or 1 and 0 and the sum doubled", choices=("signs", "bits")
    )
    mixed: int = option(4, "features that a task is the sum of, each with a sign", minimum=1)
    replace_every: int = option(5, "tasks after which one feature is replaced; 0: never", minimum=0)

    hidden: tuple[int, ...] = option((48,), "units of each hidden layer of the learner", minimum=1)
    init: str = option("kaiming", "how the learner's weights are drawn", choices=kl.initialisers)


@dataclass(frozen=True)
class World:
    """Features and tasks of one run: a function of the seed."""

    settings: Settings
    seed: int

    @cached_property
    def tasks(self) -> list[tuple[Signs, Signs]]:
        """Of each task the features' weights [features, inputs], and their own in the sum [features]."""
        s = self.settings
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, 4]))
        world = np.stack([_signs(generator, s.inputs, s.feature_inputs) for _ in range(s.features)])
        found = []
        for task in range(s.tasks):
            if s.replace_every and task and task % s.replace_every == 0:
                world = world.copy()
                world[generator.integers(s.features)] = _signs(generator, s.inputs, s.feature_inputs)
            found.append((world, _signs(generator, s.features, s.mixed)))
        return found

    def target(self, task: int, x: Floats) -> Floats:
        """Of inputs [N, inputs]: with variance 1, were features independent [N, 1]."""
        features, signs = self.tasks[task]
        on = x @ features.T.astype(np.float32) > 0
        values = np.where(on, 1, -1) if self.settings.feature_values == "signs" else 2 * on
        return np.asarray((values @ signs)[:, None] / np.sqrt(self.settings.mixed), np.float32)


def _signs(generator: np.random.Generator, places: int, count: int) -> Signs:
    """+1 or -1 at so many places, else 0."""
    signs = np.zeros(places, np.int8)
    signs[generator.choice(places, count, replace=False)] = generator.choice([-1, 1], count)
    return signs


@dataclass(frozen=True)
class Tasks:
    """The stream."""

    settings: Settings
    seeds: Sequence[int]

    @cached_property
    def worlds(self) -> list[World]:
        """One a run."""
        return [World(self.settings, seed) for seed in self.seeds]

    def examples(self, first: int, count: int) -> tuple[Floats, Floats]:
        """As `online.Stream`, all of one task."""
        x = self._inputs(1, first, count)
        return x, self.targets([first // self.settings.examples], x)

    def probe(self, now: int, lags: Sequence[int]) -> tuple[Floats, Floats]:
        """After a task: inputs [R, 2 TESTED, inputs] that the stream does not show, and their targets so many
        tasks ago [R, 2 TESTED, lags]."""
        x = self._inputs(2, 2 * TESTED * now, 2 * TESTED)
        return x, self.targets([now - lag for lag in lags], x)

    def targets(self, tasks: Sequence[int], x: Floats) -> Floats:
        """Of inputs [R, N, inputs], in each of the tasks [R, N, tasks]."""
        with threadpool_limits(1):  # as in klopf.metrics: small matrices
            of_runs = [
                np.concatenate([world.target(task, one) for task in tasks], axis=1)
                for world, one in zip(self.worlds, x, strict=True)
            ]
        return np.stack(of_runs)

    def _inputs(self, kind: int, first: int, count: int) -> Floats:
        def draw(generator: np.random.Generator, n: int) -> Signs:
            return generator.integers(2, size=(n, self.settings.inputs), dtype=np.int8) * 2 - 1

        drawn = [online.drawn(seed, kind, first, count, draw) for seed in self.seeds]
        return np.stack(drawn).astype(np.float32)


class Plan(online.Plan):
    name, kind, methods, loss = "recall", Settings, METHODS, "squared_error"
    stretch_said = "task"
    measured = (
        "error",  # mean squared error over the task, each example before it is learned
        CONSTANT,  # of the best constant on these examples, which is the target's variance
        *RECALL,  # of the task so many back, with the head stored at its end
        *REFIT,  # with a head that is fitted to examples of it
        "dormant_rate",  # this and the two following on the task's last 1,000 examples, see klopf.metrics
        "backbone_share",
        "weight_magnitude",
        "diverged",
    )

    @property
    def table(self) -> Table:
        """One row a task."""
        return Table(with_own(self.measured, self.settings.metric))

    @property
    def stretches(self) -> int:
        return int(self.settings.tasks)

    def stretch(self, index: int) -> tuple[int, int]:
        return index * self.settings.examples, self.settings.examples

    @cached_property
    def _stream(self) -> Tasks:
        return Tasks(self.settings, self.seeds)

    def stream(self) -> Tasks:
        return self._stream

    def learner(self, method: learners.OnlineMethod, events: int) -> kl.Learner:
        return regression.learner_of(self, method, self.settings.inputs, events)

    def begin(self, method: learners.OnlineMethod, learner: kl.Learner, stretch: int) -> None:
        method.begin_task(learner, stretch)

    def learn(
        self, method: learners.OnlineMethod, learner: kl.Learner, stretch: int, x: Floats, y: Floats
    ) -> Values:
        if isinstance(method, Joint):
            return method.learn(learner, x, self._stream.targets(method.known(stretch), x), stretch)
        return super().learn(method, learner, stretch, x, y)

    def measure(
        self, method: learners.OnlineMethod, learner: kl.Learner, learned: online.Learned
    ) -> Mapping[str, Any]:
        net, now, nothing = learner.net, learned.stretch, np.full(learner.net.runs, np.nan)
        probe = learned.x[:, -online.PROBE :]
        units = net.activities(probe)
        found = {
            "error": learned.errors,
            CONSTANT: learned.y[..., 0].var(axis=1, dtype=np.float64),
            **dict.fromkeys((*RECALL, *REFIT), nothing),
            "dormant_rate": metrics.dormant_rate(units, living=[g.living for g in net.units])
            if units
            else nothing,
            "backbone_share": metrics.backbone_share(net, probe),
            "weight_magnitude": metrics.weight_magnitude(net.state_dict()),
        }
        heads = retention.heads_of(net)
        if isinstance(method, Joint):  # which has them all
            heads = heads[..., method.outputs(now)]
        else:
            heads = retention.stored(learned.kept, heads)[:, :, 0]
        lags = [lag for lag in LAGS if lag <= now]
        if lags:
            x, y = self._stream.probe(now, lags)
            seen = retention.seen_by_head(net, x)
            asked = recalled(seen, y.astype(np.float64), heads[..., [-1 - lag for lag in lags]])
            for columns, errors in zip((RECALL, REFIT), asked, strict=True):
                found |= dict(zip(columns, errors, strict=False))
        return found


def recalled(seen: Floats, y: Values, heads: NDArray[Any]) -> tuple[Values, Values]:
    """Mean squared errors on half of the examples: with heads, and with ones that are fitted to the other
    half [tasks, R] each.

    seen: [R, 2 TESTED, units + 1].  y: [R, 2 TESTED, tasks].  heads: [R, units + 1, tasks].
    """
    known, asked = seen[:, :TESTED], seen[:, TESTED:]

    def errors(heads: NDArray[Any]) -> Values:
        outputs = zip(retention.said(asked, heads), y[:, TESTED:], strict=True)
        return np.stack([((output - target) ** 2).mean(axis=0) for output, target in outputs], axis=1)

    return errors(heads), errors(retention.refitted(known, y[:, :TESTED]))


def plan(given: Mapping[str, Any], command: Sequence[str]) -> Plan:
    """The plan for given options of `Settings` and of the methods (a list of values each).

    Raises kl.Error where options do not fit together.
    """
    settings, of_methods = Plan.sort_out(given)
    for few, many in (("feature_inputs", "inputs"), ("mixed", "features")):
        if getattr(settings, few) > getattr(settings, many):
            raise kl.Error(
                f"{option_of(few)} must be at most {option_of(many)}, "
                f"got {getattr(settings, few)} and {getattr(settings, many)}"
            )
    if settings.feature_inputs % 2 == 0:
        raise kl.Error(
            "--feature-inputs must be odd, so that a feature is as often on as off, "
            f"got {settings.feature_inputs}"
        )
    lines = METHODS.lines(settings.method, "ours", of_methods)
    regression.check_hidden(given, lines)
    return Plan(settings, lines, list(command))


def command(arguments: Sequence[str]) -> None:
    """`klopf recall`."""
    parser = Plan.parser("Recall: do networks learn the latest of many tasks, and still know others?")
    path = carry_out(Plan.name, parser.parse(arguments), arguments, plan, Plan.read)
    print(end_of_run(read_results(path)))
    print(report(path))
