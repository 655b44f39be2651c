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
from dataclasses import dataclass
from typing import Any

from klopf._core import Error
from klopf.experiments.settings import Parser, option, suggestion
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
    lines = [f"  {name:<10} {text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: klopf COMMAND [OPTION ...]",
            "",
            "Networks that keep learning: an engine for continual learning, many runs in lockstep.",
            "",
            *lines,
            "",
            "klopf COMMAND --help tells what a command can do; klopf --version which version this is.",
        ]
    )


# --- commands -----------------------------------------------------------------------------------------------


def _demo(arguments: list[str]) -> None:
    from klopf.experiments.demo import command

    command(arguments)


def _imagenet(arguments: list[str]) -> None:
    from klopf.experiments.imagenet import command

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


def _plot(arguments: list[str]) -> None:
    from klopf.experiments.plot import command

    command(arguments)


@dataclass(frozen=True)
class Packing:
    """One memory-mappable file of a tree of JPEGs, as `klopf imagenet --data FILE` reads it."""

    out: str = option(
        "images.npy", "the file to write; a .json of the same name lies beside it", placeholder="FILE"
    )
    size: int = option(32, "height and width to which every image is resized by area averaging", minimum=1)
    images_per_class: int | None = option(
        None, "images to take of every class (default: as many as the smallest has)", minimum=1
    )


def _data(arguments: list[str]) -> None:
    parser = Parser("klopf data", "Image data.")
    parser.add_argument("action", metavar="pack", choices=("pack",), help="see klopf data pack --help")
    if arguments[:1] != ["pack"]:
        parser.parse(arguments[:1])
    parser = Parser("klopf data pack", Packing.__doc__ or "")
    parser.add_argument(
        "source", metavar="SRC", help="folder of JPEGs: ILSVRC's, Tiny ImageNet's, or one a class"
    )
    parser.add_settings(Packing)
    given = parser.parse(arguments[1:])
    source = given.pop("source")
    settings = Packing(**given)
    from klopf.data.pack import pack

    packed = pack(source, settings.out, settings.size, settings.images_per_class, _Packed())
    print(f"{packed.classes} classes of {packed.images_per_class} images in {settings.out}")


class _Packed:
    """Progress of packing, called with the number of images done and of all."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit=" images", leave=False, disable=None)

    def __call__(self, done: int, all: int) -> None:
        self._bar.total = all
        self._bar.update(done - self._bar.n)
        if done == all:
            self._bar.close()


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
    "ant": ("PPO in MuJoCo: agents that learn to walk, for longer than PPO can", _ant),
    "stream": ("agents that learn from every step once, as it comes: AC, Q and SARSA", _stream),
    "track": ("a target that drifts: step sizes find out which inputs matter", _track),
    "regression": ("slowly changing regression: a million examples, one by one", _regression),
    "plot": ("draw the figure of one or several results folders", _plot),
    "data": ("`klopf data pack`: a folder of JPEGs becomes one file of images", _data),
    "info": ("version, instruction set, threads and devices", _info),
}
