"""A torch module as a model: autograd computes gradients, Captum the methods that replace them by rules."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from radlens.errors import InvalidInput
from radlens.explainers.model import Model

if TYPE_CHECKING:
    from radlens.graphs import ClassifierGraphs

__all__ = ["EAGER_BATCH", "EagerClassifier"]

EAGER_BATCH = 16
"""Number of images that autograd computes together."""


class EagerClassifier(Model):
    """A torch module under autograd; guided backpropagation is Captum's where it sees every layer.

    It is slower than exported graphs but needs no export, which suits models that are explained once, such as
    randomised ones. It computes with a copy in evaluation mode that shares the weights of the module. Weights in
    float16 or bfloat16 are converted to float32, because gradients in half precision are too coarse.

    Args:
        module: Maps ``(b, c, h, w)`` to logits ``(b, n)``.
        image_shape: ``(c, h, w)``.
        layer: Path of the module that returns the last feature maps; if None, tracing the module finds them.
        companions: Other networks that questions need, by name.
        as_is: Whether to explain the outputs of a module that ends in a softmax or sigmoid as they are; by default the
            logits before it are explained.
        as_captum: Compute DeepLIFT as Captum does, whose maps do not add up to the change of the score; see
            :mod:`radlens.graphs.captum_deep_lift`.

    Raises:
        InvalidInput: The module fails on images of this shape, does not map them to logits, or computes in half
            precision although its weights are float32.
        InvalidParameter: The module has no layer of this path.
    """

    n_outputs: int
    image_shape: tuple[int, int, int]

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, int, int],
        *,
        layer: str | None = None,
        companions: Mapping[str, nn.Module] | None = None,
        as_is: bool = False,
        as_captum: bool = False,
    ) -> None:
        from radlens.graphs.logits import logits_of_module
        from radlens.graphs.tracing import evaluating_copy

        self.module, self.image_shape, self._layer = evaluating_copy(module), image_shape, layer
        self._companions, self._as_captum = dict(companions or {}), as_captum
        self._traced_like: EagerClassifier | None = None
        self.dtype = next((value.dtype for value in self.module.parameters()), torch.float32)
        self.n_outputs = self._count_outputs()
        if not as_is:
            self.module, _ = logits_of_module(self.module, self._black)

    def _count_outputs(self) -> int:
        try:
            with torch.no_grad():
                found = self.module(self._black)
        except RuntimeError as error:
            raise InvalidInput(f"images must fit the model, got shape {self.image_shape}: {error}") from error
        if not isinstance(found, Tensor) or found.ndim != 2:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InvalidInput(f"model must map images to logits (b, n), got {got}")
        if found.dtype != self.dtype:
            raise InvalidInput(
                f"model must compute in {self.dtype}, the type of its weights, got logits in {found.dtype}; "
                "convert it with .float() and remove autocast from its forward"
            )
        return found.shape[1]

    @property
    def _black(self) -> Tensor:
        return torch.zeros(1, *self.image_shape, dtype=self.dtype)

    @cached_property
    def _graphs(self) -> "ClassifierGraphs":
        from radlens.graphs import ClassifierGraphs

        if self._traced_like is not None:
            return self._traced_like._graphs.with_weights(self.module)
        return ClassifierGraphs.of(
            self.module,
            self._black,
            self.n_outputs,
            layer=self._layer,
            as_captum=self._as_captum,
            companions=self._companions,
        )

    def with_weights(self, module: nn.Module) -> "EagerClassifier":
        """Return the model of a module of the same structure with other weights; where it is traced, it is so once."""
        found = EagerClassifier(
            module, self.image_shape, layer=self._layer, companions=self._companions, as_captum=self._as_captum
        )
        found._traced_like = self
        return found

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        from radlens.graphs import asks

        asked = asks.spec(name)
        self._graphs.require_companions(asked)
        if "weights" in asked.inputs:
            arrays = {**arrays, "weights": self._weights(targets).to(arrays["images"])}
        parts = zip(*(arrays[each].split(EAGER_BATCH) for each in asked.inputs), strict=True)
        found = [asked.eager(self._graphs, *part) for part in parts]
        return tuple(torch.cat(column) for column in zip(*found, strict=True))

    def can(self, name: str) -> str | None:
        """Return why the module cannot answer a question, or None if it can."""
        from radlens.graphs import asks

        missing = [] if name == asks.SCORE else sorted(set(asks.spec(name).companions) - set(self._companions))
        return f"it needs a companion network, {', '.join(missing)}" if missing else None
