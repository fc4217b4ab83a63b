"""Content of a report, from the answers of a model and the images that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter
from radlens.figures import report_texts as texts
from radlens.figures.page import Picture, ReportContent
from radlens.figures.report_pictures import (
    ablation_picture,
    curve_picture,
    cutout_pictures,
    disk_boxes,
    map_pictures,
)
from radlens.images import Image
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam.registered import Registered
from radlens.phantoms.cdmam.series import SeriesReadOut

__all__ = ["ReportSources", "report_content"]

TITLE = "CDMAM image quality: predicted contrast-detail curve"


@dataclass(frozen=True, eq=False)
class ReportSources:
    """Sources of a report.

    Attributes:
        predicted: answer to a prediction of one or several images.
        image: the displayed image: the only one, or the first of several that counts.
        headers: attributes from the header of each image, from `radlens.images.exposure.exposure`; at least one.
        created: date and time of the report.
        phantom: phantom registered in ``image``; None if the registration failed.
        failure: reason why the registration failed.
        explanation: decoded answer to an explanation of ``image``; None without an explanation.
        shown: the map of ``explanation``; None without a map.
        least_reliability: smallest reliability of a map that is shown as a finding.
        ablation: answer to a disk ablation of ``image``; None if it was not requested.
        read_out: automated read-out of all images; None if there are too few.
        warnings: sentences in addition to the warnings of the answers.
    """

    predicted: Mapping[str, Any]
    image: Image
    headers: Sequence[Mapping[str, str | None]]
    created: str
    phantom: Registered | None = None
    failure: str = ""
    explanation: Mapping[str, Any] | None = None
    shown: UpsampledMap | None = None
    least_reliability: float = 0.5
    ablation: Mapping[str, Any] | None = None
    read_out: SeriesReadOut | None = None
    warnings: Sequence[str] = ()


def report_content(sources: ReportSources) -> ReportContent:
    """Draw the pictures of a report and collect its texts; for images that cannot be judged, collect the reasons.

    Raises:
        InvalidInput: image and map differ in shape, or one has values that are not finite.
    """
    predicted, images = sources.predicted, sources.predicted.get("images", ())
    common: dict[str, Any] = {
        "title": TITLE,
        "created": sources.created,
        "provenance": _provenance(sources),
        "header": texts.header_rows(sources.headers),
        "checks": texts.checks(sources.phantom, sources.failure),
        "numbers": texts.numbers(_own_answer(sources).get("assessment", {})),
        "images": texts.image_rows(images),
        "warnings": _warnings(sources),
    }
    n_sent = max(len(images), 1)
    if not predicted.get("assessable", True):
        reasons = predicted["reasons"] or ["the model gives no reason"]
        return ReportContent(**common, source=_source(n_sent), reasons=reasons)
    found = predicted["prediction"]
    source = _source(found.get("n_images", 1))
    mean, interval = np.array(found["mean_um"]), np.array(found["interval_um"])
    return ReportContent(
        **common,
        source=source,
        mean_um=mean,
        interval_um=interval,
        training=texts.training(predicted["provenance"]),
        curve=curve_picture(mean, interval, source, sources.read_out),
        origin=texts.origin(found, predicted["provenance"]),
        **_explained(sources),
        **_ablated(sources),
    )


def _source(n_images: int) -> str:
    return "this image" if n_images == 1 else f"these {n_images} images"


def _own_answer(sources: ReportSources) -> Mapping[str, Any]:
    """Return the part of the prediction about the displayed image."""
    images = sources.predicted.get("images", ())
    return next((each for each in images if each["sha256"] == sources.image.sha256), sources.predicted)


def _warnings(sources: ReportSources) -> list[str]:
    answers = [sources.predicted, sources.explanation or {}, sources.ablation or {}]
    said = [warning for answer in answers for warning in answer.get("warnings", ())]
    said += texts.left_out(sources.predicted.get("images", ()))
    if sources.phantom is None and sources.predicted.get("assessable", True):
        said.append(f"The phantom could not be registered for this report: {sources.failure}.")
    return list(dict.fromkeys([*said, *sources.warnings]))


def _explained(sources: ReportSources) -> dict[str, Any]:
    """Return map, overlay, regions and disk statistic, or the sentence that replaces the pictures."""
    answer = sources.explanation
    found = None if answer is None else answer["explanation"]
    if answer is None or found is None or sources.shown is None:
        reasons = "; ".join(answer["reasons"]) if answer else "it was not requested"
        return {"map_statement": f"No map: {reasons}."}
    method = texts.method_line(found, answer["provenance"])
    is_finding, statement = _judged(found, sources.least_reliability)
    about: dict[str, Any] = {"disks": texts.disk_rows(found.get("disks"))}
    if not is_finding:
        return {**about, "map_statement": f"No map is shown. {statement} ({method}.)"}
    image, shown = sources.image, sources.shown
    boxes, note = _boxes(sources)
    return {
        **about,
        "map_statement": statement,
        "maps": map_pictures(image.pixels, shown, method=method, spacing_mm=image.spacing_mm),
        "cutouts": cutout_pictures(image.pixels, shown, boxes, method=method, spacing_mm=image.spacing_mm),
        "regions_note": f"{note} Unit of the map: {found['unit']}.".strip(),
        "is_wide": image.pixels.shape[1] > image.pixels.shape[0],
    }


def _judged(found: Mapping[str, Any], least_reliability: float) -> tuple[bool, str]:
    """Return whether a map may be shown as a finding, and the sentence about it."""
    disks, reliability = found.get("disks"), found.get("reliability")
    if disks is not None:
        return bool(disks["marks_disks"]), str(disks["sentence"])
    if reliability is None or reliability < least_reliability:
        known = "not known" if reliability is None else f"{reliability:.2f}"
        needed = f"it must be at least {least_reliability:g}"
        return False, f"This map is not reliable: its reliability is {known}, {needed}. Use more samples."
    return True, "Whether this map marks the disks of this image was not tested: it has no disk statistic."


def _boxes(sources: ReportSources) -> tuple[dict[str, Any], str]:
    if sources.phantom is None:
        return {}, "No regions are enlarged: the phantom could not be registered."
    try:
        return disk_boxes(sources.phantom), ""
    except InvalidParameter:
        return {}, "No regions are enlarged: the disks in question lie outside the image."


def _ablated(sources: ReportSources) -> dict[str, Any]:
    found = None if sources.ablation is None else sources.ablation["explanation"]
    if found is None:
        return {}
    picture: Picture | None = None
    if sources.phantom is not None:
        picture = ablation_picture(found, sources.image.pixels, sources.phantom)
    return {"ablation": picture, "ablation_statement": found["statement"]}


def _provenance(sources: ReportSources) -> dict[str, Any]:
    """Return the provenance of the prediction, and the fields in which that of map and ablation differ from it."""
    of_curve, found = sources.predicted["provenance"], {}
    for name, answer in (("map", sources.explanation), ("ablation", sources.ablation)):
        if answer is not None:
            found[name] = {key: value for key, value in answer["provenance"].items() if of_curve.get(key) != value}
    return texts.stated_inputs(of_curve) | found
