"""Golden values: what a graph must compute, from torch in float64. No engine is trusted unseen.

An engine can compile a graph without a word and compute something else. So each exported graph ``g.onnx`` has a file
``g.golden.npz`` beside it with a few inputs, all outputs in float64, and how far torch in float32 was from them. The
last is the measure: float32 decides some ReLUs and maxima differently, so that even a correct gradient is 1e-3 off.
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
"""An engine may be this many times as far from float64 as torch float32 was when the graph was exported."""

FLOOR = 1e-5
"""Relative error that any float32 engine may have: sums of a thousand terms in another order."""

MIN_CORRELATION = 0.99
"""Correlation with float64 that a map in less than float32 must have."""

MAX_MAP_ERROR = 0.15
"""Relative error that a map in less than float32 may have; a correlation of 0.99 allows 0.14."""

MAX_VALUE_ERROR = 0.02
"""Relative error that any other output in less than float32 may have: bfloat16 rounds by up to 0.004."""

MAP_SIZE = 64
"""Values of a sample from which on an output counts as a map, whose correlation means something."""

KINK_LIMIT = 1e-2
"""Relative error that kinks alone may make of a map whose `Golden.body_errors` are known."""

BODY = 0.95
"""Part of a map that must be close where the rest may have fallen to the other side of a kink."""

_SHORTENED = ("tf32", "f16", "bf16")
"""Kinds of arithmetic with less than float32's 24 bits."""


@dataclass(frozen=True)
class Deviation:
    """How far an output is from float64.

    Attributes:
        error: relative, in the Euclidean norm over everything.
        correlation: Pearson's, over everything; None for outputs other than maps.
        body: the error without the worst twentieth of the values (:func:`body_error`); None for outputs other than
            maps.
    """

    error: float
    correlation: float | None
    body: float | None = None


@dataclass(frozen=True, eq=False)
class Golden:
    """What a graph must compute.

    Attributes:
        inputs: by name, as the graph takes them.
        outputs: by name, float64.
        float32_errors: relative error of torch float32 for each output, the larger one of two, see :func:`jittered`.
        body_errors: the same by :func:`body_error`, for outputs that are held to it: nearly all of such a map must be
            as close as float32 allows. What one ReLU or pooling window does that rounding moves to the other side, in
            some engine and not in another, may reach `KINK_LIMIT`.
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
            function: computes all outputs in the dtype it is given, with inputs of that dtype.
            inputs: by name; floating ones are converted.
            outputs: names, in the order of what ``function`` returns.
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
        """Make golden values of ``inputs`` from their outputs in float64, and in float32 once or several times."""
        values = {name: np.asarray(value, dtype=np.float64) for name, value in exact.items()}
        ways = list(single)
        errors = {name: max(relative_error(way[name], value) for way in ways) for name, value in values.items()}
        body = {name: max(body_error(way[name], values[name]) for way in ways) for name in by_body}
        return cls(dict(inputs), values, errors, body)

    @classmethod
    def load(cls, graph: Path) -> "Golden | None":
        """Read the golden values beside a graph; None if there are none.

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
        """Return how far each output of ``engine`` is from float64.

        Raises:
            BundleError: the engine computes other outputs, or of other shapes.
        """
        found = engine.run(self.inputs)
        shapes = {name: value.shape for name, value in found.items()}
        for name, value in self.outputs.items():
            if shapes.get(name) != value.shape:
                raise BundleError(f"{name} must have shape {value.shape}, got {shapes.get(name, 'no such output')}")
        return {name: deviation(found[name], value) for name, value in self.outputs.items()}

    def check(self, engine: Engine) -> dict[str, Deviation]:
        """Hold ``engine`` against the golden values and return how far it is from them.

        Raises:
            BundleError: an output is further off than :func:`limit` allows, or a map correlates too little.
        """
        deviations = self.deviations(engine)
        objection = self.objection(engine.precision, deviations)
        if objection:
            raise BundleError(objection)
        return deviations

    def objection(self, precision: str, deviations: Mapping[str, Deviation]) -> str | None:
        """Return what is wrong with an engine of some precision that is so far off; None if it may be used."""
        for name, deviation in deviations.items():
            error, agreement = deviation.error, deviation.correlation
            allowed = limit(precision, self.float32_errors[name], is_map=agreement is not None)
            if precision not in _SHORTENED and name in self.body_errors:
                near, body = limit(precision, self.body_errors[name], is_map=True), deviation.body
                if body is None or not body <= near:
                    found = "unknown" if body is None else f"{body:.1e}"
                    return f"{BODY:.0%} of {name} must be within {near:.1e} of the golden values, got {found}"
                allowed = max(allowed, KINK_LIMIT)
            if not error <= allowed:
                return f"{name} must be within {allowed:.1e} of the golden values, got {error:.1e}"
            if precision in _SHORTENED and agreement is not None and not agreement >= MIN_CORRELATION:
                return f"{name} must correlate with float64 by {MIN_CORRELATION}, got {agreement:.3f}"
        return None


def jittered(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs whose floating values are changed by a float32 rounding error, at random.

    A gradient jumps where rounding moves a value across a kink, here and there: a network may compute one image to 1e-3
    in float32 and, with all of its sums rounded otherwise, to 1e-2. One computation tells one of the two.
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
    """Return where the golden values of a graph lie: ``gradient.golden.npz`` beside ``gradient.onnx``."""
    return graph.with_name(f"{graph.stem}.golden.npz")


def limit(precision: str, float32_error: float, *, is_map: bool) -> float:
    """Return the relative error that an output may have.

    In float32 and float64: ten times that of torch float32, at least 1e-5. In less: 0.15 for maps, whose correlation is
    checked as well, and 0.02 for other outputs.

    Args:
        precision: of the engine.
        float32_error: of torch.
        is_map: whether the output is a map.
    """
    if precision not in _SHORTENED:
        return max(GOLDEN_TOLERANCE * float32_error, FLOOR)
    return MAX_MAP_ERROR if is_map else MAX_VALUE_ERROR


def relative_error(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return ``|value - reference| / |reference|`` in the Euclidean norm over everything; absolute if that is 0."""
    # What is not finite is an error of nan, which no limit allows.
    with np.errstate(invalid="ignore"):
        difference = np.asarray(value, dtype=np.float64) - reference
    return float(np.linalg.norm(difference) / (np.linalg.norm(reference) or 1.0))


def body_error(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return :func:`relative_error` over the values of each sample that are nearest to the reference, `BODY` of them.

    A ReLU or a pooling window whose input lies within rounding of a kink changes the map of a small network in the
    few hundred pixels that it sees, by 1e-3 of the whole; a wrong rule changes the map everywhere.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(value, dtype=np.float64) - reference).reshape(len(reference), -1)
    # nan sorts to the end: it belongs to the body as soon as a twentieth is nan, and to `relative_error` at once.
    near = np.sort(difference, axis=1)[:, : math.ceil(BODY * difference.shape[1])]
    return float(np.linalg.norm(near) / (np.linalg.norm(reference) or 1.0))


def correlation(value: np.ndarray | Tensor, reference: np.ndarray) -> float:
    """Return Pearson's correlation over everything; 1 where ``reference`` is constant, which has none."""
    a, b = (np.asarray(each, dtype=np.float64).ravel() for each in (value, reference))
    with np.errstate(invalid="ignore"):
        a, b = a - a.mean(), b - b.mean()
    if not b.any():
        return 1.0
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or np.inf))


def deviation(value: np.ndarray | Tensor, reference: np.ndarray) -> Deviation:
    """Return how far ``value`` is from ``reference`` (b, ...), both of the same shape."""
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
