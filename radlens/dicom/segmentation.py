"""The signed map of an answer as a fractional Segmentation: PS3.3 section A.51.

Two segments, the positive and the negative parts. A value is the share of the largest absolute value of the map, 255
for all of it, so that strengths of both segments can be compared. The fractional type is OCCUPANCY: the other type that
the standard has, PROBABILITY, would say of a pixel how probably it is diseased.
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset, uid
from pydicom.sr.coding import Code

from radlens.dicom.base import new_object
from radlens.dicom.codes import coded, private
from radlens.dicom.findings import Findings
from radlens.dicom.multiframe import (
    LOSSY,
    algorithm,
    item,
    lossy,
    set_common,
    set_frames,
    set_plane,
)

__all__ = ["LARGEST", "segmentation", "strengths"]

LARGEST = 255
"""Maximum Fractional Value."""

_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")

_SIGNS = (("positive", "EVIDENCE-FOR", (255, 72, 56)), ("negative", "EVIDENCE-AGAINST", (72, 128, 255)))
"""Name, type and colour of each segment; the colours are those of `radlens.figures.maps`."""


def strengths(evidence: np.ndarray) -> np.ndarray:
    """Return the positive and the negative parts of a map as fractions, ``(2, H, W)`` uint8; zeros for a map of zeros.

    Args:
        evidence: ``(H, W)``, finite.
    """
    signed = np.asarray(evidence, dtype=np.float64)
    largest = float(np.abs(signed).max())
    share = signed / largest if largest > 0 else signed
    return np.rint(LARGEST * np.stack([np.maximum(share, 0), np.maximum(-share, 0)])).astype(np.uint8)


def segmentation(findings: Findings) -> Dataset:
    """Return the map of an answer as two segments, each with one frame.

    Raises:
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    evidence = findings.evidence
    assert evidence is not None, "the answer has a map"
    result = new_object(findings, "segmentation", uid.SegmentationStorage, "SEG", inherited=LOSSY)
    lossy(result)
    set_common(result, findings, "MAP", evidence.shape)
    shared = Dataset()
    # Derived from a referenced image, it needs no position (PS3.3 A.51.5).
    set_plane(result, shared, findings, required=False)
    result.ImageType = ["DERIVED", "PRIMARY"]
    result.SegmentationType, result.SegmentationFractionalType = "FRACTIONAL", "OCCUPANCY"
    result.MaximumFractionalValue, result.SegmentsOverlap = LARGEST, "NO"
    result.BitsAllocated, result.BitsStored, result.HighBit, result.PixelRepresentation = 8, 8, 7, 0
    result.SegmentSequence = [_segment(findings, number) for number in (1, 2)]
    result.SharedFunctionalGroupsSequence = [shared]
    frames = [item(SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)]) for number in (1, 2)]
    pointers = {"DimensionIndexPointer": 0x0062_000B, "FunctionalGroupPointer": 0x0062_000A}
    index = item(**pointers, DimensionDescriptionLabel="Segment")
    set_frames(result, findings, "segmentation", index, _SEGMENTATION, frames)
    data = strengths(evidence).tobytes()
    result.PixelData = data + b"\0" * (len(data) % 2)
    result["PixelData"].VR = "OB"
    return result


def _segment(findings: Findings, number: int) -> Dataset:
    from highdicom.color import CIELabColor

    sign, code, colour = _SIGNS[number - 1]
    return item(
        SegmentNumber=number,
        SegmentLabel=f"{findings.title}: {sign} parts"[:64],
        SegmentDescription=f"share of the largest absolute value of the map, {LARGEST} for all of it",
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=f"{findings.provenance['model']} {findings.provenance['version']}"[:64],
        SegmentationAlgorithmIdentificationSequence=[algorithm(findings)],
        SegmentedPropertyCategoryCodeSequence=[coded(_CATEGORY)],
        SegmentedPropertyTypeCodeSequence=[coded(private(code))],
        RecommendedDisplayCIELabValue=list(CIELabColor.from_rgb(*colour).value),
    )
