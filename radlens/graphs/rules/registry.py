"""The rules of differentiation: one function for each operation, registered where it is defined.

A rule is called as ``rule(gradient, output, *arguments)``. ``gradient`` belongs to ``output`` (a list of both when the
operation has several results; None where a result is not used). It returns one gradient for each leading argument,
None where there is none to give; for arguments that broadcast, it is summed afterwards over what was broadcast.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["RULES", "Rule", "derivative", "without_derivative"]

Rule = Callable[..., Any]

RULES: dict[torch._ops.OpOverload, Rule | None] = {}
"""Rule of every supported operation; None: computed forward only, its gradient is zero or it has none."""


def derivative(*operations: torch._ops.OpOverload) -> Callable[[Rule], Rule]:
    """Register a rule for ``operations``."""

    def register(rule: Rule) -> Rule:
        for operation in operations:
            _add(operation, rule)
        return rule

    return register


def without_derivative(*operations: torch._ops.OpOverload) -> None:
    """Register operations that are computed, but pass no gradient on."""
    for operation in operations:
        _add(operation, None)


def _add(operation: torch._ops.OpOverload, rule: Rule | None) -> None:
    if operation in RULES:
        raise ValueError(f"{operation} must have one rule, got a second")
    RULES[operation] = rule
