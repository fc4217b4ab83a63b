"""Which way round an image is: PS3.3 C.7.6.3.1.2, C.8.11.3.1.2 and C.11.6.

Two statements are independent of each other:

- *physical*: Pixel Intensity Relationship Sign says whether stored values rise (1) or fall (-1) with the X-ray
  intensity at the detector, whether linearly (LIN) or logarithmically (LOG);
- *display*: Photometric Interpretation says whether low values are shown white (MONOCHROME1) or black (MONOCHROME2).
  Presentation LUT Shape repeats it: INVERSE belongs to MONOCHROME1, IDENTITY to MONOCHROME2.

The physical statement decides. An image FOR PRESENTATION is made to be looked at with attenuation bright, so both
statements must agree there; how a raw image would be displayed says nothing. Without a sign, the display decides.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import UID

from radlens.errors import UnreadableImage
from radlens.images.attributes import Attributes, values

__all__ = ["attenuation_dark"]

PROCESSING, PRESENTATION = "FOR PROCESSING", "FOR PRESENTATION"

_SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}

_REMEDY = "correct the header, or send the pixels as PNG or .npy with attenuation bright"


def attenuation_dark(dataset: Dataset, photometric: str, rises: bool | None) -> tuple[bool, tuple[str, ...]]:
    """Return whether values must be inverted to be attenuation bright, and notes about attributes that are overruled.

    Args:
        dataset: header.
        photometric: ``MONOCHROME1`` or ``MONOCHROME2``.
        rises: whether values after the modality transformation rise with stored values; None if they rise and fall.

    Raises:
        UnreadableImage: an attribute has a value that the standard does not define, or two attributes contradict each
            other.
    """
    attributes = Attributes.of_frame(dataset)
    sign = attributes.integer("PixelIntensityRelationshipSign", (-1, 1), "1 or -1")
    shape = attributes.term("PresentationLUTShape", ("IDENTITY", "INVERSE"))
    intent = _intent(dataset)
    odd_shape = f"PresentationLUTShape {shape} contradicts PhotometricInterpretation {photometric}"
    has_odd_shape = shape not in (None, _SHAPES[photometric])
    shown_dark = photometric == "MONOCHROME1"
    if sign is None:
        if has_odd_shape:
            raise UnreadableImage(f"{odd_shape}, and no PixelIntensityRelationshipSign decides: {_REMEDY}")
        missing = "the raw image states no PixelIntensityRelationshipSign; PhotometricInterpretation decides"
        return shown_dark, (missing,) if intent == PROCESSING else ()
    if rises is None:
        raise UnreadableImage(
            "ModalityLUTSequence must rise or fall throughout, so that PixelIntensityRelationshipSign tells which way "
            "round the image is; got a table that does both or neither"
        )
    dark = (sign == 1) == rises
    if intent == PRESENTATION and has_odd_shape:
        raise UnreadableImage(f"{odd_shape} in an image FOR PRESENTATION: {_REMEDY}")
    if intent == PRESENTATION and dark != shown_dark:
        raise UnreadableImage(
            f"PixelIntensityRelationshipSign {sign} contradicts PhotometricInterpretation {photometric} in an image "
            f"FOR PRESENTATION: attenuation would be shown dark; {_REMEDY}"
        )
    return dark, (f"{odd_shape}; PixelIntensityRelationshipSign decides",) if has_odd_shape else ()


def _intent(dataset: Dataset) -> str | None:
    """Return the Presentation Intent Type, or what the SOP class says of it (PS3.4 B.5)."""
    stated = values(dataset, "PresentationIntentType")
    if len(stated) == 1 and stated[0] in (PROCESSING, PRESENTATION):
        return str(stated[0])
    classes = values(dataset, "SOPClassUID")
    is_presentation = len(classes) == 1 and UID(str(classes[0])).keyword.endswith("ForPresentation")
    return PRESENTATION if is_presentation else None
