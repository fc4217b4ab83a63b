"""An ONNX graph as a torch module, which can be differentiated and compiled.

Exporters write shape arithmetic into files: ``x.view(x.size(0), -1)`` becomes Shape, Gather, Concat and Reshape, and a
padding by reflection fifteen nodes. While torch traces, the values of tensors are not known, and none of this could be
traced. Tools that fold constants (onnxscript's optimizer, ONNX Runtime) need a number for the batch. The file is
therefore run with batches of three sizes: what is computed from shapes alone and is the same every time is a constant,
and what grows with the batch is ``a + k * batch``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from radlens.engines.base import Options
from radlens.engines.graph_file import GraphFile
from radlens.engines.torch import Step, TorchEngine
from radlens.engines.torch_operations import KNOWN, Sizes
from radlens.errors import BundleError
from radlens.graphs.onnx_file import INPUT, OUTPUT, OnnxFile, probes

__all__ = ["OnnxModule"]

_BATCHES = (2, 3, 5)
"""Sizes of the batches with which a file is run. A batch of one would be broadcast and squeezed."""

_OF_SHAPES = ("Shape", "Size")
"""Operations whose results do not depend on the values of their input."""

_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")

_READ = {"Resize": (1, 2), "Pad": (2,), "Range": (0, 1, 2)}
"""Inputs of floating point whose values an operation reads."""


class OnnxModule(nn.Module):
    """A graph as a torch module.

    Args:
        file: The file.
        images: Example images ``(b, c, h, w)`` float32, at least 2.

    Raises:
        BundleError: The graph has an operation that radlens does not know, or ONNX Runtime computes something else.
    """

    def __init__(self, file: OnnxFile, images: Tensor) -> None:
        super().__init__()
        if file.obstacle is not None:
            raise BundleError(file.obstacle)
        engine = TorchEngine(GraphFile(file.path, file.model), "f32", Options())
        found = _without_shapes(engine, images)
        self.steps, self._grows = list(_freeing(found.steps)), found.growing
        self._names: dict[str, str] = {}
        self._whole: dict[str, Tensor] = {}
        used = {name for step in self.steps for name in step.inputs} | {OUTPUT}
        read = {
            step.inputs[k] for step in self.steps for k in _READ.get(step.node.operation, ()) if k < len(step.inputs)
        }
        for number, (name, value) in enumerate(found.constants.items()):
            if name not in used:
                continue
            if value.is_floating_point() and name not in read:
                self._names[name] = f"constant_{number}"
                self.register_buffer(f"constant_{number}", value)
            else:
                # Shapes and indices must not become fake tensors while tracing, so their values are kept as a list.
                value.__dict__[KNOWN] = value.reshape(-1).tolist()
                self._whole[name] = value
        self._check(file, images)

    def _check(self, file: OnnxFile, images: Tensor) -> None:
        with torch.no_grad():
            for given in probes(images.numpy()):
                file.require_agreement(self(torch.from_numpy(given.copy())).numpy(), given)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output for images with the input shape of the graph."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._names.items()}
        values |= self._whole
        values |= {name: grows.at(images.shape[0]) for name, grows in self._grows.items()}
        values[INPUT] = images
        for step in self.steps:
            # In float64 the whole file is computed in float64.
            TorchEngine.take(replace(step, node=replace(step.node, single=images.dtype)), values)
        output: Tensor = values[OUTPUT]
        return output


@dataclass(frozen=True)
class _Growing:
    """Sizes that grow with the batch: ``start + slope * batch``, each in the order of the tensor's values."""

    start: tuple[int, ...]
    slope: tuple[int, ...]

    def at(self, batch: Any) -> Sizes:
        """Return the sizes for a batch, which may be symbolic."""
        return Sizes(tuple(a + k * batch if k else a for a, k in zip(self.start, self.slope, strict=True)))


@dataclass(frozen=True)
class _Found:
    """A graph without shape arithmetic.

    Attributes:
        steps: Steps that are left.
        constants: Constants of the file, and results that do not depend on the input.
        growing: Results that grow with the batch.
    """

    steps: Sequence[Step]
    constants: Mapping[str, Tensor]
    growing: Mapping[str, _Growing]


def _without_shapes(engine: TorchEngine, images: Tensor) -> _Found:
    known = _known(engine)
    runs = [_values(engine, known, torch.cat([images] * n)[:n]) for n in _BATCHES]
    constants, growing = dict(engine.constants), {}
    steps = []
    for step in engine.steps:
        results = [name for name in step.outputs if name]
        if not set(results) <= known:
            steps.append(step)
            continue
        for name in results:
            values = [run[name] for run in runs]
            if all(torch.equal(values[0], other) for other in values[1:]):
                constants[name] = values[0]
            elif (found := _growing(values)) is not None:
                growing[name] = found
        if not set(results) <= constants.keys() | growing.keys():
            steps.append(step)
    return _Found(steps, constants, growing)


def _known(engine: TorchEngine) -> set[str]:
    """Return the names of all results that follow from constants and shapes."""
    found = set(engine.constants)
    for step in engine.steps:
        operation, inputs = step.node.operation, {name for name in step.inputs if name}
        if operation in _OF_SHAPES or (inputs <= found and operation not in _RANDOM):
            found.update(name for name in step.outputs if name)
    return found - set(engine.constants)


def _values(engine: TorchEngine, known: set[str], images: Tensor) -> dict[str, Tensor]:
    """Run the graph, and return the values of ``known``."""
    values = {**engine.constants, INPUT: images}
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for step in engine.steps:
            done = replace(step, done=())
            TorchEngine.take(done, values)
            found |= {name: values[name] for name in step.outputs if name in known}
            for name in step.done:
                del values[name]
    return found


def _growing(values: Sequence[Tensor]) -> _Growing | None:
    """Return integers that grow linearly with the batch; None for other values."""
    first = values[0]
    if first.dtype.is_floating_point or first.ndim > 1 or len({value.shape for value in values}) > 1:
        return None
    a, b, c = (value.long().reshape(-1) for value in values)
    slope = (b - a) // (_BATCHES[1] - _BATCHES[0])
    start = a - slope * _BATCHES[0]
    if not torch.equal(start + slope * _BATCHES[1], b) or not torch.equal(start + slope * _BATCHES[2], c):
        return None
    return _Growing(tuple(start.tolist()), tuple(slope.tolist()))


def _freeing(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield steps that free what no later step needs."""
    last = {name: index for index, step in enumerate(steps) for name in (*step.inputs, *step.outputs)}
    made = {name for step in steps for name in step.outputs if name}
    for index, step in enumerate(steps):
        done = {name for name in (*step.inputs, *step.outputs) if name in made and last[name] == index} - {OUTPUT}
        yield replace(step, done=tuple(done))
