"""Reading images: formats, errors, and that nothing of a header gets out."""

import contextlib
import io
import logging
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from dicom_files import ENCODERS, SECRET, dicom_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate

from radlens.errors import InvalidInput, RadlensError, UnreadableImage, UnsupportedMediaType
from radlens.images import MAX_PIXELS, MEDIA_TYPES, image, read, require_shape, to_npy, to_png, to_tiff
from radlens.images.dicom import TRANSFER_SYNTAXES

RNG = np.random.default_rng(0)
GREY16 = RNG.integers(0, 65536, (40, 50)).astype(np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)
SMOOTH8 = (np.add.outer(np.arange(40), np.arange(50)) * 2).astype(np.uint8)

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
LOSSY = {uid.JPEGBaseline8Bit: 2.0, uid.JPEGLSNearLossless: 2.0, uid.JPEG2000: 2.0}
LOSSLESS = [syntax for syntax in TRANSFER_SYNTAXES if syntax not in LOSSY]

FILES = {
    **{uid.UID(syntax).name: dicom_bytes(GREY16, syntax) for syntax in LOSSLESS},
    "png": to_png(GREY16),
    "tiff": to_tiff(GREY16),
    "npy": to_npy(GREY16),
}
"""One small file of each kind."""


def pillow_bytes(array, format_name, **options):
    """Encode with Pillow, in ways that radlens itself does not write."""
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, format_name, **options)
    return stream.getvalue()


# What is read


@pytest.mark.parametrize("name", FILES)
def test_lossless_files_give_their_pixels_bit_for_bit(name):
    """Every 16 bit value is exact in float32."""
    result = read(FILES[name])
    np.testing.assert_array_equal(result.pixels, GREY16)
    assert result.pixels.dtype == np.float32
    assert result.pixels.flags.c_contiguous


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_eight_bit_dicom_is_exact(syntax):
    """Every lossless transfer syntax keeps 8 bit pixels."""
    np.testing.assert_array_equal(read(dicom_bytes(GREY8, syntax)).pixels, GREY8)


@pytest.mark.parametrize(("syntax", "tolerance"), LOSSY.items())
def test_lossy_dicom_is_close(syntax, tolerance):
    """Within the loss its encoder was asked for: quality 95, an error of 2, and a ratio of 2 on a smooth image."""
    result = read(dicom_bytes(SMOOTH8, syntax))
    np.testing.assert_allclose(result.pixels, SMOOTH8, atol=tolerance)


def test_a_dicom_image_keeps_what_is_needed_of_its_header():
    """Spacing, UID, digest and a header without pixels."""
    result = read(dicom_bytes(GREY16))
    assert result.media_type == "application/dicom"
    assert result.spacing_mm == (0.07, 0.08)
    assert result.sop_instance_uid == "1.2.826.0.1.3680043.8.498.1"
    assert result.dataset.PatientID == "4711"
    assert "PixelData" not in result.dataset
    assert len(result.sha256) == 64


@pytest.mark.parametrize(
    ("name", "media_type"), [("png", "image/png"), ("tiff", "image/tiff"), ("npy", MEDIA_TYPES[3])]
)
def test_other_formats_state_neither_spacing_nor_identity(name, media_type):
    """PNG, TIFF and npy know pixels only."""
    result = read(FILES[name])
    assert (result.media_type, result.spacing_mm, result.sop_instance_uid) == (media_type, None, None)
    assert result.dataset is None


def test_modality_lookup_table_is_applied():
    """PS3.3 C.11.1.1.2: stored value 3 with a first mapped value of 2 is entry 1."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 2, 16])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [100, 200, 300, 400])
    data = dicom_bytes(np.full((3, 3), 3, np.uint16), ModalityLUTSequence=[table])
    np.testing.assert_array_equal(read(data).pixels, 200)


@pytest.mark.parametrize("padding", [b"\xff", b"\xff\xff", b"\0\0", b"\xff\0", b"\xff" * 9])
@pytest.mark.parametrize("syntax", [syntax for syntax in ENCODERS if syntax != uid.RLELossless])
def test_padding_behind_the_end_marker_is_no_damage(syntax, padding):
    """A fragment has an even length: encoders pad it with zeros or, as JPEG may, with FF."""
    frame = ENCODERS[syntax](SMOOTH8)
    padded = read(dicom_bytes(SMOOTH8, syntax, PixelData=encapsulate([frame + padding])))
    np.testing.assert_array_equal(padded.pixels, read(dicom_bytes(SMOOTH8, syntax)).pixels)
    with pytest.raises(UnreadableImage, match="must end with an end marker"):
        read(dicom_bytes(SMOOTH8, syntax, PixelData=encapsulate([frame[:-2] + padding])))


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless])
def test_several_frames_in_one_value_are_refused_with_their_number(syntax):
    """Whatever Number of Frames says."""
    frame = ENCODERS[syntax](GREY16)
    with pytest.raises(UnreadableImage, match="PixelData must be a single frame in fragments, got 3 frames"):
        read(dicom_bytes(GREY16, syntax, PixelData=encapsulate([frame] * 3)))


def test_signed_pixels_stay_signed():
    """Pixel representation 1."""
    values = GREY16.astype(np.int16)
    np.testing.assert_array_equal(read(dicom_bytes(values)).pixels, values)


def test_a_uid_that_is_none_is_dropped():
    """It would end in provenance, and could hold anything."""
    assert read(dicom_bytes(GREY16, SOPInstanceUID=SECRET)).sop_instance_uid is None


def test_a_single_frame_may_be_counted():
    """NumberOfFrames 1 is what many exports write."""
    np.testing.assert_array_equal(read(dicom_bytes(GREY16, NumberOfFrames="1")).pixels, GREY16)


@pytest.mark.parametrize("array", [GREY8, GREY16.astype(np.float32) / 7.0])
def test_tiff_of_bytes_and_floats(array):
    """Values are as stored."""
    np.testing.assert_array_equal(read(to_tiff(array)).pixels, array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression):
    """The lossless compressions of TIFF 6.0."""
    np.testing.assert_array_equal(read(pillow_bytes(GREY16, "TIFF", compression=compression)).pixels, GREY16)


def test_big_endian_tiff():
    """MM byte order with 16 bits."""
    data = _tiff(GREY16.astype(">u2"), order=">")
    np.testing.assert_array_equal(read(data).pixels, GREY16)


def test_eight_bit_png():
    """Values are as stored."""
    np.testing.assert_array_equal(read(to_png(GREY8)).pixels, GREY8)


@given(
    hnp.arrays(
        st.sampled_from(["u1", "<u2", ">u2", "i4", "f2", "<f4", ">f4"]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
        elements={"allow_nan": False, "allow_infinity": False},
        fill=st.nothing(),
    ),
    st.booleans(),
)
def test_npy_of_any_real_dtype_and_order(array, fortran):
    """Row and column order and byte order survive."""
    stored = np.asfortranarray(array) if fortran else array
    np.testing.assert_array_equal(read(to_npy(stored)).pixels, array.astype(np.float32))


def test_a_declared_type_may_be_general_or_carry_parameters():
    """Only a contradiction counts."""
    for declared in (None, "", "application/octet-stream", "image/PNG; q=1", "image/jpeg"):
        assert read(FILES["png"], declared).media_type == "image/png"


# What is refused


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", InvalidInput, "expected an image in the body, got an empty body"),
        (b"\xff\xd8\xff\xe0" * 50, UnsupportedMediaType, "expected DICOM .* got 200 bytes of another type"),
        (FILES["png"][:20], UnreadableImage, "expected a PNG header of 33 bytes, got 20"),
        (FILES["png"][:-4], UnreadableImage, "got 4104 bytes without one: truncated"),
        (to_png(np.stack([GREY8] * 3, axis=-1)), UnreadableImage, "expected a grey PNG, got RGB"),
        (pillow_bytes(np.stack([GREY8] * 4, axis=-1), "PNG"), UnreadableImage, "grey PNG, got RGB with alpha"),
        (pillow_bytes(GREY8 > 7, "PNG"), UnreadableImage, "expected a PNG of 8 or 16 bits, got 1"),
        (FILES["tiff"][:-100], UnreadableImage, "expected a complete TIFF, got one that is truncated or damaged"),
        (pillow_bytes(np.stack([GREY8] * 3, axis=-1), "TIFF"), UnreadableImage, "grey TIFF .* got RGB"),
        (pillow_bytes(GREY16.astype(np.int32), "TIFF"), UnreadableImage, "8 or 16 bits or 32-bit floats, got .* I$"),
        (FILES["npy"][:-100], UnreadableImage, "array of 40x50 needs 4000 bytes of data, got 3900"),
        (FILES["npy"] + b"\0", UnreadableImage, "needs 4000 bytes of data, got 4001"),
        (FILES["npy"][:40], UnreadableImage, "expected a .npy header, got one that cannot be read"),
        (to_npy(GREY16 > 3), UnreadableImage, "real integers or floats, got dtype kind 'b'"),
        (to_npy(GREY16 * 1j), UnreadableImage, "real integers or floats, got dtype kind 'c'"),
        (to_npy(GREY16[None]), UnreadableImage, r"2 dimensions \(H, W\), got 3"),
        (to_npy(np.zeros((0, 4))), UnreadableImage, "image must have 1 to 100000000 pixels, got 0x4"),
    ],
)
def test_unusable_bytes_are_refused(data, kind, message):
    """Each with one error that names what was expected and what came."""
    with pytest.raises(kind, match=message):
        read(data)


def test_palette_png_is_refused():
    """Its values are indices."""
    stream = io.BytesIO()
    PIL.Image.fromarray(GREY8).convert("P").save(stream, "PNG")
    with pytest.raises(UnreadableImage, match="expected a grey PNG, got palette"):
        read(stream.getvalue())


def test_pickled_arrays_are_never_opened():
    """Unpickling runs code."""
    stream = io.BytesIO()
    np.save(stream, np.array([[SECRET, {}]], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="got dtype kind 'O'"):
        read(stream.getvalue())


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_several_frames_are_refused(format_name):
    """An animation, a document of several pages."""
    data = pillow_bytes(GREY8, format_name, save_all=True, append_images=[PIL.Image.fromarray(255 - GREY8)])
    with pytest.raises(UnreadableImage, match="expected a single frame, got 2"):
        read(data)


def test_white_is_zero_tiff_is_refused():
    """Pillow inverts it for 8 bits and not for 16: nobody could tell which way round the image is."""
    with pytest.raises(UnreadableImage, match=r"grey TIFF \(BlackIsZero\), got WhiteIsZero"):
        read(_tiff(GREY16, photometric=0))


def test_a_damaged_png_is_refused():
    """One flipped bit breaks the checksum of its chunk."""
    data = bytearray(FILES["png"])
    data[200] ^= 1
    with pytest.raises(UnreadableImage, match="expected a complete PNG, got one that is truncated or damaged"):
        read(bytes(data))


def test_too_many_pixels_are_refused_before_they_are_allocated():
    """A header of 100 bytes may ask for gigabytes."""
    side = 1 + int(MAX_PIXELS**0.5)
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    npy = to_npy(np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 1), (0, 0))).replace(
        b"(1, 1)", b"(%d, %d)" % (side, side)
    )
    dicom = dicom_bytes(GREY16, Rows=side, Columns=side)
    for data in (png, npy, dicom, _tiff(GREY16, shape=(side, side)), _tiff(GREY16, shape=(10 * side, side))):
        with pytest.raises(UnreadableImage, match=f"image must have 1 to {MAX_PIXELS} pixels, got"):
            read(data)


def test_large_images_below_the_limit_give_no_warning(monkeypatch):
    """Pillow warns from 89 million pixels on; the limit here is another."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", GREY16.size - 1)
    np.testing.assert_array_equal(read(FILES["png"]).pixels, GREY16)


@pytest.mark.parametrize("to_bytes", [to_tiff, to_npy])
def test_pixels_that_are_no_numbers_are_counted(to_bytes):
    """NaN and both infinities."""
    array = GREY16.astype(np.float32)
    array[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(UnreadableImage, match="pixels must be finite as float32, got 3 that are NaN or infinite"):
        read(to_bytes(array))


def test_values_beyond_float32_are_refused():
    """They would become infinite."""
    with pytest.raises(UnreadableImage, match="finite as float32, got 1 "):
        read(to_npy(np.array([[1e300, 0.0]])))


@pytest.mark.parametrize("declared", ["application/dicom", "image/tiff", "Application/X-NPY; charset=binary"])
def test_a_declared_type_that_contradicts_the_bytes_is_refused(declared):
    """The sender is mistaken about what it sends."""
    with pytest.raises(UnsupportedMediaType, match=r"body must be .* as declared, got bytes of image/png"):
        read(FILES["png"], declared)


def _compressed(frame, syntax=uid.JPEGLossless, **attributes):
    return dicom_bytes(GREY16, syntax, PixelData=encapsulate([frame]), **attributes)


BAD_SLOPE = dicom_bytes(GREY16, RescaleSlope="12345678", RescaleIntercept="0").replace(b"12345678", SECRET.encode())
JPEG = ENCODERS[uid.JPEGLossless](GREY16)
JPEG_2000 = ENCODERS[uid.JPEG2000Lossless](GREY16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom_bytes(GREY16)[:-100], "40x50 pixels need 4000 bytes of pixel data, got 3900: truncated"),
        (dicom_bytes(GREY16)[:500], "an object without pixel data"),
        (dicom_bytes(GREY16, PixelData=None), "an object without pixel data"),
        (dicom_bytes(GREY16)[:140], "must state a transfer syntax, got none"),
        (dicom_bytes(GREY16, uid.RLELossless)[:-100], "without pixel data: truncated, or not an image"),
        (dicom_bytes(GREY16, uid.JPEGLSLossless)[:-100], "without pixel data: truncated, or not an image"),
        (dicom_bytes(np.stack([GREY8] * 3, axis=-1)), "one grey sample per pixel, got 3"),
        (dicom_bytes(GREY16, PhotometricInterpretation="PALETTE COLOR"), "MONOCHROME2, got PALETTE COLOR"),
        (dicom_bytes(GREY16, PhotometricInterpretation=SECRET), "MONOCHROME2, got an unknown value"),
        (dicom_bytes(GREY16, NumberOfFrames="3"), "expected a single frame, got 3"),
        (dicom_bytes(GREY16, BitsAllocated=12), "BitsAllocated must be 8, 16 or 32, got 12"),
        (dicom_bytes(GREY16, Rows=None), "Rows must be one integer, got no value"),
        (dicom_bytes(GREY16, Rows=0), "image must have 1 to 100000000 pixels, got 0x50"),
        (dicom_bytes(GREY16, BitsStored=None), "BitsStored must be 1 to 16, got no value"),
        (BAD_SLOPE, "RescaleSlope must be a finite number other than 0, got text that is not a number"),
        (
            dicom_bytes(GREY16, uid.DeflatedExplicitVRLittleEndian),
            "transfer syntax must be one of .*; got Deflated Explicit VR Little Endian",
        ),
        (
            dicom_bytes(GREY16, uid.ExplicitVRLittleEndian).replace(b"840.10008.1.2.1\0", b"840.99999.1.2.3\0"),
            "registered",
        ),
        (_compressed(JPEG[:1000]), "end with an end marker, got 1000 bytes without one: truncated"),
        (_compressed(JPEG[:3] + b"\xff\xd9"), "pixel data must state their size, got no size"),
        (_compressed(b"no JPEG at all\xff\xd9"), "pixel data must state their size, got no size"),
        (_compressed(JPEG, Rows=39), "compressed pixel data must be 39x50 as the header says, got 40x50"),
        (_compressed(JPEG_2000, uid.JPEG2000Lossless, Columns=10), "must be 40x10 as the header says, got 40x50"),
        (
            _compressed(JPEG_2000[:60] + b"\xff\xd9"),
            "must be readable as JPEG Lossless.*, got .* bytes that are damaged",
        ),
    ],
)
def test_unusable_dicom_is_refused(data, message):
    """Each with one error that names what was expected and what came."""
    with pytest.raises(UnreadableImage, match=message) as caught:
        read(data)
    assert SECRET not in str(caught.value)


def test_nothing_of_a_header_is_logged_or_warned(caplog):
    """Odd values, which pydicom quotes, are read in silence; a warning would be an error here."""
    with caplog.at_level(logging.DEBUG):
        read(dicom_bytes(GREY16, PatientBirthDate=SECRET, PatientID=SECRET * 40, StudyDate="today"))
        with pytest.raises(UnreadableImage):
            read(BAD_SLOPE)
    assert SECRET not in caplog.text
    assert logging.getLogger("pydicom").level != logging.CRITICAL + 1


@pytest.mark.parametrize("data", [BAD_SLOPE, FILES["npy"][:40], FILES["tiff"][:-100], dicom_bytes(GREY16)[:140]])
def test_an_error_carries_no_cause_that_quotes_the_header(data):
    """A traceback in a log prints causes."""
    with pytest.raises(UnreadableImage) as caught:
        read(data)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(("shape", "ok"), [((250, 250), True), ((249, 300), False), ((300, 249), False)])
def test_require_shape(shape, ok):
    """At least 250x250 unless told otherwise."""
    found = image.Image(np.zeros(shape, np.float32), None, "image/png", "")
    if ok:
        require_shape(found)
    else:
        with pytest.raises(UnreadableImage, match=f"at least 250x250 pixels, got {shape[0]}x{shape[1]}"):
            require_shape(found)
    require_shape(found, minimum=(200, 200))


# Whatever comes

UNHURRIED = settings(deadline=None)
"""A damaged header may ask for any size up to the limit, which takes its time to allocate."""


def _reads_or_refuses(data):
    with contextlib.suppress(RadlensError):
        result = read(data)
        assert result.pixels.ndim == 2
        assert np.isfinite(result.pixels).all()


MAGIC = [b"", b"\0" * 128 + b"DICM", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"\x93NUMPY", b"\x93NUMPY\1\0"]


@UNHURRIED
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(magic, noise):
    """A result or an error of radlens, behind every magic number."""
    _reads_or_refuses(magic + noise)


@UNHURRIED
@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True))
def test_truncated_files_never_raise_anything_else(name, fraction):
    """Cut anywhere."""
    data = FILES[name]
    _reads_or_refuses(data[: int(fraction * len(data))])


@UNHURRIED
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 4999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_never_raise_anything_else(name, changes):
    """Bytes overwritten anywhere."""
    data = bytearray(FILES[name])
    for position, value in changes:
        data[position % len(data)] = value
    _reads_or_refuses(bytes(data))


def _tiff(array, order="<", photometric=1, shape=None):
    """Write an uncompressed single-strip TIFF by hand, so that its tags can be wrong."""
    rows, columns = shape or array.shape
    data = array.tobytes()
    tags = [
        (256, 4, columns),
        (257, 4, rows),
        (258, 3, 8 * array.itemsize),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, rows),
        (279, 4, len(data)),
    ]
    entries = b""
    for tag, kind, value in tags:
        entries += struct.pack(order + "HHI", tag, kind, 1) + struct.pack(
            order + ("HH" if kind == 3 else "I"), *([value, 0][: 5 - kind])
        )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return (
        magic
        + struct.pack(order + "I", 8 + len(data))
        + data
        + struct.pack(order + "H", len(tags))
        + entries
        + b"\0" * 4
    )
