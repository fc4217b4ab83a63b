"""Where a map is strong, as a Grayscale Softcopy Presentation State: PS3.3 section A.33.1.

Viewers draw it over the source image: outlines around the strongest parts, and the largest and the smallest value.
Outlines are contours of the smoothed map at half of its largest value; a map of single pixels has none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom import Dataset, uid
from scipy.ndimage import gaussian_filter

from radlens.dicom.base import new_object, referenced, sources
from radlens.dicom.findings import Findings
from radlens.dicom.multiframe import item
from radlens.dicom.source import Reference, decoded
from radlens.errors import UnreadableImage
from radlens.figures import display_map
from radlens.images import Image
from radlens.images.attributes import Attributes, as_number, items, values
from radlens.images.modality import modality
from radlens.images.pixel_data import pixel_module
from radlens.images.polarity import attenuation_dark

__all__ = ["MOST_OUTLINES", "outlines", "presentation"]

MOST_OUTLINES = 8
"""Largest number of outlines of one sign; the longest are drawn."""

_SIDE = 256
"""Largest number of rows and columns of the map whose contours are drawn."""

_SMOOTHING = 1 / 64
"""Standard deviation of the smoothing, as a share of the longer side."""

_LAYERS = (("POSITIVE", "positive parts", (255, 72, 56)), ("NEGATIVE", "negative parts", (72, 128, 255)))
_QUANTILES = (0.005, 0.995)
_MOST_POINTS = 400
_LONGEST_UNIT = 20


def presentation(findings: Findings) -> Dataset:
    """Return outlines and extremes of the map, to be shown over the source image.

    Raises:
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    evidence = findings.evidence
    assert evidence is not None, "the answer has a map"
    source = sources(findings)[0]
    result = new_object(
        findings, "presentation", uid.GrayscaleSoftcopyPresentationStateStorage, "PR", inherited=["Laterality"]
    )
    # Type 2C: present, and empty where unknown (PS3.3 C.7.3.1).
    result.setdefault("Laterality", "")
    result.ContentLabel, result.ContentDescription = "MAP", f"{findings.title}; not for diagnosis"[:64]
    result.ContentCreatorName = ""
    result.PresentationCreationDate, result.PresentationCreationTime = result.ContentDate, result.ContentTime
    del result.ContentDate, result.ContentTime
    result.ReferencedSeriesSequence = [
        item(SeriesInstanceUID=source.series, ReferencedImageSequence=[referenced(source)])
    ]
    result.DisplayedAreaSelectionSequence = [_whole(findings.image, source)]
    _set_grey_scale(result, findings.image)
    _set_marks(result, findings, source, np.asarray(evidence, dtype=np.float64))
    return result


def outlines(evidence: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return closed outlines around the strongest positive and the strongest negative parts of a map.

    Args:
        evidence: ``(H, W)``, finite.

    Returns:
        Polygons ``(n, 2)`` of columns and rows in pixels, with the origin at the outer corner of the first pixel (PS3.3
        C.10.5.1.1). Of each sign at most `MOST_OUTLINES`, the largest first; none where a map has no such sign.
    """
    size = math.ceil(max(evidence.shape) / _SIDE)
    reduced = display_map(evidence, max_side=_SIDE)
    smooth = gaussian_filter(reduced, _SMOOTHING * max(reduced.shape))
    level = float(np.abs(smooth).max()) / 2
    if level == 0:
        return [], []
    rows, columns = evidence.shape
    return tuple(  # type: ignore[return-value]
        [np.minimum(size * polygon, (columns, rows)) for polygon in _contours(sign * smooth, level)] for sign in (1, -1)
    )


def _contours(values_: np.ndarray, level: float) -> list[np.ndarray]:
    """Return closed contours in units of the array's pixels, origin at the outer corner of the first one."""
    import contourpy

    # A border of zeros closes contours that would end at the edge.
    padded = np.pad(values_, 1)
    found = contourpy.contour_generator(z=padded, name="serial").lines(level)
    polygons = [np.asarray(line, dtype=np.float64) - 0.5 for line in found]
    inside = [np.clip(each, 0, (values_.shape[1], values_.shape[0])) for each in polygons if len(each) > 3]
    return sorted(inside, key=_area, reverse=True)[:MOST_OUTLINES]


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _set_marks(result: Dataset, findings: Findings, source: Reference, evidence: np.ndarray) -> None:
    from highdicom.color import CIELabColor

    stated = "" if findings.values is None else findings.values.unit
    # A unit in words of a whole line would cover the image; the report states it.
    unit = stated if len(stated) <= _LONGEST_UNIT else ""
    annotations, layers = [], []
    extremes = (np.unravel_index(int(index), evidence.shape) for index in (evidence.argmax(), evidence.argmin()))
    marks = zip(_LAYERS, outlines(evidence), extremes, (1, -1), strict=True)
    for order, ((name, meaning, colour), polygons, (row, column), sign) in enumerate(marks, start=1):
        value = float(evidence[row, column])
        is_there = sign * value > 0
        if not is_there and order > 1:
            continue
        layer = item(
            GraphicLayer=name,
            GraphicLayerOrder=order,
            GraphicLayerDescription=f"{meaning} of the map"[:64],
            GraphicLayerRecommendedDisplayCIELabValue=list(CIELabColor.from_rgb(*colour).value),
        )
        layers.append(layer)
        word = "largest" if sign > 0 else "smallest"
        text = f"{word} {value:+.3g} {unit}".rstrip() if is_there else "the map has no positive value"
        texts = [_title(findings)] if order == 1 else []
        texts.append(_text(text, (float(column) + 0.5, float(row) + 0.5)))
        graphics = [_polyline(each) for each in polygons]
        if is_there:
            graphics.append(_point(float(column) + 0.5, float(row) + 0.5))
        annotation = item(GraphicLayer=name, ReferencedImageSequence=[referenced(source)], TextObjectSequence=texts)
        if graphics:
            annotation.GraphicObjectSequence = graphics
        annotations.append(annotation)
    result.GraphicAnnotationSequence, result.GraphicLayerSequence = annotations, layers


def _title(findings: Findings) -> Dataset:
    """Return the headline, in the upper left corner of the displayed area."""
    model = f"{findings.provenance['model']} {findings.provenance['version']}"
    judged = "" if findings.assessable else " NOT ASSESSABLE."
    return item(
        UnformattedTextValue=f"Not for diagnosis.{judged} {findings.title}, radlens {model}",
        BoundingBoxAnnotationUnits="DISPLAY",
        BoundingBoxTopLeftHandCorner=[0.02, 0.02],
        BoundingBoxBottomRightHandCorner=[0.98, 0.1],
        BoundingBoxTextHorizontalJustification="LEFT",
    )


def _text(text: str, place: tuple[float, float]) -> Dataset:
    return item(
        UnformattedTextValue=text,
        AnchorPointAnnotationUnits="PIXEL",
        AnchorPoint=list(place),
        AnchorPointVisibility="Y",
    )


def _polyline(polygon: np.ndarray) -> Dataset:
    step = math.ceil(len(polygon) / _MOST_POINTS)
    # The last point repeats the first, which closes the polygon.
    points = np.concatenate([polygon[:-1][::step], polygon[:1]])
    return _graphic("POLYLINE", points)


def _point(column: float, row: float) -> Dataset:
    return _graphic("POINT", np.array([[column, row]]))


def _graphic(kind: str, points: np.ndarray) -> Dataset:
    made = item(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points),
        GraphicData=points.astype(np.float32).ravel().tolist(),
        GraphicType=kind,
    )
    if kind != "POINT":
        made.GraphicFilled = "N"
    return made


def _whole(image: Image, source: Reference) -> Dataset:
    """Return the displayed area: the whole image, fitted to the screen (PS3.3 C.10.4)."""
    rows, columns = image.pixels.shape
    area = item(
        ReferencedImageSequence=[referenced(source)],
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[columns, rows],
        PresentationSizeMode="SCALE TO FIT",
    )
    if image.spacing_mm is None:
        area.PresentationPixelAspectRatio = [1, 1]
    else:
        area.PresentationPixelSpacing = [f"{each:.10g}" for each in image.spacing_mm]
    return area


def _set_grey_scale(result: Dataset, image: Image) -> None:
    """Take over the grey scale of the source: modality transformation, window and polarity (PS3.4 N.2.1)."""
    dataset = image.dataset
    assert dataset is not None, "the source is a DICOM image"
    attributes = Attributes.of_frame(dataset)
    slope, intercept = attributes.number("RescaleSlope"), attributes.number("RescaleIntercept")
    if items(dataset, "ModalityLUTSequence"):
        result.ModalityLUTSequence = decoded(dataset["ModalityLUTSequence"], "SQ")
    elif slope is not None and intercept is not None:
        result.RescaleSlope, result.RescaleIntercept, result.RescaleType = f"{slope:.10g}", f"{intercept:.10g}", "US"
    is_inverse = values(dataset, "PhotometricInterpretation") == ("MONOCHROME1",)
    result.PresentationLUTShape = "INVERSE" if is_inverse else "IDENTITY"
    window = next(_windows(attributes, image, dataset), None)
    if window is not None:
        centre, width = (f"{each:.8g}" for each in window)
        result.SoftcopyVOILUTSequence = [item(WindowCenter=centre, WindowWidth=width)]


def _windows(attributes: Attributes, image: Image, dataset: Dataset) -> Iterator[tuple[float, float]]:
    """Yield the window that the source states, and one that shows nearly all values."""
    stated = [attributes.values(name) for name in ("WindowCenter", "WindowWidth")]
    numbers = [as_number(found[0]) if found else None for found in stated]
    centre, width = numbers
    if centre is not None and width is not None and math.isfinite(centre) and width >= 1:
        yield centre, width
    try:
        module = pixel_module(dataset)
        transformation = modality(dataset, module.limits, True)
        is_dark, _ = attenuation_dark(dataset, module.photometric, transformation.rises)
    except UnreadableImage:
        return
    shown = sum(transformation.limits) - image.pixels.astype(np.float64) if is_dark else image.pixels
    low, high = np.quantile(shown, _QUANTILES)
    yield float(low + high) / 2, max(float(high - low), 1.0)
