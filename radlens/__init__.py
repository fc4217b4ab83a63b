"""radlens: medical-image models served with their explanations."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.client import Client
    from radlens.notebook import explain, load, read
else:
    # ``import radlens`` takes neither torch nor NumPy.
    __getattr__ = lazily(__name__)

__all__ = ["Client", "__version__", "explain", "load", "read"]

__version__ = "0.1.0"
