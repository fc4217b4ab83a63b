"""Sequences of passes before and after differentiation."""

from torch import fx

from radlens.graphs.passes.batch_norm import fold_batch_norm
from radlens.graphs.passes.cleaning import clean
from radlens.graphs.passes.constants import fold_constants
from radlens.graphs.passes.dense import fold_dense_chains, store_transposes
from radlens.graphs.passes.lowering import lower
from radlens.graphs.passes.pooling import split_large_pools, write_pools_plainly
from radlens.graphs.passes.transposed import turn_transposed_convolutions

__all__ = ["finish", "simplify"]


def simplify(module: fx.GraphModule, *, split_pools: bool = True) -> None:
    """Fold and lower a traced graph before it is differentiated.

    Args:
        module: graph that is changed in place.
        split_pools: whether to split large pooling windows, see :func:`split_large_pools`.
    """
    clean(module)
    fold_constants(module)
    fold_batch_norm(module)
    lower(module)
    if split_pools:
        split_large_pools(module)
    # Lowering and splitting leave copies and constants behind.
    clean(module)
    fold_constants(module)
    fold_dense_chains(module)


def finish(module: fx.GraphModule) -> None:
    """Write a differentiated graph in forms that all engines compute correctly."""
    turn_transposed_convolutions(module)
    write_pools_plainly(module)
    store_transposes(module)
    clean(module)
    fold_constants(module)
    module.graph.lint()
