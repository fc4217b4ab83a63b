"""The report of one phantom image as a single HTML page that needs nothing else: no files, no scripts, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from radlens.evaluation.cdc import SIGNS, Answer, CdcVerdict, DiameterVerdict, describe, verdict
from radlens.figures.html import environment, flattened
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = ["MEANING_OF_COLOURS", "Picture", "ReportContent", "report_page"]

MEANING_OF_COLOURS = (
    "The map answers one question: how would the image have to change for the network to predict a lower curve, that "
    "is, a better image quality? Red pixels would have to become brighter and blue pixels darker, black ones may stay "
    "as they are - all of them at the same time, each by the amount of its value. No red or blue structure says "
    "anything on its own: read the map as a whole. What is lowered is the midpoint of the curve, the mean of its 12 "
    "thresholds; the map makes no statement about a single diameter. It shows what the network looks at, which need "
    "not be what an observer looks at."
)
"""What red and blue mean in a map of OMIG or sensitivity analysis (Amanova et al. 2022, section 2.3.1)."""

_NO_VERDICT = "No verdict: a threshold, or an end of its interval, is not positive."
"""Sentence in place of the verdict where the curve cannot be compared with limits."""

_STYLES: Mapping[Answer, str] = {"met": "good", "not met": "bad", "not settled": "open"}
"""Style of an answer in the page's style sheet."""

_FIELDS = (
    *("Institution", "System, serial number", "Target / filter", "kVp / mAs"),
    *("Date of exposure", "Phantom serial number", "Medical physicist", "Date, signature"),
)
"""Lines to be filled in by hand."""


class Picture(NamedTuple):
    """One picture of the report.

    Attributes:
        title: above it.
        png: its bytes.
        caption: below it.
    """

    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that the report shows. Texts are escaped; they may come from anywhere.

    Attributes:
        title: of the page.
        created: date and time of the report.
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold.
        interval_um: ``(12, 2)`` lower and upper ends of their 95 % intervals, micrometres of gold.
        curve: the contrast-detail curve.
        maps: map and overlay.
        cutouts: enlarged regions.
        warnings: sentences.
        meaning: what the colours mean.
        provenance: JSON values; nested mappings become dotted names.
    """

    title: str
    created: str
    mean_um: np.ndarray
    interval_um: np.ndarray
    curve: Picture
    maps: Sequence[Picture]
    cutouts: Sequence[Picture]
    provenance: Mapping[str, Any]
    warnings: Sequence[str] = ()
    meaning: str = field(default=MEANING_OF_COLOURS)


class _Row(NamedTuple):
    diameter: str
    mean: str
    interval: str
    limited: DiameterVerdict | None


def report_page(content: ReportContent) -> str:
    """Return the page as HTML: on paper A4, on a screen a column of that width.

    Raises:
        InvalidInput: a picture that is not a PNG, or an invalid curve (see `radlens.evaluation.verdict`).
    """
    is_positive = np.min(content.mean_um) > 0 and np.min(content.interval_um) > 0
    found = verdict(content.mean_um, content.interval_um) if is_positive else None
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            content=content,
            fields=_FIELDS,
            rows=_rows(content, found),
            verdict=found,
            verdict_text=describe(found) if found else _NO_VERDICT,
            signs=SIGNS,
            styles=_STYLES,
            provenance=list(flattened(content.provenance)),
        )
    )


def _rows(content: ReportContent, found: CdcVerdict | None) -> list[_Row]:
    limited = {point.diameter_mm: point for point in found.diameters} if found else {}
    mean, interval = np.asarray(content.mean_um).tolist(), np.asarray(content.interval_um).tolist()
    return [
        _Row(f"{diameter:.2f}", f"{m:.3f}", f"{low:.3f} to {high:.3f}", limited.get(diameter))
        for diameter, m, (low, high) in zip(CDC_DIAMETERS_MM, mean, interval, strict=True)
    ]
