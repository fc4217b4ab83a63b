"""What runs a CDMAM bundle: an engine for its prediction graph and one for its gradient graph."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radlens.bundles import Bundle
from radlens.engines.base import Engine, engine_class, offered
from radlens.engines.golden import Golden
from radlens.engines.opening import open as open_graph
from radlens.errors import BundleError, MissingDependency, RadlensError
from radlens.networks import CdcPrediction, FoldedCdmamEnsemble

__all__ = ["BundleEngine", "open_bundle"]

log = logging.getLogger(__name__)


class BundleEngine:
    """Predicts, scores and differentiates normalised images ``(b, 1, 250, 250)`` float32, any b.

    Attributes:
        name: of the engine, as provenance states it.
        precision: of its arithmetic.
    """

    def __init__(self, prediction: Engine, gradient: Engine) -> None:
        self._prediction, self._gradient = prediction, gradient
        self.name, self.precision = gradient.name, gradient.precision

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curve and uncertainty, each ``(b, 12)`` um of gold."""
        found = self._prediction.run({"images": images.float().numpy()})
        mean, aleatoric, epistemic = (torch.from_numpy(found[name]) for name in ("mean", "aleatoric", "epistemic"))
        return CdcPrediction(mean, aleatoric, epistemic, (aleatoric**2 + epistemic**2).sqrt())

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)``, um of gold."""
        return self.predict(images).mean.mean(dim=1)

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of Amanova et al. 2022, eq. (1), ``(b, 1, 250, 250)``."""
        return torch.from_numpy(self._gradient.run({"images": images.float().numpy()})["gradient"])


class WeightsEngine:
    """The ensemble itself, with autograd where a gradient is asked for: needs no graph; on the GPU if there is one.

    Args:
        model: computes.
        outputs: ``("mean", "aleatoric", "epistemic")`` or ``("score", "gradient")``.
        batch_size: images computed together.
    """

    precision = "f32"

    def __init__(self, model: FoldedCdmamEnsemble, outputs: Sequence[str], batch_size: int) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = "torch" if self._device == "cpu" else "torch-cuda"
        self._model, self._outputs, self.batch_size = model.to(self._device), tuple(outputs), batch_size

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of ``images``, ``(b, 1, 250, 250)`` float32."""
        chunks = torch.from_numpy(np.ascontiguousarray(inputs["images"])).split(self.batch_size)
        parts = [self._compute(chunk.to(self._device)) for chunk in chunks]
        return {
            name: torch.cat(values).cpu().numpy()
            for name, values in zip(self._outputs, zip(*parts, strict=True), strict=True)
        }

    def _compute(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            if "gradient" not in self._outputs:
                return tuple(self._model(images))
            score = self._model.score(images)
        return score, self._model.gradient(images)


PREDICTION = ("mean", "aleatoric", "epistemic")
"""Outputs of the prediction graph."""

GRADIENT = ("score", "gradient")
"""Outputs of the gradient graph."""


def open_bundle(bundle: Bundle, engine: str = "auto", precision: str = "f32") -> BundleEngine:
    """Return an engine that reproduces the golden values of ``bundle``.

    Args:
        bundle: the model.
        engine: a name in :func:`radlens.engines.names`, or ``"auto"`` for one that is there and passes. ``"torch"``
            needs the weights alone, no graph. Refusals are logged.
        precision: of the arithmetic.

    Raises:
        InvalidParameter: unknown engine or precision.
        BundleError: no engine, or not the one asked for, starts and passes.
    """
    known = [name for name in offered(precision) if not name.startswith("torch")]
    if engine not in ("auto", "torch"):
        engine_class(engine)
        known = [engine]
    if engine == "torch":
        known = []
    prediction, gradient = (
        _opened(bundle, path, outputs, known, precision, fall_back=engine in ("auto", "torch"))
        for path, outputs in ((bundle.prediction_onnx, PREDICTION), (bundle.gradient_onnx, GRADIENT))
    )
    return BundleEngine(prediction, gradient)


def _opened(
    bundle: Bundle, path: Path, outputs: Sequence[str], known: Sequence[str], precision: str, *, fall_back: bool
) -> Engine:
    for name in known:
        try:
            return open_graph(path, name, precision)
        except MissingDependency as error:
            log.debug("engine %s is not there: %s", name, error)
        except RadlensError as error:
            log.warning("engine %s is refused: %s", name, error)
    if fall_back:
        weights = WeightsEngine(bundle.model(), outputs, 16)
        golden = Golden.load(path)
        if golden is not None:
            golden.check(weights)
        return weights
    raise BundleError(f"an engine must reproduce the golden values of {path.name}, got none that does")
