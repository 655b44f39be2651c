"""What mkdocstrings cannot see: classes whose docstring is that of the compiled class they derive from."""

from __future__ import annotations

from typing import Any

import griffe


class Inherited(griffe.Extension):
    """Classes and their members without a docstring have that of a base."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for module in (pkg, *pkg.modules.values()):
            for kind in module.classes.values():
                if not kind.is_alias:
                    self._complete(kind)

    def _complete(self, kind: griffe.Class) -> None:
        for base in kind.resolved_bases:
            pairs = [(kind, base)]
            pairs += [(own, base.members[name]) for name, own in kind.members.items() if name in base.members]
            for own, theirs in pairs:
                if not own.is_alias and own.docstring is None and theirs.docstring is not None:
                    own.docstring = griffe.Docstring(theirs.docstring.value, parent=own)
