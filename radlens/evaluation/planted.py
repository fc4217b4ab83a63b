"""Whether maps point at a planted cause, the one thing by which a classifier tells the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput
from radlens.evaluation.checks import finite_map, mask
from radlens.evaluation.planted_record import RECORD

__all__ = ["TOLERANCE", "evidence_share", "hits_table", "known_of", "peak_hits", "wilson"]

TOLERANCE = 3
"""Pixels around the cause that count as hits: less than half a cell of the classifiers' class activation maps."""


def peak_hits(map: ArrayLike, cause: ArrayLike, tolerance: int = TOLERANCE) -> bool:
    """Return whether the largest value of a map lies within ``tolerance`` pixels of the cause.

    Of several pixels with the largest value, at least half must lie there. A constant map hits nothing.

    Args:
        map: ``(h, w)``, signed; positive values are evidence for the explained class.
        cause: ``(h, w)`` bool.
        tolerance: chessboard distance in pixels.

    Raises:
        InvalidInput: the shapes differ or a value is not finite.
    """
    scores, where = _pair(map, cause)
    if scores.min() == scores.max():
        return False
    near = ndimage.maximum_filter(where, size=2 * tolerance + 1)
    peak = scores == scores.max()
    return bool(2 * np.count_nonzero(peak & near) >= np.count_nonzero(peak))


def evidence_share(map: ArrayLike, cause: ArrayLike, tolerance: int = TOLERANCE) -> float:
    """Return the share of the positive values of a map that lies within ``tolerance`` pixels of the cause, 0..1.

    A map without positive values has the share 0; arguments and errors are those of `peak_hits`.
    """
    scores, where = _pair(map, cause)
    positive = np.maximum(scores, 0)
    near = ndimage.maximum_filter(where, size=2 * tolerance + 1)
    total = float(positive.sum())
    return float(positive[near].sum()) / total if total > 0 else 0.0


def wilson(n_hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion."""
    from scipy import stats

    found = stats.binomtest(n_hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def known_of(method: str, record: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return what is known of a method on planted causes, as JSON values; None if it was not measured.

    Args:
        method: name of the method.
        record: result of the study; by default the one that radlens ships.
    """
    record = RECORD if record is None else record
    causes = {
        cause: {
            **{key: found["methods"][method][key] for key in ("n_hits", "n", "low", "high", "p")},
            "best_baseline": found["best_baseline"],
            "best_baseline_rate": found["baselines"][found["best_baseline"]]["rate"],
        }
        for cause, found in record["causes"].items()
        if method in found["methods"]
    }
    if not causes:
        return None
    return {
        "causes": causes,
        "meaning": "how often the largest value of a map of this method lies at the only cause of the class, in small "
        "classifiers that were trained on simulated images with one planted cause each; low and high are the 95 % "
        "interval, p the corrected p-value against the best baseline. It describes the method, not this model",
        "command": record["command"],
    }


def hits_table(record: Mapping[str, Any], causes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row for each method and baseline: its name, then hits with interval, one cell for each cause."""
    names = dict.fromkeys(name for cause in causes for name in record["causes"][cause]["methods"])
    rows = []
    for name in names:
        cells = [_cell(record["causes"][cause]["methods"].get(name)) for cause in causes]
        rows.append((name, *cells))
    return rows


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    star = " *" if found.get("p", 1.0) < 0.05 else ""
    return f"{found['n_hits'] / found['n']:.0%} ({found['low']:.0%} to {found['high']:.0%}){star}"


def _pair(map: ArrayLike, cause: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, where = finite_map("map", map), mask("cause", cause)
    if scores.shape != where.shape:
        raise InvalidInput(f"cause must have the shape of the map {scores.shape}, got {where.shape}")
    return scores, where
