"""The OpenVINO engine: the same graphs as ONNX Runtime's, faster on CPUs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.bundles import Bundle
from radlens.errors import BundleError, MissingDependency
from radlens.networks import CdcPrediction

__all__ = ["OpenVinoEngine"]

_CHUNK = 8
"""Images computed together, which bounds memory; larger chunks gain nothing."""


class OpenVinoEngine:
    """Runs a bundle with OpenVINO on the CPU, in float32: its default may be less, which is not safe for gradients.

    Raises:
        MissingDependency: ``openvino`` is not installed.
        BundleError: the bundle holds no usable graphs.
    """

    name = "openvino"
    precision = "float32"

    def __init__(self, bundle: Bundle) -> None:
        self._prediction = _compiled(bundle.prediction_onnx)
        self._gradient = _compiled(bundle.gradient_onnx)

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curve and uncertainty, each ``(b, 12)`` um of gold."""
        mean, aleatoric, epistemic = _run(self._prediction, ("mean", "aleatoric", "epistemic"), images)
        return CdcPrediction(mean, aleatoric, epistemic, (aleatoric**2 + epistemic**2).sqrt())

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)``, um of gold."""
        return self.predict(images).mean.mean(dim=1)

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of Amanova et al. 2022, eq. (1), ``(b, 1, 250, 250)``."""
        return _run(self._gradient, ("gradient",), images)[0]


def _compiled(file: Path) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency("engine openvino needs the package openvino") from error
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        return openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise BundleError(f"{file.name} must be a graph that OpenVINO can run") from error


def _run(request: Any, outputs: tuple[str, ...], images: Tensor) -> list[Tensor]:
    """Run ``request`` on ``images`` in chunks of bounded size and join the outputs."""
    parts = []
    for chunk in images.float().split(_CHUNK):
        results = request.infer({"images": chunk.numpy()})
        parts.append([results[name].copy() for name in outputs])
    return [torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)]
