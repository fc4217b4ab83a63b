"""An ONNX file from elsewhere: what ONNX Runtime computes from it, and the same as a graph ``images -> output``.

Files differ in the names of their input and output, in the order of the axes (NHWC), in the type of their numbers and
in whether the batch is dynamic. Here they become graphs of one form, which are compared with ONNX Runtime on the file
itself: what reads a file must never be its own judge.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from radlens.engines.golden import MAX_VALUE_ERROR, relative_error
from radlens.engines.onnxruntime import cpu_session
from radlens.errors import BundleError, InvalidInput

__all__ = ["BATCH", "INPUT", "IN_LOOP", "OUTPUT", "OnnxFile", "probes"]

INPUT, OUTPUT, BATCH = "images", "output", "batch"
"""Names of the input, the output and the dynamic dimension of every graph of a classifier."""

IN_LOOP = "output_in_loop"
"""Output of a file of a fixed batch inside the loop over the images."""

_AGREEMENT = 1e-4
"""Largest relative error between two ways to compute one output in float32."""

_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}
"""Types of inputs that images can be given in."""

_AXES = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}
"""Axes of images (b, c, h, w) in the order in which a file takes them."""

_DYNAMIC = (
    "export it with a dynamic batch (torch.onnx.export with dynamic_axes={'x': {0: 'b'}, 'y': {0: 'b'}}, or with "
    "dynamo=True and dynamic_shapes)"
)


def probes(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches of two images on which two forms of a network are compared.

    They are the images themselves, noise that is small and noise that reaches every bound (ReLU6 clips at 6), and
    images that are negative everywhere.

    Args:
        images: Example images ``(b, c, h, w)`` float32, at least 2.
    """
    noise = np.random.default_rng(1).normal(size=(2, *images.shape[1:])).astype(np.float32)
    yield from (images[:2], noise, 20 * noise, -np.abs(5 * noise))


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file and its graph in radlens' form; made by :meth:`read`.

    Attributes:
        path: The file.
        model: Graph ``images (batch, c, h, w) float32 -> output (batch, ...)``.
        layout: Order of the axes of the file's input, ``"NCHW"`` or ``"NHWC"``.
        is_half: Whether the file computes in float16; its graph computes in float32.
        ending: Softmax or sigmoid that the file ends in and the graph does not; see :mod:`radlens.graphs.logits`.
        obstacle: Reason why the graph cannot be differentiated; None if nothing is known to be in the way.
    """

    path: Path
    model: ModelProto
    layout: str
    is_half: bool = False
    ending: str | None = None
    obstacle: str | None = None

    @classmethod
    def read(cls, path: Path, images: np.ndarray) -> "OnnxFile":
        """Read a file.

        Args:
            path: The file.
            images: Example images ``(b, c, h, w)`` float32, at least 2.

        Raises:
            BundleError: The file does not hold a graph, or ONNX Runtime cannot run it.
            InvalidInput: The file has several inputs or outputs, its input has another type or shape than the images,
                the first axis of its output is not the batch, or an output depends on the other images of its batch.
            MissingDependency: ONNX Runtime is not installed.
        """
        model = _loaded(path)
        given = _only_input(model)
        _check_type(given)
        layout, output = _runnable(path, given, images)
        is_half, size = _has_half(model.graph), _fixed_batch(given)
        if is_half or given.type.tensor_type.elem_type != TensorProto.FLOAT:
            model = _in_float32(model, given.type.tensor_type.elem_type)
        made = cls(path, _in_our_form(model, layout, images.shape[1:], output.shape[1:]), layout, is_half)
        if size is None:
            if not _equal(made.run(images[:1]), made.run(images[:2])[:1]):
                raise InvalidInput("the output of an image must not depend on the other images of its batch, it does")
            return made
        loose = replace(made, model=_with_dynamic_batch(made.model, size))
        if loose.agrees(images):
            return loose
        reason = f"the file computes batches of exactly {size} and its graph holds that number: {_DYNAMIC}"
        scan = replace(made, model=_one_by_one(made.model, size, images.shape[1:], output.shape[1:]), obstacle=reason)
        if not scan.agrees(images):
            raise InvalidInput(f"an ONNX model must take batches of any size; {reason}")
        return scan

    @cached_property
    def _given(self) -> Any:
        return _only_input(_loaded(self.path, weights=False))

    @cached_property
    def _session(self) -> Any:
        return cpu_session(self.path)

    @cached_property
    def _own_session(self) -> Any:
        return cpu_session(self.model.SerializeToString())

    @property
    def tolerance(self) -> float:
        """Relative error that the graph may have against the file: more for a file that computes in float16."""
        return MAX_VALUE_ERROR if self.is_half else _AGREEMENT

    def run(self, images: np.ndarray) -> np.ndarray:
        """Compute images ``(b, c, h, w)`` with ONNX Runtime from the file itself, to the end that the graph has."""
        if self.ending is not None:
            output: np.ndarray = self._own_session.run([OUTPUT], {INPUT: images})[0]
            return output
        return _run(self._session, self._given, self.layout, images)

    def agrees(self, images: np.ndarray) -> bool:
        """Return whether ONNX Runtime computes the same from the graph as from the file."""
        try:
            given = [(x, self._own_session.run([OUTPUT], {INPUT: x})[0]) for x in probes(images)]
        except Exception:  # the exceptions of ONNX Runtime have no common base class
            return False
        return all(_equal(found, self.run(x), self.tolerance) for x, found in given)

    def require_agreement(self, found: np.ndarray, images: np.ndarray) -> None:
        """Check what another form of the network computes.

        Args:
            found: Its output.
            images: The images it was given, ``(b, c, h, w)``.

        Raises:
            BundleError: ONNX Runtime computes something else from the file.
        """
        expected = self.run(images)
        if found.shape != expected.shape:
            raise BundleError(
                f"{self.path.name} must be read as ONNX Runtime reads it, got an output of shape {found.shape} instead "
                f"of {expected.shape}"
            )
        # A file may divide by the contrast of an image, and some of the images have none.
        if not np.isfinite(expected).all():
            return
        error = relative_error(found, expected)
        if not error <= self.tolerance:
            raise BundleError(
                f"{self.path.name} must be read as ONNX Runtime reads it, to a relative error of {self.tolerance:g}, "
                f"got {error:.1e}"
            )


def _loaded(path: Path, *, weights: bool = True) -> ModelProto:
    """Read a file, with the functions of its own written out."""
    try:
        model = onnx.load(path, load_external_data=weights)
        model = inliner.inline_local_functions(model) if model.functions else model
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise BundleError(f"{path.name} must be a graph in ONNX form, got one that cannot be read") from error
    if not model.graph.output or not model.opset_import:
        raise BundleError(f"{path.name} must be a graph in ONNX form, got one without outputs")
    return model


def _only_input(model: ModelProto) -> Any:
    """Return the input of a file; older exporters list the weights among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        got = f"{len(inputs)} inputs and {len(model.graph.output)} outputs"
        raise InvalidInput(f"an ONNX model must have one input and one output, got {got}")
    return inputs[0]


def _check_type(given: Any) -> None:
    kind = given.type.tensor_type
    if kind.elem_type not in _FLOATS:
        got = TensorProto.DataType.Name(kind.elem_type).lower()
        raise InvalidInput(
            f"the input of an ONNX model must be float32, float16 or float64, got {got}; export the part of the "
            f"network behind the conversion to floating point"
        )
    if kind.HasField("shape") and len(kind.shape.dim) != len(_AXES["NCHW"]):
        raise InvalidInput(
            f"the input of an ONNX model must be images (b, c, h, w) or (b, h, w, c), got {_dims(given)}; export the "
            f"network with an axis for each of them"
        )


def _dims(given: Any) -> tuple[int | str, ...]:
    return tuple(d.dim_value or d.dim_param or "?" for d in given.type.tensor_type.shape.dim)


def _fixed_batch(given: Any) -> int | None:
    dims = _dims(given)
    return dims[0] if dims and isinstance(dims[0], int) else None


def _runnable(path: Path, given: Any, images: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the layout in which ONNX Runtime runs the file, and what comes out.

    Raises:
        BundleError: It does not run the file.
        InvalidInput: The file takes images of another shape, or the first axis of its output is not the batch.
    """
    dims = _dims(given)
    try:
        session = cpu_session(path)
    except BundleError as error:
        if given.type.tensor_type.elem_type == TensorProto.FLOAT:
            raise
        raise BundleError(f"{error}; export it in float32") from error
    layouts = [name for name in _AXES if _fits(dims, [images.shape[axis] for axis in _AXES[name]])]
    if not layouts:
        raise InvalidInput(
            f"the images must have the shape that the ONNX model takes, {_shown(dims)}, got {images.shape[1]} channels "
            f"of {images.shape[2]}x{images.shape[3]}; {_remedy(dims, images)}"
        )
    reason = ""
    for layout in layouts:
        try:
            output = _run(session, given, layout, images[:2])
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            reason = " ".join(str(error).split())[-200:]
            continue
        if output.shape[:1] != (2,):
            raise InvalidInput(
                f"the first axis of the output must be the batch, got {output.shape} from 2 images; {_DYNAMIC}"
            )
        return layout, output
    raise BundleError(f"{path.name} must be a graph that ONNX Runtime can run, got {reason}")


def _fits(dims: Sequence[int | str], sizes: Sequence[int]) -> bool:
    # The batch is of no account here, nor is an axis of any length.
    return not dims or all(isinstance(d, str) or d == size for d, size in zip(dims[1:], sizes[1:], strict=True))


def _shown(dims: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, dims))})"


def _remedy(dims: Sequence[int | str], images: np.ndarray) -> str:
    for order in ((1, 2, 3), (3, 1, 2)):
        given = zip((dims[axis] for axis in order), images.shape[1:], strict=True)
        channels, *size = (wanted if isinstance(wanted, int) else own for wanted, own in given)
        if channels in (1, 3):
            return f"bundle it with --channels {channels} --shape {size[0]}x{size[1]}"
    return "export it for images of 1 or 3 channels"


def _run(session: Any, given: Any, layout: str, images: np.ndarray) -> np.ndarray:
    """Run the file in the layout, type and batch that it takes; a batch that is too small is filled up."""
    size = _fixed_batch(given) or len(images)
    outputs = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        whole = np.resize(part, (size, *part.shape[1:])).transpose(_AXES[layout])
        dtype = _FLOATS[given.type.tensor_type.elem_type]
        (found,) = session.run(None, {given.name: np.ascontiguousarray(whole, dtype)})
        outputs.append(found[: len(part)] if found.shape[:1] == (size,) else found)
    return np.concatenate(outputs).astype(np.float32)


def _equal(found: np.ndarray, expected: np.ndarray, tolerance: float = _AGREEMENT) -> bool:
    if found.shape != expected.shape or not np.isfinite(expected).all():
        return found.shape == expected.shape
    return relative_error(found, expected) <= tolerance


def _in_our_form(model: ModelProto, layout: str, image: Sequence[int], output: Sequence[int]) -> ModelProto:
    """Return a graph from ``images`` to ``output`` with shapes that are known but for the batch."""
    made = ModelProto()
    made.CopyFrom(model)
    _free(made.graph, (INPUT, OUTPUT))
    graph, weights = made.graph, {tensor.name for tensor in made.graph.initializer}
    (source,), (result,) = [v.name for v in graph.input if v.name not in weights], [v.name for v in graph.output]
    back = [int(axis) for axis in np.argsort(_AXES[layout])]
    first = (
        helper.make_node("Identity", [INPUT], [source])
        if layout == "NCHW"
        else helper.make_node("Transpose", [INPUT], [source], perm=list(np.argsort(back)))
    )
    nodes = [first, *graph.node, helper.make_node("Identity", [result], [OUTPUT])]
    # Shapes of values between may hold the size of the batch.
    for field in ("node", "input", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, *map(int, image)]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, *map(int, output)]))
    # Before version 4, weights had to be listed among the inputs.
    made.ir_version = max(made.ir_version, 4)
    return made


def _free(graph: GraphProto, names: Sequence[str]) -> None:
    """Rename the values of a graph that have one of ``names``."""
    taken, others = set(_names(graph)), {}
    for name in taken.intersection(names):
        others[name] = f"file/{name}"
        while others[name] in taken:
            others[name] = f"file/{others[name]}"
    if others:
        _rename(graph, others)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    # The branches of If and the bodies of loops also use values of the graph around them.
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for used in (node.input, node.output):
            used[:] = [names.get(name, name) for name in used]
        for inner in _subgraphs(node):
            _rename(inner, names)


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in _subgraphs(node):
            yield from _names(inner)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _has_half(graph: GraphProto) -> bool:
    """Return whether weights or values of a graph are float16."""
    casts = (a for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    return (
        any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer)
        or any(a.i == TensorProto.FLOAT16 for a in casts)
        or any(_has_half(inner) for node in graph.node for inner in _subgraphs(node))
    )


def _in_float32(model: ModelProto, other: int) -> ModelProto:
    """Return a model that computes in float32 where it computed in float16, or in the type ``other`` of its input."""
    made = ModelProto()
    made.CopyFrom(model)
    _retype(made.graph, {TensorProto.FLOAT16, other})
    return made


def _retype(graph: GraphProto, others: Set[int]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _retype_tensor(tensor, others)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _retype_tensor(attribute.t, others)
            elif attribute.name in ("to", "dtype") and attribute.i in others:
                attribute.i = TensorProto.FLOAT
        for inner in _subgraphs(node):
            _retype(inner, others)


def _retype_tensor(tensor: TensorProto, others: Set[int]) -> None:
    if tensor.data_type in others:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _with_dynamic_batch(model: ModelProto, size: int) -> ModelProto:
    """Return a graph of a fixed batch whose reshapes keep the first axis of what they are given instead.

    Whether that is right shows when both are run.
    """
    made = ModelProto()
    made.CopyFrom(model)
    known = {tensor.name: tensor for tensor in made.graph.initializer}
    known |= {
        n.output[0]: a.t for n in made.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    for place, node in enumerate(made.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in known:
            continue
        shape = numpy_helper.to_array(known[node.input[1]])
        if shape.size and shape.ravel()[0] == size:
            name = f"shape_of_{place}"
            made.graph.initializer.append(numpy_helper.from_array(np.array([0, *shape.ravel()[1:]], np.int64), name))
            node.input[1] = name
    return made


def _one_by_one(model: ModelProto, size: int, image: Sequence[int], output: Sequence[int]) -> ModelProto:
    """Return a graph of a dynamic batch that computes one image after another with a graph of a fixed batch."""
    made = ModelProto()
    made.CopyFrom(model)
    nodes = list(made.graph.node)
    # The loop has an input and an output of the same names.
    nodes[0].input[0], nodes[-1].output[0] = "alike", IN_LOOP
    body = helper.make_graph(
        [
            helper.make_node("Reshape", ["one", "shape_of_one"], ["batch_of_one"]),
            helper.make_node("Concat", ["batch_of_one"] * size, ["alike"], axis=0),
            *nodes,
            helper.make_node("Gather", [IN_LOOP, "place_of_first"], ["first"], axis=0),
        ],
        "one image",
        [helper.make_tensor_value_info("one", TensorProto.FLOAT, list(map(int, image)))],
        [helper.make_tensor_value_info("first", TensorProto.FLOAT, list(map(int, output)))],
    )
    made.graph.ClearField("node")
    made.graph.node.append(helper.make_node("Scan", [INPUT], [OUTPUT], body=body, num_scan_inputs=1))
    for name, value in (("shape_of_one", np.array((1, *image))), ("place_of_first", np.array(0))):
        made.graph.initializer.append(numpy_helper.from_array(value.astype(np.int64), name))
    return made
