"""The report of phantom images as a single HTML page that needs nothing else: no files, no scripts, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from radlens.errors import InvalidInput
from radlens.evaluation.cdc import SIGNS, Answer, CdcVerdict, DiameterVerdict, describe, verdict
from radlens.figures.html import environment, flattened
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = ["MEANING_OF_COLOURS", "NOT_STATED", "DiskRow", "ImageRow", "Picture", "ReportContent", "report_page"]

NOT_STATED = "not stated"
"""What stands in place of an attribute that a header lacks."""

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

_FIELDS = ("Phantom, serial number", "Name", "Date", "Signature")
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


class DiskRow(NamedTuple):
    """What the map and the map of the disk-free twin say of one group of disks; texts.

    Attributes:
        group: such as "large, 1 mm and more".
        n: number of disks.
        t: paired t of the disks against their rings.
        redder: share of disks that are red against their ring.
        twin_t: ``t`` of the disk-free twin.
        twin_redder: ``redder`` of the disk-free twin.
    """

    group: str
    n: str
    t: str
    redder: str
    twin_t: str
    twin_redder: str


class ImageRow(NamedTuple):
    """One image of several.

    Attributes:
        number: place among the images, from 1.
        identity: the end of its SOP Instance UID, or the beginning of its hash.
        acquired: date and time.
        thresholds: midpoint and the 12 thresholds, micrometres of gold; dashes without a curve.
        standing: whether it counts, and why not.
        counts: whether it counts.
    """

    number: str
    identity: str
    acquired: str
    thresholds: Sequence[str]
    standing: str
    counts: bool


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that the report shows. Texts are escaped; they may come from anywhere.

    A report with ``reasons`` is the grey page of images that cannot be judged: it shows no verdict, curve or map.

    Attributes:
        title: of the page.
        created: date and time of the report.
        provenance: JSON values; nested mappings become dotted names.
        header: names and texts of what the images' headers state; None where they do not.
        source: what the curve was determined from, such as "this image" or "these 8 images".
        reasons: why the images cannot be judged; empty if they can.
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold; None without a curve.
        interval_um: ``(12, 2)`` lower and upper ends of their 95 % intervals, micrometres of gold.
        training: sentence on the images that the model was trained on.
        curve: the contrast-detail curve.
        checks: names and texts of what was checked about the registration.
        numbers: names and values of further numbers on which the decision to judge rests.
        origin: sentences on how the curve came about.
        map_statement: what the map says of the disks, or the sentence that stands in place of its pictures.
        maps: map and overlay; empty where a sentence stands in their place.
        cutouts: enlarged regions.
        is_wide: whether the image is wider than high.
        regions_note: sentence on the enlarged regions where the phantom could not be registered.
        disks: statistic of the map beside that of its disk-free twin.
        ablation: effects of the cells.
        ablation_statement: what they say.
        images: each image of several.
        warnings: sentences.
        meaning: what the colours mean.
    """

    title: str
    created: str
    provenance: Mapping[str, Any]
    header: Sequence[tuple[str, str | None]] = ()
    source: str = "this image"
    reasons: Sequence[str] = ()
    mean_um: np.ndarray | None = None
    interval_um: np.ndarray | None = None
    training: str = ""
    curve: Picture | None = None
    checks: Sequence[tuple[str, str]] = ()
    numbers: Sequence[tuple[str, str]] = ()
    origin: Sequence[str] = ()
    map_statement: str = ""
    maps: Sequence[Picture] = ()
    cutouts: Sequence[Picture] = ()
    is_wide: bool = False
    regions_note: str = ""
    disks: Sequence[DiskRow] = ()
    ablation: Picture | None = None
    ablation_statement: str = ""
    images: Sequence[ImageRow] = ()
    warnings: Sequence[str] = ()
    meaning: str = MEANING_OF_COLOURS


class _Row(NamedTuple):
    diameter: str
    mean: str
    interval: str
    limited: DiameterVerdict | None


def report_page(content: ReportContent) -> str:
    """Return the page as HTML: two A4 pages on paper, one column of that width on a screen.

    Raises:
        InvalidInput: a picture that is not a PNG, no curve of images that can be judged, or an invalid curve (see
            `radlens.evaluation.verdict`).
    """
    found = None if content.reasons else _verdict(content)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            content=content,
            fields=_FIELDS,
            rows=[] if content.reasons else _rows(content, found),
            verdict=found,
            verdict_text=describe(found, source=content.source) if found else _NO_VERDICT,
            signs=SIGNS,
            styles=_STYLES,
            diameters=[f"{diameter:.2f}" for diameter in CDC_DIAMETERS_MM],
            not_stated=NOT_STATED,
            provenance=list(flattened(content.provenance)),
        )
    )


def _verdict(content: ReportContent) -> CdcVerdict | None:
    if content.mean_um is None or content.interval_um is None or content.curve is None:
        raise InvalidInput("content must hold a curve, or the reasons why there is none, got neither")
    is_positive = np.min(content.mean_um) > 0 and np.min(content.interval_um) > 0
    return verdict(content.mean_um, content.interval_um) if is_positive else None


def _rows(content: ReportContent, found: CdcVerdict | None) -> list[_Row]:
    limited = {point.diameter_mm: point for point in found.diameters} if found else {}
    mean, interval = np.asarray(content.mean_um).tolist(), np.asarray(content.interval_um).tolist()
    return [
        _Row(f"{diameter:.2f}", f"{m:.3f}", f"{low:.3f} to {high:.3f}", limited.get(diameter))
        for diameter, m, (low, high) in zip(CDC_DIAMETERS_MM, mean, interval, strict=True)
    ]
