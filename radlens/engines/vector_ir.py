"""Writer of LLVM's intermediate representation for functions on vectors of 16 float32.

LLVM splits a vector of 16 on processors with shorter registers. Variables are stack slots, which LLVM promotes to
registers; a product and a sum may become one fused instruction.
Source: LLVM Language Reference Manual.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["LANES", "IrWriter"]

LANES = 16
"""Number of elements of a vector: one register of AVX-512, two of AVX2, four of NEON."""

_FLOATS = f"<{LANES} x float>"
_BYTES = f"<{LANES} x i8>"
_FLAGS = f"<{LANES} x i1>"
_INDICES = f"<{LANES} x i64>"
_ZERO = "zeroinitializer"

Index = int | str


class IrWriter:
    """Collects the functions of a module. Methods return LLVM's names of values, such as ``%v12``.

    Operations of a function are written in the order of the calls. Indices count elements, not bytes.
    """

    zero = _ZERO
    """A vector of zeros."""

    def __init__(self) -> None:
        self._functions: list[str] = []
        self._lines: list[str] = []
        self._slots: list[str] = []
        self._n_names = 0

    def function(self, name: str, pointers: Sequence[str], body: Callable[[], None]) -> None:
        """Write the function ``void name(pointers)``; ``body`` writes its operations. The pointers must not alias."""
        self._lines, self._slots = [], []
        body()
        arguments = ", ".join(f"ptr noalias %{pointer}" for pointer in pointers)
        head = [f"define internal void @{name}({arguments}) #0 {{", "entry:"]
        self._functions.append("\n".join([*head, *self._slots, *self._lines, "  ret void", "}"]))

    def entry(self, name: str, pointers: Sequence[str], calls: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Write an exported function that calls other functions with some of its pointers."""
        arguments = ", ".join(f"ptr %{pointer}" for pointer in pointers)
        lines = [f"define void @{name}({arguments}) {{"]
        for callee, passed in calls:
            lines.append(f"  call void @{callee}({', '.join(f'ptr %{pointer}' for pointer in passed)})")
        self._functions.append("\n".join([*lines, "  ret void", "}"]))

    def text(self) -> str:
        """Return the module."""
        width = 32 * LANES
        attributes = f'noinline "min-legal-vector-width"="{width}" "prefer-vector-width"="{width}"'
        return "\n\n".join([*self._functions, f"attributes #0 = {{ {attributes} }}"]) + "\n"

    @contextmanager
    def loop(self, stop: int) -> Iterator[str]:
        """Write a loop around the operations of the ``with`` block; the index runs from 0 to ``stop - 1``."""
        index = self._slot("i64")
        label = index.removeprefix("%")
        self._do(f"store i64 0, ptr {index}")
        self._do(f"br label %head_{label}")
        self._lines.append(f"head_{label}:")
        value = self._op(f"load i64, ptr {index}")
        inside = self._op(f"icmp slt i64 {value}, {stop}")
        self._do(f"br i1 {inside}, label %body_{label}, label %end_{label}")
        self._lines.append(f"body_{label}:")
        yield value
        self._do(f"store i64 {self._op(f'add nsw i64 {value}, 1')}, ptr {index}")
        self._do(f"br label %head_{label}")
        self._lines.append(f"end_{label}:")

    def index(self, *terms: tuple[Index, int]) -> Index:
        """Return the sum of ``value * factor`` over ``terms``."""
        constant = sum(value * factor for value, factor in terms if isinstance(value, int))
        total: Index = constant
        for value, factor in terms:
            if isinstance(value, str):
                product = value if factor == 1 else self._op(f"mul nsw i64 {value}, {factor}")
                total = product if total == 0 else self._op(f"add nsw i64 {product}, {total}")
        return total

    def either(self, index: Index, if_zero: int, otherwise: int) -> Index:
        """Return one of two constants, depending on whether ``index`` is 0."""
        is_zero = self._op(f"icmp eq i64 {index}, 0")
        return self._op(f"select i1 {is_zero}, i64 {if_zero}, i64 {otherwise}")

    def variables(self, count: int) -> list[str]:
        """Return ``count`` vector variables, set to zero."""
        slots = [self._slot(_FLOATS) for _ in range(count)]
        self.set(slots, [_ZERO] * count)
        return slots

    def get(self, variables: Sequence[str]) -> list[str]:
        """Return the values of ``variables``."""
        return [self._op(f"load {_FLOATS}, ptr {variable}") for variable in variables]

    def set(self, variables: Sequence[str], values: Sequence[str]) -> None:
        """Assign ``values`` to ``variables``."""
        for variable, value in zip(variables, values, strict=True):
            self._do(f"store {_FLOATS} {value}, ptr {variable}")

    def load(self, pointer: str, index: Index) -> str:
        """Return 16 numbers, starting at ``index``."""
        return self._op(f"load {_FLOATS}, ptr {self._at(pointer, index)}, align 4")

    def store(self, pointer: str, index: Index, value: str) -> None:
        """Write 16 numbers, starting at ``index``."""
        self._do(f"store {_FLOATS} {value}, ptr {self._at(pointer, index)}, align 4")

    def load_bytes(self, pointer: str, index: Index) -> str:
        """Return 16 bytes, starting at ``index``."""
        return self._op(f"load {_BYTES}, ptr {self._at(pointer, index, 'i8')}, align 1")

    def store_bytes(self, pointer: str, index: Index, value: str) -> None:
        """Write 16 bytes, starting at ``index``."""
        self._do(f"store {_BYTES} {value}, ptr {self._at(pointer, index, 'i8')}, align 1")

    def splat(self, pointer: str, index: Index) -> str:
        """Return the number at ``index`` in all 16 lanes."""
        return self._repeated(_FLOATS, "float", self._op(f"load float, ptr {self._at(pointer, index)}, align 4"))

    def multiply_add(self, a: str, b: str, c: str) -> str:
        """Return ``a * b + c``."""
        # "contract" allows LLVM to fuse the two into one instruction.
        product = self._op(f"fmul contract {_FLOATS} {a}, {b}")
        return self._op(f"fadd contract {_FLOATS} {product}, {c}")

    def add(self, a: str, b: str) -> str:
        """Return ``a + b``."""
        return self._op(f"fadd {_FLOATS} {a}, {b}")

    def larger(self, a: str, b: str) -> str:
        """Return the larger of each pair."""
        return self.where(self.above(a, b), a, b)

    def above(self, a: str, b: str) -> str:
        """Return whether ``a > b``, for each lane."""
        return self._op(f"fcmp ogt {_FLOATS} {a}, {b}")

    def at_least(self, a: str, b: str) -> str:
        """Return whether ``a >= b``, for each lane."""
        return self._op(f"fcmp oge {_FLOATS} {a}, {b}")

    def both(self, a: str, b: str) -> str:
        """Return the logical and of two flags, for each lane."""
        return self._op(f"and {_FLAGS} {a}, {b}")

    def lanes_below(self, first: Index, limit: Index) -> str:
        """Return whether ``first + k < limit``, for each lane k."""
        room = self._op(f"sub nsw i64 {limit}, {first}")
        lanes = "<" + ", ".join(f"i64 {lane}" for lane in range(LANES)) + ">"
        return self._op(f"icmp slt {_INDICES} {lanes}, {self._repeated(_INDICES, 'i64', room)}")

    def where(self, flags: str, a: str, b: str = _ZERO) -> str:
        """Return ``a`` where the flag is set, else ``b``."""
        return self._op(f"select {_FLAGS} {flags}, {_FLOATS} {a}, {_FLOATS} {b}")

    def where_bytes(self, flags: str, a: str, b: str) -> str:
        """Return bytes ``a`` where the flag is set, else ``b``."""
        return self._op(f"select {_FLAGS} {flags}, {_BYTES} {a}, {_BYTES} {b}")

    def equal_bytes(self, a: str, b: str) -> str:
        """Return whether bytes are equal, for each lane."""
        return self._op(f"icmp eq {_BYTES} {a}, {b}")

    @staticmethod
    def bytes_of(number: int) -> str:
        """Return a constant byte in all 16 lanes."""
        return "<" + ", ".join([f"i8 {number}"] * LANES) + ">"

    def _repeated(self, vector: str, scalar: str, value: str) -> str:
        one = self._op(f"insertelement {vector} poison, {scalar} {value}, i64 0")
        return self._op(f"shufflevector {vector} {one}, {vector} poison, <{LANES} x i32> zeroinitializer")

    def _at(self, pointer: str, index: Index, kind: str = "float") -> str:
        return self._op(f"getelementptr inbounds {kind}, ptr %{pointer}, i64 {index}")

    def _slot(self, kind: str) -> str:
        name = self._name()
        self._slots.append(f"  {name} = alloca {kind}")
        return name

    def _op(self, operation: str) -> str:
        name = self._name()
        self._lines.append(f"  {name} = {operation}")
        return name

    def _do(self, statement: str) -> None:
        self._lines.append(f"  {statement}")

    def _name(self) -> str:
        self._n_names += 1
        return f"%v{self._n_names}"
