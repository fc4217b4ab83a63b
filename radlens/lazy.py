"""Lazy packages, whose names are imported at their first use, so that serving a model imports no more than it needs.

A lazy package lists its names once, where type checkers and readers look for them::

    if TYPE_CHECKING:
        from radlens.figures.maps import overlay
    else:
        __getattr__ = lazily(__name__)

A name cannot be lazy if a submodule of the package has the same name: importing the submodule would replace it.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from radlens.extras import named

__all__ = ["lazily", "lazy_names"]


def lazily(package: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package (PEP 562) that imports a name and stores it in the package.

    If an import fails because a package of an extra is missing, the error names the extra.
    """

    @cache
    def origins() -> dict[str, str]:
        return dict(lazy_names(Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")))

    def imported(name: str) -> Any:
        origin = origins().get(name)
        if origin is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # ``from radlens.package import module`` names a submodule, which getattr would not find.
        with named():
            found = import_module(f"{package}.{name}") if origin == package else getattr(import_module(origin), name)
        setattr(sys.modules[package], name, found)
        return found

    return imported


def lazy_names(source: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a module imports for type checkers alone, each with the module that defines it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom) and each.module:
                    yield from ((alias.name, each.module) for alias in each.names)
