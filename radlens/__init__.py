"""radlens: medical-image models served with their explanations."""

__all__ = ["__version__"]

__version__ = "0.1.0"
