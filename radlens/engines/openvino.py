"""OpenVINO on the CPU."""

from importlib.metadata import version
from types import ModuleType

import numpy as np

from radlens.engines.base import GraphEngine, Options, register
from radlens.engines.graph_file import GraphFile
from radlens.errors import BundleError, MissingDependency

__all__ = ["OpenVinoEngine", "require_precision"]


@register("openvino")
class OpenVinoEngine(GraphEngine):
    """Runs a graph with OpenVINO on the CPU, without copies of inputs and outputs.

    The default precision of the plugin may be lower than float32, which is not safe for gradients, so the precision is
    always set. If the processor does not support it, OpenVINO uses another one; here this is an error. Compiled graphs
    are cached in ``options.cache``.
    """

    precisions = ("f32", "bf16", "f16")
    # Ratios of 1.5 were measured with gradients, and 2.4 with predictions in small batches.
    overhead = 2.5

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        super().__init__(graph, precision, options)
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": options.threads, "NUM_STREAMS": 1}
        if options.cache is not None:
            settings["CACHE_DIR"] = str(options.cache / "openvino")
        try:
            compiled = _openvino().Core().compile_model(graph.path, "CPU", settings)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise BundleError(f"{graph.path.name} must be a graph that OpenVINO can run") from error
        require_precision(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(), precision)

    @classmethod
    def require(cls) -> None:
        """Check that OpenVINO is installed."""
        _openvino()

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of OpenVINO."""
        return {"openvino": version("openvino")}

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch; the returned arrays are buffers of the inference request."""
        try:
            self._request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise BundleError(f"{self.graph.path.name} must be computable with OpenVINO") from error
        return {spec.name: self._request.get_tensor(spec.name).data for spec in self.graph.outputs}


def _openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency("engine openvino needs the package openvino: pip install 'radlens[cpu]'") from error
    return openvino


def require_precision(found: str, wanted: str) -> None:
    """Raise MissingDependency unless OpenVINO computes in the wanted precision on this processor."""
    if found != wanted:
        raise MissingDependency(f"precision {wanted} needs a processor that supports it, OpenVINO uses {found} here")
