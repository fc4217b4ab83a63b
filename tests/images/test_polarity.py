"""Polarity: one attenuation image comes back however it was written, and contradictions are named."""

import itertools

import numpy as np
import pytest
from dicom_files import dicom_bytes
from pydicom import Dataset, uid

from radlens.errors import UnreadableImage
from radlens.images import read

ATTENUATION = np.random.default_rng(5).integers(100, 3000, (12, 9))
"""Values of 12 bits."""

TOP = 4095
RAW, SHOWN = "FOR PROCESSING", "FOR PRESENTATION"
SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


def twelve_bits(stored, **attributes):
    """Write stored values of 12 bits."""
    pixels = stored.astype(np.int16 if stored.min() < 0 else np.uint16)
    return dicom_bytes(pixels, BitsStored=12, HighBit=11, **attributes)


def expected(stored, photometric, sign, shape, intent):
    """Decide pixel by pixel from the definitions: attenuation bright pixels, or None for a contradiction.

    With a sign, PS3.3 C.8.11.3.1.2 says what a stored value means; without, C.7.6.3.1.2 says how it is shown.
    """
    is_white_at_zero = photometric == "MONOCHROME1"
    shape_agrees = shape is None or (shape == "INVERSE") == is_white_at_zero
    if sign is None:
        if not shape_agrees:
            return None
        return np.array([[TOP - s if is_white_at_zero else s for s in row] for row in stored])
    more_attenuation_is_lower = sign == 1
    if intent == SHOWN and not (shape_agrees and more_attenuation_is_lower == is_white_at_zero):
        return None
    return np.array([[TOP - s if more_attenuation_is_lower else s for s in row] for row in stored])


@pytest.mark.parametrize(
    ("photometric", "sign", "shape", "intent", "relationship"),
    list(
        itertools.product(
            SHAPES, (None, 1, -1), (None, "IDENTITY", "INVERSE"), (None, RAW, SHOWN), (None, "LIN", "LOG")
        )
    ),
)
def test_every_combination_is_read_as_the_standard_defines_it(photometric, sign, shape, intent, relationship):
    """The sign decides; FOR PRESENTATION, the display must agree with it; without a sign, the display decides."""
    attributes = {
        "PixelIntensityRelationshipSign": sign,
        "PixelIntensityRelationship": relationship,
        "PresentationLUTShape": shape,
        "PresentationIntentType": intent,
    }
    stated = {keyword: value for keyword, value in attributes.items() if value is not None}
    data = twelve_bits(ATTENUATION, PhotometricInterpretation=photometric, **stated)
    wanted = expected(ATTENUATION, photometric, sign, shape, intent)
    if wanted is None:
        with pytest.raises(UnreadableImage, match=f"contradicts PhotometricInterpretation {photometric}"):
            read(data)
    else:
        np.testing.assert_array_equal(read(data).pixels, wanted)


FIVE_WAYS = {
    "presentation": (ATTENUATION, "MONOCHROME2", -1, {"PresentationIntentType": SHOWN}),
    "raw, MONOCHROME1": (TOP - ATTENUATION, "MONOCHROME1", 1, {}),
    "raw, MONOCHROME2": (TOP - ATTENUATION, "MONOCHROME2", 1, {}),
    "signed": (TOP - ATTENUATION - 2048, "MONOCHROME1", 1, {"RescaleSlope": 1, "RescaleIntercept": 2048}),
    "falling slope": (TOP - ATTENUATION, "MONOCHROME2", 1, {"RescaleSlope": -1, "RescaleIntercept": TOP}),
    "falling slope, sign -1": (ATTENUATION, "MONOCHROME1", -1, {"RescaleSlope": -1, "RescaleIntercept": TOP}),
}


@pytest.mark.parametrize("way", FIVE_WAYS)
def test_one_image_written_in_legal_ways_is_one_image(way):
    """Bit for bit, also when the modality transformation turns the values round itself."""
    stored, photometric, sign, more = FIVE_WAYS[way]
    attributes = {"PresentationIntentType": RAW} | more
    data = twelve_bits(stored, PhotometricInterpretation=photometric, PixelIntensityRelationshipSign=sign, **attributes)
    np.testing.assert_array_equal(read(data).pixels, ATTENUATION)


@pytest.mark.parametrize("slope", [0.5, 2, 100])
def test_a_slope_scales_the_image_and_does_not_shift_it(slope):
    """The raw twin of an image times the slope."""
    data = twelve_bits(
        TOP - ATTENUATION,
        PhotometricInterpretation="MONOCHROME1",
        PixelIntensityRelationshipSign=1,
        RescaleSlope=slope,
        RescaleIntercept=0,
    )
    np.testing.assert_array_equal(read(data).pixels, slope * ATTENUATION)


def test_inversion_stays_in_the_range_of_the_modality_table():
    """PS3.4 N.2.1.1: from 0 to 2**n - 1 for entries of n bits."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [3 * i for i in range(4096)])
    shared = {"PhotometricInterpretation": "MONOCHROME1", "ModalityLUTSequence": [table]}
    for sign in (None, 1):
        data = twelve_bits(ATTENUATION, **shared, **({} if sign is None else {"PixelIntensityRelationshipSign": sign}))
        np.testing.assert_array_equal(read(data).pixels, 65535 - 3 * ATTENUATION)


def test_a_falling_modality_table_turns_the_sign_round():
    """Stored values rise with the X-ray intensity, the table's values fall: attenuation is bright already."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [TOP - i for i in range(4096)])
    data = twelve_bits(TOP - ATTENUATION, ModalityLUTSequence=[table], PixelIntensityRelationshipSign=1)
    np.testing.assert_array_equal(read(data).pixels, ATTENUATION)


def test_a_table_that_rises_and_falls_has_no_polarity():
    """Nobody can tell which way round its values are."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [3, 0, 16])
    table.add_new("LUTData", "US", [1, 3, 2])
    with pytest.raises(UnreadableImage, match="ModalityLUTSequence must rise or fall throughout"):
        read(twelve_bits(ATTENUATION, ModalityLUTSequence=[table], PixelIntensityRelationshipSign=1))


def test_the_class_of_the_object_tells_its_intent():
    """Where Presentation Intent Type is missing, "for presentation" stands in the SOP class."""
    attributes = {"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME2"}
    shown = uid.DigitalMammographyXRayImageStorageForPresentation
    with pytest.raises(UnreadableImage, match=r"PixelIntensityRelationshipSign 1 contradicts .* FOR PRESENTATION"):
        read(twelve_bits(ATTENUATION, SOPClassUID=shown, **attributes))
    np.testing.assert_array_equal(read(twelve_bits(ATTENUATION, **attributes)).pixels, TOP - ATTENUATION)


def test_what_is_overruled_is_noted():
    """A raw image is read by its sign; an odd shape and a missing sign are said."""
    data = twelve_bits(
        ATTENUATION,
        PresentationIntentType=RAW,
        PixelIntensityRelationshipSign=-1,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="IDENTITY",
    )
    (note,) = read(data).notes
    assert note == (
        "PresentationLUTShape IDENTITY contradicts PhotometricInterpretation MONOCHROME1; "
        "PixelIntensityRelationshipSign decides"
    )
    (note,) = read(twelve_bits(ATTENUATION, PresentationIntentType=RAW)).notes
    assert note.startswith("the raw image states no PixelIntensityRelationshipSign")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"PixelIntensityRelationshipSign": 0}, "PixelIntensityRelationshipSign must be 1 or -1, got 0"),
        ({"PixelIntensityRelationshipSign": [1, -1]}, "PixelIntensityRelationshipSign must be 1 or -1, got 2 values"),
        ({"PresentationLUTShape": "LIN OD"}, "PresentationLUTShape must be IDENTITY or INVERSE, got another term"),
    ],
)
def test_values_that_the_standard_does_not_define_are_refused(attributes, message):
    """With the attribute, what was expected and what came."""
    with pytest.raises(UnreadableImage, match=message):
        read(twelve_bits(ATTENUATION, **attributes))


def test_an_empty_sign_and_shape_are_no_statement():
    """As if they were missing."""
    data = twelve_bits(ATTENUATION, PixelIntensityRelationshipSign="", PresentationLUTShape="")
    np.testing.assert_array_equal(read(data).pixels, ATTENUATION)
