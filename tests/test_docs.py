"""What the documents show runs, and what they name exists."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import klopf as kl
from klopf.cli import COMMANDS, main
from klopf.data.command import ACTIONS

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")] + DOCS
CODE = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / name
        for name in ("python.md", "data.md", "streaming.md", "own-rules.md", "units.md", "backbone.md")
    ),
    *(
        page
        for page in DOCS
        if page.parent.name == "methods" and "```python" in page.read_text(encoding="utf-8")
    ),
]
if sys.version_info >= (3, 11):  # which MuJoCo's batches need
    CODE += [ROOT / "docs" / "environments.md", ROOT / "docs" / "ant.md"]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# A path in the tree: it begins with a folder of the top level, or is a file of it.
PATH = re.compile(
    r"(?:cpp|python|tests|docs|bench|\.ci)(?:/[\w.*-]+)+|[A-Z][A-Za-z]+\.(?:md|txt)|pyproject\.toml"
)
# A file named by its last part only, which must be somewhere.
NAME = re.compile(r"[\w-]+\.(?:py|cpp|hpp|inl)")
ACTION = re.compile(rf"data ({'|'.join(ACTIONS)})\b")
COMMAND = re.compile(r"(?:^|\s|/)klopf ((?:" + "|".join(COMMANDS) + r")\b[^#|&;]*)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(page: Path) -> Iterator[str]:
    """Code in a page: the lines of its blocks, continued lines joined, and what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    for language, block in BLOCK.findall(text):
        if language != "python":
            yield from block.replace("\\\n", " ").splitlines()
    yield from INLINE.findall(BLOCK.sub("", text))


@cache
def options_of(command: str) -> frozenset[str]:
    """The options that a command's help names."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return frozenset(FLAG.findall(text.getvalue()))


@pytest.mark.parametrize("page", CODE, ids=name_of)
def test_python_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            lines = text.count("\n", 0, block.start(2))  # so that a traceback shows the line of the page
            exec(compile("\n" * lines + block[2], str(page), "exec"), names)
    assert names


@pytest.mark.parametrize(
    "kind", [*kl.optimizers, *kl.rules, kl.Dropout, kl.ClippedPolicy], ids=lambda kind: kind.__name__
)
def test_options_of_a_method_are_on_its_page(kind: type) -> None:
    """The table that begins with its name has its options and their defaults, in order."""
    rows = []
    for page in DOCS:
        _, begin, table = page.read_text(encoding="utf-8").partition(f"\n| `kl.{kind.__name__}` | default |")
        if begin:
            lines = table.partition("\n\n")[0].splitlines()[2:]
            rows += [tuple(cell.strip(" `") for cell in line.split("|")[1:3]) for line in lines]
    assert rows == [(name, str(default)) for name, default in kind().fields().items()]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS], ids=name_of)
def test_options_exist(page: Path) -> None:
    programs = [*COMMANDS, *(f"data {action}" for action in ACTIONS)]
    everything = frozenset(("--help", "--version")).union(*map(options_of, programs))
    for code in code_of(page):
        for command in COMMAND.findall(code):
            action = ACTION.match(command)
            words = action[0] if action else command.split()[0]
            missing = set(FLAG.findall(command)) - options_of(words)
            assert not missing, f"klopf {words} has no {missing}: {code}"
        if code.startswith("--"):
            missing = set(FLAG.findall(code)) - everything
            assert not missing, f"no command has {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page: Path) -> None:
    for code in INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if PATH.fullmatch(code):
            assert list(ROOT.glob(code)), code
        elif NAME.fullmatch(code):
            assert any(list((ROOT / top).rglob(code)) for top in ("cpp", "python", "tests")), code


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_the_site_has_a_place_for_it(page: Path) -> None:
    name = name_of(page).removeprefix("docs/")
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert re.search(rf"[-:] {re.escape(name)}$", nav, re.M), f"nav of mkdocs.yml does not have {name}"
