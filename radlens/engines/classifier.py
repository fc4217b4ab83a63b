"""What computes a classifier and what explanations ask of it: its graphs, the module itself, or several members.

All three are :class:`radlens.explainers.Classifier`. Graphs are opened when they are first needed and are held against
their golden values then; see :mod:`radlens.engines.opening`.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.engines.base import BatchEngine
from radlens.engines.golden import golden_file
from radlens.engines.opening import open as open_engine
from radlens.errors import BundleError, InvalidInput, UnsupportedOperation

if TYPE_CHECKING:
    from radlens.graphs import ClassifierGraphs

__all__ = ["EagerClassifier", "EnsembleClassifier", "GraphClassifier", "class_weights"]

log = logging.getLogger(__name__)

EAGER_BATCH = 16
"""Images that torch computes together with autograd."""


def class_weights(targets: Tensor, n_outputs: int) -> Tensor:
    """Return rows ``(b, n_outputs)`` float32 whose product with the logits is the score of each image's class.

    Args:
        targets: ``(b,)`` int64.
        n_outputs: of the network; with one output, class 0 is its negative.
    """
    if n_outputs == 1:
        return torch.where(targets > 0, 1.0, -1.0)[:, None]
    return torch.nn.functional.one_hot(targets, n_outputs).float()


class GraphClassifier:
    """A classifier whose graphs are ONNX files.

    Args:
        paths: file of each graph that there is, by its name in :data:`radlens.graphs.GRAPHS`; ``"prediction"`` must be
            there.
        n_outputs: logits of an image.
        image_shape: ``(c, h, w)``.
        engine: see :func:`radlens.engines.open`.
        precision: see there.
        memory_limit: bytes that each engine may take, see there.
        twin: a classifier of the same network with other weights, such as another member of an ensemble. What is
            fastest for its graphs is taken without measuring again for graphs whose golden values it reproduces.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        n_outputs: int,
        image_shape: tuple[int, int, int],
        *,
        engine: str = "auto",
        precision: str = "f32",
        memory_limit: int | None = None,
        twin: "GraphClassifier | None" = None,
    ) -> None:
        self.n_outputs, self.image_shape = n_outputs, image_shape
        self._paths, self._twin = dict(paths), twin
        self._how: dict[str, Any] = {"engine": engine, "precision": precision, "memory_limit": memory_limit}
        self._opened: dict[str, BatchEngine] = {}

    def engine(self, name: str) -> BatchEngine:
        """Return what computes a graph.

        Raises:
            UnsupportedOperation: the model has no such graph.
            BundleError: no engine computes it rightly.
        """
        if name not in self._paths:
            raise UnsupportedOperation(f"the model must have a graph {name!r}, it has {', '.join(self._paths)}")
        if name not in self._opened:
            self._opened[name] = self._as_twin(name) or open_engine(self._paths[name], **self._how)
        return self._opened[name]

    def _as_twin(self, name: str) -> BatchEngine | None:
        if self._twin is None or not golden_file(self._paths[name]).is_file():
            return None
        found = self._twin.engine(name)
        try:
            return open_engine(self._paths[name], **{**self._how, "engine": found.name}, batch_size=found.batch_size)
        except BundleError as error:
            log.warning("engine %s is refused for %s: %s", found.name, self._paths[name].name, error)
            return None

    @property
    def engines(self) -> dict[str, str]:
        """Names of the engines that were opened, by graph."""
        return {name: engine.name for name, engine in self._opened.items()}

    def outputs(self, images: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._run("prediction", {"images": images})["output"]

    def score(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return (self.outputs(images) * class_weights(targets, self.n_outputs)).sum(dim=1)

    def gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._run("gradient", self._inputs(images, targets))["gradient"]

    def guided(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._run("guided", self._inputs(images, targets))["gradient"]

    def features(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `radlens.explainers.Classifier`."""
        found = self._run("features", self._inputs(images, targets))
        return found["features"], found["gradient"]

    def deep_lift(self, images: Tensor, baselines: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._run("deep_lift", {**self._inputs(images, targets), "baselines": baselines})["attribution"]

    def _inputs(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"images": images, "weights": class_weights(targets, self.n_outputs)}

    def _run(self, name: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {key: np.ascontiguousarray(value.float().numpy()) for key, value in inputs.items()}
        return {key: torch.from_numpy(value) for key, value in self.engine(name).run(arrays).items()}


class EagerClassifier:
    """A torch module, with autograd; guided backpropagation and DeepLIFT are Captum's.

    Slower than its graphs, and needs no export: for models that are looked at once, such as randomised ones.

    Args:
        module: maps ``(b, c, h, w)`` to logits ``(b, n)``; used in evaluation mode.
        image_shape: ``(c, h, w)``.
        layer: path of the module that returns the last feature maps; without it :meth:`features` compiles the module
            to find them, see :func:`radlens.graphs.classifier_graphs`.
    """

    def __init__(self, module: nn.Module, image_shape: tuple[int, int, int], *, layer: str | None = None) -> None:
        self.module, self.image_shape, self._layer = module.eval(), image_shape, layer
        with torch.no_grad():
            self.n_outputs = int(module(torch.zeros(1, *image_shape, dtype=self._dtype)).shape[1])

    @property
    def _dtype(self) -> torch.dtype:
        return next((value.dtype for value in self.module.parameters()), torch.float32)

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

        return self._in_parts(lambda part, classes: self._captum(GuidedBackprop, part, classes), images, targets)

    def deep_lift(self, images: Tensor, baselines: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        from captum.attr import DeepLift

        def compute(part: Tensor, classes: Tensor, starts: Tensor) -> Tensor:
            return self._captum(DeepLift, part, classes, baselines=starts)

        return self._in_parts(compute, images, targets, baselines)

    def features(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `radlens.explainers.Classifier`.

        Raises:
            UnsupportedOperation: no layer is named, and the module cannot be compiled or has no feature maps.
        """
        if self._layer is None:
            weights = class_weights(targets, self.n_outputs).to(images)
            return self._graphs["features"](images, weights)[1:]
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

        return classifier_graphs(
            self.module, torch.zeros(2, *self.image_shape, dtype=self._dtype), n_outputs=self.n_outputs
        )

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


class _Scored(nn.Module):
    """The score of each image's class: what Captum explains."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        return (self.module(images) * weights).sum(dim=1)


class EnsembleClassifier:
    """Several members as one classifier: its logits are the means of theirs.

    Maps of methods that are linear in the score - saliency with signs, integrated gradients, occlusion, CAM, DeepLIFT
    - are the means of the members' maps.

    Args:
        members: at least one, of one kind.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        if not members:
            raise InvalidInput("members must be at least one, got none")
        self.members = tuple(members)
        self.n_outputs, self.image_shape = members[0].n_outputs, members[0].image_shape

    def member_outputs(self, images: Tensor) -> Tensor:
        """Return the logits of each member, ``(m, b, n_outputs)``."""
        return torch.stack([member.outputs(images) for member in self.members])

    def outputs(self, images: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self.member_outputs(images).mean(dim=0)

    def score(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._mean("score", images, targets)

    def gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._mean("gradient", images, targets)

    def guided(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the members: each is a network of its own."""
        return self._mean("guided", images, targets)

    def features(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature maps of all members side by side; gradients are those of the mean score."""
        found = [member.features(images, targets) for member in self.members]
        activations, gradients = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return activations, gradients / len(self.members)

    def deep_lift(self, images: Tensor, baselines: Tensor, targets: Tensor) -> Tensor:
        """See `radlens.explainers.Classifier`."""
        return self._mean("deep_lift", images, baselines, targets)

    def _mean(self, kind: str, *arguments: Tensor) -> Tensor:
        return torch.stack([getattr(member, kind)(*arguments) for member in self.members]).mean(dim=0)
