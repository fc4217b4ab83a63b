"""Report the serving and the refused engines as metrics of TorchServe 0.12 (/metrics with metrics_mode=prometheus).

The metrics are not in a metrics configuration, so the server needs model_metrics_auto_detect=true.
"""

from collections.abc import Sequence
from typing import Protocol

from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.metrics.metric_type_enum import MetricTypes

__all__ = ["REFUSED", "SERVING", "report"]

SERVING = "RadlensEngineServing"
"""Gauge, 1 for the engine that computes the explanations of a worker; dimensions: model version, engine, precision."""

REFUSED = "RadlensEngineRefused"
"""Counter of engines that a worker refused at its start; dimensions: model version, engine, graph."""


class Refused(Protocol):
    """An engine that does not serve a graph."""

    engine: str
    graph: str


class Serving(Protocol):
    """What a service says of the engine that computes its model."""

    name: str
    precision: str
    refused: Sequence[Refused]


def report(metrics: MetricCacheAbstract, version: str, engine: Serving) -> None:
    """Emit the metrics of one worker.

    Args:
        metrics: metrics of the TorchServe context.
        version: version of the model.
        engine: engine of the model, such as radlens.families.cdmam.model.BundleEngine.
    """
    _count(metrics, SERVING, MetricTypes.GAUGE, ModelVersion=version, Engine=engine.name, Precision=engine.precision)
    for refusal in engine.refused:
        _count(metrics, REFUSED, MetricTypes.COUNTER, ModelVersion=version, Engine=refusal.engine, Graph=refusal.graph)


def _count(metrics: MetricCacheAbstract, name: str, kind: MetricTypes, **dimensions: str) -> None:
    named = [Dimension(key, value) for key, value in dimensions.items()]
    metrics.add_metric(name, value=1, unit="count", dimensions=named, metric_type=kind)
