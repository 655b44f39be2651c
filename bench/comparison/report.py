"""What every script of measurements does around them: options, where it was measured, results and table."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import klopf as kl
from comparison.machine import BUSY, commit, machine, versions
from klopf.experiments.settings import Parser
from klopf.files import atomic_write, check_writable


def report(
    name: str,
    settings: type,
    arguments: Sequence[str] | None,
    measure: Callable[[Any], dict[str, Any]],
    table: Callable[[dict[str, Any]], Sequence[str]],
) -> int:
    """Measures, and writes results.json and table.md; the exit code: 0, 1 for what cannot be measured, 130
    after Ctrl-C; a wrong option leaves with 2.

    name: of the script, and without .py of its folder in bench/results.  settings: a dataclass with `out`.
    measure: the results, for settings.  table: its lines, but for the heading's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(name, settings.__doc__ or "")
    parser.add_settings(settings)
    chosen = settings(**parser.parse(words))
    out = Path(chosen.out or Path(__file__).parent.parent / "results" / name.removesuffix(".py"))
    about: dict[str, Any] = {
        "command": shlex.join(["python", f"bench/{name}", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }
    try:
        check_writable(out)
        if about["machine"]["load"] > BUSY:
            busy = f"the machine is busy (load average {about['machine']['load']}): ratios will be off"
            print(f"{name}: {busy}", file=sys.stderr)
        about |= measure(chosen)
    except kl.Error as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    title, *lines = table(about)
    text = "\n".join([title, "", *_where(about), *lines]) + "\n"
    with atomic_write(out / "results.json", "w") as file:
        json.dump(about, file, indent=1)
        file.write("\n")
    with atomic_write(out / "table.md", "w") as file:
        file.write(text)
    print(text, end="")
    return 0


def _where(about: dict[str, Any]) -> list[str]:
    where, hash_ = about["machine"], (about["commit"]["hash"] or "unknown")[:7]
    return [
        f"`{about['command']}` on {about['date'][:10]}, commit {hash_}.",
        f"{where['processor']} (family {where['family']}, model {where['model']}), {where['cores']} cores, "
        f"klopf at level {where['klopf_isa']}.",
    ]
