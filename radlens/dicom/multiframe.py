"""Multi-frame objects with one grid, that of the source image: PS3.3 C.7.6.16, C.7.6.17 and C.12.2.

The frames lie on the pixels of the source image, to which the Derivation Image functional group relates them. A source
with a position in the patient, such as a CT slice, hands it on with its frame of reference. A projection image such as
a mammogram has none. Where an object must have one, it gets a frame of reference of its own, derived from the image, so
that nothing can be registered with it by mistake: the first pixel is the origin, and the axes follow Patient
Orientation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code

from radlens.dicom.base import instance_uid, referenced, sources
from radlens.dicom.codes import ARTIFICIAL_INTELLIGENCE, coded, scheme_identification
from radlens.dicom.findings import Findings
from radlens.dicom.source import Reference, derived_uid, study_uid
from radlens.images import Image
from radlens.images.attributes import Attributes, as_number, items, values

__all__ = ["algorithm", "item", "lossy", "set_common", "set_frames", "set_plane"]

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_SOURCE_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")
_AXES = {
    **{"L": (1.0, 0.0, 0.0), "R": (-1.0, 0.0, 0.0), "P": (0.0, 1.0, 0.0)},
    **{"A": (0.0, -1.0, 0.0), "H": (0.0, 0.0, 1.0), "F": (0.0, 0.0, -1.0)},
}
"""Directions in the coordinates of the patient by the first letter of Patient Orientation, PS3.3 C.7.6.1.1.1."""

_BREAST, _UNKNOWN_REGION = Code("76752008", "SCT", "Breast"), Code("38866009", "SCT", "Body part")


def item(**attributes: Any) -> Dataset:
    """Return an item of a sequence."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def set_common(result: Dataset, findings: Findings, label: str, shape: tuple[int, ...]) -> None:
    """Set what both objects have: content identification, size, lossy history, references to the source.

    Args:
        result: The object.
        findings: The answer.
        label: Content Label, a code string.
        shape: Rows and columns.
    """
    result.ContentLabel = label
    result.ContentDescription = f"{findings.title}; not for diagnosis"[:64]
    result.ContentCreatorName = ""
    result.SamplesPerPixel, result.PhotometricInterpretation = 1, "MONOCHROME2"
    result.Rows, result.Columns = shape
    result.setdefault("LossyImageCompression", "00")
    result.CodingSchemeIdentificationSequence = [scheme_identification()]
    series: dict[str, list[Dataset]] = defaultdict(list)
    for source in _in_series(findings):
        series[str(source.series)].append(referenced(source))
    if series:
        result.ReferencedSeriesSequence = [
            item(SeriesInstanceUID=uid, ReferencedInstanceSequence=found) for uid, found in series.items()
        ]


def lossy(result: Dataset) -> None:
    """Make the history of lossy compression valid: a source may state it empty."""
    if result.get("LossyImageCompression") not in ("00", "01"):
        result.LossyImageCompression = "00"


def set_plane(result: Dataset, groups: Dataset, findings: Findings, *, required: bool) -> None:
    """Set the frame of reference of an object, and position, orientation and spacing in its shared functional groups.

    Args:
        result: The object.
        groups: Its shared functional groups.
        findings: The answer.
        required: Whether the object must have a position. If not, a source without one gives none.
    """
    image = findings.image
    plane = _plane(image) or (_own_plane(image) if required else None)
    orientation = patient_orientation(image)
    if plane is None:
        result.PatientOrientation = orientation
        return
    result.FrameOfReferenceUID, result.PositionReferenceIndicator = plane.uid, ""
    groups.PlanePositionSequence = [item(ImagePositionPatient=_texts(plane.position))]
    groups.PlaneOrientationSequence = [item(ImageOrientationPatient=_texts(plane.orientation))]
    groups.PixelMeasuresSequence = [_measures(image)]


def set_frames(
    result: Dataset, findings: Findings, name: str, index: Dataset, derivation: Code, frames: Sequence[Dataset]
) -> None:
    """Set the dimension index and the functional groups of each frame, with its derivation from the source image.

    Args:
        result: The object.
        findings: The answer.
        name: One of `radlens.wire.OBJECTS`.
        index: Item of the Dimension Index Sequence, without its organization (PS3.3 C.7.6.17).
        derivation: How the frames were derived.
        frames: Functional groups of each frame, to which Frame Content and Derivation Image are added.
    """
    organization = instance_uid(findings, name, "dimensions")
    index.DimensionOrganizationUID = organization
    result.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    result.DimensionIndexSequence = [index]
    for number, frame in enumerate(frames, start=1):
        frame.FrameContentSequence = [item(DimensionIndexValues=[number])]
        if images := [_source_image(each) for each in _in_series(findings)]:
            made = item(DerivationCodeSequence=[coded(derivation)], SourceImageSequence=images)
            frame.DerivationImageSequence = [made]
    result.NumberOfFrames = len(frames)
    result.PerFrameFunctionalGroupsSequence = list(frames)


def _source_image(source: Reference) -> Dataset:
    made = referenced(source)
    made.PurposeOfReferenceCodeSequence, made.SpatialLocationsPreserved = [coded(_SOURCE_PURPOSE)], "YES"
    return made


def anatomy(image: Image) -> Dataset:
    """Return an item of the Frame Anatomy Sequence, PS3.3 C.7.6.16.2.8: the region of the source if it states one."""
    dataset = image.dataset
    stated = () if dataset is None else items(dataset, "AnatomicRegionSequence")
    side = () if dataset is None else (*values(dataset, "ImageLaterality"), *values(dataset, "Laterality"))
    modality = () if dataset is None else values(dataset, "Modality")
    region = coded(_BREAST if modality == ("MG",) else _UNKNOWN_REGION)
    if len(stated) == 1 and all(len(values(stated[0], name)) == 1 for name in ("CodeValue", "CodeMeaning")):
        names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        region = item(**{name: str(values(stated[0], name)[0]) for name in names if values(stated[0], name)})
    return item(
        FrameLaterality=side[0] if side and side[0] in ("L", "R", "B", "U") else "U", AnatomicRegionSequence=[region]
    )


def algorithm(findings: Findings) -> Dataset:
    """Return an item of an algorithm identification, PS3.3 table 10-19."""
    stated = findings.provenance
    return item(
        AlgorithmFamilyCodeSequence=[coded(ARTIFICIAL_INTELLIGENCE)],
        AlgorithmName=str(stated["model"])[:64],
        AlgorithmVersion=str(stated["version"])[:64],
        AlgorithmParameters="; ".join(f"{name}={value}" for name, value in findings.settings.items())[:1024],
        AlgorithmSource="radlens",
    )


def _in_series(findings: Findings) -> list[Reference]:
    """Return the images of the study of the first that state their series; others cannot be referred to here."""
    study = study_uid(findings.image)
    own = {image.sop_instance_uid for image in findings.images if study_uid(image) == study}
    return [each for each in sources(findings) if each.series is not None and each.sop_instance in own]


def patient_orientation(image: Image) -> list[str] | str:
    """Return the Patient Orientation of the source, the directions of rows and columns; empty where it is not known."""
    found = () if image.dataset is None else values(image.dataset, "PatientOrientation")
    return [str(each) for each in found] if len(found) == 2 else ""


class _Plane(NamedTuple):
    uid: str
    position: Sequence[float]
    orientation: Sequence[float]


def _plane(image: Image) -> _Plane | None:
    """Return frame of reference, position and orientation of a slice; None unless the header states all of them."""
    dataset = image.dataset
    if dataset is None:
        return None
    attributes = Attributes.of_frame(dataset)
    uid = attributes.values("FrameOfReferenceUID")
    position = _numbers(attributes.values("ImagePositionPatient"), 3)
    orientation = _numbers(attributes.values("ImageOrientationPatient"), 6)
    if len(uid) != 1 or position is None or orientation is None or not _is_rigid(orientation):
        return None
    return _Plane(str(uid[0]), position, orientation)


def _own_plane(image: Image) -> _Plane:
    """Return a plane in a frame of reference that no other image has."""
    axes = [_AXES.get(each[:1]) for each in patient_orientation(image)]
    rows, columns = (axes[0], axes[1]) if len(axes) == 2 and None not in axes else (None, None)
    if rows is None or columns is None or np.dot(rows, columns) != 0:
        rows, columns = _AXES["L"], _AXES["P"]
    return _Plane(derived_uid("frame of reference", image.sha256), (0.0, 0.0, 0.0), (*rows, *columns))


def _measures(image: Image) -> Dataset:
    """Return an item of the Pixel Measures Sequence, empty where no spacing is known, PS3.3 C.7.6.16.2.1."""
    measures = Dataset()
    if image.spacing_mm is not None:
        measures.PixelSpacing = _texts(image.spacing_mm)
    thickness = None if image.dataset is None else _numbers(values(image.dataset, "SliceThickness"), 1)
    if thickness is not None:
        measures.SliceThickness = _texts(thickness)[0]
    return measures


def _texts(numbers: Sequence[float]) -> list[str]:
    return [f"{each:.10g}" for each in numbers]


def _is_rigid(orientation: Sequence[float]) -> bool:
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(rows), np.linalg.norm(columns)
    return all(abs(each - 1) < 1e-3 for each in lengths) and abs(float(rows @ columns)) < 1e-3


def _numbers(found: Sequence[Any], n: int) -> list[float] | None:
    given = [number for each in found if (number := as_number(each)) is not None and math.isfinite(number)]
    return given if len(found) == len(given) == n else None
