"""The command `klopf`: finds the command asked for, and turns every mistake into one line and an exit code.

Exit codes: 0 done, 1 a klopf.Error, 2 a mistake on the command line, 130 and 143 stopped by SIGINT and
SIGTERM. What a command needs is imported when it runs, so that the help is there at once.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from klopf._core import Error
from klopf.experiments.settings import Parser, overview, suggestion
from klopf.experiments.stop import Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            return _dispatch(words)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("klopf: interrupted", file=sys.stderr)
        return 130
    except Error as error:
        print("klopf: " + " ".join(str(error).split()), file=sys.stderr)
        return 1
    except MemoryError:
        print("klopf: not enough memory for networks and images of this size", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _show_warning(message: Warning | str, *about: Any) -> None:
    uncoloured = re.sub(r"\x1b\[[0-9;]*m", "", str(message))  # as Gymnasium's are
    print("klopf: " + " ".join(uncoloured.split()), file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        import klopf

        print(f"klopf {klopf.__version__}")
        return 0
    if words[0] not in COMMANDS:
        kind = "option" if words[0].startswith("-") else "command"
        known = ["--help", "--version"] if kind == "option" else list(COMMANDS)
        print(
            f"klopf: no {kind} {words[0]}{suggestion(words[0], known) or '; see klopf --help'}",
            file=sys.stderr,
        )
        return 2
    COMMANDS[words[0]][1](words[1:])
    return 0


def _help() -> str:
    return overview(
        "klopf COMMAND",
        "Networks that keep learning: an engine for continual learning, many runs in lockstep.",
        {name: text for name, (text, _) in COMMANDS.items()},
        "klopf COMMAND --help tells what a command can do; klopf --version which version this is.",
    )


# --- commands -----------------------------------------------------------------------------------------------


def _demo(arguments: list[str]) -> None:
    from klopf.experiments.demo import command

    command(arguments)


def _imagenet(arguments: list[str]) -> None:
    from klopf.experiments.imagenet import command

    command(arguments)


def _permuted(arguments: list[str]) -> None:
    from klopf.experiments.permuted import command

    command(arguments)


def _incremental(arguments: list[str]) -> None:
    from klopf.experiments.incremental import command

    command(arguments)


def _ant(arguments: list[str]) -> None:
    from klopf.experiments.ant import command

    command(arguments)


def _stream(arguments: list[str]) -> None:
    from klopf.experiments.stream_agents import command

    command(arguments)


def _track(arguments: list[str]) -> None:
    from klopf.experiments.track import command

    command(arguments)


def _regression(arguments: list[str]) -> None:
    from klopf.experiments.regression import command

    command(arguments)


def _recall(arguments: list[str]) -> None:
    from klopf.experiments.recall import command

    command(arguments)


def _plot(arguments: list[str]) -> None:
    from klopf.experiments.plot import command

    command(arguments)


def _table(arguments: list[str]) -> None:
    from klopf.experiments.table import command

    command(arguments)


def _data(arguments: list[str]) -> None:
    from klopf.data.command import command

    command(arguments)


def _info(arguments: list[str]) -> None:
    Parser("klopf info", "Version, instruction set, threads and devices.").parse(arguments)
    import numpy

    import klopf
    from klopf._core import gpu_status, isa_levels

    rows = {
        "klopf": klopf.__version__,
        "instruction set": f"{klopf.isa()} of {', '.join(isa_levels())} (KLOPF_ISA chooses)",
        "threads": klopf.get_threads(),
        "devices": ", ".join(klopf.devices()),
        "gpu": gpu_status(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }
    for name, value in rows.items():
        print(f"{name:<16} {value}")


COMMANDS: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "demo": ("see backprop lose plasticity and continual backprop keep it, in two minutes", _demo),
    "imagenet": ("Continual ImageNet: the published experiment, or your variation of it", _imagenet),
    "permuted": ("permuted images: one pass, one by one, pixels in a new order for every task", _permuted),
    "incremental": ("class-incremental learning: a few classes more at every step", _incremental),
    "ant": ("PPO in MuJoCo: agents that learn to walk, for longer than PPO can", _ant),
    "stream": ("agents that learn from every step once, as it comes: AC, Q and SARSA", _stream),
    "track": ("a target that drifts: step sizes find out which inputs matter", _track),
    "regression": ("slowly changing regression: a million examples, one by one", _regression),
    "recall": ("many tasks that share features: is the latest learned, are those of before known", _recall),
    "plot": ("draw the figure of one or several results folders", _plot),
    "table": ("print the table of one or several results folders, as CSV and LaTeX too", _table),
    "data": ("pack a folder of images into one file, and see what is in such a file", _data),
    "info": ("version, instruction set, threads and devices", _info),
}
