"""Result of ``radlens reproduce planted -o studies/planted``, which trust cards and study pages state; do not edit."""

from typing import Any

__all__ = ["RECORD"]

RECORD: dict[str, Any] = {
    "command": "radlens reproduce planted -o studies/planted",
    "options": {"n_networks": 2},
    "causes": {},
}
"""Hits of each method by cause, as written by `radlens.studies.planted`."""
