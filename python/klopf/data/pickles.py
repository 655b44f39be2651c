"""Reading pickles of NumPy arrays and plain containers without unpickling: nothing in them is executed.

A pickle is a program for a machine with a stack. This machine knows the instructions that make numbers, text,
bytes, lists, tuples and dictionaries, and calls of the few functions that make NumPy's arrays, which it does
itself (`pickled`). Everything else is refused. The content of an array, a long string of bytes, is stepped
over and stays in the file. Protocols 2 to 5, of Python 2 and 3.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from klopf._core import Error
from klopf.data.pickled import Array, LongString, Name, Refused, build, call
from klopf.files import reason

_LONG = 4096  # bytes from which on a string stays in the file
_MEMORY = 384 << 20  # bytes that all values outside of arrays may take, roughly ...
_EACH = 64  # ... and what each of them counts beside its length


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary that a pickle holds, arrays as `StoredArray`; keys are text, also where they were bytes.

    Raises `klopf.Error` where the file cannot be read, is truncated or damaged, or holds anything but a
    dictionary of NumPy arrays of numbers, plain values and containers.
    """
    try:
        with open(path, "rb") as file:
            value = _Machine(path, file).run()
    except OSError as error:
        raise Error(f"[data pack] cannot read {path}: {reason(error)}") from error
    except Refused as error:
        raise Error(f"[data pack] expected a pickle of NumPy arrays in {path}, got {error}") from None
    except (IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise Error(f"[data pack] expected a pickle of NumPy arrays in {path}, got a damaged one") from error
    if not isinstance(value, dict):
        raise Error(f"[data pack] expected a dictionary in {path}, got {type(value).__name__}")
    for key, one in value.items():
        if isinstance(one, Array) and one.stored:
            value[key] = replace(one.stored, name=f"{path}, {key}")
    return value


class _Machine:
    """The machine, about to read a file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.memory = _MEMORY

    def run(self) -> Any:
        """Follow the instructions; returns the value they make."""
        if self.file.read(1) != b"\x80":
            raise Refused("a file that does not begin as one of protocol 2 or later does")
        if self.number("<B") > 5:
            raise Refused("one of a protocol later than 5")
        while (code := self.take(1)) != b".":
            self.spend(_EACH)
            follow = _INSTRUCTIONS.get(code)
            if follow is None:
                raise Refused(f"the instruction {code!r}")
            follow(self)
        if len(self.stack) != 1 or self.below:
            raise Refused("a damaged one")
        return self.stack[0]

    def spend(self, memory: int) -> None:
        """Count what a value takes."""
        self.memory -= memory
        if self.memory < 0:
            raise Refused(f"more than {_MEMORY >> 20} MiB of other values")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self.file.read(count)
        if len(data) != count:
            raise Refused("a truncated one")
        return data

    def number(self, form: str) -> Any:
        """The next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self, form: str) -> bytes | LongString:
        """The next string, after its length."""
        length = self.number(form)
        start = self.file.tell() if length >= _LONG else 0
        if not 0 <= length <= self.size - start:
            raise Refused("a truncated one")
        if length < _LONG:
            self.spend(length)
            return self.take(length)
        self.file.seek(start + length)
        return LongString(self.path, start, length)

    def since_mark(self) -> list[Any]:
        """What lies above the last mark, which goes."""
        values, self.stack = self.stack, self.below.pop()
        return values


# --- instructions -------------------------------------------------------------------------------------------

_Instruction = Callable[[_Machine], Any]


def _push(value: Callable[[_Machine], Any]) -> _Instruction:
    def follow(machine: _Machine) -> None:
        made = value(machine)  # which may change what the stack is
        machine.stack.append(made)

    return follow


def _text(form: str) -> _Instruction:
    def value(machine: _Machine) -> str | LongString:
        data = machine.string(form)
        return data.decode("utf-8") if isinstance(data, bytes) else data

    return _push(value)


def _tuple(count: int) -> _Instruction:
    return _push(lambda machine: tuple(machine.stack.pop() for _ in range(count))[::-1])


def _long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.number("<B")), "little", signed=True)


def _put(form: str) -> _Instruction:
    def follow(machine: _Machine) -> None:
        machine.memo[machine.number(form)] = machine.stack[-1]

    return follow


def _memoize(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise Refused("a damaged one")
    target.extend(values)


def _set(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(values) % 2:
        raise Refused("a damaged one")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str | bytes):
            raise Refused("a dictionary whose keys are no text")
        target[key.decode("latin1") if isinstance(key, bytes) else key] = value


def _last(machine: _Machine, count: int) -> list[Any]:
    return [machine.stack.pop() for _ in range(count)][::-1]


def _known(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("a damaged one")
    whole = f"{module}.{name}"
    try:
        return Name(whole.replace("numpy._core.", "numpy.core."))
    except ValueError:
        raise Refused(f"{whole[:100]!r}, which is not executed") from None


def _global(machine: _Machine) -> Name:
    lines = (machine.file.readline(200) for _ in range(2))
    return _known(*(line.rstrip(b"\n").decode("utf-8") for line in lines))


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    build(machine.stack[-1], state)


_INSTRUCTIONS: dict[bytes, _Instruction] = {
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"K": _push(lambda machine: machine.number("<B")),
    b"M": _push(lambda machine: machine.number("<H")),
    b"J": _push(lambda machine: machine.number("<i")),
    b"\x8a": _push(_long),
    b"G": _push(lambda machine: machine.number(">d")),
    # bytes, with the length in one, four or eight bytes; U and T are Python 2's
    b"U": _push(lambda machine: machine.string("<B")),
    b"T": _push(lambda machine: machine.string("<i")),
    b"C": _push(lambda machine: machine.string("<B")),
    b"B": _push(lambda machine: machine.string("<I")),
    b"\x8e": _push(lambda machine: machine.string("<Q")),
    b"\x96": _push(lambda machine: machine.string("<Q")),
    # text
    b"\x8c": _text("<B"),
    b"X": _text("<I"),
    b"\x8d": _text("<Q"),
    # containers
    b"]": _push(lambda machine: []),
    b"}": _push(lambda machine: {}),
    b")": _tuple(0),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"(": _mark,
    b"t": _push(lambda machine: tuple(machine.since_mark())),
    b"a": lambda machine: _append(machine, _last(machine, 1)),
    b"e": lambda machine: _append(machine, machine.since_mark()),
    b"s": lambda machine: _set(machine, _last(machine, 2)),
    b"u": lambda machine: _set(machine, machine.since_mark()),
    # values seen before
    b"q": _put("<B"),
    b"r": _put("<I"),
    b"\x94": _memoize,
    b"h": _push(lambda machine: machine.memo[machine.number("<B")]),
    b"j": _push(lambda machine: machine.memo[machine.number("<I")]),
    # names, calls and what follows them
    b"c": _push(_global),
    b"\x93": _push(lambda machine: _known(*_last(machine, 2))),
    b"R": _push(lambda machine: call(*_last(machine, 2))),
    b"b": _build,
    b"\x95": lambda machine: machine.take(8),  # a frame, which tells a reader to read ahead
}
