"""The LLVM engine: the gradient of a CDMAM ensemble as one kernel, compiled for this processor when a graph is opened.

The engine does not open other graphs. :mod:`radlens.engines.llvm_kernel` describes the kernel and its purpose.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens.engines.base import GraphEngine, Options, register
from radlens.engines.graph_file import GraphFile
from radlens.engines.llvm_kernel import (
    BACKWARD,
    FORWARD,
    KERNEL,
    MARK,
    Member,
    MemberWeights,
    Scratch,
    kernel_text,
    load_members,
    pointers,
    strands,
    unstrand,
)
from radlens.engines.vector_ir import LANES
from radlens.errors import InvalidInput, MissingDependency

__all__ = ["LlvmEngine", "LlvmGraphEngine"]

_MEMBERS_PER_TASK = 2
"""Number of members that a task adds up. It is constant, because it determines the order of the additions."""

_IMAGES_PER_CHUNK = 16
"""Number of images whose tasks are queued at the same time; an image takes 2.3 MB with ten members."""


class LlvmEngine:
    """Runs the gradient graph of a CDMAM bundle on the CPU in float32.

    Args:
        path: ONNX graph with the mark of this kernel; only its weights are used.
        n_threads: number of threads, by default torch's.
        at_once: number of output channels computed together, 1, 2 or 4; by default as many as the registers hold.

    Raises:
        MissingDependency: ``llvmlite`` is not installed.
        BundleError: the graph is not the gradient of a CDMAM ensemble, or was changed after its export.
    """

    name = "llvm"
    precision = "f32"

    def __init__(self, path: Path, n_threads: int | None = None, at_once: int | None = None) -> None:
        # Four channels together need the 32 registers of AVX-512.
        at_once = at_once or (4 if _llvm().get_host_cpu_features().get("avx512f") else 1)
        self._members = load_members(path, at_once)
        self._kernel = _Kernel(len(self._members[0].head), at_once)
        # Threads instead of processes: ctypes releases the GIL during a call.
        self._pool = ThreadPoolExecutor(n_threads or torch.get_num_threads(), thread_name_prefix="llvm")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute midpoint and gradient.

        Args:
            inputs: ``images``, ``(b, 1, 250, 250)`` float32.

        Returns:
            ``score`` ``(b,)`` in um of gold and ``gradient`` ``(b, 1, 250, 250)``, both float32.

        Raises:
            InvalidInput: other names, shape or dtype.
        """
        images = _checked(inputs)
        scores = np.empty(len(images), np.float32)
        gradients = np.empty((len(images), 1, 250, 250), np.float32)
        step = _MEMBERS_PER_TASK
        groups = [self._members[first : first + step] for first in range(0, len(self._members), step)]
        for first in range(0, len(images), _IMAGES_PER_CHUNK):
            last = min(first + _IMAGES_PER_CHUNK, len(images))
            stored = list(self._pool.map(strands, images[first:last, 0]))
            tasks = [[self._pool.submit(self._kernel.sum_of, group, image) for group in groups] for image in stored]
            for row, parts in enumerate(tasks, start=first):
                results = [part.result() for part in parts]
                scores[row] = sum(score for score, _ in results)
                # Added in the order of the members, not of completion: the result does not depend on timing.
                gradients[row, 0] = unstrand(sum(gradient for _, gradient in results))  # type: ignore[arg-type]
        return {"score": scores, "gradient": gradients}


class _Kernel:
    """The compiled functions, and scratch memory for each thread that calls them."""

    def __init__(self, rank: int, at_once: int) -> None:
        llvm = _llvm()
        self._rank = rank
        module = llvm.parse_assembly(kernel_text(rank, at_once))
        module.verify()
        # For some processors with 512-bit registers, LLVM prefers 256-bit vectors by default.
        features = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit".lstrip(",")
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        _optimise(llvm, module, machine)
        # Kept as an attribute: the compiled code is freed together with the compiler.
        self._compiler = llvm.create_mcjit_compiler(module, machine)
        self._compiler.finalize_object()
        n_pointers = len(MemberWeights.__dataclass_fields__) + len(vars(Scratch())) + 2
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_pointers)
        self._forward, self._backward = (
            kind(self._compiler.get_function_address(name)) for name in (FORWARD, BACKWARD)
        )
        self._local = threading.local()

    def sum_of(self, members: Sequence[Member], image: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of the members' contributions to midpoint and gradient of an image in strands."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
            self._local.addresses = pointers(self._local.scratch)
        score, gradient = 0.0, np.zeros_like(image)
        for member in members:
            shared = (*member.addresses, *self._local.addresses)
            sums = np.zeros((62, self._rank, LANES), np.float32)
            self._forward(*shared, image.ctypes.data, sums.ctypes.data)
            part, coefficients = member.outcome(sums.sum(axis=(0, 2), dtype=np.float64))
            self._backward(*shared, coefficients.ctypes.data, gradient.ctypes.data)
            score += part
        return score, gradient


def _llvm() -> Any:
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise MissingDependency("engine llvm needs the package llvmlite: pip install 'radlens[cpu]'") from error
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _optimise(llvm: Any, module: Any, machine: Any) -> None:
    """Optimise the module; mainly, this turns stack slots into registers."""
    # The loops are already vectorised and unrolled as intended.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _checked(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if set(inputs) != {"images"}:
        raise InvalidInput(f"inputs must be images, got {', '.join(sorted(inputs)) or 'none'}")
    images = inputs["images"]
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (1, 250, 250):
        raise InvalidInput(f"images must be (b, 1, 250, 250) float32, got {images.shape} {images.dtype}")
    return images


@register("llvm")
class LlvmGraphEngine(GraphEngine):
    """Opens the gradient graph of a CDMAM bundle with :class:`LlvmEngine`; other graphs are not supported."""

    gradients_only = True

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        super().__init__(graph, precision, options)
        self._engine = LlvmEngine(graph.path, options.threads)

    @classmethod
    def require(cls) -> None:
        """Check that LLVM is installed."""
        _llvm()

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of ``llvmlite``, which includes LLVM."""
        return {"llvmlite": version("llvmlite")}

    @classmethod
    def opens(cls, graph: GraphFile) -> bool:
        """Return whether ``graph`` has the mark of a CDMAM gradient."""
        return any((entry.key, entry.value) == (MARK, KERNEL) for entry in graph.model.metadata_props)

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch."""
        return self._engine.run(inputs)
