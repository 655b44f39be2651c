"""What tests of the command line share."""

from __future__ import annotations

import pytest

from klopf.cli import main


def code_of(*arguments: str) -> int:
    """The exit code of a command, wherever in the program it is decided."""
    try:
        return main(arguments)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert code_of(*arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("klopf")
    return said.err.rstrip("\n")
