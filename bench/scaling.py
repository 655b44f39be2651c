"""What more costs: continual backprop over backprop, more runs, more threads. klopf against itself.

    python bench/scaling.py

See bench/README.md.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import klopf as kl
from comparison.machine import BUSY, commit, machine, versions
from comparison.summary import Spread, digits, spread
from klopf.experiments.settings import Parser, option
from klopf.files import atomic_write, check_writable
from peers.cases import CASES, make_data, weights_of
from peers.klopf_peer import LAYERS

CASE = CASES["imagenet"]
STEPS = 4  # of a block, for each run


@dataclass(frozen=True)
class Settings:
    """Measure what more runs, threads and continual backprop cost: table.md and results.json."""

    pairs: int = option(40, "pairs of blocks, taken in turns", minimum=1)
    runs: int = option(30, "how many runs are many", minimum=2)
    out: str | None = option(
        None, "folder of the results (default: bench/results/scaling)", placeholder="FOLDER"
    )


@dataclass(frozen=True)
class Result:
    """One claim: a ratio of times for each pair of blocks."""

    title: str
    ratios: list[float]
    seconds: tuple[float, float]  # medians of a step, numerator and denominator

    @property
    def spread(self) -> Spread:
        return spread(self.ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 for what cannot be measured, 130 after Ctrl-C; a wrong option leaves with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("scaling.py", Settings.__doc__ or "")
    parser.add_settings(Settings)
    settings = Settings(**parser.parse(words))
    out = Path(settings.out or Path(__file__).parent / "results" / "scaling")
    try:
        if len(os.sched_getaffinity(0)) < 2:
            raise kl.Error("expected at least 2 cores, got 1")
        check_writable(out)
        about: dict[str, Any] = {
            "command": shlex.join(["python", "bench/scaling.py", *words]),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "versions": versions(),
        }
        if about["machine"]["load"] > BUSY:
            busy = f"the machine is busy (load average {about['machine']['load']}): ratios will be off"
            print(f"scaling.py: {busy}", file=sys.stderr)
        megabytes, results = _measure(settings)
    except kl.Error as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scaling.py: interrupted", file=sys.stderr)
        return 130
    about |= {"memory_mb": megabytes, "results": [dataclasses.asdict(result) for result in results]}
    text = _table(about, settings, megabytes, results)
    with atomic_write(out / "results.json", "w") as file:
        json.dump(about, file, indent=1)
        file.write("\n")
    with atomic_write(out / "table.md", "w") as file:
        file.write(text)
    print(text, end="")
    return 0


def _measure(settings: Settings) -> tuple[float, list[Result]]:
    data = make_data(CASE)
    x, y = data["x"][:STEPS].reshape(-1, *CASE.input_shape), data["net.y"][:STEPS].reshape(-1)

    def block(runs: int, threads: int, rules: Sequence[Any]) -> Callable[[], None]:
        layers = [LAYERS[kind](*numbers) for kind, *numbers in CASE.networks["net"]]
        net = kl.Network(layers, CASE.input_shape, runs=runs)
        weights = {name: value[None] for name, value in weights_of(data, "net").items()}
        net.load_state_dict({name: value.repeat(runs, axis=0) for name, value in weights.items()})
        optimizer = kl.SGD(step_size=CASE.step_size, momentum=CASE.momentum)
        learner = kl.Learner(net, loss=CASE.loss, optimizer=optimizer, rules=list(rules))

        def work() -> None:
            kl.set_threads(threads)
            learner.run(x, y, batch_size=CASE.batch, shuffle=False)

        work()
        return work

    cbp = [kl.ContinualBackprop(**CASE.cbp)]
    before = _resident()
    many = block(settings.runs, 2, cbp)
    megabytes = (_resident() - before) / 1e6
    one, backprop, two = block(1, 1, cbp), block(1, 1, []), block(2, 2, cbp)
    shared, many_on_one = block(1, 2, cbp), block(settings.runs, 1, cbp)
    cpu, wall = time.process_time, time.perf_counter
    few = max(3, settings.pairs // 5)  # blocks of many runs are long
    return megabytes, [
        _pairs("continual backprop over backprop, CPU time", one, backprop, cpu, settings.pairs),
        _pairs("2 runs on 2 threads over 1 run on 1 thread", two, one, wall, settings.pairs),
        _pairs("1 run on 2 threads over 1 run on 1 thread", shared, one, wall, settings.pairs),
        _pairs(
            f"{settings.runs} runs over 1 run, a run, 1 thread", many_on_one, one, wall, few, settings.runs
        ),
        _pairs(f"{settings.runs} runs on 2 threads over 1 thread", many, many_on_one, wall, few),
    ]


def _pairs(
    title: str,
    first: Callable[[], None],
    second: Callable[[], None],
    clock: Callable[[], float],
    count: int,
    runs: int = 1,
) -> Result:
    """Ratios of the first's time, divided by `runs`, over the second's; which goes first alternates."""
    times: dict[Callable[[], None], list[float]] = {first: [], second: []}
    for pair in range(count):
        for work in (first, second) if pair % 2 else (second, first):
            start = clock()
            work()
            times[work].append((clock() - start) / STEPS)
    ratios = [a / runs / b for a, b in zip(times[first], times[second], strict=True)]
    return Result(title, ratios, (spread(times[first]).median, spread(times[second]).median))


def _resident() -> int:
    """Bytes of memory this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _table(about: dict[str, Any], settings: Settings, megabytes: float, results: Sequence[Result]) -> str:
    where, hash_ = about["machine"], (about["commit"]["hash"] or "unknown")[:7]
    lines = [
        "# What more costs",
        "",
        f"`{about['command']}` on {about['date'][:10]}, commit {hash_}.",
        f"{where['processor']} (family {where['family']}, model {where['model']}), {where['cores']} cores, "
        f"klopf at level {where['klopf_isa']}.",
        f"{CASE.title}. Ratio of times, median [quartiles] over pairs of blocks; ms a step of all runs.",
        "",
        "| | ratio | ms | ms | pairs |",
        "|---|--:|--:|--:|--:|",
    ]
    for result in results:
        s, (a, b) = result.spread, result.seconds
        ratio = f"{s.median:.3f} [{s.lower:.3f}, {s.upper:.3f}]"
        lines.append(
            f"| {result.title} | {ratio} | {digits(1e3 * a)} | {digits(1e3 * b)} | {len(result.ratios)} |"
        )
    lines += [
        "",
        f"{settings.runs} runs of continual backprop on 2 threads take {megabytes:.0f} MB beside the data.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
