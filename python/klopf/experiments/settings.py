"""A settings dataclass is a command line: every field made with `option` becomes one option of that name.

A field `step_size: float = option(0.01, "step size of SGD")` gives `--step-size X`, its default shown in the
help.
Types: int, float, str, bool (`--figure`, `--no-figure`), tuple[int, ...] (several values) and the like, `X |
None`. Only options that were given appear in what `Parser.parse` returns, so that unset ones can come from
elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

Settings = TypeVar("Settings")

MOST = 2**31 - 1  # the largest whole number that any option takes


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: int | None = None,
    choices: Sequence[str] = (),
    spelled: str = "",
    placeholder: str = "",
) -> Any:
    """A dataclass field that is also an option.

    default: its value where none is given (None: chosen by the program, as the help must then say).
    minimum, above: the least value allowed, or the value it has to exceed.
    maximum: the largest whole number allowed, where it is not `MOST`.
    choices: the words allowed.  spelled: what the help says of them, where they are many.
    placeholder: how the value is called in the help.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "choices": tuple(choices),
        "spelled": f"one of {spelled or ', '.join(choices)}",
        "placeholder": placeholder,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a settings dataclass, as the command line sees it."""

    name: str
    kind: type
    several: bool
    default: Any
    metadata: typing.Mapping[str, Any]

    @property
    def flag(self) -> str:
        """How it is written."""
        return option_of(self.name)


def options(settings: type) -> list[Option]:
    """The options of a settings dataclass, in the order of its fields."""
    hints = typing.get_type_hints(settings)
    found = []
    for field in dataclasses.fields(settings):
        if "help" in field.metadata:
            kind, several = _kind(hints[field.name])
            found.append(Option(field.name, kind, several, field.default, field.metadata))
    return found


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether the field holds several of them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


_WORDS = {int: "a whole number", float: "a number", bool: "yes or no", str: "a word"}
_LETTERS = {int: "N", float: "X", bool: "yes|no", str: "NAME"}
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}


def option_of(name: str) -> str:
    """`step_size` is written `--step-size`."""
    return "--" + name.replace("_", "-")


def _whole(word: str) -> int:
    """2048, or 5e6."""
    try:
        return int(word)
    except ValueError:
        value = float(word)
        if not value.is_integer():
            raise
        return int(value)


_READERS: dict[type, Callable[[str], Any]] = {bool: lambda word: _BOOLEANS[word.lower()], int: _whole}


def _expected(asked: Option) -> str:
    """In words."""
    expected: str = asked.metadata["spelled"] if asked.metadata["choices"] else _WORDS[asked.kind]
    if asked.metadata["minimum"] is not None:
        expected += f" of at least {asked.metadata['minimum']}"
    if asked.metadata["above"] is not None:
        expected += f" above {asked.metadata['above']}"
    return expected


def _mistake(asked: Option, value: Any, word: str) -> str | None:
    """What is wrong with one value of the option, written `word`; None where nothing is."""
    minimum, above = asked.metadata["minimum"], asked.metadata["above"]
    choices: tuple[str, ...] = asked.metadata["choices"]
    kinds = (int, float) if asked.kind is float else asked.kind
    allowed = (
        isinstance(value, kinds)
        and (asked.kind is bool or not isinstance(value, bool))
        and (not choices or value in choices)
        and value != ""
        and (minimum is None or value >= minimum)
        and (above is None or value > above)
        and (not isinstance(value, float) or math.isfinite(value))
    )
    if not allowed:
        return f"expected {_expected(asked)}, got '{word}'"
    maximum = MOST if asked.metadata["maximum"] is None else asked.metadata["maximum"]
    if asked.kind is int and value > maximum:
        return f"expected a whole number of at most {maximum}, got '{word}'"
    return None


def _reader(asked: Option) -> Callable[[str], Any]:
    """What turns a word of the command line into a value of the option, or says what was expected."""

    def read(word: str) -> Any:
        try:
            value = _READERS.get(asked.kind, asked.kind)(word)
        except (ValueError, KeyError, OverflowError):
            value = None
        mistake = _mistake(asked, value, word)
        if mistake:
            raise argparse.ArgumentTypeError(mistake)
        return value

    return read


def restored(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """A settings dataclass from what a file held.  Raises ValueError or TypeError where it could not have."""
    found = {name: frozen(value) for name, value in values.items()}
    for asked in options(settings):
        value = found.get(asked.name, asked.default)
        if value is None and asked.default is None:
            continue
        several = isinstance(value, tuple)
        wrong = "" if several is asked.several else f"expected {'a' if asked.several else 'no'} list"
        for one in value if several else (value,):
            wrong = wrong or _mistake(asked, one, str(one)) or ""
        if wrong:
            raise ValueError(f"{asked.name}: {wrong}")
    return settings(**found)


def written(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return " ".join(written(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def frozen(value: Any) -> Any:
    """A value as a settings dataclass holds it: several are a tuple."""
    return tuple(value) if isinstance(value, list) else value


class Parser(argparse.ArgumentParser):
    """argparse with one-line mistakes: exit code 2, and a suggestion for a misspelt option."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=_Help,
        )

    def error(self, message: str) -> NoReturn:
        """Leave with one line on standard error and exit code 2."""
        line = " ".join(message.removeprefix("argument ").split())
        self.exit(2, f"{self.prog}: {line}\n")

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The options that were given, by field name."""
        given, unknown = self.parse_known_args(arguments)
        for word in unknown:
            if word.startswith("-"):
                flag = word.split("=")[0]
                self.error(f"no option {flag}" + suggestion(flag, self._option_string_actions))
        if unknown:
            self.error(f"unexpected '{unknown[0]}'")
        return vars(given)

    def add_settings(self, settings: type, *, leave_out: Iterable[str] = ()) -> None:
        """One option for every field of a settings dataclass."""
        skipped = set(leave_out)
        for asked in options(settings):
            if asked.name not in skipped:
                default = "" if asked.default in (None, ()) else f"default: {written(asked.default)}"
                self.add_option(self, asked, default)

    def add_option(
        self, group: argparse._ActionsContainer, asked: Option, default: str, several: bool | None = None
    ) -> None:
        """Add one option to a group; `several` allows more than one value (default: as its type says).

        A bool of which several values are allowed is written yes or no.
        """
        help = asked.metadata["help"]
        if asked.metadata["choices"]:
            help += f"; {asked.metadata['spelled']}"
        if default:
            help += f" ({default})"
        how: dict[str, Any] = {"dest": asked.name, "help": help.replace("%", "%%")}
        several = asked.several if several is None else several
        if asked.kind is bool and not several:
            how["action"] = argparse.BooleanOptionalAction
        else:
            how["type"] = _reader(asked)
            how["metavar"] = asked.metadata["placeholder"] or _LETTERS[asked.kind]
            how["nargs"] = "+" if several else None
        group.add_argument(asked.flag, **how)


class _Help(argparse.HelpFormatter):
    """Help with room for the names of the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: '; did you mean ...?', or nothing where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def overview(usage: str, about: str, entries: Mapping[str, str], ending: str) -> str:
    """The help of a program that is several: their names and what they do, between what is said of all."""
    lines = [f"  {name:<11} {text}" for name, text in entries.items()]
    return "\n".join([f"usage: {usage} [OPTION ...]", "", about, "", *lines, "", ending])
