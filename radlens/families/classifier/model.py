"""Classifiers whose graphs engines compute, and ensembles of them.

Both are a `radlens.explainers.Model`, like the torch module itself (`radlens.explainers.EagerClassifier`). Graphs are
opened and checked against their golden values when they are first needed (`radlens.engines.opening`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.engines.base import DEFAULT_BATCH_SIZE, BatchEngine, Refusal
from radlens.engines.base import names as engine_names
from radlens.engines.golden import Golden, golden_file
from radlens.engines.opening import is_there
from radlens.engines.opening import open as open_engine
from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.explainers import Model
from radlens.graphs import asks

__all__ = ["EnsembleClassifier", "GraphClassifier", "TracedEngine"]

log = logging.getLogger(__name__)


class GraphClassifier(Model):
    """A classifier whose graphs are ONNX files.

    Args:
        paths: file of each graph by its name in :mod:`radlens.graphs.asks`; ``"prediction"`` is required.
        n_outputs: number of logits of an image.
        image_shape: shape ``(c, h, w)`` of images.
        engine: name of the engine, or ``"auto"`` for the fastest.
        precision: arithmetic precision of the engines.
        memory_limit: bytes that each engine may take; None for the default.
        twin: classifier of the same network with other weights, such as another member of an ensemble. Its fastest
            engine of a graph is used without new measurements if it reproduces the golden values.
        damaged: reason why a graph must not be used, by name of the graph.
        traced: function that opens the traced module, which replaces graphs of `TracedEngine.GRAPHS` that are damaged
            or that no engine computes correctly. It must reproduce their golden values. None without a traced module.

    Attributes:
        refused: engines that must not compute a graph, with the reasons.
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
        damaged: Mapping[str, str] | None = None,
        traced: "Callable[[], TracedEngine] | None" = None,
    ) -> None:
        self.n_outputs, self.image_shape, self.dtype = n_outputs, image_shape, torch.float32
        self._paths, self._twin = dict(paths), twin
        self._how: dict[str, Any] = {"engine": engine, "precision": precision, "memory_limit": memory_limit}
        self._opened: dict[str, BatchEngine] = {}
        self._damaged, self._traced = dict(damaged or {}), traced
        self.refused: tuple[Refusal, ...] = ()
        for name, reason in self._damaged.items():
            self._refuse(name, reason)

    def engine(self, name: str) -> BatchEngine:
        """Return the engine of a graph.

        Raises:
            UnsupportedOperation: The model does not have this graph.
            BundleError: No engine computes the graph correctly.
        """
        if name not in self._paths:
            raise UnsupportedOperation(f"the model must have a graph {name!r}, it has {', '.join(self._paths)}")
        if name not in self._opened:
            self._opened[name] = self._as_twin(name) or self._newly_opened(name)
        return self._opened[name]

    def _newly_opened(self, name: str) -> BatchEngine:
        path = self._paths[name]
        try:
            if name in self._damaged:
                raise BundleError(self._damaged[name])
            return open_engine(path, **self._how)
        except BundleError as error:
            if self._traced is None or name not in TracedEngine.GRAPHS:
                raise
            opened = self._traced()
            if (golden := Golden.load(path)) is not None:
                golden.check(opened)
            log.warning("the traced module computes %s: %s", path.name, error)
            if name not in self._damaged:
                self._refuse(name, str(error))
            return opened

    def _refuse(self, name: str, reason: str) -> None:
        file = self._paths[name].name
        self.refused += tuple(Refusal(each, file, reason) for each in engine_names() if is_there(each))

    def _as_twin(self, name: str) -> BatchEngine | None:
        if self._twin is None or name in self._damaged or not golden_file(self._paths[name]).is_file():
            return None
        found = self._twin.engine(name)
        if isinstance(found, TracedEngine):
            return None
        try:
            return open_engine(self._paths[name], **{**self._how, "engine": found.name}, batch_size=found.batch_size)
        except BundleError as error:
            log.warning("engine %s is refused for %s: %s", found.name, self._paths[name].name, error)
            return None

    @property
    def engines(self) -> dict[str, str]:
        """Names of the opened engines by graph."""
        return {name: engine.name for name, engine in self._opened.items()}

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        asked = asks.spec(name)
        if "weights" in asked.inputs:
            arrays = {**arrays, "weights": self._weights(targets)}
        found = self._run(name, arrays)
        return tuple(found[each] for each in asked.answers)

    def can(self, name: str) -> str | None:
        """Return why the model cannot answer a question, or None if it can."""
        graph = asks.PREDICTION if name == asks.SCORE else name
        return None if graph in self._paths else f"the model has no graph {graph!r}"

    def _run(self, name: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {key: np.ascontiguousarray(value.float().numpy()) for key, value in inputs.items()}
        return {key: torch.from_numpy(value) for key, value in self.engine(name).run(arrays).items()}


class TracedEngine:
    """Engine that computes one member of a traced ensemble with torch and autograd instead of its graphs.

    Args:
        members: module that maps images ``(b, c, h, w)`` to logits ``(b, m, n_outputs)``.
        number: index of the member.
    """

    GRAPHS = ("prediction", "gradient")
    """Graphs that the engine can replace."""

    name, precision = "torch", "f32"

    def __init__(self, members: nn.Module, number: int) -> None:
        self.batch_size = DEFAULT_BATCH_SIZE
        self._members, self._number = members, number

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the logits of ``images`` and, if ``weights`` are given, the gradient of the weighted logits."""
        arrays = [torch.from_numpy(np.ascontiguousarray(inputs[key])) for key in ("images", "weights") if key in inputs]
        parts = [self._compute(*part) for part in zip(*(each.split(self.batch_size) for each in arrays), strict=True)]
        return {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}

    def _compute(self, images: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        if weights is None:
            with torch.no_grad():
                return {"output": self._members(images)[:, self._number]}
        images = images.clone().requires_grad_()
        with torch.enable_grad():
            output = self._members(images)[:, self._number]
            (gradient,) = torch.autograd.grad((output * weights).sum(), images)
        return {"output": output.detach(), "gradient": gradient}


class EnsembleClassifier(Model):
    """Ensemble of classifiers, whose logits are the means of the members' logits.

    Maps of methods that are linear in the score (signed saliency, integrated gradients, occlusion, CAM, DeepLIFT) are
    the means of the members' maps.

    Args:
        members: at least one classifier; all have the same outputs and the same image shape.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        if not members:
            raise InvalidInput("members must be at least one, got none")
        self.members: tuple[Any, ...] = tuple(members)
        self.n_outputs, self.image_shape = members[0].n_outputs, members[0].image_shape
        self.dtype = members[0].dtype

    def member_outputs(self, images: Tensor) -> Tensor:
        """Return the logits of each member, ``(m, b, n_outputs)``."""
        return torch.stack([member.outputs(images) for member in self.members])

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return asks.spec(name).join([member.ask(name, targets, **arrays) for member in self.members])

    def can(self, name: str) -> str | None:
        """Return why a member cannot answer a question, or None if every member can."""
        return next((reason for member in self.members if (reason := member.can(name)) is not None), None)
