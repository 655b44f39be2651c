"""What a person sees while an experiment runs: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

LINE_SECONDS = 30.0  # between two lines where there is no terminal


class Progress:
    """Progress on standard error: task or step, time left, and for each line what it measured last.

    counter: "task" or "step".  count: how many there are.  each: calls of `advance(1)` that one takes.
    done: calls that were made before.
    """

    def __init__(self, counter: str, count: int, each: int, done: int, quiet: bool) -> None:
        self._counter, self._count, self._each = counter, count, each
        self._first = self._done = done
        self._quiet = quiet
        self._latest: dict[str, dict[str, str]] = {}
        self._begin = self._last_line = time.monotonic()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=count * each,
                initial=done,
                smoothing=0,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar:20}| {desc} {remaining} left{postfix}",
            )
            self._describe()

    def limit(self, count: int) -> None:
        """There are only so many to do."""
        self._count = count
        if self._bar is not None:
            self._bar.total = count * self._each
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def advance(self, steps: int) -> None:
        """So many more steps are done."""
        self._done += steps
        if self._bar is not None:
            self._describe()
            self._bar.update(steps)
        elif not self._quiet and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def measured(self, label: str, said: dict[str, str]) -> None:
        """A line's latest measurements in words, by name; those that are not measured again stay."""
        self._latest.setdefault(label, {}).update(said)
        if self._bar is not None:
            self._bar.set_postfix_str(self._said(), refresh=False)

    def _said(self) -> str:
        return "; ".join(f"{label} {', '.join(said.values())}" for label, said in self._latest.items())

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def _where(self) -> str:
        if self._counter == "step":
            return f"{self._done // self._each:,} of {self._count:,} steps"
        return f"{self._counter} {min(self._done // self._each + 1, self._count)}/{self._count}"

    def _describe(self) -> None:
        self._bar.set_description_str(f"{self._where()},", refresh=False)

    def _line(self) -> str:
        left = self._count * self._each - self._done
        seconds = (time.monotonic() - self._begin) / max(self._done - self._first, 1) * left
        text = f"{self._where()}, {duration(seconds)} left"
        return ": ".join([text, *([self._said()] if self._latest else [])])


def duration(seconds: float) -> str:
    """A length of time in words: 45 s, 3 min, 2 h 10 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
