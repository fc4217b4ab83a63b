"""Packages whose names are imported when they are used, so that serving a model takes what it needs and no more.

Such a package lists its names once, where type checkers and people look for them::

    if TYPE_CHECKING:
        from radlens.figures.maps import overlay
    else:
        __getattr__ = lazily(__name__)

A name that is also that of another module of the package cannot be lazy: importing the module would hide it.
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
    """Return the ``__getattr__`` of a package (PEP 562): it imports a name and keeps it.

    Where a package of an extra is missing, the error names the extra.
    """

    @cache
    def origins() -> dict[str, str]:
        return dict(lazy_names(Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")))

    def imported(name: str) -> Any:
        origin = origins().get(name)
        if origin is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # A module of the package itself is imported as such.
        with named():
            found = import_module(f"{package}.{name}") if origin == package else getattr(import_module(origin), name)
        setattr(sys.modules[package], name, found)
        return found

    return imported


def lazy_names(source: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a module imports for type checkers alone, each with the module it comes from."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom) and each.module:
                    yield from ((alias.name, each.module) for alias in each.names)
