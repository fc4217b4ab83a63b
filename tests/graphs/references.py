"""What autograd computes, and how far from it other numbers are."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def autograd(module: nn.Module, inputs: tuple[Tensor, ...], score: Callable, wrt: int = 0) -> list[Tensor]:
    """Return the leaves of the output, and last the gradient, as torch computes them."""
    inputs = tuple(x.clone().requires_grad_(k == wrt) for k, x in enumerate(inputs))
    output = module(*inputs)
    (gradient,) = torch.autograd.grad(score(output).sum(), inputs[wrt])
    return [*(leaf.detach() for leaf in pytree.tree_leaves(output)), gradient]


def relative(found: Tensor, expected: Tensor) -> float:
    """Return ``|found - expected| / |expected|`` in the Euclidean norm."""
    found, expected = torch.as_tensor(found).double(), expected.double()
    return float((found - expected).norm() / expected.norm())
