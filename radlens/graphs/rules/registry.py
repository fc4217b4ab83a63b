"""Registry of the rules of differentiation: one function for each operation, registered where it is defined.

A rule is called as ``rule(gradient, output, *arguments)``, where ``gradient`` is the gradient of ``output``. If the
operation has several results, both are lists, with None for the gradient of an unused result. A rule returns one
gradient for each leading argument, or None for an argument without a gradient. Gradients of broadcast arguments are
summed by the caller.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["RULES", "Rule", "derivative", "without_derivative"]

Rule = Callable[..., Any]

RULES: dict[torch._ops.OpOverload, Rule | None] = {}
"""Rule of each supported operation; None if the operation does not pass a gradient."""


def derivative(*operations: torch._ops.OpOverload) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule for ``operations``."""

    def register(rule: Rule) -> Rule:
        for operation in operations:
            _add(operation, rule)
        return rule

    return register


def without_derivative(*operations: torch._ops.OpOverload) -> None:
    """Register operations that do not pass a gradient."""
    for operation in operations:
        _add(operation, None)


def _add(operation: torch._ops.OpOverload, rule: Rule | None) -> None:
    if operation in RULES:
        raise ValueError(f"{operation} must have one rule, got a second")
    RULES[operation] = rule
