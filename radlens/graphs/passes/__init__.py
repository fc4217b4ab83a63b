"""Passes that change a graph before and after it is differentiated."""

from radlens.graphs.passes.batch_norm import fold_batch_norm
from radlens.graphs.passes.cleaning import clean
from radlens.graphs.passes.constants import drop_unused, fold_constants
from radlens.graphs.passes.dense import fold_dense_chains, store_transposes
from radlens.graphs.passes.lowering import LOWERINGS, lower
from radlens.graphs.passes.pipeline import finish, simplify
from radlens.graphs.passes.pooling import split_large_pools, write_pools_plainly
from radlens.graphs.passes.transposed import turn_transposed_convolutions

__all__ = [
    "LOWERINGS",
    "clean",
    "drop_unused",
    "finish",
    "fold_batch_norm",
    "fold_constants",
    "fold_dense_chains",
    "lower",
    "simplify",
    "split_large_pools",
    "store_transposes",
    "turn_transposed_convolutions",
    "write_pools_plainly",
]
