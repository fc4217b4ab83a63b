"""Modality transformation and stored bits: held against pydicom, and refused with the attribute that is wrong."""

import io

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from pydicom import Dataset, uid
from pydicom.pixels import apply_modality_lut

from radlens.errors import UnreadableImage
from radlens.images import read

PIXELS = np.random.default_rng(2).integers(0, 4096, (6, 5)).astype(np.uint16)


def table(descriptor, data, vr="US"):
    """Return an item of a Modality LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.ModalityLUTType = "US"
    item.add_new("LUTData", vr, data)
    return item


def group(**macros):
    """Return a functional group: each macro is a sequence of one item."""
    result = Dataset()
    for keyword, attributes in macros.items():
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(result, keyword, [item])
    return result


# Against pydicom


def random_file(rng):
    """Draw pixels and attributes; return a file, its twin without functional groups, and whether it is inverted."""
    n_bits = int(rng.integers(1, 17))
    is_signed = bool(rng.integers(2)) and n_bits > 1
    low, high = (-(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1) if is_signed else (0, 2**n_bits - 1)
    allocated = 8 if n_bits <= 8 and rng.integers(2) else 16
    pixels = rng.integers(low, high + 1, (4, 7)).astype(f"{'i' if is_signed else 'u'}{allocated // 8}")
    syntaxes = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless]
    syntax = syntaxes[rng.integers(3 if is_signed else 4)]
    attributes = {"BitsStored": n_bits, "HighBit": n_bits - 1}
    attributes["PhotometricInterpretation"] = f"MONOCHROME{rng.integers(1, 3)}"
    is_dark = attributes["PhotometricInterpretation"] == "MONOCHROME1"
    kind, moved = rng.integers(4), {}
    if kind == 1:
        slope = float(rng.choice([-1, 1])) * round(float(10 ** rng.uniform(-3, 3)), 4)
        moved = {"RescaleSlope": f"{slope:.6g}", "RescaleIntercept": f"{rng.uniform(-2000, 2000):.6g}"}
    if kind == 2:
        n, n_table_bits = int(rng.integers(2, 300)), int(rng.choice([8, 16]))
        data = rng.integers(0, 2**n_table_bits, n)
        is_big = syntax == uid.ExplicitVRBigEndian
        as_words = bool(rng.integers(2))
        value = data.astype(">u2" if is_big else "<u2").tobytes() if as_words else data.tolist()
        first = int(rng.integers(low, high + 1))
        item = table([n, 0, n_table_bits], value, "OW" if as_words else "US")
        item.add_new("LUTDescriptor", "SS" if is_signed else "US", [n, first, n_table_bits])
        attributes["ModalityLUTSequence"] = [item]
    if kind != 2 and rng.integers(2):
        sign = int(rng.choice([1, -1]))
        attributes["PixelIntensityRelationshipSign"] = sign
        is_dark = (sign == 1) == (float(moved.get("RescaleSlope", 1)) > 0)
    flat = dicom_bytes(pixels, syntax, **attributes, **moved)
    if moved and rng.integers(2):
        place = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"][rng.integers(2)]
        attributes |= {"NumberOfFrames": 1, place: [group(PixelValueTransformationSequence=moved)]}
        return dicom_bytes(pixels, syntax, **attributes), flat, is_dark
    return flat, flat, is_dark


@pytest.mark.parametrize("seed", range(400))
def test_values_are_those_of_pydicom(seed):
    """Stored bits, slope, intercept and table; inverted at the ends of the range that pydicom gives."""
    data, flat, is_dark = random_file(np.random.default_rng([7, seed]))
    dataset = pydicom.dcmread(io.BytesIO(flat))
    # As int32, since pydicom subtracts the first mapped value in the dtype of the pixels, which overflows.
    values = apply_modality_lut(dataset.pixel_array.astype(np.int32), dataset).astype(float)
    if is_dark:
        n_bits, is_signed = dataset.BitsStored, dataset.PixelRepresentation
        ends = np.array([-(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1] if is_signed else [0, 2**n_bits - 1])
        if "ModalityLUTSequence" in dataset:
            values = 2.0 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1 - values
        else:
            values = apply_modality_lut(ends, dataset).astype(float).sum() - values
    np.testing.assert_array_equal(read(data).pixels, values.astype(np.float32))


@pytest.mark.parametrize("n_entries", [1, 5, 6])
def test_entries_of_8_bits_may_be_packed_in_pairs(n_entries):
    """PS3.3 C.11.1.1.1, a note: told from the length of the data; pydicom does not read these."""
    entries = np.arange(200, 200 + n_entries, dtype=np.uint8)
    packed = entries.tobytes() + b"\0" * (n_entries % 2)
    data = dicom_bytes(PIXELS, ModalityLUTSequence=[table([n_entries, 0, 8], packed, "OW")])
    np.testing.assert_array_equal(read(data).pixels, 200 + np.minimum(PIXELS, n_entries - 1))


def test_65536_entries_are_written_as_0():
    """PS3.3 C.11.1.1."""
    entries = np.arange(65536, dtype="<u2")[::-1].tobytes()
    data = dicom_bytes(PIXELS, ModalityLUTSequence=[table([0, 0, 16], entries, "OW")])
    np.testing.assert_array_equal(read(data).pixels, 65535 - PIXELS.astype(int))


# Slope and intercept


def test_a_monochrome1_image_is_inverted_within_the_range_of_its_rescale():
    """Slope 2 and intercept -10: from -10 to 8180."""
    data = dicom_bytes(
        PIXELS,
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
        RescaleSlope="2",
        RescaleIntercept="-10",
    )
    np.testing.assert_array_equal(read(data).pixels, 2.0 * (4095.0 - PIXELS) - 10.0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"RescaleSlope": "1", "RescaleIntercept": ""},
        {"RescaleSlope": "1"},
        {"RescaleIntercept": "0"},
        {"ModalityLUTSequence": []},
    ],
)
def test_empty_attributes_are_no_transformation(attributes):
    """As if they were missing, where half of a transformation changes nothing."""
    np.testing.assert_array_equal(read(dicom_bytes(PIXELS, **attributes)).pixels, PIXELS)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"RescaleSlope": "0", "RescaleIntercept": "5"}, "RescaleSlope must be a finite number other than 0, got 0"),
        ({"RescaleSlope": "nan", "RescaleIntercept": "5"}, "RescaleSlope must be a finite number .* got"),
        ({"RescaleSlope": "1", "RescaleIntercept": "inf"}, "RescaleIntercept must be one finite number, got"),
        ({"RescaleSlope": ["1", "2"], "RescaleIntercept": "5"}, "RescaleSlope must be .* got 2 values"),
        ({"RescaleSlope": "2"}, "RescaleIntercept must be given with RescaleSlope 2, got no value"),
        ({"RescaleSlope": "", "RescaleIntercept": "-7"}, "RescaleSlope must be given with RescaleIntercept -7, got no"),
        (
            {"RescaleSlope": "2", "RescaleIntercept": "0", "ModalityLUTSequence": [table([2, 0, 8], [0, 1])]},
            "expected ModalityLUTSequence or RescaleSlope and RescaleIntercept, got both",
        ),
        ({"ModalityLUTSequence": [table([2, 0, 8], [0, 1])] * 2}, "ModalityLUTSequence must have one item, got 2"),
        ({"ModalityLUTSequence": [table([2, 0], [0, 1])]}, "LUTDescriptor must be 3 integers, got 2 values"),
        ({"ModalityLUTSequence": [table([2, 0, 4], [0, 1])]}, "entries of 8 to 16 bits, got 4"),
        ({"ModalityLUTSequence": [table([3, 0, 16], [0, 1])]}, "must have the 3 entries of LUTDescriptor, got 2"),
        ({"ModalityLUTSequence": [table([2, 0, 8], [0, 256])]}, "must have entries of 8 bits .* got 256"),
        ({"ModalityLUTSequence": [table([2, 0, 16], b"", "OW")]}, "LUTData must be integers, got no value"),
    ],
)
def test_transformations_that_cannot_be_right_are_refused(attributes, message):
    """With the attribute, what was expected and what came."""
    with pytest.raises(UnreadableImage, match=message):
        read(dicom_bytes(PIXELS, **attributes))


# Functional groups


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_an_enhanced_image_of_one_frame_is_read_from_its_functional_groups(place):
    """Slope, intercept, spacing and sign: PS3.3 C.7.6.16."""
    groups = group(
        PixelValueTransformationSequence={"RescaleSlope": "2", "RescaleIntercept": "-10"},
        PixelMeasuresSequence={"PixelSpacing": ["0.3", "0.4"]},
        FramePixelDataPropertiesSequence={"PixelIntensityRelationshipSign": -1},
    )
    data = dicom_bytes(PIXELS, NumberOfFrames=1, ImagerPixelSpacing=None, **{place: [groups]})
    image = read(data)
    np.testing.assert_array_equal(image.pixels, 2.0 * PIXELS - 10.0)
    assert image.spacing_mm == (0.3, 0.4)


def test_attributes_that_are_stated_twice_must_agree():
    """In the data set and in the functional groups: the same number may be written in two ways."""
    groups = group(PixelValueTransformationSequence={"RescaleSlope": "2", "RescaleIntercept": "-10"})
    shared = {"SharedFunctionalGroupsSequence": [groups], "RescaleIntercept": "-10"}
    np.testing.assert_array_equal(read(dicom_bytes(PIXELS, RescaleSlope="2.0", **shared)).pixels, 2.0 * PIXELS - 10)
    message = "RescaleSlope must be stated alike .* got 3 in the data set and 2 in SharedFunctionalGroupsSequence"
    with pytest.raises(UnreadableImage, match=message):
        read(dicom_bytes(PIXELS, RescaleSlope="3", **shared))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"NumberOfFrames": "12"}, "expected a single frame, got 12"),
        ({"NumberOfFrames": "-2"}, "expected a single frame, got -2"),
        ({"PerFrameFunctionalGroupsSequence": [Dataset()] * 5}, "expected a single frame, got 5"),
        ({"PixelData": PIXELS.tobytes() * 3}, "expected a single frame, got 3 of 60 bytes each"),
        ({"SharedFunctionalGroupsSequence": [Dataset()] * 2}, "expected one item in Shared.*, got 2"),
    ],
)
def test_several_frames_are_refused_with_their_number(attributes, message):
    """However the file states them."""
    with pytest.raises(UnreadableImage, match=message):
        read(dicom_bytes(PIXELS, **attributes))


# Bits


def test_values_in_the_high_bits_are_shifted_down():
    """High Bit 15 with 12 bits stored was legal until 2007: PS3.5 8.1.1."""
    data = dicom_bytes(PIXELS << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(data).pixels, PIXELS)
    signed = (PIXELS.astype(int) - 2048).astype(np.int16)
    data = dicom_bytes(signed << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(data).pixels, signed)


def test_negative_values_may_end_at_their_sign_bit():
    """The bits above it are unused: PS3.5 8.1.1."""
    signed = (PIXELS.astype(int) - 2048).astype(np.int16)
    for stored in (signed, signed & 0x0FFF):
        np.testing.assert_array_equal(read(dicom_bytes(stored, BitsStored=12, HighBit=11)).pixels, signed)


def test_overlays_in_unused_bits_are_no_values():
    """Overlay Bit Position without Overlay Data: PS3.5 8.1.2, retired."""
    overlay = Dataset()
    overlay.add_new((0x6000, 0x0102), "US", 13)
    data = dicom_bytes(PIXELS | 0x2000, BitsStored=12, HighBit=11)
    with pytest.raises(UnreadableImage, match="pixels must be 0 to 4095 as BitsStored 12 says, got"):
        read(data)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.update(overlay)
    stream = io.BytesIO()
    dataset.save_as(stream)
    np.testing.assert_array_equal(read(stream.getvalue()).pixels, PIXELS)


OVER = np.array([[5000, 3]], np.uint16)


@pytest.mark.parametrize(
    ("pixels", "attributes", "message"),
    [
        (OVER, {"BitsStored": 12, "HighBit": 11}, "pixels must be 0 to 4095 as BitsStored 12 says, got 3 to 5000"),
        (OVER.astype(np.int16) - 4000, {"BitsStored": 12, "HighBit": 11}, "must be -2048 to 2047 .* got -3997 to 1000"),
        (OVER, {"BitsStored": 12, "HighBit": 15}, "BitsStored 12 and HighBit 15 says, got pixels with other bits set"),
        (OVER, {"BitsStored": 12, "HighBit": 7}, "HighBit must be 11 to 15, got 7"),
        (OVER, {"BitsStored": 17}, "BitsStored must be 1 to 16, got 17"),
        (OVER, {"BitsStored": 0}, "BitsStored must be 1 to 16, got 0"),
        (OVER, {"PixelRepresentation": 2}, "PixelRepresentation must be 0 or 1, got 2"),
    ],
)
def test_bits_that_disagree_with_the_data_are_refused(pixels, attributes, message):
    """Masking them would make 904 of 5000."""
    with pytest.raises(UnreadableImage, match=message):
        read(dicom_bytes(pixels, **attributes))
