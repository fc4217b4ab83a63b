"""An answer as an RGB Secondary Capture, which every DICOM viewer displays: PS3.3 section A.8.1.

Whatever a viewer leaves out of the header is burnt into the picture: model and version, colour scale, whether the model
can judge the image, and that it is not for diagnosis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom import Dataset, uid

from radlens.dicom.base import new_object, referenced, sources
from radlens.dicom.findings import Findings, Picture
from radlens.dicom.multiframe import patient_orientation
from radlens.errors import InvalidParameter
from radlens.figures.burnt_in import burnt_in, enlarged
from radlens.images import Image

__all__ = ["WARNING", "capture"]

WARNING = "Not for diagnosis"
"""Sentence that every capture shows."""

_MAX_COMMENT = 10_240
"""Largest number of characters of an LT value, PS3.5 section 6.2."""

_INHERITED = ("Laterality", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def capture(findings: Findings) -> Dataset:
    """Return the answer as a picture with a band of text below it.

    Image Comments holds the provenance as JSON; of images that are too many to be described, with their hashes alone. A
    picture of the whole source image keeps its spacing and orientation; a figure, such as a curve, has none.

    Raises:
        InvalidParameter: The provenance exceeds 10 240 characters.
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    comment = _comment(findings.provenance)
    picture = findings.picture()
    rgb = burnt_in(picture.rgb, _headline(findings), _lines(findings, picture), picture.legend)
    result = new_object(findings, "capture", uid.SecondaryCaptureImageStorage, "OT", inherited=_INHERITED)
    # Type 2C: present, and empty where unknown (PS3.3 C.7.3.1).
    result.setdefault("Laterality", "")
    result.ConversionType, result.BurnedInAnnotation = "WSD", "YES"
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.PatientOrientation = patient_orientation(findings.image) if picture.is_of_image else ""
    result.DerivationDescription = f"{findings.title} of {findings.provenance['model']}; {WARNING.lower()}"[:1024]
    result.ImageComments = comment
    result.SourceImageSequence = [referenced(each) for each in sources(findings)]
    if not result.SourceImageSequence:
        del result.SourceImageSequence
    spacing = _spacing_mm(picture, findings.image)
    if spacing is not None:
        result.PixelSpacing = [f"{each:.10g}" for each in spacing]
    _set_pixels(result, rgb)
    return result


def _headline(findings: Findings) -> str:
    if not findings.assessable:
        return f"{WARNING}. NOT ASSESSABLE: no verdict"
    return f"{WARNING}. {findings.title}"


def _lines(findings: Findings, picture: Picture) -> list[str]:
    stated = findings.provenance
    model = f"radlens: model {stated['model']} {stated['version']}, bundle {str(stated['bundle_hash'])[:12]}"
    judged = "assessable: yes" if findings.assessable else "assessable: no"
    warnings = [f"warning: {warning}" for warning in findings.warnings]
    # A page in place of a picture states the reasons itself.
    reasons = [f"- {reason}" for reason in findings.reasons if picture.is_of_image]
    return [f"{model}, {judged}", *reasons, *findings.lines, *warnings]


def _set_pixels(result: Dataset, rgb: np.ndarray) -> None:
    result.Rows, result.Columns = rgb.shape[:2]
    result.SamplesPerPixel, result.PhotometricInterpretation, result.PlanarConfiguration = 3, "RGB", 0
    result.BitsAllocated, result.BitsStored, result.HighBit, result.PixelRepresentation = 8, 8, 7, 0
    data = rgb.tobytes()
    result.PixelData = data + b"\0" * (len(data) % 2)
    result["PixelData"].VR = "OB"


def _spacing_mm(picture: Picture, image: Image) -> tuple[float, float] | None:
    if image.spacing_mm is None or not picture.is_of_image:
        return None
    rows, columns = enlarged(picture.rgb).shape[:2]
    return image.spacing_mm[0] * image.pixels.shape[0] / rows, image.spacing_mm[1] * image.pixels.shape[1] / columns


def _comment(provenance: Mapping[str, Any]) -> str:
    text = json.dumps(provenance, sort_keys=True, default=str)
    if len(text) > _MAX_COMMENT and "inputs" in provenance:
        # Of many images, their hashes; Source Image Sequence refers to all.
        hashes = [each["sha256"] for each in provenance["inputs"]]
        text = json.dumps({**provenance, "inputs": hashes}, sort_keys=True, default=str)
    if len(text) > _MAX_COMMENT:
        raise InvalidParameter(f"provenance must fit {_MAX_COMMENT} characters of JSON, got {len(text)}")
    return text
