"""Each pass on a graph of a few nodes: what it changes, and that the numbers stay."""

import pytest
import torch
import torch.nn.functional as F
from references import relative
from torch import Tensor, nn
from zoo import Lambda, randomised

from radlens.graphs import passes
from radlens.graphs.passes.dense import multiplied
from radlens.graphs.passes.transposed import phase_kernels, turned
from radlens.graphs.rules import RULES
from radlens.graphs.tracing import evaluating_copy, trace

aten = torch.ops.aten


def traced(module: nn.Module, x: Tensor):
    """Return the graph of ``module``, in float64."""
    module = evaluating_copy(module.double())
    return trace(module, (x,), None, RULES.keys() | passes.LOWERINGS.keys()).graph_module


def operations(graph_module) -> list:
    """Return the operations of a graph, in order."""
    return [node.target for node in graph_module.graph.nodes if node.op == "call_function"]


def assert_same(graph_module, module: nn.Module, x: Tensor) -> None:
    """The graph computes what the module does (float64, rounding only)."""
    with torch.no_grad():
        assert relative(graph_module(x)[0], module(x)) < 1e-12


def test_in_place_operations_become_functional():
    """Writing into a slice and in-place ReLU leave no operation that writes."""

    def written(x):
        y = x * 2
        y[:, 1] = 0
        return F.relu(y, inplace=True)

    x = torch.randn(2, 3).double()
    graph_module = traced(Lambda(written), x)
    assert not any(str(operation.overloadpacket).endswith("_") for operation in operations(graph_module))
    assert_same(graph_module, Lambda(written), x)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(4, 6, 3, bias=False),
        lambda: nn.Conv2d(4, 6, 3, groups=2),
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2),
    ],
)
def test_batch_norm_is_folded_into_the_convolution_before_it(layer):
    """One operation is left, with as many groups as before."""
    module = randomised(nn.Sequential(layer(), nn.BatchNorm2d(6))).double()
    x = torch.randn(2, 4, 5, 5).double()
    graph_module = traced(module, x)
    passes.fold_batch_norm(graph_module)
    assert operations(graph_module) == [aten.convolution.default]
    assert_same(graph_module, module, x)


def test_batch_norm_is_folded_into_the_dense_layer_before_it():
    """One operation is left."""
    module = randomised(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))).double()
    x = torch.randn(3, 4).double()
    graph_module = traced(module, x)
    passes.fold_batch_norm(graph_module)
    assert operations(graph_module) == [aten.linear.default]
    assert_same(graph_module, module, x)


def test_batch_norm_is_scale_and_shift_where_a_convolution_has_other_users():
    """The convolution keeps its weights."""

    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    module = randomised(Forked()).double()
    x = torch.randn(2, 4, 3, 3).double()
    graph_module = traced(module, x)
    passes.fold_batch_norm(graph_module)
    assert operations(graph_module) == [aten.convolution.default, *[aten.mul.Tensor, aten.add.Tensor], aten.add.Tensor]
    assert_same(graph_module, module, x)


def test_chains_of_dense_layers_become_one():
    """Dropout in between is nothing; a chain through a narrow layer stays, because the product would be larger."""
    module = nn.Sequential(nn.Linear(60, 20), nn.Dropout(), nn.Linear(20, 20), nn.Linear(20, 3)).double().eval()
    x = torch.randn(2, 60).double()
    graph_module = traced(module, x)
    passes.clean(graph_module)
    passes.fold_dense_chains(graph_module)
    assert operations(graph_module) == [aten.linear.default]
    assert_same(graph_module, module, x)
    thin = nn.Sequential(nn.Linear(60, 2), nn.Linear(2, 60)).double()
    graph_module = traced(thin, x)
    passes.fold_dense_chains(graph_module)
    assert operations(graph_module) == [aten.linear.default] * 2


def test_weights_are_multiplied_in_blocks_of_columns():
    """More columns than one block holds."""
    outer, inner = torch.randn(2, 3), torch.randn(3, 9000)
    assert multiplied(outer, inner).dtype == torch.float32
    torch.testing.assert_close(multiplied(outer, inner), (outer.double() @ inner.double()).float())


def test_what_is_constant_is_computed_once():
    """Arithmetic on weights and ranges leaves one constant; what would grow much stays computed."""

    class Constants(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return x * torch.exp(self.weight) + torch.arange(5)

    x = torch.randn(2, 5).double()
    graph_module = traced(Constants(), x)
    passes.fold_constants(graph_module)
    assert operations(graph_module) == [aten.mul.Tensor, aten.add.Tensor]
    large = traced(Lambda(lambda x: x + torch.zeros(1 << 17, dtype=torch.float64).sum() * x), x)
    passes.fold_constants(large)
    assert not any(buffer.numel() >= 1 << 17 for buffer in large.buffers())


def test_what_does_nothing_is_removed():
    """Copies, slices of whole axes, and reshapes of reshapes; the batch is written as -1."""
    module = Lambda(lambda x: x.clone()[:, :].view(x.shape[0], 2, 3).flatten(1).contiguous() * 2)
    x = torch.randn(2, 6).double()
    graph_module = traced(module, x)
    passes.clean(graph_module)
    assert operations(graph_module) == [aten.reshape.default, aten.mul.Tensor]
    assert next(n for n in graph_module.graph.nodes if n.target is aten.reshape.default).args[1] == [-1, 6]
    assert_same(graph_module, module, x)


def test_transposes_of_dense_layers_are_stored():
    """The product reads a weight of its own, laid out as it is read."""
    module = nn.Linear(4, 3).double()
    x = torch.randn(2, 4).double()
    graph_module = traced(module, x)
    passes.store_transposes(graph_module)
    assert operations(graph_module) == [aten.matmul.default, aten.add.Tensor]
    shapes = sorted(tuple(buffer.shape) for buffer in graph_module.buffers())
    assert shapes == [(3,), (4, 3)]
    assert_same(graph_module, module, x)


@pytest.mark.parametrize(
    ("layer", "pixel_shuffle"),
    [
        (nn.ConvTranspose2d(4, 6, 3, 1, padding=1, groups=2), False),
        (nn.ConvTranspose2d(4, 6, 4, 2, padding=1, groups=2), True),
        (nn.ConvTranspose2d(4, 3, (3, 2), (2, 3), output_padding=1), False),
        (nn.ConvTranspose2d(4, 3, 1, 2), False),
        (nn.ConvTranspose2d(4, 3, 3, 2, padding=1, dilation=2), False),
        (nn.ConvTranspose2d(4, 3, 3, 1, padding=4), False),
    ],
)
def test_transposed_convolutions_become_plain_ones(layer, pixel_shuffle):
    """Stride 1, equal and unequal strides, kernels smaller than the stride, dilation, padding beyond the kernel."""
    layer = layer.double()
    x = torch.randn(2, 4, 7, 8).double()
    graph_module = traced(layer, x)
    passes.turn_transposed_convolutions(graph_module)
    convolutions = [n for n in graph_module.graph.nodes if n.target is aten.convolution.default]
    assert [node.args[6] for node in convolutions] == [False]
    assert (aten.pixel_shuffle.default in operations(graph_module)) == pixel_shuffle
    assert_same(graph_module, layer, x)


def test_phase_kernels_hold_every_tap_once():
    """A 3x3 kernel of stride 2: the four phases have 4, 2, 2 and 1 taps; turning a kernel is the case of stride 1."""
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    kernels = phase_kernels(weight, [2, 2], 1)
    assert (kernels != 0).sum(dim=(1, 2, 3)).tolist() == [4, 2, 2, 1]
    assert kernels.sum() == weight.sum()
    assert torch.equal(turned(weight, 1), weight.flip(2, 3))


def test_large_max_pooling_is_split_by_axes():
    """A window of 25 elements becomes one of 5 columns and one of 5 rows."""
    module = nn.MaxPool2d(5, 2, padding=2)
    x = torch.randn(2, 3, 11, 12).double()
    graph_module = traced(module, x)
    passes.split_large_pools(graph_module)
    pools = [n for n in graph_module.graph.nodes if n.target is aten.max_pool2d.default]
    assert [node.args[1] for node in pools] == [[1, 5], [5, 1]]
    assert_same(graph_module, module, x)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, 1, padding=1, dilation=2),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.MaxPool3d(2, ceil_mode=True),
    ],
)
def test_pooling_is_written_plainly(pool):
    """No window over the edge, no dilation, no divisor but its size."""
    x = torch.randn(2, 3, *[5, 8, 7][: 3 if isinstance(pool, nn.AvgPool3d | nn.MaxPool3d) else 2]).double()
    graph_module = traced(pool, x)
    passes.write_pools_plainly(graph_module)
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and "pool" in str(node.target):
            assert not any(argument is True or argument == [2, 2, 2, 2] for argument in node.args[4:])
            assert len(node.args) == 3
    assert_same(graph_module, pool, x)


def test_plain_pooling_is_left_as_it_is():
    """What every engine computes alike."""
    graph_module = traced(nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2)), torch.randn(2, 3, 8, 8).double())
    before = operations(graph_module)
    passes.write_pools_plainly(graph_module)
    assert operations(graph_module) == before


def test_lowering_leaves_only_operations_with_a_rule():
    """Normalisation, interpolation, adaptive pooling and padding become simpler operations."""
    module = nn.Sequential(
        nn.GroupNorm(2, 4),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        nn.ReflectionPad2d(1),
        nn.AdaptiveMaxPool2d(4),
    )
    x = torch.randn(2, 4, 6, 6).double()
    graph_module = traced(module, x)
    passes.lower(graph_module)
    assert not set(operations(graph_module)) & set(passes.LOWERINGS)
    assert_same(graph_module, module.double(), x)
