"""Golden values: reference outputs of a graph, computed by torch in float64, that every engine must reproduce.

An engine can compile a graph without an error and compute something else. Each exported graph ``g.onnx`` therefore has
a file ``g.golden.npz`` beside it with a few inputs, all outputs in float64, and the errors of torch in float32. The
tolerance is a multiple of these errors: in float32 some ReLUs and maxima switch, so that even a correct gradient has an
error of 1e-3.
"""

import math
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radlens.engines.base import Engine
from radlens.errors import BundleError

__all__ = [
    "GOLDEN_TOLERANCE",
    "Deviation",
    "Golden",
    "body_error",
    "correlation",
    "deviation",
    "golden_file",
    "jittered",
    "limit",
    "relative_error",
]

GOLDEN_TOLERANCE = 10.0
"""Largest ratio of an engine's error to the error of torch float32 at the time of export."""

FLOOR = 1e-5
"""Relative error that every float32 engine may have, as it adds a thousand terms in another order."""

MIN_CORRELATION = 0.99
"""Smallest correlation with float64 of a map in reduced precision."""

MAX_MAP_ERROR = 0.15
"""Largest relative error of a map in reduced precision; a correlation of 0.99 allows 0.14."""

MAX_VALUE_ERROR = 0.02
"""Largest relative error of other outputs in reduced precision; bfloat16 rounds by up to 0.004."""

MAP_SIZE = 64
"""Smallest number of values per sample of an output that counts as a map; correlation needs that many."""

KINK_LIMIT = 1e-2
"""Relative error that switched ReLUs and pooling windows may cause in a map with `Golden.body_errors`."""

BODY = 0.95
"""Fraction of a map's values that must be close to the reference; ReLUs and pooling windows may switch in the rest."""

_REDUCED = ("tf32", "f16", "bf16")
"""Precisions with less than the 24 bits of float32."""


@dataclass(frozen=True)
class Deviation:
    """Deviation of an output from float64.

    Attributes:
        error: relative error in the Euclidean norm over all samples.
        correlation: Pearson's correlation over all samples; None for outputs other than maps.
        body: relative error without the worst twentieth of the values (:func:`body_error`); None for outputs other than
            maps.
    """

    error: float
    correlation: float | None
    body: float | None = None


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden values of a graph.

    Attributes:
        inputs: inputs of the graph, by name.
        outputs: outputs in float64, by name.
        float32_errors: relative error of torch float32 by output: the larger error of two runs, one with
            :func:`jittered` inputs.
        body_errors: :func:`body_error` of torch float32 by output, for maps that are checked by it. Most values of such
            a map must be as exact as float32 allows; its total error may reach `KINK_LIMIT`, because rounding can
            switch a ReLU or a pooling window in one engine and not in another.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    float32_errors: Mapping[str, float]
    body_errors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def measure(
        cls,
        function: Callable[[torch.dtype, Mapping[str, Tensor]], Sequence[Tensor]],
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        by_body: Collection[str] = (),
    ) -> "Golden":
        """Compute golden values.

        Args:
            function: function that computes all outputs from a dtype and inputs of that dtype.
            inputs: arrays by name; floating point arrays are converted to the dtype.
            outputs: names of the outputs, in the order in which ``function`` returns them.
            by_body: names of the maps that get `body_errors`.
        """

        def computed(dtype: torch.dtype, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = function(dtype, _converted(values, dtype))
            return {name: value.detach().cpu().numpy() for name, value in zip(outputs, found, strict=True)}

        single = (computed(torch.float32, values) for values in (inputs, jittered(inputs)))
        return cls.compare(inputs, computed(torch.float64, inputs), *single, by_body=by_body)

    @classmethod
    def compare(
        cls,
        inputs: Mapping[str, np.ndarray],
        exact: Mapping[str, np.ndarray],
        *single: Mapping[str, np.ndarray],
        by_body: Collection[str] = (),
    ) -> "Golden":
        """Create golden values from inputs, their outputs in float64, and their outputs in one or more float32 runs."""
        values = {name: np.asarray(value, dtype=np.float64) for name, value in exact.items()}
        ways = list(single)
        errors = {name: max(relative_error(way[name], value) for way in ways) for name, value in values.items()}
        body = {name: max(body_error(way[name], values[name]) for way in ways) for name in by_body}
        return cls(dict(inputs), values, errors, body)

    @classmethod
    def load(cls, graph: Path) -> "Golden | None":
        """Read the golden values beside a graph; return None if the file does not exist.

        Raises:
            BundleError: the file is damaged.
        """
        file = golden_file(graph)
        if not file.is_file():
            return None
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                parts = {kind: _under(stored, kind) for kind in ("input", "output", "float32_error", "body_error")}
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise BundleError(f"{file.name} must hold golden values, got {type(error).__name__}") from error
        errors, body = (
            {name: float(value) for name, value in parts[kind].items()} for kind in ("float32_error", "body_error")
        )
        if not parts["output"] or set(errors) != set(parts["output"]) or not set(body) <= set(errors):
            raise BundleError(f"{file.name} must hold outputs and their float32 errors, got other arrays")
        return cls(parts["input"], parts["output"], errors, body)

    def save(self, graph: Path) -> Path:
        """Write the golden values beside a graph and return the file."""
        arrays = {f"input.{name}": value for name, value in self.inputs.items()}
        arrays |= {f"output.{name}": value for name, value in self.outputs.items()}
        arrays |= {f"float32_error.{name}": np.array(value) for name, value in self.float32_errors.items()}
        arrays |= {f"body_error.{name}": np.array(value) for name, value in self.body_errors.items()}
        file = golden_file(graph)
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file

    def deviations(self, engine: Engine) -> dict[str, Deviation]:
        """Return the deviation of each output of ``engine``.

        Raises:
            BundleError: outputs of the engine are missing or have other shapes.
        """
        found = engine.run(self.inputs)
        shapes = {name: value.shape for name, value in found.items()}
        for name, value in self.outputs.items():
            if shapes.get(name) != value.shape:
                raise BundleError(f"{name} must have shape {value.shape}, got {shapes.get(name, 'no such output')}")
        return {name: deviation(found[name], value) for name, value in self.outputs.items()}

    def check(self, engine: Engine) -> dict[str, Deviation]:
        """Check ``engine`` against the golden values and return its deviations.

        Raises:
            BundleError: the error of an output exceeds :func:`limit`, or the correlation of a map is too low.
        """
        deviations = self.deviations(engine)
        objection = self.objection(engine.precision, deviations)
        if objection:
            raise BundleError(objection)
        return deviations

    def objection(self, precision: str, deviations: Mapping[str, Deviation]) -> str | None:
        """Return why an engine with these deviations must not be used; None if it may be used."""
        for name, deviation in deviations.items():
            error, agreement = deviation.error, deviation.correlation
            allowed = limit(precision, self.float32_errors[name], is_map=agreement is not None)
            if precision not in _REDUCED and name in self.body_errors:
                near, body = limit(precision, self.body_errors[name], is_map=True), deviation.body
                if body is None or not body <= near:
                    found = "unknown" if body is None else f"{body:.1e}"
                    return f"{BODY:.0%} of {name} must be within {near:.1e} of the golden values, got {found}"
                allowed = max(allowed, KINK_LIMIT)
            # "not <=" instead of ">", so that nan fails.
            if not error <= allowed:
                return f"{name} must be within {allowed:.1e} of the golden values, got {error:.1e}"
            if precision in _REDUCED and agreement is not None and not agreement >= MIN_CORRELATION:
                return f"{name} must correlate with float64 by {MIN_CORRELATION}, got {agreement:.3f}"
        return None


def jittered(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs whose floating point values are changed at random by a float32 rounding error.

    A gradient is discontinuous where rounding switches a ReLU or a pooling window. For the same image, the error of a
    correct float32 gradient can be 1e-3 with one order of its sums and 1e-2 with another; a second run with changed
    inputs makes it likely to see the larger error.
    """
    generator = np.random.default_rng(0)
    step = float(np.finfo(np.float32).eps)
    return {
        name: (values * (1 + step * generator.choice((-1.0, 1.0), size=values.shape))).astype(values.dtype)
        if np.issubdtype(values.dtype, np.floating)
        else values
        for name, values in inputs.items()
    }


def golden_file(graph: Path) -> Path:
    """Return the path of a graph's golden values: ``gradient.golden.npz`` beside ``gradient.onnx``."""
    return graph.with_name(f"{graph.stem}.golden.npz")


def limit(precision: str, float32_error: float, *, is_map: bool) -> float:
    """Return the largest relative error that an output may have.

    In float32 and float64 it is ten times the error of torch float32, and at least 1e-5. In reduced precision it is
    0.15 for maps, whose correlation is checked as well, and 0.02 for other outputs.

    Args:
        precision: precision of the engine.
        float32_error: relative error of torch float32.
        is_map: whether the output is a map.
    """
    if precision not in _REDUCED:
        return max(GOLDEN_TOLERANCE * float32_error, FLOOR)
    return MAX_MAP_ERROR if is_map else MAX_VALUE_ERROR


def relative_error(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return ``|value - reference| / |reference|`` in the Euclidean norm; the absolute error if the reference is 0."""
    # Values that are not finite give nan, which exceeds every limit.
    with np.errstate(invalid="ignore"):
        difference = np.asarray(value, dtype=np.float64) - reference
    return float(np.linalg.norm(difference) / (np.linalg.norm(reference) or 1.0))


def body_error(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return :func:`relative_error` over the fraction `BODY` of each sample's values that are nearest to the reference.

    A ReLU or a pooling window that rounding switches changes the map of a small network in the few hundred pixels of
    its receptive field, by 1e-3 of the norm of the map; a wrong differentiation rule changes the map everywhere.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(value, dtype=np.float64) - reference).reshape(len(reference), -1)
    # nan is sorted to the end: a few of them stay outside the body, but make `relative_error` nan.
    near = np.sort(difference, axis=1)[:, : math.ceil(BODY * difference.shape[1])]
    return float(np.linalg.norm(near) / (np.linalg.norm(reference) or 1.0))


def correlation(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return Pearson's correlation over all values; 1 where ``reference`` is constant and it is undefined."""
    a, b = (np.asarray(each, dtype=np.float64).ravel() for each in (value, reference))
    with np.errstate(invalid="ignore"):
        a, b = a - a.mean(), b - b.mean()
    if not b.any():
        return 1.0
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or np.inf))


def deviation(value: np.ndarray | Tensor, reference: np.ndarray) -> Deviation:
    """Return the deviation of ``value`` from ``reference``, both ``(b, ...)``."""
    is_map = reference.ndim > 1 and reference[0].size >= MAP_SIZE
    error = relative_error(value, reference)
    return (
        Deviation(error, correlation(value, reference), body_error(value, reference))
        if is_map
        else Deviation(error, None)
    )


def _converted(inputs: Mapping[str, np.ndarray], dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _under(stored: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{kind}."): stored[name] for name in stored if name.startswith(f"{kind}.")}
