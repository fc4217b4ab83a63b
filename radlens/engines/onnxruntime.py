"""The ONNX Runtime engine: prediction and gradient as two graphs without autograd."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.bundles import Bundle
from radlens.errors import BundleError, MissingDependency
from radlens.networks import CdcPrediction

__all__ = ["OnnxRuntimeEngine", "open_session"]

_CHUNK = 8
"""Images computed together: what fits the caches of a CPU best and bounds memory."""


def open_session(file: Path) -> Any:
    """Open a graph on the CPU with as many threads as torch uses.

    Raises:
        MissingDependency: ``onnxruntime`` is not installed.
        BundleError: the file holds no graph that ONNX Runtime can run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("engine onnxruntime needs the package onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own without a common root
        raise BundleError(
            f"{file.name} must be a graph that ONNX Runtime can run, got {type(error).__name__}"
        ) from error


class OnnxRuntimeEngine:
    """Runs a bundle with ONNX Runtime on the CPU.

    Raises:
        MissingDependency: ``onnxruntime`` is not installed.
        BundleError: the bundle holds no usable graphs.
    """

    name = "onnxruntime"
    precision = "float32"

    def __init__(self, bundle: Bundle) -> None:
        self._prediction = open_session(bundle.prediction_onnx)
        self._gradient = open_session(bundle.gradient_onnx)

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


def _run(session: Any, outputs: tuple[str, ...], images: Tensor) -> list[Tensor]:
    """Run ``session`` on ``images`` in chunks of bounded size and join the outputs."""
    parts = [session.run(list(outputs), {"images": chunk.numpy()}) for chunk in images.float().split(_CHUNK)]
    return [torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)]
