"""Every rule, called on tensors, against autograd; the values are small integers, so that kinks and ties are met."""

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from radlens.errors import UnsupportedOperation
from radlens.graphs.rules import RULES
from radlens.graphs.rules.activations import guided_relu
from radlens.graphs.rules.pooling import Windows
from radlens.graphs.rules.reductions import mean
from radlens.graphs.rules.registry import derivative
from radlens.graphs.rules.shapes import padded, sources, spread

aten = torch.ops.aten


def integers(*shape: int, low: int = -3, high: int = 4) -> Tensor:
    """Return small random integers as float64."""
    return torch.randint(low, high, shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    """Return random numbers from 0.5 to 1.5."""
    return torch.rand(*shape, dtype=torch.float64) + 0.5


def image(*shape: int) -> Tensor:
    """Return two images of three channels and of few grey values."""
    return integers(2, 3, *(shape or (6, 7)), low=0, high=3)


PAIR = (aten.add.Tensor, aten.sub.Tensor, aten.rsub.Tensor, aten.mul.Tensor, aten.maximum.default, aten.minimum.default)
NUMBER = (aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar, aten.mul.Scalar, aten.div.Scalar)
ALONE = (
    *(aten.neg.default, aten.exp.default, aten.expm1.default, aten.abs.default, aten.sin.default, aten.cos.default),
    *(aten.atan.default, aten.erf.default, aten.clone.default, aten.alias.default, aten.sum.default, aten.relu.default),
    *(aten.sigmoid.default, aten.tanh.default, aten.silu.default, aten.mish.default, aten.gelu.default),
    *(aten.hardtanh.default, aten.leaky_relu.default, aten.elu.default, aten.hardsigmoid.default),
    *(aten.hardswish.default, aten.softplus.default, aten.log_sigmoid.default, aten.softshrink.default),
    *(aten.hardshrink.default, aten.contiguous.default),
)
POSITIVE = (
    *(aten.reciprocal.default, aten.log.default, aten.log1p.default, aten.log2.default, aten.log10.default),
    *(aten.sqrt.default, aten.rsqrt.default),
)

SAMPLES: dict = {operation: [(integers(2, 3), integers(2, 3))] for operation in PAIR}
SAMPLES |= {operation: [(integers(2, 3), 3.0)] for operation in NUMBER}
SAMPLES |= {operation: [(integers(3, 4),)] for operation in ALONE}
SAMPLES |= {operation: [(positive(3, 4),)] for operation in POSITIVE}
SAMPLES[aten.add.Tensor] += [(integers(2, 3), integers(2, 3), {"alpha": 0.3})]
SAMPLES[aten.sub.Tensor] += [(integers(2, 3), integers(2, 3), {"alpha": 0.3})]
SAMPLES[aten.gelu.default] += [(integers(3, 4), {"approximate": "tanh"})]
SAMPLES[aten.elu.default] += [(integers(3, 4), 0.7, 1.2, 0.9)]
SAMPLES[aten.hardtanh.default] += [(integers(3, 4), 0.0, 2.0)]
SAMPLES |= {
    aten.div.Tensor: [(integers(2, 3), positive(2, 3))],
    aten.addcmul.default: [(integers(2, 3), integers(2, 3), integers(2, 3), {"value": 0.3})],
    aten.addcdiv.default: [(integers(2, 3), integers(2, 3), positive(2, 3), {"value": 0.3})],
    aten.lerp.Scalar: [(integers(2, 3), integers(2, 3), 0.3)],
    aten.lerp.Tensor: [(integers(2, 3), integers(2, 3), positive(2, 3))],
    aten.pow.Tensor_Scalar: [(integers(2, 3), exponent) for exponent in (0, 1, 2, 3)] + [(positive(2, 3), -0.5)],
    aten.pow.Tensor_Tensor: [(positive(2, 3), positive(2, 3)), (torch.zeros(2, dtype=torch.float64), positive(2))],
    aten.pow.Scalar: [(2.0, integers(2, 3)), (0.0, positive(2, 3))],
    aten.clamp.default: [(integers(2, 3), -1, 2), (integers(2, 3), None, 1), (integers(2, 3), 0)],
    aten.clamp_min.default: [(integers(2, 3), 1)],
    aten.clamp_max.default: [(integers(2, 3), 1)],
    aten.clamp.Tensor: [(integers(2, 3), torch.zeros(2, 3).double(), torch.ones(2, 3).double(), {"only": 0})],
    aten.clamp_min.Tensor: [(integers(2, 3), torch.zeros(2, 3).double(), {"only": 0})],
    aten.where.self: [(torch.tensor([True, False, True]), integers(3), integers(3))],
    aten.where.ScalarOther: [(torch.tensor([True, False, True]), integers(3), 1.0)],
    aten.where.ScalarSelf: [(torch.tensor([True, False, True]), 1.0, integers(3))],
    aten.masked_fill.Scalar: [(integers(3), torch.tensor([True, False, True]), 1.0)],
    aten.masked_fill.Tensor: [(integers(3), torch.tensor([True, False, True]), torch.tensor(1.0).double())],
    aten.remainder.Scalar: [(positive(3), 0.4)],
    aten.fmod.Scalar: [(positive(3), 0.4)],
    aten.lift_fresh_copy.default: [(integers(3),)],
    aten._to_copy.default: [(integers(3), {"dtype": torch.float64})],
    aten._prelu_kernel.default: [(integers(2, 3), integers(2, 3))],
    aten.threshold.default: [(integers(3, 4), 1.0, 5.0)],
    aten.softmax.int: [(integers(2, 3), 1), (integers(2, 3, 4), -2)],
    aten._safe_softmax.default: [(integers(2, 3), 1)],
    aten.log_softmax.int: [(integers(2, 3), 1)],
    aten.sum.dim_IntList: [(integers(2, 3, 4), [1, -1]), (integers(2, 3), [1], True), (integers(2, 3), None)],
    aten.mean.dim: [(integers(2, 3, 4), [1, -1]), (integers(2, 3), [1], True)],
    aten.amax.default: [(integers(2, 3, 4), [1, 2]), (integers(2, 30), [1], True)],
    aten.amin.default: [(integers(2, 30), [1])],
    aten.max.dim: [(integers(2, 30), 1), (integers(2, 3, 9), -2, True)],
    aten.min.dim: [(integers(2, 30), 1)],
    aten.median.dim: [(integers(2, 9), 1)],
    aten.topk.default: [(integers(2, 9), 3), (integers(2, 3, 9), 2, 1)],
    aten.sort.default: [(integers(2, 9), -1)],
    aten.gather.default: [(integers(2, 4), 1, torch.tensor([[0, 3, 3], [1, 1, 2]]))],
    aten.std.correction: [(integers(2, 9), [1], {"correction": c}) for c in (0, 1)]
    + [(torch.ones(2, 3).double(), [1], {"correction": 1, "keepdim": True})],
    aten.var.correction: [(integers(2, 9), [1], {"correction": 1})],
    aten.linalg_vector_norm.default: [
        (integers(2, 9), 2, [1]),
        (integers(2, 9), 1, [1], True),
        (integers(2, 9) * 0, 2),
    ],
    aten.logsumexp.default: [(integers(2, 9), [1], True)],
    aten.cumsum.default: [(integers(2, 9), 1)],
    aten.view.default: [(integers(2, 6), [2, 3, 2])],
    aten.reshape.default: [(integers(2, 6), [-1, 4])],
    aten._unsafe_view.default: [(integers(2, 6), [3, 4])],
    aten.flatten.using_ints: [(integers(2, 3, 2), 1)],
    aten.unflatten.int: [(integers(2, 6), 1, [2, 3])],
    aten.squeeze.default: [(integers(2, 1, 3),)],
    aten.squeeze.dim: [(integers(2, 1, 3), 1)],
    aten.squeeze.dims: [(integers(2, 1, 3, 1), [1, 3])],
    aten.unsqueeze.default: [(integers(2, 3), 1)],
    aten.permute.default: [(integers(2, 3, 4), [2, 0, -2])],
    aten.transpose.int: [(integers(2, 3, 4), 0, -1)],
    aten.t.default: [(integers(2, 3),)],
    aten.expand.default: [(integers(3, 2), [3, -1])],
    aten.repeat.default: [(integers(2, 3), [1, 2]), (integers(2, 3), [2, 1, 3])],
    aten.cat.default: [([integers(2, 3), integers(2, 1)], 1), ([torch.zeros(0).double(), integers(2, 1)], 1)],
    aten.stack.default: [([integers(2, 3), integers(2, 3)], 1)],
    aten.slice.Tensor: [(integers(2, 9), 1, *rest) for rest in ((2, 7), (0, 2**63 - 1), (1, -1, 3), (-4, 2**63 - 1))],
    aten.select.int: [(integers(2, 9), 1, -2)],
    aten.slice_scatter.default: [
        (integers(2, 9), integers(2, 3), 1, 1, 4),
        (integers(2, 9), integers(2, 3), 1, 0, 9, 3),
        (integers(2, 9), integers(2, 9), 1),
    ],
    aten.select_scatter.default: [(integers(2, 9, 2), integers(2, 2), 1, -3)],
    aten.split_with_sizes.default: [(integers(2, 9), [2, 3, 4], 1)],
    aten.split.Tensor: [(integers(2, 9), 4, 1)],
    aten.chunk.default: [(integers(2, 9), 3, 1)],
    aten.unbind.int: [(integers(2, 3), 1)],
    aten.constant_pad_nd.default: [(image(), [1, 2, 0, 1], 0.3), (image(), [-1, 2, 1, -2])],
    aten.flip.default: [(image(), [2, 3])],
    aten.index_select.default: [(integers(2, 5), 1, torch.tensor([4, 0, 0, 2, 0]))],
    aten.linear.default: [(integers(2, 4, 3), integers(5, 3), integers(5), {"only": 0})],
    aten.mm.default: [(integers(2, 3), integers(3, 4))],
    aten.bmm.default: [(integers(2, 3, 4), integers(2, 4, 5))],
    aten.matmul.default: [
        (integers(2, 3, 4), integers(2, 4, 5)),
        (integers(3, 4), integers(4)),
        (integers(4), integers(4, 3)),
        (integers(4), integers(4)),
    ],
    aten.mv.default: [(integers(3, 4), integers(4))],
    aten.dot.default: [(integers(4), integers(4))],
    aten.addmm.default: [(integers(2, 4), integers(2, 3), integers(3, 4), {"beta": 0.5, "alpha": 2})],
    aten.baddbmm.default: [(integers(2, 3, 5), integers(2, 3, 4), integers(2, 4, 5))],
    aten.convolution.default: [
        (image(), integers(4, 3, 3, 2), None, [2, 3], [1, 0], [2, 1], False, [0, 0], 1, {"only": 0}),
        (image(), integers(3, 2, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 3, {"only": 0}),
    ],
    aten.upsample_nearest2d.default: [(image(), [12, 21])],
    aten.upsample_nearest3d.default: [(image(2, 3, 2), [4, 3, 6])],
    aten.max_pool2d.default: [
        (image(), *rest)
        for rest in (
            ([2],),
            ([2, 3], [1, 2]),
            ([3], [2], [1]),
            ([3], [2], [0], [1], True),
            ([2], [1], [0], [2]),
            ([1], [3]),
            ([3], [1], [1]),
        )
    ],
    aten.max_pool3d.default: [(image(5, 4, 6), [2], [2], [1])],
    aten.max_pool2d_with_indices.default: [(image(), [3], [2], [1])],
    aten.max_pool3d_with_indices.default: [(image(4, 4, 4), [2])],
    aten.avg_pool2d.default: [
        (image(), *rest)
        for rest in (
            ([2],),
            ([2], [2], [0], True),
            ([3], [2], [1]),
            ([3], [2], [1], False, False),
            ([3], [2], [1], True, False),
            ([2, 3], [1, 2], [0], False, True, 5),
        )
    ],
    aten.avg_pool3d.default: [(image(4, 4, 5), [2]), (image(4, 4, 5), [3], [2], [1])],
}
"""Arguments of every operation that has a rule; ``only`` names the one argument that is differentiated."""


def _cases() -> list:
    return [
        pytest.param(operation, sample, id=f"{operation}-{k}")
        for operation, samples in SAMPLES.items()
        for k, sample in enumerate(samples)
    ]


def test_every_rule_is_tested():
    """A rule without a sample would go untested."""
    alike = {aten.where.Scalar, aten.embedding.default}
    assert {operation for operation, rule in RULES.items() if rule is not None} - alike == set(SAMPLES)


def _values(operation, arguments: list, options: dict) -> list:
    """Return all arguments in the order of the schema, defaults filled in."""
    schema = operation._schema.arguments
    last = max([len(arguments) - 1, *(k for k, a in enumerate(schema) if a.name in options)])
    rest = [options.get(a.name, a.default_value) for a in schema[len(arguments) : last + 1]]
    return [*arguments, *rest]


def _gradients(arguments: list, found: tuple) -> list:
    """Return one gradient for each leaf of the arguments, None where the rule gives none."""
    flat: list = []
    for argument, gradient in zip(arguments, [*found, *[None] * len(arguments)], strict=False):
        n = len(argument) if isinstance(argument, list) else 1
        flat += gradient if isinstance(gradient, list) else [gradient] * n
    return flat


@pytest.mark.parametrize(("operation", "sample"), _cases())
def test_rule_equals_autograd(operation, sample):
    """On integers in float64, where most comparisons are ties, to rounding."""
    *arguments, options = sample if isinstance(sample[-1], dict) else (*sample, {})
    only = options.get("only")
    options = {key: value for key, value in options.items() if key != "only"}
    leaves, spec = pytree.tree_flatten(arguments)
    differentiable = [isinstance(a, Tensor) and a.is_floating_point() and a.numel() > 0 for a in leaves]
    wanted = [k for k, yes in enumerate(differentiable) if yes and only in (None, k)]
    leaves = [leaf.clone().requires_grad_() if k in wanted else leaf for k, leaf in enumerate(leaves)]
    arguments = pytree.tree_unflatten(leaves, spec)
    output = operation(*arguments, **options)
    results = [output] if isinstance(output, Tensor) else list(output)
    weights = [torch.randn_like(y) if y.is_floating_point() else None for y in results]
    used = [(y, w) for y, w in zip(results, weights, strict=True) if w is not None]
    expected = torch.autograd.grad(
        [y for y, _ in used], [leaves[k] for k in wanted], [w for _, w in used], allow_unused=True
    )
    with torch.no_grad():
        single = isinstance(output, Tensor)
        rule = RULES[operation]
        assert rule is not None
        found = rule(
            weights[0] if single else weights, output if single else results, *_values(operation, arguments, options)
        )
    gradients = _gradients(arguments, found)
    for k, reference in zip(wanted, expected, strict=True):
        reference = torch.zeros_like(leaves[k]) if reference is None else reference.detach()
        gradient = gradients[k]
        if gradient.shape != reference.shape:
            gradient = gradient.sum_to_size(reference.shape)
        torch.testing.assert_close(gradient, reference, rtol=1e-7, atol=1e-12)


def test_guided_relu_blocks_negative_gradients():
    """Springenberg et al. 2015: output and gradient must be positive."""
    y = torch.tensor([0.0, 1.0, 2.0])
    assert guided_relu(torch.tensor([1.0, -1.0, 3.0]), y, y)[0].tolist() == [0, 0, 3]


def test_an_operation_has_one_rule():
    """A second one is refused."""
    with pytest.raises(ValueError, match="must have one rule, got a second"):
        derivative(aten.relu.default)(guided_relu)


def test_the_winner_of_a_window_is_the_first_of_the_largest():
    """Counted row by row."""
    x = torch.tensor([[1.0, 2, 5, 5], [2, 0, 5, 5]]).view(1, 1, 2, 4)
    windows = Windows([2, 4], [1, 2], [2, 2], [2, 2], [0, 0], [1, 1])
    assert windows.winner(x).flatten().tolist() == [1, 0]


def test_sources_name_every_position():
    """Place 0 is named by positions 1 and 2, place 2 by position 0."""
    assert sources(torch.tensor([2, 0, 0]), 3).tolist() == [[1, -1, 0], [2, -1, -1]]


def test_axes_are_padded_cut_and_spread():
    """Numbers below zero shorten an axis; spreading puts zeros behind every element."""
    x = torch.tensor([[1.0, 2, 3]])
    assert padded(x, 1, -1, 2).tolist() == [[2, 3, 0, 0]]
    assert spread(x, 1, 2).tolist() == [[1, 0, 2, 0, 3, 0]]


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        (aten.linalg_vector_norm.default, (integers(2, 3), 3, [1]), "must have order 1 or 2, got 3"),
        (
            aten.gather.default,
            (integers(3, 4), 1, torch.zeros(2, 1, dtype=torch.long)),
            "must have the same size on every other axis",
        ),
    ],
)
def test_forms_without_a_rule_are_refused(operation, arguments, message):
    """The differentiator adds the names of operation and layer."""
    y = operation(*arguments)
    rule = RULES[operation]
    assert rule is not None
    with pytest.raises(UnsupportedOperation, match=message):
        rule(torch.ones_like(y), y, *arguments)


def test_the_mean_counts_what_it_averages():
    """One over the number of elements, whatever the order of the axes."""
    assert mean(torch.ones(2), None, torch.zeros(2, 3, 4), [2, 1])[0].unique().tolist() == [pytest.approx(1 / 12)]
