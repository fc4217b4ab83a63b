import copy

import pytest
import torch
import torch.nn.functional as F
from references import autograd, relative
from torch import nn
from torch.utils import _pytree as pytree
from zoo import (
    FAMILIES,
    DenseBlock,
    Lambda,
    PartialUNet,
    SmallResNet,
    SmallTransformer,
    randomised,
    weighted,
)

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs import gradient_graph

EXACT = 1e-9
"""Relative difference of two float64 computations; torch keeps constants of Hardsigmoid and CELU in float32: 3e-10."""


def first(output):
    """Score: the first number of the output."""
    return output[:, 0]


def images(n=3, *shape):
    """Return ``n`` random images in float64."""
    return torch.randn(n, *shape, dtype=torch.float64)


def assert_compiled(module, inputs, score, wrt=0):
    """Compile from one sample, then compare three samples and one with autograd."""
    module = module.double().eval()
    graph = gradient_graph(module, tuple(x[:1] for x in inputs), score, wrt)
    for n in (len(inputs[0]), 1):
        part = tuple(x[:n] for x in inputs)
        expected = autograd(module, part, score, wrt)
        for found, reference in zip(pytree.tree_leaves(graph(*part)), expected, strict=True):
            assert relative(found, reference) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_layer_equals_autograd(family):
    """All branches of a family at once, float64; compiled from one sample, run on three and on one."""
    assert_compiled(FAMILIES[family](), (images(3, 4, 8, 10),), weighted)


@pytest.mark.parametrize("network", [DenseBlock, SmallTransformer])
def test_architectures_equal_autograd(network):
    """DenseNet with squeeze-excitation and dilated branches, vision transformer; others stand with the engines."""
    assert_compiled(randomised(network()), (images(3, 3, 32, 32),), first)


def test_gradient_with_respect_to_a_mask():
    """A U-Net of partial convolutions, differentiated by its second input, the mask."""
    mask = (torch.rand(3, 3, 32, 32) > 0.3).double()
    assert_compiled(randomised(PartialUNet()), (images(3, 3, 32, 32), mask), first, wrt=1)


def test_images_of_one_and_three_axes():
    """Convolution, pooling and batch normalisation of signals and of volumes."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Sequential(
                nn.Conv1d(2, 3, 5, 2, 2), nn.BatchNorm1d(3), nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2)
            )
            self.solid = nn.Sequential(
                nn.Conv3d(2, 3, 3, 2, 1), nn.BatchNorm3d(3), nn.MaxPool3d(3, 2, 1), nn.AvgPool3d(2)
            )
            self.back = nn.ConvTranspose3d(2, 2, 3, 2, 1)

        def forward(self, x):
            line = F.interpolate(self.line(x.flatten(2)), scale_factor=2).tanh()
            solid = F.interpolate(self.back(x), size=(8, 9, 9))
            return torch.stack([line.mean((1, 2)), self.solid(solid).tanh().mean((1, 2, 3, 4))], dim=1)

    assert_compiled(randomised(Both()), (images(3, 2, 4, 5, 5),), weighted)


def test_integers_that_tie_get_the_gradient_of_autograd():
    """Plateaus of equal values before pooling, without and with ReLU."""
    pool = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    x = torch.randint(-1, 2, (3, 2, 12, 13)).double()
    graph = gradient_graph(pool, (x,), lambda y: (y * torch.arange(y.shape[1])).sum(1))
    expected = autograd(pool, (x,), lambda y: (y * torch.arange(y.shape[1])).sum(1))
    assert torch.equal(graph(x)[1], expected[-1])


def test_the_module_is_left_alone():
    """Mode, weights, requires_grad and hooks are as before; training it later does not change the graph."""
    module = randomised(SmallResNet()).double().train()
    module.head.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    x = images(2, 3, 32, 32)
    graph = gradient_graph(module, (x,), first)
    assert module.training
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == [True] * (len(list(module.parameters())) - 2) + [False] * 2
    expected = graph(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    for found, value in zip(graph(x), expected, strict=True):
        assert torch.equal(found, value)


def test_structured_outputs_come_back_as_they_are():
    """A tuple stays a tuple, a dictionary a dictionary; ONNX names count the leaves."""
    x = images(2, 3)
    graph = gradient_graph(Lambda(lambda x: (x * 2, {"sum": x.sum(1)})), (x,), lambda y: y[1]["sum"])
    (double, named), gradient = graph(x)
    assert torch.equal(double, x * 2)
    assert torch.equal(named["sum"], x.sum(1))
    assert torch.equal(gradient, torch.ones_like(x))
    assert graph.output_names == ["output_0", "output_1", "gradient"]
    assert graph.input_names == ["input_0"]


def test_a_constant_gradient_has_the_batch_of_the_input():
    """A linear score: the gradient is the same for every sample, and there is one for every sample."""
    graph = gradient_graph(nn.Linear(3, 2).double(), (images(1, 3),), first)
    assert graph(images(5, 3))[1].shape == (5, 3)


def test_an_embedded_category_is_an_input_without_gradient():
    """The image is differentiated, the integers choose an embedding."""

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, x, category):
            return torch.tanh(x * self.table(category))

    inputs = (images(3, 3), torch.tensor([0, 4, 2]))
    assert_compiled(Conditional(), inputs, lambda y: y.sum(1))


def test_guided_backpropagation_blocks_negative_gradients_at_every_relu():
    """Springenberg et al. 2015, against hooks on the ReLUs."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    x = images(4, 6)
    graph = gradient_graph(module, (x,), first, relu_rule="guided")
    for part in module:
        if isinstance(part, nn.ReLU):
            part.register_full_backward_hook(lambda _, gradients, __: (gradients[0].clamp(min=0),))
    assert relative(graph(x)[1], autograd(module, (x,), first)[-1]) < EXACT


class _Doubled(torch.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class _Swish(torch.autograd.Function):
    """Swish that keeps only its input."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * (s + x * s * (1 - s))


def test_an_autograd_function_is_compiled_from_its_forward():
    """Where its backward is the gradient of its forward."""
    assert_compiled(Lambda(_Swish.apply), (images(3, 4),), first)


def test_an_autograd_function_with_another_backward_is_refused():
    """The graph could only follow the forward, and would be silently wrong."""
    with pytest.raises(UnsupportedOperation, match="must be the gradient of its forward; check _Doubled"):
        gradient_graph(Lambda(_Doubled.apply), (images(1, 4),), first)


class _Choice(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class _Hyper(nn.Module):
    def __init__(self):
        super().__init__()
        self.make = nn.Linear(4, 12)

    def forward(self, x):
        return F.linear(x, self.make(x[:1]).view(3, 4))


def _named(layer):
    return nn.Sequential(nn.Identity(), nn.ModuleDict({"odd": layer})["odd"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (_named(_Choice()), r"must compute the same operations .* \(layer 1\)"),
        (_named(Lambda(lambda x: torch.linalg.svdvals(x.view(-1, 2, 2)))), r"aten\.\w*svd\w* .*\(layer 1\)"),
        (_named(Lambda(lambda x: x.view(-1, 2, 2)[:, torch.ones(2, 2) > 0])), r"a mask .* one axis: .* \(layer 1\)"),
        (_named(Lambda(lambda x: x.cumprod(1))), r"aten.cumprod is not supported \(layer 1\)"),
        (_named(Lambda(lambda x: F.dropout(x))), r"is not supported \(layer 1\)"),
        (_named(nn.BatchNorm1d(4, track_running_stats=False)), r"\(layer 1\)"),
        (_named(_Hyper()), r"\(layer 1"),
        (_named(Lambda(lambda x: x - x.mean(0))), r"must not run over the batch: aten.mean \(layer 1\)"),
        (
            _named(Lambda(lambda x: torch.cat([x, x])[: x.shape[0]])),
            r"must not be sliced, concatenated or padded: aten.slice \(layer 1\)",
        ),
        (_named(Lambda(lambda x: x.norm(3, dim=1, keepdim=True))), r"must have order 1 or 2, got 3: .* \(layer 1\)"),
        (_named(Lambda(lambda x: x + x.max())), r"over axes other than the batch: aten.max \(layer 1\)"),
        (_named(Lambda(lambda x: F.rrelu(x, training=True))), r"must not draw random numbers: aten.rrelu \(layer 1\)"),
        (_named(Lambda(lambda x: x.roll(1))), r"a roll must name its axes: aten.roll \(layer 1\)"),
        (
            _named(Lambda(lambda x: x.repeat(2, 1).view(2, -1, 4).sum(0))),
            r"must leave the batch as it is: .* \(layer 1\)",
        ),
        (
            _named(Lambda(lambda x: x.view(-1, 2, 2)[:, [0, 1], [1, 0]])),
            r"must select along one axis: .* \(layer 1\)",
        ),
        (
            _named(Lambda(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5))),
            r"not have dropout .* \(layer 1\)",
        ),
        (_named(Lambda(lambda x: x.var(0) + x)), r"must not run over the batch: aten.var \(layer 1\)"),
        (
            _named(Lambda(lambda x: F.adaptive_max_pool2d(x.view(-1, 1, 2, 2), 1, return_indices=True)[1] + x)),
            r"got its indices: aten.adaptive_max_pool2d \(layer 1\)",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_operation_and_layer(module, message):
    """The message says what stands in the way and where."""
    with pytest.raises(UnsupportedOperation, match=message):
        gradient_graph(module.double(), (images(2, 4),), lambda y: y.flatten(1).sum(1))


@pytest.mark.parametrize(
    ("inputs", "score", "wrt", "message"),
    [
        ([torch.zeros(1, 3)], first, 0, "must be a tuple of tensors, got list"),
        ((), first, 0, "must be a tuple of tensors, got tuple"),
        ((torch.tensor(1.0),), first, 0, "must share a batch of at least 1"),
        ((torch.zeros(0, 3),), first, 0, "must share a batch of at least 1"),
        ((torch.zeros(1, 3), torch.zeros(2, 3)), first, 0, "must share a batch of at least 1"),
        ((torch.zeros(1, 3),), first, 1, "wrt must be from 0 to 0, got 1"),
        ((torch.zeros(1, 3, dtype=torch.long),), first, 0, "input 0 must be float32 or float64, got torch.int64"),
        ((torch.zeros(2, 3),), lambda y: y, 0, r"must have shape \(2,\), got \(2, 3\)"),
        ((torch.zeros(3, 3),), lambda y: y.sum(0), 0, r"the score must have shape \(b,\), got \(3,\)"),
        ((torch.zeros(2, 3),), lambda y: 1.0, 0, r"must have shape \(2,\), got float"),
        ((torch.zeros(2, 3),), lambda y: y[:, 0].detach(), 0, "the score must depend on the input"),
    ],
)
def test_what_does_not_fit_is_refused(inputs, score, wrt, message):
    """Examples, the choice of the input and the score."""
    with pytest.raises(InvalidInput, match=message):
        gradient_graph(Lambda(lambda x, *_: x * 2), inputs, score, wrt)


def test_an_unknown_relu_rule_is_refused():
    """There are two."""
    with pytest.raises(InvalidInput, match='relu_rule must be "gradient" or "guided", got \'deconvolution\''):
        gradient_graph(nn.ReLU(), (torch.zeros(1, 3),), first, relu_rule="deconvolution")


def test_outputs_must_be_tensors():
    """A number among the outputs has no place in a graph."""
    with pytest.raises(InvalidInput, match="must be a tensor or a tuple of tensors"):
        gradient_graph(Lambda(lambda x: (x, 3)), (torch.zeros(1, 3),), lambda y: y[0][:, 0])


def test_errors_of_the_module_arrive_as_they_are():
    """A shape that the network itself refuses."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradient_graph(nn.Linear(4, 2), (torch.zeros(1, 3),), first)


def test_other_inputs_than_the_examples_are_refused():
    """Number, shape and type."""
    graph = gradient_graph(nn.Linear(3, 2), (torch.zeros(1, 3),), first)
    with pytest.raises(InvalidInput, match="must have 1 inputs, got 2"):
        graph(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(InvalidInput, match=r"input 0 must be torch.float32 of shape \(b, 3\), got torch.float32 of"):
        graph(torch.zeros(1, 4))
