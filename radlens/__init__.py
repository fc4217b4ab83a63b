"""radlens: medical-image models served with their explanations."""

from typing import TYPE_CHECKING

from radlens.extras import lazy

if TYPE_CHECKING:
    from radlens.client import Client
    from radlens.notebook import explain, load, read

__all__ = ["Client", "__version__", "explain", "load", "read"]

__version__ = "0.1.0"

# A type checker sees the imports above, and so every wrong name.
if not TYPE_CHECKING:
    # ``import radlens`` takes neither torch nor NumPy.
    __getattr__ = lazy(__name__, {"Client": "client", "explain": "notebook", "load": "notebook", "read": "notebook"})
