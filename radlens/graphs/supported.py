"""What :func:`radlens.graphs.gradient_graph` can compile, as a list and as a page of the documentation."""

from collections.abc import Mapping
from types import MappingProxyType

from radlens.graphs.passes.batch_norm import BATCH_NORM
from radlens.graphs.passes.lowering import LOWERINGS
from radlens.graphs.rules import RULES

__all__ = ["SUPPORTED", "render"]


def _collected() -> dict[str, str]:
    found: dict[str, str] = {}
    for operation, rule in RULES.items():
        text = "Computed; passes no gradient." if rule is None else _first_line(rule)
        found.setdefault(str(operation.overloadpacket), text)
    for operation, lowering in LOWERINGS.items():
        found[str(operation.overloadpacket)] = _first_line(lowering)
    found[str(BATCH_NORM.overloadpacket)] = "Batch normalisation, folded into the layer before it or scale and shift."
    return dict(sorted(found.items(), key=lambda item: item[0].replace("_", "")))


def _first_line(function: object) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0]


SUPPORTED: Mapping[str, str] = MappingProxyType(_collected())
"""Operations of torch that can be compiled, with what is said of each."""

_HEAD = """# What can be compiled

`radlens.graphs.gradient_graph` and `classifier_graphs` compile modules in evaluation mode that are made of these
operations, and of everything that torch's own decompositions take apart into them (`glu`, `einsum`, `normalize`,
losses, ...). In-place forms count as their plain forms. Any other operation raises `UnsupportedOperation` with the name
of the operation and the layer.

- The batch is the first axis of every input, and no operation may join samples: no mean over the batch, no batch
  statistics, no batch size in the arithmetic.
- The path through the network must not depend on data, and weights must not depend on the input.
- Where a function has a kink the gradient is the one that autograd gives: zero of ReLU at zero, the first of equal
  maxima.
- `detach` and `torch.no_grad` stop the gradient. A `torch.autograd.Function` is compiled from its forward; one whose
  own backward is something else is refused.
- A score that does not depend on the input is refused.

| operation | |
|---|---|
"""


def render() -> str:
    """Return the page ``docs/graphs.md``."""
    rows = [f"| `{name.removeprefix('aten.')}` | {text} |" for name, text in SUPPORTED.items()]
    return _HEAD + "\n".join(rows) + "\n"
