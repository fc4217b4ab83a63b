from pathlib import Path

import torch

from radlens.graphs import SUPPORTED
from radlens.graphs.passes import LOWERINGS
from radlens.graphs.rules import RULES
from radlens.graphs.supported import render


def test_the_documentation_lists_what_is_supported():
    """docs/graphs.md is what the list renders to."""
    page = Path(__file__).parents[2] / "docs" / "graphs.md"
    assert page.read_text() == render()


def test_every_operation_is_described():
    """One line for each, in one list with everything that has a rule or is written as others."""
    names = {str(operation.overloadpacket) for operation in [*RULES, *LOWERINGS]}
    assert names | {str(torch.ops.aten._native_batch_norm_legit_no_training)} == set(SUPPORTED)
    assert all(text.endswith((".", ")")) and len(text) > 3 for text in SUPPORTED.values())
