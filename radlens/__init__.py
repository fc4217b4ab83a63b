"""radlens: medical-image models served with their explanations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radlens.client import Client
    from radlens.notebook import explain, load, read

__all__ = ["Client", "__version__", "explain", "load", "read"]

__version__ = "0.1.0"

_LAZY = {"Client": "client", "explain": "notebook", "load": "notebook", "read": "notebook"}


def __getattr__(name: str) -> Any:
    """Import on use what a notebook needs: ``import radlens`` takes neither torch nor NumPy."""
    if name in _LAZY:
        return getattr(import_module(f"radlens.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
