"""Whether Captum can replace the gradient of every rectifier of a network."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["captum_sees_all"]

_RECTIFIERS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.Softplus: "softplus",
    nn.MaxPool2d: "max_pool2d_with_indices",
}
"""Layers whose gradient Captum replaces, and the operation that each is."""

_USED_ONCE = (*_RECTIFIERS, nn.Sigmoid, nn.Tanh, nn.Softmax)
"""Layers that Captum's DeepLIFT does not let be used twice."""


def captum_sees_all(module: nn.Module, images: Tensor) -> bool:
    """Return whether every rectifier and max pooling is a layer of its own, used once.

    Captum hooks layers. It does not notice a function, and its DeepLIFT refuses a layer that is used twice.

    Args:
        module: Network in evaluation mode.
        images: Example ``(b, c, h, w)``.
    """
    calls: Counter[nn.Module] = Counter()
    layers = [layer for layer in module.modules() if isinstance(layer, _USED_ONCE)]
    hooks = [layer.register_forward_hook(lambda layer, *_: calls.update([layer])) for layer in layers]
    try:
        with torch.no_grad(), _Operations() as operations:
            # A copy, because the first layer may change its input in place.
            module(images.clone())
    finally:
        for hook in hooks:
            hook.remove()
    seen = Counter(name for layer in calls for kind, name in _RECTIFIERS.items() if isinstance(layer, kind))
    is_hidden = any(operations.counts[name] > seen[name] for name in _RECTIFIERS.values())
    return not is_hidden and max(calls.values(), default=0) <= 1


class _Operations(TorchDispatchMode):
    """Counts the operations that torch computes, by name; an operation in place counts as the other."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__.rstrip("_")] += 1
        return func(*args, **(kwargs or {}))
