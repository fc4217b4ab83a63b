"""The engines of a CDMAM bundle: one for its prediction graph and one for its gradient graph."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.engines import memory
from radlens.engines.base import DEFAULT_BATCH_SIZE, Options, Refusal, engine_class, offered
from radlens.engines.calibration import Calibration, Candidate, Choice, Progress
from radlens.engines.golden import Golden
from radlens.engines.graph_file import GraphFile, file_sha256
from radlens.engines.memory import Footprint
from radlens.engines.opening import calibrated, candidates, is_there
from radlens.engines.parity import disallowed
from radlens.errors import BundleError
from radlens.families.cdmam.manifest import GRADIENT_ONNX, MEMBERS_ONNX, PREDICTION_ONNX, WEIGHTS, Bundle
from radlens.families.cdmam.members import CdmamMembers
from radlens.families.cdmam.phantom_model import PhantomModel
from radlens.images.sampling import SAMPLED_SHAPE
from radlens.networks import CdcPrediction, FoldedCdmamEnsemble

__all__ = ["GRADIENT", "PREDICTION", "BundleEngine", "WeightsEngine", "open_bundle"]

PREDICTION = ("mean", "aleatoric", "epistemic")
"""Outputs of the prediction graph."""

GRADIENT = ("score", "gradient")
"""Outputs of the gradient graph."""

_AUTOGRAD_BYTES = 25_000_000
"""Memory that autograd takes for one image and one member, bytes, rounded up."""

log = logging.getLogger(__name__)


class BundleEngine(PhantomModel):
    """Predicts, scores and differentiates normalised images ``(b, 1, 250, 250)`` float32, any b.

    Attributes:
        name: name of the engine of the gradient graph, which does nearly all of the work.
        precision: arithmetic precision of that engine.
        batch_size: number of images whose gradients are computed together; larger calls are not faster.
        refused: engines that cannot compute a graph, with reasons.
        calibrations: measurements of the engines, by name of the graph.

    Args:
        choices: chosen engine of the prediction and the gradient, by name of the graph.
        open_members: function that opens the graph of the members.
        logarithmic: whether the members predict logarithms.
    """

    def __init__(
        self, choices: Mapping[str, Choice], open_members: Callable[[], CdmamMembers], *, logarithmic: bool = False
    ) -> None:
        self._open_members, self._logarithmic = open_members, logarithmic
        self._prediction, self._gradient = (choices[name].engine for name in (PREDICTION_ONNX, GRADIENT_ONNX))
        self._peaks = [choice.peak for choice in choices.values()]
        self.name, self.precision = self._gradient.name, self._gradient.precision
        self.batch_size = self._gradient.batch_size
        self.refused = tuple(
            Refusal(name, graph, reason) for graph, choice in choices.items() for name, reason in choice.refused.items()
        )
        self.calibrations: dict[str, Calibration] = {name: choice.calibration for name, choice in choices.items()}

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curve and uncertainty, each ``(b, 12)`` um of gold."""
        found = self._prediction.run({"images": images.float().numpy()})
        parts = (torch.from_numpy(found[name]) for name in PREDICTION)
        return CdcPrediction.from_parts(*parts, logarithmic=self._logarithmic)

    def _gradients(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._gradient.run({"images": images.float().numpy()})["gradient"])

    @cached_property
    def each(self) -> CdmamMembers:
        """The single members; their graph is opened, and engines are measured, at the first access.

        Raises:
            BundleError: No engine can compute the graph.
        """
        return self._open_members()

    @property
    def peak_memory(self) -> int | None:
        """Estimated peak memory of the larger graph, bytes; None if it is unknown."""
        known = [peak for peak in self._peaks if peak is not None]
        return max(known) if len(known) == len(self._peaks) else None

    def stated(self) -> dict[str, Any]:
        """Return the provenance of the engine as JSON values."""
        return {
            "engine": self.name,
            "precision": self.precision,
            "prediction_engine": self._prediction.name,
            "batch_size": self.batch_size,
            "peak_memory_bytes": self.peak_memory,
            "refused_engines": [vars(refusal) for refusal in self.refused],
        }


class WeightsEngine:
    """Engine that computes with the weights of the ensemble and autograd instead of a graph, on a GPU if there is one.

    Args:
        model: the ensemble.
        outputs: :data:`PREDICTION` or :data:`GRADIENT`.
        each: whether to compute the gradient of each member for its own image.
    """

    precision = "f32"

    def __init__(self, model: FoldedCdmamEnsemble, outputs: Sequence[str], *, each: bool = False) -> None:
        from radlens.families.cdmam.gradient import CdmamMemberGradients

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = "torch" if self._device == "cpu" else "torch-cuda"
        self.batch_size = DEFAULT_BATCH_SIZE
        self._model, self._outputs = model.to(self._device), tuple(outputs)
        self._each = CdmamMemberGradients(self._model) if each else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of ``images``, ``(b, 1, 250, 250)`` float32, or ``(b, m, 250, 250)`` if ``each``."""
        chunks = torch.from_numpy(np.ascontiguousarray(inputs["images"])).split(self.batch_size)
        parts = [self._compute(chunk.to(self._device)) for chunk in chunks]
        joined = [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]
        return dict(zip(self._outputs, joined, strict=True))

    def _compute(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            if self._each is not None:
                return tuple(self._each(images))
            if self._outputs == PREDICTION:
                return tuple(self._model(images))
            score = self._model.score(images)
        return score, self._model.gradient(images)


def open_bundle(
    bundle: Bundle,
    engine: str = "auto",
    precision: str = "f32",
    *,
    memory_limit: int | None = None,
    again: bool = False,
    on_progress: Progress | None = None,
) -> BundleEngine:
    """Open a bundle with engines that reproduce the golden values of its graphs.

    A damaged graph and an engine that fails are refused, and the next engine is tried. The last one is ``"torch"``,
    which needs the weights and not a graph.

    Args:
        bundle: the model.
        engine: a name in :func:`radlens.engines.names`, or ``"auto"`` for the fastest engine of each graph. An engine
            for the gradient graph alone leaves predictions to the fastest engine.
        precision: arithmetic precision. Below f32 the parity report of the bundle must allow the engine; engines that
            are missing in the report are measured by the same rule (:mod:`radlens.engines.parity`).
        memory_limit: bytes that each of the two engines may take; None for the limit of
            :func:`radlens.engines.memory.memory_limit`.
        again: whether to measure even if a stored calibration exists.
        on_progress: callback ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        InvalidParameter: The engine or the precision is unknown.
        MissingDependency: The engine is not installed.
        BundleError: The requested engine does not pass, or with ``"auto"`` no engine passes.
    """
    offering = offered(precision)
    if engine != "auto":
        engine_class(engine).require()
    # In float32 torch computes with the weights, on a GPU too, so torch-cuda would be a second name for it.
    everything = [name for name in offering if name != "torch-cuda"]
    wanted = everything if engine == "auto" else [engine]
    alone = engine != "auto" and engine_class(engine).gradients_only
    choose_for = partial(
        _choice, bundle, precision, memory.memory_limit(memory_limit), again=again, on_progress=on_progress
    )

    def open_members() -> CdmamMembers:
        choice = choose_for(MEMBERS_ONNX, GRADIENT, everything if alone else wanted)
        return CdmamMembers(choice.engine, bundle.model())

    opened = BundleEngine(
        {
            GRADIENT_ONNX: choose_for(GRADIENT_ONNX, GRADIENT, wanted),
            PREDICTION_ONNX: choose_for(PREDICTION_ONNX, PREDICTION, everything if alone else wanted),
        },
        open_members,
        logarithmic=bundle.manifest.logarithmic,
    )
    log.info("engine %s computes gradients in batches of %d, in %s", opened.name, opened.batch_size, precision)
    return opened


def _choice(
    bundle: Bundle, precision: str, limit: int, file: str, outputs: Sequence[str], names: Sequence[str], **how: Any
) -> Choice:
    """Choose the fastest of the engines ``names`` for one graph."""
    path, each = bundle.path / file, file == MEMBERS_ONNX
    n_images = bundle.manifest.n_members if each else 1
    by_weights = "torch" in names and precision == "f32"
    refused = {name: reason for name in names if (reason := disallowed(bundle.manifest.parity, file, name, precision))}
    wanted = [name for name in names if name not in refused and not (by_weights and name == "torch")]
    found: list[Candidate] = []
    key = {"bundle": bundle.bundle_hash}
    try:
        found = candidates(_intact(bundle, file), wanted, precision, Options())
        key["graph"] = file_sha256(path)
    except BundleError as error:
        refused |= {name: str(error) for name in wanted if is_there(name)}
    if by_weights:
        found.append(_weights(bundle, outputs, each=each))
        key["weights"] = file_sha256(bundle.path / WEIGHTS)
    return calibrated(path, found, partial(_images, n_images), limit, key, refused=refused, **how)


def _intact(bundle: Bundle, file: str) -> GraphFile:
    if file in bundle.damaged:
        raise BundleError(bundle.damaged[file])
    if file not in bundle.manifest.files:
        raise BundleError(f"bundle must hold {file}, it was exported without")
    return GraphFile.load(bundle.path / file)


def _weights(bundle: Bundle, outputs: Sequence[str], *, each: bool) -> Candidate:
    needed = Footprint(0, _AUTOGRAD_BYTES * bundle.manifest.n_members)
    return Candidate("torch", "f32", lambda: WeightsEngine(bundle.model(), outputs, each=each), needed)


def _images(n_images: int, golden: Golden | None, batch_size: int) -> dict[str, np.ndarray]:
    """Return inputs for measurements, with ``n_images`` images in each row of the batch."""
    shape = (batch_size, n_images, *SAMPLED_SHAPE)
    if golden is not None:
        return {"images": np.resize(golden.inputs["images"], shape)}
    return {"images": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
