"""What an engine is, and how one is chosen for a bundle: none is trusted unseen."""

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from radlens.bundles import Bundle
from radlens.engines.onnxruntime import OnnxRuntimeEngine
from radlens.engines.openvino import OpenVinoEngine
from radlens.engines.torch import TorchEngine
from radlens.errors import BundleError, InvalidParameter, RadlensError
from radlens.networks import CdcPrediction

__all__ = ["ENGINES", "GOLDEN_TOLERANCE", "Engine", "open_bundle"]

GOLDEN_TOLERANCE = 10.0
"""An engine may be this many times as far from float64 as eager float32 was when the bundle was made."""

_FLOOR = 1e-5

log = logging.getLogger(__name__)


class Engine(Protocol):
    """A CDMAM ensemble that some runtime executes; images are normalised, ``(b, 1, 250, 250)`` float32, any b.

    Attributes:
        name: of the runtime, as provenance states it.
        precision: of its arithmetic.
    """

    name: str
    precision: str

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curve and uncertainty, each ``(b, 12)`` um of gold."""

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)``, um of gold."""

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of Amanova et al. 2022, eq. (1), ``(b, 1, 250, 250)``."""


ENGINES: dict[str, Callable[[Bundle], Engine]] = {
    "openvino": OpenVinoEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "torch": TorchEngine,
}
"""Engines by name, the fastest on a CPU first."""


def open_bundle(bundle: Bundle, engine: str = "auto") -> Engine:
    """Return an engine that reproduces the golden values of ``bundle``.

    Args:
        bundle: the model.
        engine: a name in :data:`ENGINES`, or ``"auto"`` for the first that starts and passes; refusals are logged.

    Raises:
        InvalidParameter: unknown engine.
        BundleError: no engine, or not the one asked for, starts and passes.
    """
    if engine not in ("auto", *ENGINES):
        raise InvalidParameter(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")
    for name in ENGINES if engine == "auto" else (engine,):
        try:
            candidate = ENGINES[name](bundle)
            check_golden(candidate, bundle)
        except RadlensError as error:
            log.warning("engine %s is refused: %s", name, error)
            continue
        return candidate
    raise BundleError(f"engine {engine} must reproduce the golden values of the bundle, got none that does")


def check_golden(engine: Engine, bundle: Bundle) -> None:
    """Hold ``engine`` against the float64 values stored in ``bundle``; a bundle without them is not checked.

    Raises:
        BundleError: prediction or gradient is too far off.
    """
    if not bundle.golden.is_file():
        return
    with np.load(bundle.golden) as golden:
        images = torch.from_numpy(golden["images"])
        found = {"prediction": engine.predict(images).mean, "gradient": engine.gradient(images)}
        expected = {"prediction": golden["mean"], "gradient": golden["gradient"]}
    for quantity, value in found.items():
        error = np.linalg.norm(value.double().numpy() - expected[quantity]) / np.linalg.norm(expected[quantity])
        limit = max(GOLDEN_TOLERANCE * bundle.manifest.parity[quantity]["eager"], _FLOOR)
        if not error <= limit:
            raise BundleError(f"{quantity} must be within {limit:.1e} of the golden values, got {error:.1e}")
