"""What mkdocs.yml asks for beside the pages of this folder.

Pages that lie elsewhere in the tree (the architecture, the results) come in where links lead to them; the
reference is made from docstrings, by mkdocstrings, and from what the commands say of themselves.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUTSIDE = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "bench/results/README.md")
LINK = re.compile(r"\[([^\]\n]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
# A link, which is left alone, or a name that the reference has.
NAME = re.compile(r"\[[^\]\n]*\]\([^)\n]*\)|`(?:kl\.(\w+)|klopf\.(\w+)|klopf ([a-z]+(?: [a-z]+)?))`")
SHOWN = (".md", ".png", ".gif", ".svg")

# The reference: pages, what they begin with, and the public names they show, or klopf's list of them.
PAGES: dict[str, tuple[str, str, tuple[str, ...] | str]] = {
    "networks": (
        "Networks and learners",
        "The [tutorial](../python.md) shows them at work.",
        ("Network", "UnitGroup", "Pruned", "Learner", "Step", "History", "Evaluation", "DeviceArray"),
    ),
    "layers": ("Layers", "The layers of `kl.Network`, listed by `kl.layers`.", "layers"),
    "losses": (
        "Losses",
        "Losses without options are named: `loss=` takes one of `kl.losses`. This one has options.",
        ("ClippedPolicy",),
    ),
    "optimizers": ("Optimizers", "What `optimizer=` takes, listed by `kl.optimizers`.", "optimizers"),
    "rules": ("Unit rules", "What `rules=` takes, listed by `kl.rules`.", "rules"),
    "own-rules": (
        "Rules of your own",
        "[Rules of your own](../own-rules.md) shows them at work.",
        ("UnitRule", "UtilityRule", "StepSizeRule", "WatchedUnits", "FunctionChange"),
    ),
    "agents": (
        "Agents",
        "[PPO](../ant.md) and [streaming agents](../streaming.md) have pages with experiments.",
        ("PPO", "PPOUpdate", "StreamAgent", "advantages"),
    ),
    "functions": (
        "Functions and lists",
        "What klopf says of itself and of the machine, and its one error.",
        (
            *("Error", "devices", "get_threads", "set_threads", "isa", "__version__"),
            *("initialisers", "layers", "losses", "optimizers", "rules", "utilities"),
        ),
    ),
}
# Modules: what their pages begin with, and what they show beside their functions and classes.
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "metrics": ("[Metrics](../methods/metrics.md) has the definitions.", ()),
    "data": ("[Images](../data.md) is the how-to page.", ()),
    "envs": ("[Environments](../environments.md) is the how-to page.", ("vector.MujocoVectorEnv",)),
    "checkpoint": ("`kl.Learner.save` and its like are made of this.", ()),
}
REFERENCE = """
What every public name is, made from docstrings; names are those of `import klopf as kl`.

In signatures `_PerRun` is a number, or one for each run as a list or an array. In shapes R are runs, B
samples of a batch, I inputs, O outputs, U units, C, H and W channels, height and width, T time.
""".strip()


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in this folder."""
    for name in _outside():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for name, text in _reference():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links through the tree become links through the site, or names of what the site does not have."""
    here = page.file.src_uri
    folder = (ROOT / here).parent if here in _outside() else (DOCS / here).parent

    def turned(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = Path(os.path.normpath(folder / target))
        if "://" in target or not path.exists() or ROOT not in path.parents:
            return link[0]
        name = path.relative_to(ROOT).as_posix()
        uri = "index.md" if name == "README.md" else name.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return f"{text} (`{name}`)" if text != f"`{name}`" else text
        return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor})"

    text = LINK.sub(turned, markdown)
    return text if here.startswith("reference/") else _with_references(text, here)


def _with_references(markdown: str, here: str) -> str:
    """Names of klopf, its modules and commands lead to the reference, but not in code and headings."""
    import klopf as kl

    commands = {" ".join(words) for words in _commands()}
    reference = posixpath.relpath("reference", posixpath.dirname(here) or ".")

    def turned(found: re.Match[str]) -> str:
        name, module, command = found.groups()
        if name in kl.__all__ and name not in MODULES:
            return f"[{found[0]}][klopf.{name}]"
        if module in MODULES:
            return f"[{found[0]}]({reference}/{module}.md)"
        if command in commands:
            return f"[{found[0]}]({reference}/command-line.md#klopf-{command.replace(' ', '-')})"
        return found[0]

    lines, code = [], False
    for line in markdown.split("\n"):
        code ^= line.lstrip().startswith("```")
        lines.append(line if code or line.startswith("#") else NAME.sub(turned, line))
    return "\n".join(lines)


def _outside() -> list[str]:
    """Pages outside this folder and what they show, as far as links lead."""
    found = list(OUTSIDE)
    for name in found:
        if not name.endswith(".md"):
            continue
        for link in LINK.finditer((ROOT / name).read_text(encoding="utf-8")):
            path = Path(os.path.normpath((ROOT / name).parent / link[2]))
            inside = ROOT in path.parents and DOCS not in path.parents
            if inside and path.is_file() and path.suffix in SHOWN:
                other = path.relative_to(ROOT).as_posix()
                if other not in found and other != "README.md":
                    found.append(other)
    return found


# --- reference ----------------------------------------------------------------------------------------------


def _reference() -> Iterator[tuple[str, str]]:
    import klopf as kl

    rows, shown = [], {*MODULES}
    for page, (title, begin, names) in PAGES.items():
        if isinstance(names, str):
            names = tuple(kind.__name__ for kind in getattr(kl, names))
        shown.update(names)
        # The options of layers, optimizers and rules are in the table of arguments: no member says more.
        plain = {kind.__name__ for kind in (*kl.layers, *kl.optimizers, *kl.rules, kl.ClippedPolicy)}
        entries = [_entry(f"klopf.{name}", members=name not in plain) for name in names]
        yield page, "\n".join([f"# {title}", "", begin, "", *entries])
        rows.append(f"| [{title}]({page}.md) | {_links('klopf', names)} |")
    missing = sorted(set(kl.__all__) - shown)
    if missing:
        raise PluginError(f"docs/pages.py: the reference has no page for {', '.join(missing)}")
    for module, (begin, others) in MODULES.items():
        names = (*_public(module), *others)
        entries = [_entry(f"klopf.{module}.{name}") for name in names]
        yield module, "\n".join([f"# klopf.{module}", "", _docstring(module), "", begin, "", *entries])
        rows.append(f"| [klopf.{module}]({module}.md) | {_links(f'klopf.{module}', names)} |")
    table = ["| page | names |", "|---|---|", "| [Command line](command-line.md) | `klopf COMMAND` |", *rows]
    yield "index", "\n".join(["# Reference", "", REFERENCE, "", *table, ""])
    yield "command-line", _command_line()


def _links(module: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"[`{name}`][{module}.{name}]" for name in names)


def _entry(name: str, members: bool = True) -> str:
    options = "      inherited_members: true\n" if members else "      members: false\n"
    return f"::: {name}\n    options:\n{options}"


def _module(name: str) -> ast.Module:
    path = ROOT / "python" / "klopf" / name
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _docstring(module: str) -> str:
    return ast.get_docstring(_module(module)) or ""


def _public(module: str) -> list[str]:
    """The names of `__all__`; without one, functions and classes that have a docstring."""
    names = []
    for node in _module(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            names.append(node.name)
    return [name for name in names if not name.startswith("_")]


def _commands() -> Iterator[list[str]]:
    from klopf.cli import COMMANDS
    from klopf.data.command import ACTIONS

    for command in COMMANDS:
        yield [command]
        if command == "data":
            yield from ([command, action] for action in ACTIONS)


def _command_line() -> str:
    parts = ["# Command line", "", "What `klopf COMMAND --help` says.", "", "```text", _help([]), "```", ""]
    for words in _commands():
        parts += [f"#{'#' * len(words)} klopf {' '.join(words)}", "", "```text", _help(words), "```", ""]
    return "\n".join(parts)


def _help(words: list[str]) -> str:
    from klopf.cli import main

    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return text.getvalue().rstrip()
