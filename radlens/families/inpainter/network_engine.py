"""The engine of an inpainter, and the network itself where its graph cannot be used."""

import logging
from collections.abc import Mapping

import numpy as np
import torch

from radlens.engines.base import DEFAULT_BATCH_SIZE, BatchEngine, Refusal, names
from radlens.engines.golden import Golden
from radlens.engines.opening import is_there
from radlens.engines.opening import open as open_engine
from radlens.errors import BundleError
from radlens.families.inpainter.manifest import GRAPH, InpainterBundle
from radlens.networks import PartialConvInpainter

__all__ = ["NetworkEngine", "open_inpainter"]

_log = logging.getLogger(__name__)


class NetworkEngine:
    """Compute the graph with the network in torch.

    Args:
        network: Network in evaluation mode.
    """

    name, precision = "torch", "f32"

    def __init__(self, network: PartialConvInpainter) -> None:
        self.batch_size = DEFAULT_BATCH_SIZE
        self._network = network

    @torch.no_grad()
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return ``inpainted`` for ``images`` and ``masks``."""
        arrays = (torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in ("images", "masks"))
        parts = zip(*(each.split(self.batch_size) for each in arrays), strict=True)
        return {"inpainted": torch.cat([self._network(*part) for part in parts]).numpy()}


def open_inpainter(
    bundle: InpainterBundle, engine: str = "auto", precision: str = "f32", *, memory_limit: int | None = None
) -> tuple[BatchEngine, tuple[Refusal, ...]]:
    """Open the graph of a bundle, or the network if the graph is damaged or no engine computes it correctly.

    Args:
        bundle: The model.
        engine: Name of an engine, or ``"auto"`` for the fastest.
        precision: Precision of the arithmetic.
        memory_limit: Most bytes that the engine may take; None for the default.

    Returns:
        The engine, and the engines that were refused because the network replaces the graph.

    Raises:
        BundleError: The engine, or with ``"auto"`` no engine, computes the graph correctly.
        InvalidParameter: The engine or the precision is unknown.
        MissingDependency: The engine is not installed.
    """
    try:
        if GRAPH in bundle.damaged:
            raise BundleError(bundle.damaged[GRAPH])
        return open_engine(bundle.graph, engine, precision, memory_limit=memory_limit), ()
    except BundleError as error:
        if engine not in ("auto", NetworkEngine.name) or precision != NetworkEngine.precision:
            raise
        found = NetworkEngine(bundle.network())
        if (golden := Golden.load(bundle.graph)) is not None:
            golden.check(found)
        _log.warning("the network computes %s: %s", GRAPH, error)
        return found, tuple(Refusal(each, GRAPH, str(error)) for each in names() if is_there(each))
