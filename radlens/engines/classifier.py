"""What computes a classifier and what explanations ask of it: its graphs, the module itself, or several members.

All three are :class:`radlens.explainers.Classifier`. Graphs are opened when they are first needed and are held against
their golden values then; see :mod:`radlens.engines.opening`.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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
        self.n_outputs, self.image_shape, self.dtype = n_outputs, image_shape, torch.float32
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
        self.dtype = getattr(members[0], "dtype", torch.float32)

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
