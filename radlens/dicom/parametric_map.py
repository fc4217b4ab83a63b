"""The numbers of an answer as a Parametric Map: PS3.3 section A.75.

``highdicom`` 0.28 builds such a map only for a source with a position in the patient, which a mammogram does not have,
so the object is written here. Values are stored as float32 without any change; the real-world value mapping is the
identity, with the unit of the values and what they are.
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset, uid
from pydicom.sr.coding import Code

from radlens.dicom.base import new_object
from radlens.dicom.codes import PRIVATE, VISUAL_EXPLANATION, coded, private, unit_code
from radlens.dicom.findings import Findings, Values
from radlens.dicom.multiframe import (
    LOSSY,
    anatomy,
    item,
    lossy,
    set_common,
    set_frames,
    set_plane,
)

__all__ = ["parametric_map"]

_IMAGE_TYPE = ["DERIVED", "PRIMARY", "OTHER", "NONE"]

_QUANTITY = Code("246205007", "SCT", "Quantity")
_MEASUREMENT_METHOD = Code("370129005", "SCT", "Measurement Method")
_DERIVATION = Code("110001", "DCM", "Image Processing")

_WINDOW_QUANTILE = 0.999


def parametric_map(findings: Findings) -> Dataset:
    """Return the values of an answer as a map with one frame.

    Raises:
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    shown = findings.values
    assert shown is not None, "the answer has values"
    array = np.ascontiguousarray(shown.array, dtype="<f4")
    result = new_object(findings, "map", uid.ParametricMapStorage, "OT", inherited=LOSSY)
    lossy(result)
    set_common(result, findings, "MAP", array.shape)
    result.ImageType, result.ContentQualification = _IMAGE_TYPE, "RESEARCH"
    result.AcquisitionContextSequence = []
    result.BurnedInAnnotation, result.RecognizableVisualFeatures = "NO", "NO"
    result.PixelPresentation, result.PresentationLUTShape = "MONOCHROME", "IDENTITY"
    shared = Dataset()
    set_plane(result, shared, findings, required=True)
    shared.FrameAnatomySequence = [anatomy(findings.image)]
    shared.PixelValueTransformationSequence = [item(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")]
    shared.FrameVOILUTSequence = [_window(array)]
    shared.RealWorldValueMappingSequence = [_mapping(findings, shown, array)]
    shared.ParametricMapFrameTypeSequence = [item(FrameType=_IMAGE_TYPE)]
    result.SharedFunctionalGroupsSequence = [shared]
    pointers = {"DimensionIndexPointer": 0x0040_9210, "FunctionalGroupPointer": 0x0040_9096}
    index = item(**pointers, DimensionDescriptionLabel="LUT Label")
    set_frames(result, findings, "map", index, _DERIVATION, [Dataset()])
    result.BitsAllocated, result.FloatPixelData = 32, array.tobytes()
    return result


def _window(array: np.ndarray) -> Dataset:
    """Return a window around 0 that holds nearly all values, so that 0 is mid-grey in every map."""
    sizes = np.abs(array[array != 0])
    limit = float(np.quantile(sizes, _WINDOW_QUANTILE)) if sizes.size else 1.0
    centre, width = (limit / 2, limit) if array.min() >= 0 else (0.0, 2 * limit)
    # LINEAR, the default, is for integers and needs a width of at least 1 (PS3.3 C.11.2.1.2).
    return item(WindowCenter=f"{centre:.8g}", WindowWidth=f"{width:.8g}", VOILUTFunction="LINEAR_EXACT")


def _mapping(findings: Findings, shown: Values, array: np.ndarray) -> Dataset:
    """Return the mapping of stored values to values with a unit, PS3.3 C.7.6.16.2.11."""
    made = item(
        LUTLabel=shown.label.upper()[:16],
        LUTExplanation=f"{shown.label}: {shown.unit}"[:64],
        RealWorldValueSlope=1.0,
        RealWorldValueIntercept=0.0,
        DoubleFloatRealWorldValueFirstValueMapped=float(array.min()),
        DoubleFloatRealWorldValueLastValueMapped=float(array.max()),
        MeasurementUnitsCodeSequence=[coded(unit_code(shown.unit))],
    )
    made.QuantityDefinitionSequence = [_coded_content(_QUANTITY, _quantity(findings, shown))]
    if findings.method is not None and findings.method.code.scheme_designator != "DCM":
        made.QuantityDefinitionSequence.append(_coded_content(_MEASUREMENT_METHOD, findings.method.code))
    return made


def _quantity(findings: Findings, shown: Values) -> Code:
    """Return what the values are: a code of CID 217 for maps, a private one for pictures."""
    if shown.label not in ("map", "disagreement") or findings.method is None:
        return private("PIXEL-VALUES")
    code = findings.method.code
    return VISUAL_EXPLANATION if code.value in PRIVATE else code


def _coded_content(name: Code, value: Code) -> Dataset:
    """Return a coded content item, PS3.3 table 10-2."""
    return item(ValueType="CODE", ConceptNameCodeSequence=[coded(name)], ConceptCodeSequence=[coded(value)])
