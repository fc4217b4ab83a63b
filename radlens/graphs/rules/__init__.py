"""Rules of differentiation of the supported operations."""

from radlens.graphs.rules import activations, arithmetic, pooling, products, reductions, shapes
from radlens.graphs.rules.registry import RULES

__all__ = ["RULES", "activations", "arithmetic", "pooling", "products", "reductions", "shapes"]
