from typing import Any

import pytest
import torch
from torch import nn

from radlens.errors import UnsupportedOperation
from radlens.graphs.recording import Recorder, sizes
from radlens.graphs.tracing import evaluating_copy, layer_of, trace


def _recorder():
    module = trace(evaluating_copy(nn.Sequential(nn.ReLU())), (torch.zeros(1, 3),), None, ()).graph_module
    recorder = Recorder(module)
    return module, recorder, recorder.proxy(module.graph.find_nodes(op="placeholder")[0])


def test_plain_code_is_recorded_with_shapes():
    """Functions, methods and operators on values become nodes; the batch stays a symbol, tensors become buffers."""
    module, recorder, x = _recorder()
    with recorder.before(module.graph.output_node()):
        y: Any = torch.where(x > 0, x * torch.ones(3), 0.0).sum(1, keepdim=True)
    assert sizes(y) == [-1, 1]
    assert y.ndim == 2
    assert y.dtype == torch.float32
    module.graph.output_node().args = ((y.node,),)
    module.recompile()
    assert module(torch.tensor([[1.0, -2, 3]]))[0].tolist() == [[4]]
    assert len(list(module.buffers())) == 1


def test_only_constants_have_a_tensor():
    """A value that depends on the input has none while recording."""
    _, recorder, x = _recorder()
    assert torch.equal(recorder.constant(torch.ones(2)).constant(), torch.ones(2))
    with pytest.raises(UnsupportedOperation, match="an index must be constant"):
        x.constant()


def test_nodes_know_their_layer():
    """The path inside the module, as ``named_modules`` has it."""
    module = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU()))
    graph = trace(evaluating_copy(module), (torch.zeros(1, 3),), lambda y: y.sum(1), ()).graph_module.graph
    layers = {str(node.target): layer_of(node) for node in graph.nodes if node.op == "call_function"}
    assert layers == {"aten.relu.default": "1.0", "aten.sum.dim_IntList": "score"}
