"""Operations that :func:`radlens.graphs.gradient_graph` supports, as a mapping and as a page of the documentation."""

from collections.abc import Mapping
from types import MappingProxyType

from radlens.graphs.passes.batch_norm import BATCH_NORM
from radlens.graphs.passes.lowering import LOWERINGS
from radlens.graphs.rules import RULES

__all__ = ["SUPPORTED", "render"]


def _collected() -> dict[str, str]:
    found: dict[str, str] = {}
    for operation, rule in RULES.items():
        text = "Computed; does not pass a gradient." if rule is None else _first_line(rule)
        found.setdefault(str(operation.overloadpacket), text)
    for operation, lowering in LOWERINGS.items():
        found[str(operation.overloadpacket)] = _first_line(lowering)
    found[str(BATCH_NORM.overloadpacket)] = "Batch normalisation, folded into the layer before it or scale and shift."
    return dict(sorted(found.items(), key=lambda item: item[0].replace("_", "")))


def _first_line(function: object) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0]


SUPPORTED: Mapping[str, str] = MappingProxyType(_collected())
"""Operations of torch that can be compiled, each with its description."""

_HEAD = """# Supported operations

`radlens.graphs.gradient_graph` and `classifier_graphs` compile modules in evaluation mode that consist of these
operations, and of operations that torch decomposes into them (`glu`, `einsum`, `normalize`, losses, ...). In-place
operations count as their out-of-place forms. Any other operation raises `UnsupportedOperation` with the name of the
operation and the layer.

- The batch is the first axis of every input, and samples must be independent: no mean over the batch, no batch
  statistics, no batch size in the arithmetic.
- Control flow must not depend on data, and weights must not depend on the input.
- Where a function is not differentiable, the gradient is autograd's: ReLU has the derivative zero at zero, and the
  first of equal maxima gets the gradient.
- `detach` and `torch.no_grad` stop the gradient. A `torch.autograd.Function` is compiled from its forward; if its
  backward is not the gradient of its forward, an error is raised.
- A score that does not depend on the input raises an error.

| operation | |
|---|---|
"""


def render() -> str:
    """Return the page ``docs/graphs.md``."""
    rows = [f"| `{name.removeprefix('aten.')}` | {text} |" for name, text in SUPPORTED.items()]
    return _HEAD + "\n".join(rows) + "\n"
