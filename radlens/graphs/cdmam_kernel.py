"""R(x) of Amanova et al. 2022, eq. (1), as one piece of code for the processor: the CDMAM ensemble without an engine.

The engines wait for memory here: a gradient of ten members moves 200 MB through arrays that hold one operation each.
This kernel computes one member after the other; whatever a member needs fits into a processor's second cache, and
pooling, ReLU, routing and bias happen in registers, between two convolutions. It computes what
:class:`radlens.graphs.CdmamGradient` computes, in the same six steps, and a test holds them against each other.

Design requirements: no compiler on the user's machine (LLVM comes as a wheel, see :mod:`radlens.engines.llvm`); the
result of an image does not depend on what else is in the batch or on the number of threads.

Layout. A vector is 16 columns of one channel and row. Pooling takes every second column, so a row of 125 is stored as
its even and its odd columns, and a row of the image as its columns 0, 1, 2, 3 modulo 4. Each of these *strands* has 64
places in a row of 96, with 16 zeros on either side: what lies beyond the border reads as zero, without a test.
Column ``c`` of ``n`` strands is place ``c // n`` of strand ``c % n``. In memory row 0 is the one above the image.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from radlens.errors import BundleError
from radlens.graphs.vector_ir import LANES, Index, IrWriter

__all__ = ["ENTRY", "MemberWeights", "Scratch", "kernel_text", "load_members", "mark", "strands", "unstrand"]

ENTRY = "cdmam_gradient"
"""Name of the compiled function. Its pointers are the fields of MemberWeights and Scratch, see kernel_text."""

_MARK = "radlens.kernel"
_NODES = "radlens.nodes"

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
_INACTIVE = 4
"""Stored in place of the phase that won a pooling window if ReLU let nothing through, and beyond the border."""

_ROW, _MARGIN, _BLOCKS = 96, 16, 4
"""Length of a strand in memory, zeros before it, vectors that cover it."""

_PLAIN = _BLOCKS * LANES
"""Length of a strand in arrays that nobody reads across the border."""

_AT_ONCE = 4
"""Output channels computed together where 32 vector registers are at hand; with 16 shorter ones it is 1."""


@dataclass(frozen=True, eq=False)
class MemberWeights:
    """One member, float32, in the order in which the kernel reads it.

    Attributes:
        kernel1: ``(8, 3, 3)`` of the first convolution, batch normalisation folded in.
        bias1: ``(8,)``.
        kernel2: ``(16 / n, 8, n, 9)``, n output channels computed together.
        bias2: ``(16,)``.
        kernel3: ``(32 / n, 16, 9, n)``.
        bias3: ``(32,)``.
        head: ``(32, 62, 64)`` gradient of the midpoint with respect to the features.
        back3: like ``kernel3``, of the convolution back through it, 32 to 16 channels.
        back2: like ``kernel2``, 16 to 8 channels.
    """

    kernel1: np.ndarray
    bias1: np.ndarray
    kernel2: np.ndarray
    bias2: np.ndarray
    kernel3: np.ndarray
    bias3: np.ndarray
    head: np.ndarray
    back3: np.ndarray
    back2: np.ndarray


class Scratch:
    """What one thread computes with, 4.3 MB; margins are zero and stay zero."""

    def __init__(self) -> None:
        self.active1 = np.zeros((8, 127, 2, _ROW), np.float32)
        self.winner1 = np.zeros((8, 126, 2, _PLAIN), np.int8)
        self.active2 = np.zeros((16, 64, _ROW), np.float32)
        self.winner2 = np.zeros((16, 62, _PLAIN), np.int8)
        self.slope3 = np.zeros((32, 64, _ROW), np.float32)
        self.slope2 = np.zeros((16, 128, 2, _ROW), np.float32)
        self.slope1 = np.zeros((8, 126, 2, _PLAIN), np.float32)


def kernel_text(at_once: int = _AT_ONCE) -> str:
    """Return the kernel in LLVM's intermediate representation.

    Its entry takes pointers to the image in strands ``(252, 4, 96)``, the fields of :class:`MemberWeights`, those of
    :class:`Scratch`, ``(62, 16)`` to which parts of the midpoint are added, and the gradient in strands, to which the
    member's is added; all but the winners are float32.

    Args:
        at_once: output channels computed together, 1, 2 or 4; the weights must be packed for it.
    """
    ir = IrWriter()
    steps = [
        (_forward1, ("image", "kernel1", "bias1", "active1", "winner1")),
        (_forward2, ("active1", "kernel2", "bias2", "active2", "winner2")),
        (_features, ("active2", "kernel3", "bias3", "head", "slope3", "score")),
        (_backward3, ("slope3", "back3", "winner2", "slope2")),
        (_backward2, ("slope2", "back2", "slope1")),
        (_backward1, ("slope1", "winner1", "kernel1", "gradient")),
    ]
    for step, pointers in steps:
        ir.function(step.__name__.removeprefix("_"), pointers, lambda step=step: step(ir, at_once))  # type: ignore[misc]
    pointers = ("image", *MemberWeights.__dataclass_fields__, *vars(Scratch()), "score", "gradient")
    ir.entry(ENTRY, pointers, [(step.__name__.removeprefix("_"), passed) for step, passed in steps])
    return ir.text()


def _forward1(ir: IrWriter, at_once: int) -> None:
    """Image to ``relu(pool(conv1))``: the window of a pooling cell is 4x4 pixels of the image."""
    with ir.loop(125) as row, ir.loop(2) as parity, ir.loop(_BLOCKS) as block:
        window = [ir.load("image", at) for at in _image_window(ir, row, parity, block)]
        # 125 columns are 63 even and 62 odd ones.
        inside = ir.lanes_below(ir.index((block, LANES)), ir.either(parity, 63, 62))
        with ir.loop(8) as channel:
            kernel = [ir.splat("kernel1", ir.index((channel, 9), (tap, 1))) for tap in range(9)]
            phases = _phase_sums(ir, window, kernel, [ir.zero] * 4)
            active, winner = _pooled(ir, phases, ir.splat("bias1", channel), inside)
            at = ((channel, 127 * 2 * _ROW), (row, 2 * _ROW), (parity, _ROW), (block, LANES))
            ir.store("active1", ir.index(*at, (2 * _ROW + _MARGIN, 1)), active)
            ir.store_bytes("winner1", _plain1(ir, channel, row, parity, block), winner)


def _forward2(ir: IrWriter, at_once: int) -> None:
    """``relu(pool(conv2))`` of the first activations."""

    def write(channel: Index, row: Index, block: Index, phases: list[str]) -> None:
        inside = ir.lanes_below(ir.index((block, LANES)), 62)
        active, winner = _pooled(ir, phases, ir.splat("bias2", channel), inside)
        ir.store("active2", _stored2(ir, channel, row, block), active)
        ir.store_bytes("winner2", _plain2(ir, channel, row, block), winner)

    layer = _Layer("active1", "kernel2", n_inputs=8, n_outputs=16, at_once=at_once)
    _phased_convolution(ir, layer, write, n_rows=62, stored_rows=127)


def _features(ir: IrWriter, at_once: int) -> None:
    """The midpoint, and its gradient before the last ReLU: a constant where that lets through."""

    def write(channel: Index, row: Index, block: Index, value: str) -> None:
        value = ir.add(value, ir.splat("bias3", channel))
        head = ir.load("head", _plain2(ir, channel, row, block))
        passes = ir.above(value, ir.zero)
        ir.store("slope3", _stored2(ir, channel, row, block), ir.where(passes, head))
        part = ir.load("score", ir.index((row, LANES)))
        ir.store("score", ir.index((row, LANES)), ir.multiply_add(ir.where(passes, value), head, part))

    _convolution(ir, _Layer("active2", "kernel3", n_inputs=16, n_outputs=32, at_once=at_once), write)


def _backward3(ir: IrWriter, at_once: int) -> None:
    """Back through conv3, ReLU and pooling: each value goes to the pixel that won its window."""

    def write(channel: Index, row: Index, block: Index, value: str) -> None:
        winner = ir.load_bytes("winner2", _plain2(ir, channel, row, block))
        place = ((channel, 128 * 2 * _ROW), (row, 2 * 2 * _ROW), (block, LANES))
        for phase, (below, right) in enumerate(_PHASES):
            won = ir.where(ir.equal_bytes(winner, ir.bytes_of(phase)), value)
            ir.store("slope2", ir.index(*place, (((1 + below) * 2 + right) * _ROW + _MARGIN, 1)), won)

    _convolution(ir, _Layer("slope3", "back3", n_inputs=32, n_outputs=16, at_once=at_once), write)


def _backward2(ir: IrWriter, at_once: int) -> None:
    """Back through conv2."""

    def write(channel: Index, row: Index, block: Index, phases: list[str]) -> None:
        for (below, right), value in zip(_PHASES, phases, strict=True):
            ir.store("slope1", _plain1(ir, channel, ir.index((row, 2), (below, 1)), right, block), value)

    layer = _Layer("slope2", "back2", n_inputs=16, n_outputs=8, at_once=at_once)
    _phased_convolution(ir, layer, write, n_rows=63, stored_rows=128)


def _backward1(ir: IrWriter, at_once: int) -> None:
    """Back through ReLU, pooling and conv1: every cell adds to the 4x4 pixels it was computed from."""
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
    """Return which of the 4x4 pixels around a pooling window a tap of the 3x3 kernel meets at a phase of the window."""
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
    """Return ``relu(largest + bias)`` and the phase that was largest, the first of equals; nothing outside."""
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
    """A 3x3 convolution: names of its input and weights, channels, output channels computed together."""

    source: str
    kernel: str
    n_inputs: int
    n_outputs: int
    at_once: int

    def weight(self, ir: IrWriter, group: Index, channel: Index, place: int) -> str:
        """Return a weight in the order of memory: by group of outputs, input channel, and place in that block."""
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
    """Convolve at the four pixels of every 2x2 window; ``write(channel, row, block, sums)`` gets the four sums."""
    with ir.loop(layer.n_outputs // layer.at_once) as group, ir.loop(n_rows) as row, ir.loop(_BLOCKS) as block:
        variables = [ir.variables(4) for _ in range(layer.at_once)]
        with ir.loop(layer.n_inputs) as channel:
            start = ((channel, stored_rows * 2 * _ROW), (row, 2 * 2 * _ROW), (block, LANES), (_MARGIN, 1))
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
    """Convolve 62x62 pixels; ``write(channel, row, block, sum)`` gets one vector of a channel and row."""
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
    """Return where a column lies, from the first place of the first strand."""
    return column % n_strands * _ROW + column // n_strands


def _image_window(ir: IrWriter, row: Index, parity: Index, block: Index) -> list[Index]:
    """Return where the 4x4 pixels around each of 16 pooling windows of the image lie."""
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


def _stored2(ir: IrWriter, channel: Index, row: Index, block: Index) -> Index:
    return ir.index((channel, 64 * _ROW), (row, _ROW), (block, LANES), (_ROW + _MARGIN, 1))


def strands(image: np.ndarray) -> np.ndarray:
    """Lay out an image ``(250, 250)`` as the kernel reads it: ``(252, 4, 96)`` float32, zeros around it."""
    stored = np.zeros((252, 4, _ROW), np.float32)
    for strand in range(4):
        columns = image[:, strand::4]
        stored[1:251, strand, _MARGIN : _MARGIN + columns.shape[1]] = columns
    return stored


def unstrand(stored: np.ndarray) -> np.ndarray:
    """Return the image ``(250, 250)`` that was laid out by :func:`strands`."""
    image = np.empty((250, 250), np.float32)
    for strand in range(4):
        columns = image[:, strand::4]
        columns[...] = stored[1:251, strand, _MARGIN : _MARGIN + columns.shape[1]]
    return image


def mark(path: Path) -> None:
    """Write into the ONNX graph of a :class:`radlens.graphs.CdmamGradient` that this kernel may compute it."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {_MARK: ENTRY, _NODES: _digest(model)})
    onnx.save(model, path)


def load_members(path: Path, at_once: int = _AT_ONCE) -> tuple[list[MemberWeights], float]:
    """Read the members of a marked ONNX graph, and the constant to be added to the midpoint, um of gold.

    Args:
        path: of the graph.
        at_once: output channels computed together, as given to :func:`kernel_text`.

    Raises:
        BundleError: not an ONNX graph, not marked, or changed since it was marked.
    """
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path.name} must be an ONNX graph, got {type(error).__name__}") from None
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if properties.get(_MARK) != ENTRY:
        raise BundleError(f"engine llvm computes gradients of CDMAM ensembles only, got {path.name} without their mark")
    if properties.get(_NODES) != _digest(model):
        raise BundleError(f"{path.name} must be as it was exported, got other operations")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    try:
        return _members(tensors, at_once), float(tensors["bias"])
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path.name} must hold the weights of a CDMAM ensemble, got others") from error


def _digest(model: onnx.ModelProto) -> str:
    return hashlib.sha256(b"".join(node.SerializeToString(deterministic=True) for node in model.graph.node)).hexdigest()


def _members(tensors: dict[str, np.ndarray], at_once: int) -> list[MemberWeights]:
    kernels = [tensors[f"conv{layer}.weight"] for layer in (1, 2, 3)]
    n_members = len(kernels[0]) // 8
    biases = [tensors["bias1"], tensors["bias2"], tensors["conv3.bias"]]
    head = np.pad(tensors["weight"].reshape(n_members, 32, 62, 62), ((0, 0), (0, 0), (0, 0), (0, 2)))
    members = []
    for m in range(n_members):
        one, two, three = (kernel.reshape(n_members, -1, *kernel.shape[1:])[m] for kernel in kernels)
        bias1, bias2, bias3 = (bias.reshape(n_members, -1)[m] for bias in biases)
        packed = (
            one.reshape(8, 3, 3),
            bias1,
            _packed(two, at_once, taps_last=True),
            bias2,
            _packed(three, at_once, taps_last=False),
            bias3,
            head[m],
            _packed(_turned(three), at_once, taps_last=False),
            _packed(_turned(two), at_once, taps_last=True),
        )
        members.append(MemberWeights(*(np.ascontiguousarray(array, np.float32) for array in packed)))
    return members


def _turned(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel ``(i, o, 3, 3)`` of the convolution back through ``(o, i, 3, 3)``."""
    return kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def _packed(kernel: np.ndarray, at_once: int, *, taps_last: bool) -> np.ndarray:
    """Bring ``(o, i, 3, 3)`` into the order ``(o / n, i, n, 9)`` or ``(o / n, i, 9, n)``."""
    groups = kernel.reshape(len(kernel) // at_once, at_once, kernel.shape[1], 9)
    return groups.transpose((0, 2, 1, 3) if taps_last else (0, 2, 3, 1))
