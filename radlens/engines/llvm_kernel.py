"""R(x) of Amanova et al. 2022, eq. (1): the gradient of a CDMAM ensemble as one fused CPU kernel.

General engines are limited by memory bandwidth here: a gradient of ten members moves 200 MB through the arrays between
operations. This kernel computes one member after the other; the data of a member fit into the second-level cache, and
pooling, ReLU, their backward passes and bias are computed in registers between two convolutions. It computes the same
steps as the gradient graph of the CDMAM ensemble, and a test compares them.

Two functions are compiled. The first computes the features of a member from an image, and their ``r`` weighted sums.
:meth:`Member.outcome` computes the thresholds from these sums, and the derivative of the midpoint with respect to each
sum, in float64. The second function propagates these *coefficients* back to the image.

Design requirements: no compiler on the user's machine (LLVM is installed as a wheel, see :mod:`radlens.engines.llvm`);
the result for an image does not depend on the rest of the batch or on the number of threads.

Layout. A vector is 16 columns of one channel and row. Pooling takes every second column, so a row of 125 is stored as
its even and its odd columns, and a row of the image as its columns 0, 1, 2, 3 modulo 4. Each of these *strands* has 64
elements in a row of 96, with 16 zeros on either side, so that pixels beyond the border read as zero without a test.
Column ``c`` of ``n`` strands is element ``c // n`` of strand ``c % n``. In memory, row 0 is the row above the image.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from radlens.engines.vector_ir import LANES, Index, IrWriter
from radlens.errors import BundleError

__all__ = [
    "BACKWARD",
    "FORWARD",
    "KERNEL",
    "MARK",
    "Member",
    "MemberWeights",
    "Scratch",
    "kernel_text",
    "load_members",
    "mark",
    "pointers",
    "strands",
    "unstrand",
]

FORWARD = "cdmam_forward"
BACKWARD = "cdmam_backward"
"""Names of the compiled functions."""

MARK = "radlens.kernel"
"""Metadata property of an ONNX graph: name of the kernel that computes the same function."""

KERNEL = "cdmam-gradient-2"
"""Name of this kernel; the number increases when the weights of the graph change their form."""

_NODES = "radlens.nodes"
"""Metadata property of an ONNX graph: hash of its nodes at the time of export."""

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of the four pixels of a pooling window."""

_INACTIVE = 4
"""Value stored in place of the winning phase of a pooling window if its ReLU is zero, and beyond the border."""

_ROW, _MARGIN, _BLOCKS = 96, 16, 4
"""Length of a strand in memory, number of zeros before it, and number of vectors that cover it."""

_PLAIN = _BLOCKS * LANES
"""Length of a strand without margins, in arrays that are not read across the border."""

_AT_ONCE = 4
"""Number of output channels computed together with the 32 registers of AVX-512; with fewer registers it is 1."""


@dataclass(frozen=True, eq=False)
class MemberWeights:
    """Weights of one member, float32, in the order in which the kernel reads them.

    Attributes:
        kernel1: ``(8, 3, 3)`` first convolution, with batch normalisation folded in.
        bias1: ``(8,)`` bias of the first convolution.
        kernel2: ``(16 / n, 8, n, 9)`` second convolution, with n output channels computed together.
        bias2: ``(16,)`` bias of the second convolution.
        kernel3: ``(32 / n, 16, 9, n)`` third convolution.
        bias3: ``(32,)`` bias of the third convolution.
        columns: ``(r, 32, 62, 64)`` weights of the sums over the features.
        back3: ``(16 / n, 32, 9, n)`` transpose of the third convolution.
        back2: ``(8 / n, 16, n, 9)`` transpose of the second convolution.
    """

    kernel1: np.ndarray
    bias1: np.ndarray
    kernel2: np.ndarray
    bias2: np.ndarray
    kernel3: np.ndarray
    bias3: np.ndarray
    columns: np.ndarray
    back3: np.ndarray
    back2: np.ndarray


@dataclass(frozen=True, eq=False)
class Member:
    """One member: weights of the kernel, and the map from its sums over the features to its share of the midpoint.

    Attributes:
        weights: weights of the kernel.
        head: ``(r, n)`` float64, from sums to ``n`` outputs: 12 logarithms of um of gold, or the midpoint in um.
        bias: ``(n,)`` float64, bias of the outputs.
        share: weight of this member in the midpoint of the ensemble.
        logarithmic: whether the outputs are natural logarithms of um of gold.
    """

    weights: MemberWeights
    head: np.ndarray
    bias: np.ndarray
    share: float
    logarithmic: bool

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Addresses of the weights, in the order of the kernel's arguments."""
        return pointers(self.weights)

    def outcome(self, sums: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the member's share of the midpoint, um of gold, and its derivative ``(r,)`` float32 by the sums."""
        # Extreme pixel values give infinity, as in other engines.
        with np.errstate(over="ignore", invalid="ignore"):
            outputs = sums @ self.head + self.bias
            curve = np.exp(outputs) if self.logarithmic else outputs
            slopes = curve if self.logarithmic else np.ones_like(outputs)
            coefficients = self.share / len(outputs) * (self.head @ slopes)
            return self.share * float(curve.mean()), coefficients.astype(np.float32)


class Scratch:
    """Scratch memory of one thread, 4.3 MB; margins are zero and stay zero."""

    def __init__(self) -> None:
        self.active1 = np.zeros((8, 127, 2, _ROW), np.float32)
        self.winner1 = np.zeros((8, 126, 2, _PLAIN), np.int8)
        self.active2 = np.zeros((16, 64, _ROW), np.float32)
        self.winner2 = np.zeros((16, 62, _PLAIN), np.int8)
        # Holds the features first, and is overwritten by their derivatives.
        self.slope3 = np.zeros((32, 64, _ROW), np.float32)
        self.slope2 = np.zeros((16, 128, 2, _ROW), np.float32)
        self.slope1 = np.zeros((8, 126, 2, _PLAIN), np.float32)


def pointers(arrays: MemberWeights | Scratch) -> tuple[int, ...]:
    """Return the addresses of the fields, in their order; they are valid as long as ``arrays`` exists."""
    return tuple(array.ctypes.data for array in vars(arrays).values())


def kernel_text(rank: int, at_once: int = _AT_ONCE) -> str:
    """Return the kernel in LLVM's intermediate representation.

    Both functions take pointers to the fields of :class:`MemberWeights`, then to those of :class:`Scratch`, then to two
    further arrays; all arrays except the winners are float32:

    - :data:`FORWARD`: the image in strands ``(252, 4, 96)``, and an array ``(62, r, 16)`` to which partial sums over
      the features are added;
    - :data:`BACKWARD`: the coefficients ``(r,)``, and the gradient in strands, to which the gradient of the member is
      added. The scratch memory must be unchanged since the first function.

    Args:
        rank: number of sums over the features, r.
        at_once: number of output channels computed together, 1, 2 or 4; the weights must be packed for it.
    """
    ir = IrWriter()
    forward = [
        (_forward1, ("image", "kernel1", "bias1", "active1", "winner1")),
        (_forward2, ("active1", "kernel2", "bias2", "active2", "winner2")),
        (_features, ("active2", "kernel3", "bias3", "columns", "slope3", "sums")),
    ]
    backward = [
        (_slopes, ("coefficients", "columns", "slope3")),
        (_backward3, ("slope3", "back3", "winner2", "slope2")),
        (_backward2, ("slope2", "back2", "slope1")),
        (_backward1, ("slope1", "winner1", "kernel1", "gradient")),
    ]
    size = _Size(rank, at_once)
    fields = (*MemberWeights.__dataclass_fields__, *vars(Scratch()))
    for name, steps, own in (
        (FORWARD, forward, ("image", "sums")),
        (BACKWARD, backward, ("coefficients", "gradient")),
    ):
        for step, passed in steps:
            ir.function(_name(step), passed, lambda step=step: step(ir, size))  # type: ignore[misc]
        ir.entry(name, (*fields, *own), [(_name(step), passed) for step, passed in steps])
    return ir.text()


@dataclass(frozen=True)
class _Size:
    """Arguments of :func:`kernel_text`."""

    rank: int
    at_once: int


def _name(step: Callable[[IrWriter, _Size], None]) -> str:
    return step.__name__.removeprefix("_")


def _forward1(ir: IrWriter, size: _Size) -> None:
    """Compute ``relu(pool(conv1))`` of the image: a pooling window depends on 4x4 pixels of the image."""
    with ir.loop(125) as row, ir.loop(2) as parity, ir.loop(_BLOCKS) as block:
        window = [ir.load("image", at) for at in _image_window(ir, row, parity, block)]
        # 125 columns consist of 63 even and 62 odd ones.
        inside = ir.lanes_below(ir.index((block, LANES)), ir.either(parity, 63, 62))
        with ir.loop(8) as channel:
            kernel = [ir.splat("kernel1", ir.index((channel, 9), (tap, 1))) for tap in range(9)]
            phases = _phase_sums(ir, window, kernel, [ir.zero] * 4)
            active, winner = _pooled(ir, phases, ir.splat("bias1", channel), inside)
            at = ((channel, 127 * 2 * _ROW), (row, 2 * _ROW), (parity, _ROW), (block, LANES))
            ir.store("active1", ir.index(*at, (2 * _ROW + _MARGIN, 1)), active)
            ir.store_bytes("winner1", _plain1(ir, channel, row, parity, block), winner)


def _forward2(ir: IrWriter, size: _Size) -> None:
    """Compute ``relu(pool(conv2))`` of the first activations."""

    def write(channel: Index, row: Index, block: Index, phases: list[str]) -> None:
        inside = ir.lanes_below(ir.index((block, LANES)), 62)
        active, winner = _pooled(ir, phases, ir.splat("bias2", channel), inside)
        ir.store("active2", _stored2(ir, channel, row, block), active)
        ir.store_bytes("winner2", _plain2(ir, channel, row, block), winner)

    layer = _Layer("active1", "kernel2", n_inputs=8, n_outputs=16, at_once=size.at_once)
    _phased_convolution(ir, layer, write, n_rows=62, stored_rows=127)


def _features(ir: IrWriter, size: _Size) -> None:
    """Compute ``relu(conv3)``, the features, and their weighted sums."""

    def write(channel: Index, row: Index, block: Index, value: str) -> None:
        value = ir.add(value, ir.splat("bias3", channel))
        feature = ir.where(ir.above(value, ir.zero), value)
        ir.store("slope3", _stored2(ir, channel, row, block), feature)
        for column in range(size.rank):
            at = ir.index((row, size.rank * LANES), (column, LANES))
            weight = ir.load("columns", _column(ir, column, channel, row, block))
            ir.store("sums", at, ir.multiply_add(feature, weight, ir.load("sums", at)))

    _convolution(ir, _Layer("active2", "kernel3", n_inputs=16, n_outputs=32, at_once=size.at_once), write)


def _slopes(ir: IrWriter, size: _Size) -> None:
    """Replace the features by the derivatives with respect to them: sums of columns where the last ReLU is active."""
    with ir.loop(32) as channel, ir.loop(62) as row, ir.loop(_BLOCKS) as block:
        slope = ir.zero
        for column in range(size.rank):
            weight = ir.load("columns", _column(ir, column, channel, row, block))
            slope = ir.multiply_add(ir.splat("coefficients", column), weight, slope)
        at = _stored2(ir, channel, row, block)
        ir.store("slope3", at, ir.where(ir.above(ir.load("slope3", at), ir.zero), slope))


def _backward3(ir: IrWriter, size: _Size) -> None:
    """Backward pass of conv3, ReLU and pooling: each value goes to the pixel that won its window."""

    def write(channel: Index, row: Index, block: Index, value: str) -> None:
        winner = ir.load_bytes("winner2", _plain2(ir, channel, row, block))
        place = ((channel, 128 * 2 * _ROW), (row, 2 * 2 * _ROW), (block, LANES))
        for phase, (below, right) in enumerate(_PHASES):
            won = ir.where(ir.equal_bytes(winner, ir.bytes_of(phase)), value)
            ir.store("slope2", ir.index(*place, (((1 + below) * 2 + right) * _ROW + _MARGIN, 1)), won)

    _convolution(ir, _Layer("slope3", "back3", n_inputs=32, n_outputs=16, at_once=size.at_once), write)


def _backward2(ir: IrWriter, size: _Size) -> None:
    """Backward pass of conv2."""

    def write(channel: Index, row: Index, block: Index, phases: list[str]) -> None:
        for (below, right), value in zip(_PHASES, phases, strict=True):
            ir.store("slope1", _plain1(ir, channel, ir.index((row, 2), (below, 1)), right, block), value)

    layer = _Layer("slope2", "back2", n_inputs=16, n_outputs=8, at_once=size.at_once)
    _phased_convolution(ir, layer, write, n_rows=63, stored_rows=128)


def _backward1(ir: IrWriter, size: _Size) -> None:
    """Backward pass of ReLU, pooling and conv1: each window adds to the 4x4 pixels that it depends on."""
    with ir.loop(125) as row, ir.loop(2) as parity, ir.loop(_BLOCKS) as block:
        patch = ir.variables(16)
        with ir.loop(8) as channel:
            at = _plain1(ir, channel, row, parity, block)
            slope, winner = ir.load("slope1", at), ir.load_bytes("winner1", at)
            won = [ir.where(ir.equal_bytes(winner, ir.bytes_of(phase)), slope) for phase in range(4)]
            sums = ir.get(patch)
            for tap in range(9):
                weight = ir.splat("kernel1", ir.index((channel, 9), (tap, 1)))
                for phase in range(4):
                    pixel = _window_pixel(phase, tap)
                    sums[pixel] = ir.multiply_add(weight, won[phase], sums[pixel])
            ir.set(patch, sums)
        for at, value in zip(_image_window(ir, row, parity, block), ir.get(patch), strict=True):
            ir.store("gradient", at, ir.add(ir.load("gradient", at), value))


def _window_pixel(phase: int, tap: int) -> int:
    """Return the index, among the 4x4 pixels around a pooling window, of a kernel tap at one phase of the window."""
    row, column = _PHASES[phase]
    return 4 * (row + tap // 3) + column + tap % 3


def _phase_sums(ir: IrWriter, window: Sequence[str], kernel: Sequence[str], sums: Sequence[str]) -> list[str]:
    """Add a 3x3 kernel, at the four phases of a pooling window, to ``sums``."""
    sums = list(sums)
    for tap, weight in enumerate(kernel):
        for phase in range(4):
            sums[phase] = ir.multiply_add(weight, window[_window_pixel(phase, tap)], sums[phase])
    return sums


def _pooled(ir: IrWriter, phases: Sequence[str], bias: str, inside: str) -> tuple[str, str]:
    """Return ``relu(maximum + bias)`` and the winning phase, the first of equal ones; zero and inactive outside.

    Args:
        ir: writer of the function.
        phases: convolutions at the four pixels of the window.
        bias: bias of the channel. It is added after pooling, because it does not change which pixel is the largest.
        inside: flags of the lanes inside the image.
    """
    # A phase wins with ">" over earlier phases and ">=" over later ones: the first of equal values wins, as in torch.
    first, second, third, fourth = phases
    above, below = ir.larger(first, second), ir.larger(third, fourth)
    winner = ir.bytes_of(3)
    for phase, (over, at_least) in ((2, (above, fourth)), (1, (first, below))):
        wins = ir.both(ir.above(phases[phase], over), ir.at_least(phases[phase], at_least))
        winner = ir.where_bytes(wins, ir.bytes_of(phase), winner)
    wins = ir.both(ir.at_least(first, second), ir.at_least(first, below))
    winner = ir.where_bytes(wins, ir.bytes_of(0), winner)
    value = ir.add(ir.larger(above, below), bias)
    passes = ir.both(ir.above(value, ir.zero), inside)
    return ir.where(passes, value), ir.where_bytes(passes, winner, ir.bytes_of(_INACTIVE))


@dataclass(frozen=True)
class _Layer:
    """A 3x3 convolution: names of its input and weights, channels, and number of output channels computed together."""

    source: str
    kernel: str
    n_inputs: int
    n_outputs: int
    at_once: int

    def weight(self, ir: IrWriter, group: Index, channel: Index, place: int) -> str:
        """Return a weight by its position in memory: group of outputs, input channel, and position in that block."""
        block = 9 * self.at_once
        return ir.splat(self.kernel, ir.index((group, self.n_inputs * block), (channel, block), (place, 1)))


def _phased_convolution(
    ir: IrWriter,
    layer: _Layer,
    write: Callable[[Index, Index, Index, list[str]], None],
    *,
    n_rows: int,
    stored_rows: int,
) -> None:
    """Convolve at the four pixels of each 2x2 window, and pass the sums to ``write(channel, row, block, sums)``."""
    with ir.loop(layer.n_outputs // layer.at_once) as group, ir.loop(n_rows) as row, ir.loop(_BLOCKS) as block:
        variables = [ir.variables(4) for _ in range(layer.at_once)]
        with ir.loop(layer.n_inputs) as channel:
            start = ((channel, stored_rows * 2 * _ROW), (row, 2 * 2 * _ROW), (block, LANES), (_MARGIN, 1))
            # Loaded once for all output channels of the group.
            window = [
                ir.load(layer.source, ir.index(*start, (_strand_offset(column - 1, 2) + above * 2 * _ROW, 1)))
                for above in range(4)
                for column in range(4)
            ]
            sums = [ir.get(phases) for phases in variables]
            for output, phases in enumerate(sums):
                kernel = [layer.weight(ir, group, channel, 9 * output + tap) for tap in range(9)]
                ir.set(variables[output], _phase_sums(ir, window, kernel, phases))
        for output, phases in enumerate(variables):
            write(ir.index((group, layer.at_once), (output, 1)), row, block, ir.get(phases))


def _convolution(ir: IrWriter, layer: _Layer, write: Callable[[Index, Index, Index, str], None]) -> None:
    """Convolve 62x62 pixels, and pass each vector of a channel and row to ``write(channel, row, block, sum)``."""
    with ir.loop(layer.n_outputs // layer.at_once) as group, ir.loop(62) as row:
        variables = [ir.variables(_BLOCKS) for _ in range(layer.at_once)]
        with ir.loop(layer.n_inputs) as channel:
            start = ((channel, 64 * _ROW), (row, _ROW), (_MARGIN, 1))
            sums = [ir.get(blocks) for blocks in variables]
            for tap in range(9):
                shift = tap // 3 * _ROW + tap % 3 - 1
                pixels = [ir.load(layer.source, ir.index(*start, (shift + LANES * b, 1))) for b in range(_BLOCKS)]
                for output, blocks in enumerate(sums):
                    weight = layer.weight(ir, group, channel, tap * layer.at_once + output)
                    sums[output] = [ir.multiply_add(weight, x, y) for x, y in zip(pixels, blocks, strict=True)]
            for blocks, values in zip(variables, sums, strict=True):
                ir.set(blocks, values)
        for output, blocks in enumerate(variables):
            for b, value in enumerate(ir.get(blocks)):
                write(ir.index((group, layer.at_once), (output, 1)), row, b, value)


def _strand_offset(column: int, n_strands: int) -> int:
    """Return the offset of a column from the first element of the first strand."""
    return column % n_strands * _ROW + column // n_strands


def _image_window(ir: IrWriter, row: Index, parity: Index, block: Index) -> list[Index]:
    """Return the indices of the 4x4 pixels around each of 16 pooling windows of the image."""
    start = ((row, 2 * 4 * _ROW), (block, LANES), (_MARGIN, 1))
    places = []
    for above in range(4):
        for column in range(4):
            offset = ir.either(parity, _strand_offset(column - 1, 4), _strand_offset(column + 1, 4))
            places.append(ir.index(*start, (offset, 1), (above * 4 * _ROW, 1)))
    return places


def _plain1(ir: IrWriter, channel: Index, row: Index, parity: Index, block: Index) -> Index:
    return ir.index((channel, 126 * 2 * _PLAIN), (row, 2 * _PLAIN), (parity, _PLAIN), (block, LANES))


def _plain2(ir: IrWriter, channel: Index, row: Index, block: Index) -> Index:
    return ir.index((channel, 62 * _PLAIN), (row, _PLAIN), (block, LANES))


def _column(ir: IrWriter, column: int, channel: Index, row: Index, block: Index) -> Index:
    return ir.index((column, 32 * 62 * _PLAIN), (channel, 62 * _PLAIN), (row, _PLAIN), (block, LANES))


def _stored2(ir: IrWriter, channel: Index, row: Index, block: Index) -> Index:
    return ir.index((channel, 64 * _ROW), (row, _ROW), (block, LANES), (_ROW + _MARGIN, 1))


def strands(image: np.ndarray) -> np.ndarray:
    """Convert an image ``(250, 250)`` to strands ``(252, 4, 96)`` float32, padded with zeros."""
    stored = np.zeros((252, 4, _ROW), np.float32)
    for strand in range(4):
        columns = image[:, strand::4]
        stored[1:251, strand, _MARGIN : _MARGIN + columns.shape[1]] = columns
    return stored


def unstrand(stored: np.ndarray) -> np.ndarray:
    """Convert strands to an image ``(250, 250)``; the inverse of :func:`strands`."""
    image = np.empty((250, 250), np.float32)
    for strand in range(4):
        columns = image[:, strand::4]
        columns[...] = stored[1:251, strand, _MARGIN : _MARGIN + columns.shape[1]]
    return image


def mark(path: Path) -> None:
    """Mark the ONNX graph of an ensemble's gradient as computable by this kernel."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {MARK: KERNEL, _NODES: _digest(model)})
    onnx.save(model, path)


def load_members(path: Path, at_once: int = _AT_ONCE) -> list[Member]:
    """Read the members of a marked ONNX graph.

    Args:
        path: path of the graph.
        at_once: number of output channels computed together, as in :func:`kernel_text`.

    Raises:
        BundleError: the file is not an ONNX graph, is not marked, or was changed after it was marked.
    """
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path.name} must be an ONNX graph, got {type(error).__name__}") from None
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if properties.get(MARK) != KERNEL:
        raise BundleError(f"engine llvm computes gradients of CDMAM ensembles only, got {path.name} without the mark")
    if properties.get(_NODES) != _digest(model):
        raise BundleError(f"{path.name} must be as it was exported, got other operations")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    try:
        return _members(tensors, at_once)
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path.name} must hold the weights of a CDMAM ensemble, got others") from error


def _digest(model: onnx.ModelProto) -> str:
    return hashlib.sha256(b"".join(node.SerializeToString(deterministic=True) for node in model.graph.node)).hexdigest()


def _members(tensors: dict[str, np.ndarray], at_once: int) -> list[Member]:
    # Only a graph of logarithms has a head: without logarithms, the midpoint is linear in the features, so r is 1.
    logarithmic = "head" in tensors
    n_members, _, rank = tensors["weight"].shape
    head = tensors["head"] if logarithmic else np.ones((n_members, rank, 1))
    head = head.astype(np.float64).reshape(n_members, rank, -1)
    bias = tensors["bias"].astype(np.float64).reshape(n_members, head.shape[2])
    columns = tensors["weight"].transpose(0, 2, 1).reshape(n_members, rank, 32, 62, 62)
    columns = np.pad(columns, [(0, 0)] * 4 + [(0, _PLAIN - 62)])
    weights = [_packed_weights(tensors, columns[m], m, n_members, at_once) for m in range(n_members)]
    return [Member(weights[m], head[m], bias[m], 1 / n_members, logarithmic) for m in range(n_members)]


def _packed_weights(
    tensors: dict[str, np.ndarray], columns: np.ndarray, m: int, n_members: int, at_once: int
) -> MemberWeights:
    kernels = [tensors[f"conv{layer}.weight"] for layer in (1, 2, 3)]
    biases = [tensors["bias1"], tensors["bias2"], tensors["conv3.bias"]]
    one, two, three = (kernel.reshape(n_members, -1, *kernel.shape[1:])[m] for kernel in kernels)
    bias1, bias2, bias3 = (bias.reshape(n_members, -1)[m] for bias in biases)
    packed = (
        one.reshape(8, 3, 3),
        bias1,
        _packed(two, at_once, taps_last=True),
        bias2,
        _packed(three, at_once, taps_last=False),
        bias3,
        columns,
        _packed(_turned(three), at_once, taps_last=False),
        _packed(_turned(two), at_once, taps_last=True),
    )
    return MemberWeights(*(np.ascontiguousarray(array, np.float32) for array in packed))


def _turned(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel ``(i, o, 3, 3)`` of the backward pass of a convolution with the kernel ``(o, i, 3, 3)``."""
    return kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def _packed(kernel: np.ndarray, at_once: int, *, taps_last: bool) -> np.ndarray:
    """Reorder a kernel ``(o, i, 3, 3)`` to ``(o / n, i, n, 9)`` or ``(o / n, i, 9, n)``."""
    groups = kernel.reshape(len(kernel) // at_once, at_once, kernel.shape[1], 9)
    return groups.transpose((0, 2, 1, 3) if taps_last else (0, 2, 3, 1))
