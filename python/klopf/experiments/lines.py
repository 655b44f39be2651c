"""Methods and lines: what an experiment compares, and how options, profiles and published values choose it.

A method is a settings dataclass, which is the command line too.  Values that were published with it stand
beside it; where a paper and its authors' code differ, the profiles spell the difference out.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from klopf._core import Error
from klopf.experiments.settings import Option, option_of, options, restored, written

Method = TypeVar("Method")


@dataclass(frozen=True)
class Line(Generic[Method]):
    """A method with all its settings.  swept: those that differ between the lines of a call."""

    label: str
    method: Method
    swept: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """For the settings file; `Methods.line_of` reads it back."""
        method: Any = self.method
        return {
            "label": self.label,
            "method": method.name,
            "settings": dataclasses.asdict(method),
            "swept": self.swept,
        }


@dataclass(frozen=True)
class Methods(Generic[Method]):
    """Those that an experiment knows, by name.

    published: values that all sources of a method agree on.
    profiles: values in which they differ, by profile and method; the first profile is the default.
    """

    kinds: dict[str, type[Method]]
    published: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, dict[str, Any]]]

    def resolve(self, name: str, profile: str, given: Mapping[str, Any]) -> Method:
        """A method with every setting filled in: what was given, else the profile, else what was
        published."""
        values = {**self.published.get(name, {}), **self.profiles[profile].get(name, {}), **given}
        return self.kinds[name](**values)

    def under(
        self,
        every: Mapping[str, Any],
        published: Mapping[str, dict[str, Any]],
        profiles: dict[str, dict[str, dict[str, Any]]],
    ) -> Methods[Method]:
        """The same methods with the values of another experiment.

        every: of all methods that have such an option, where `published` says nothing else.
        """
        values = {}
        for name, kind in self.kinds.items():
            own = {one.name for one in options(kind)}
            common = {setting: value for setting, value in every.items() if setting in own}
            values[name] = {**common, **published.get(name, {})}
        return Methods(self.kinds, values, profiles)

    def options(self) -> dict[str, Option]:
        """Every option that some method has, by name, in the order in which the methods add them."""
        return {one.name: one for method in self.kinds.values() for one in options(method)}

    def defaults_text(self, name: str) -> str:
        """For the help: an option's default in all profiles, by method; empty where the program chooses."""
        parts = {}
        for profile in self.profiles:
            every = ((method, self.resolve(method, profile, {})) for method in self.kinds)
            value_of = {method: written(getattr(one, name)) for method, one in every if hasattr(one, name)}
            several = len(set(value_of.values())) > 1
            parts[profile] = ", ".join(
                (f"{'/'.join(who)} " if several else "") + value for value, who in _told(value_of).items()
            )
        if set(parts.values()) == {written(None)}:
            return ""
        if len(set(parts.values())) == 1:
            return f"default: {next(iter(parts.values()))}"
        return "; ".join(f"{profile}: {text}" for profile, text in parts.items())

    def line_of(self, described: Mapping[str, Any]) -> Line[Method]:
        """The line that `Line.describe` wrote down.  Raises as `restored` does."""
        method = restored(self.kinds[described["method"]], described["settings"])
        return Line(str(described["label"]), method, dict(described["swept"]))

    def lines(
        self, names: Sequence[str], profile: str, given: Mapping[str, Sequence[Any]], flag: str = "--method"
    ) -> list[Line[Method]]:
        """Every method with every combination of the values given for the settings that it has.

        flag: the option that names methods.
        Raises kl.Error for an option that none of the methods has, and for a method or value named twice.
        """
        fields = {name: {one.name for one in options(kind)} for name, kind in self.kinds.items()}
        for setting, values in given.items():
            owners = [name for name in self.kinds if setting in fields[name]]
            if not any(name in owners for name in names):
                least = _told({name: str(name in owners) for name in self.kinds})["True"]
                raise Error(
                    f"{option_of(setting)} is an option of {', '.join(least)}, got only {', '.join(names)}"
                )
            _once(option_of(setting), values)
        _once(flag, names)
        made = []
        for name in names:
            own = [setting for setting in given if setting in fields[name]]
            for values in itertools.product(*(given[setting] for setting in own)):
                chosen = dict(zip(own, values, strict=True))
                swept = {setting: value for setting, value in chosen.items() if len(given[setting]) > 1}
                parts = [f"{setting.replace('_', ' ')} {written(value)}" for setting, value in swept.items()]
                made.append(Line(", ".join([name, *parts]), self.resolve(name, profile, chosen), swept))
        return made


def _told(value_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by value: nothing is said of `a+b` where `a` or `b` has its value; `+b` is all that end so."""
    words = {name: set(name.split("+")) for name in value_of}
    told: dict[str, list[str]] = {}
    for name, value in value_of.items():
        if not any(words[other] < words[name] and value_of[other] == value for other in value_of):
            told.setdefault(value, []).append(name)
    for value, names in told.items():
        for added in dict.fromkeys(name.partition("+")[2] for name in names):
            those = [name for name in value_of if name.partition("+")[2] == added != ""]
            if len(those) > 1 and set(those) <= set(names):
                told[value] = [one for one in told[value] if one not in those] + [f"+{added}"]
    return told


def _once(flag: str, values: Sequence[Any]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise Error(f"{flag} names {written(value)} twice")
