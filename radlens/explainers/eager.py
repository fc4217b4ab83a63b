"""A torch module as methods see it: with autograd, and with Captum where a rule replaces gradients."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from radlens.errors import InvalidInput
from radlens.explainers.scores import class_weights

if TYPE_CHECKING:
    from radlens.graphs import ClassifierGraphs

__all__ = ["EAGER_BATCH", "EagerClassifier"]

EAGER_BATCH = 16
"""Images that torch computes together with autograd."""

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


class EagerClassifier:
    """A torch module, with autograd; guided backpropagation and DeepLIFT are Captum's where it sees every layer.

    Slower than its graphs, and needs no export: for models that are looked at once, such as randomised ones. Captum
    takes no notice of a rectifier or a max pooling that is called as a function, and its DeepLIFT refuses layers that
    are used twice; such a network is compiled.

    Args:
        module: maps ``(b, c, h, w)`` to logits ``(b, n)``; used in evaluation mode.
        image_shape: ``(c, h, w)``.
        layer: path of the module that returns the last feature maps; without it :meth:`features` compiles the module
            to find them, see :func:`radlens.graphs.classifier_graphs`.

    Raises:
        InvalidInput: the module takes no such images, or maps them to something else than logits.
    """

    def __init__(self, module: nn.Module, image_shape: tuple[int, int, int], *, layer: str | None = None) -> None:
        self.module, self.image_shape, self._layer = module.eval(), image_shape, layer
        self.n_outputs = self._count_outputs()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of images that can be computed."""
        return next((value.dtype for value in self.module.parameters()), torch.float32)

    def _count_outputs(self) -> int:
        try:
            with torch.no_grad():
                found = self.module(self._black)
        except RuntimeError as error:
            raise InvalidInput(f"images must fit the model, got shape {self.image_shape}: {error}") from error
        if not isinstance(found, Tensor) or found.ndim != 2:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InvalidInput(f"model must map images to logits (b, n), got {got}")
        return found.shape[1]

    @property
    def _black(self) -> Tensor:
        return torch.zeros(1, *self.image_shape, dtype=self.dtype)

    def outputs(self, images: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        with torch.no_grad():
            return torch.cat([self.module(part) for part in images.split(EAGER_BATCH)])

    def score(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        outputs = self.outputs(images)
        return (outputs * class_weights(targets, self.n_outputs).to(outputs)).sum(dim=1)

    def gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._in_parts(self._gradient, images, targets)

    def guided(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        from captum.attr import GuidedBackprop

        if not self._captum_sees_all:
            return self._in_parts(lambda *part: self._compiled("guided", *part), images, targets)
        return self._in_parts(lambda part, classes: self._captum(GuidedBackprop, part, classes), images, targets)

    def deep_lift(self, images: Tensor, baselines: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        from captum.attr import DeepLift

        if not self._captum_sees_all:
            return self._in_parts(lambda *part: self._compiled("deep_lift", *part), images, baselines, targets)

        def compute(part: Tensor, classes: Tensor, starts: Tensor) -> Tensor:
            return self._captum(DeepLift, part, classes, baselines=starts)

        return self._in_parts(compute, images, targets, baselines)

    def features(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `radlens.explainers.Classifier`.

        Raises:
            UnsupportedOperation: no layer is named, and the module cannot be compiled or has no feature maps.
        """
        if self._layer is None:
            return self._graphs["features"](images, class_weights(targets, self.n_outputs).to(images))[1:]
        kept: list[Tensor] = []
        hook = self.module.get_submodule(self._layer).register_forward_hook(lambda _, __, out: kept.append(out))
        try:
            with torch.enable_grad():
                score = self._scored(images.detach().requires_grad_(), targets).sum()
                (gradient,) = torch.autograd.grad(score, kept[0])
        finally:
            hook.remove()
        return kept[0].detach(), gradient

    @cached_property
    def _graphs(self) -> "ClassifierGraphs":
        from radlens.graphs import classifier_graphs

        return classifier_graphs(self.module, self._black, n_outputs=self.n_outputs)

    def _compiled(self, name: str, *images_and_targets: Tensor) -> Tensor:
        *images, targets = images_and_targets
        found: Tensor = self._graphs[name](*images, class_weights(targets, self.n_outputs).to(images[0]))[1]
        return found

    @cached_property
    def _captum_sees_all(self) -> bool:
        calls: Counter[nn.Module] = Counter()
        layers = [layer for layer in self.module.modules() if isinstance(layer, _USED_ONCE)]
        hooks = [layer.register_forward_hook(lambda layer, *_: calls.update([layer])) for layer in layers]
        try:
            with torch.no_grad(), _Operations() as operations:
                self.module(self._black)
        finally:
            for hook in hooks:
                hook.remove()
        seen = Counter(name for layer in calls for kind, name in _RECTIFIERS.items() if isinstance(layer, kind))
        is_hidden = any(operations.counts[name] > seen[name] for name in _RECTIFIERS.values())
        return not is_hidden and max(calls.values(), default=0) <= 1

    def _gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self._scored(images, targets).sum(), images)[0]

    def _scored(self, images: Tensor, targets: Tensor) -> Tensor:
        outputs = self.module(images)
        return (outputs * class_weights(targets, self.n_outputs).to(outputs)).sum(dim=1)

    def _captum(self, method: Callable[..., Any], images: Tensor, targets: Tensor, **others: Tensor) -> Tensor:
        weights = class_weights(targets, self.n_outputs).to(images)
        with torch.enable_grad(), warnings.catch_warnings():
            # Captum announces its hooks with a warning.
            warnings.simplefilter("ignore")
            found = method(_Scored(self.module)).attribute(
                images.detach().requires_grad_(), additional_forward_args=(weights,), **others
            )
        return found.detach()

    @staticmethod
    def _in_parts(compute: Callable[..., Tensor], *arrays: Tensor) -> Tensor:
        parts = zip(*(array.split(EAGER_BATCH) for array in arrays), strict=True)
        return torch.cat([compute(*part) for part in parts])


class _Operations(TorchDispatchMode):
    """Counts what torch computes, by name; an operation in place counts as the other."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__.rstrip("_")] += 1
        return func(*args, **(kwargs or {}))


class _Scored(nn.Module):
    """The score of each image's class: what Captum explains."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        return (self.module(images) * weights).sum(dim=1)
