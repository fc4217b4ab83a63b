"""The report of phantom images as a self-contained HTML page without files, scripts or network access."""

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
"""Text for an attribute that is missing in a header."""

MEANING_OF_COLOURS = (
    "The map answers one question: how would the image have to change for the network to predict a lower curve, that "
    "is, a better image quality? Red pixels would have to become brighter and blue pixels darker, all at the same time "
    "and each by the amount of its value; black pixels may stay unchanged. Read the map as a whole: a single red "
    "or blue structure has no meaning of its own. The change lowers the midpoint of the curve, the mean of its 12 "
    "thresholds; the map makes no statement about a single diameter. It shows the structures that the network uses, "
    "which need not be those that a human observer uses."
)
"""Meaning of red and blue in a map of OMIG or sensitivity analysis (Amanova et al. 2022, section 2.3.1)."""

_NO_VERDICT = "No verdict: a threshold, or an end of its interval, is not positive."
"""Sentence in place of the verdict if the curve cannot be compared with the limits."""

_STYLES: Mapping[Answer, str] = {"met": "good", "not met": "bad", "not settled": "open"}
"""CSS class of an answer."""

_FIELDS = ("Phantom, serial number", "Name", "Date", "Signature")
"""Fields to fill in by hand."""


class Picture(NamedTuple):
    """One picture of the report.

    Attributes:
        title: title above the picture.
        png: picture as PNG.
        caption: text below the picture.
    """

    title: str
    png: bytes
    caption: str = ""


class DiskRow(NamedTuple):
    """Statistic of the map and of the map of the disk-free twin for one group of disks, as texts.

    Attributes:
        group: name of the group, such as "1 mm and more".
        n: number of disks.
        t: paired t of the disks against their rings.
        redder: fraction of disks that are redder than their ring.
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
    """One of several images.

    Attributes:
        number: position among the images, from 1.
        identity: end of the SOP Instance UID, or start of the hash.
        acquired: date and time of the acquisition.
        thresholds: midpoint and the 12 thresholds, micrometres of gold; dashes without a curve.
        standing: "counts", or the reason why the image is left out of the combined curve.
        counts: whether the image counts.
    """

    number: str
    identity: str
    acquired: str
    thresholds: Sequence[str]
    standing: str
    counts: bool


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Content of the report. All texts are escaped, so they may come from untrusted sources.

    A report with ``reasons`` is the grey page of images that cannot be judged: it shows no verdict, curve or map.

    Attributes:
        title: title of the page.
        created: date and time of the report.
        provenance: JSON values; nested mappings become dotted names.
        header: names and texts of attributes from the headers of the images; None for missing attributes.
        source: images behind the curve, such as "this image" or "these 8 images".
        reasons: reasons why the images cannot be judged; empty if they can.
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold; None without a curve.
        interval_um: ``(12, 2)`` lower and upper ends of the 95 % intervals, micrometres of gold.
        training: sentence about the training images of the model.
        curve: picture of the contrast-detail curve.
        checks: names and texts of the results of the registration.
        numbers: names and values of further numbers behind the decision whether the image can be judged.
        origin: sentences about the calculation of the curve.
        map_statement: statement of the map about the disks, or the sentence that replaces its pictures.
        maps: map and overlay; empty if a sentence replaces them.
        cutouts: enlarged regions.
        is_wide: whether the image is wider than high.
        regions_note: sentence about the enlarged regions.
        disks: disk statistic of the map and of its disk-free twin.
        ablation: picture of the effects of the cells.
        ablation_statement: sentence about these effects.
        images: rows for several images.
        warnings: sentences of warning.
        meaning: meaning of the colours.
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
    """Return the page as HTML: two A4 pages in print, one column of A4 width on a screen.

    Raises:
        InvalidInput: a picture is not a PNG, a report without reasons has no curve, or the curve is invalid (see
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
