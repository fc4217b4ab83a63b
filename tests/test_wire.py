"""Arrays as JSON values, and parts of an answer."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from radlens.errors import InvalidInput
from radlens.wire import array_from_json, array_to_json, parts_of, related


@given(
    arrays.arrays(
        st.sampled_from(["float32", "float64", "uint8", "uint32", ">i4"]), arrays.array_shapes(min_side=0, max_dims=3)
    )
)
def test_arrays_survive_json(array):
    """Bit for bit, with shape and kind; the byte order becomes little endian."""
    found = array_from_json(json.loads(json.dumps(array_to_json(array))))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("<")


def test_the_encoding_is_named():
    """So that a reader without radlens can decode it."""
    value = array_to_json(np.zeros((2, 3), dtype=np.float32))
    assert (value["encoding"], value["shape"], value["dtype"]) == ("npy+zlib+base64", [2, 3], "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "raw"}, r"array must be encoded as npy\+zlib\+base64, got another encoding"),
        ({"data": "AAAA"}, r"array data must be complete, got damaged ones"),
        ({"data": "?"}, "got damaged ones"),
        ({"data": None}, "got damaged ones"),
        ({"shape": [3, 2]}, r"array must have the shape it states, got \[2, 3\]"),
    ],
)
def test_damaged_arrays_are_refused(change, message):
    """Each with its reason."""
    with pytest.raises(InvalidInput, match=message):
        array_from_json(array_to_json(np.zeros((2, 3))) | change)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_parts_survive(files):
    """Bit for bit, whatever is in them; the same files make the same body."""
    content_type, body = related(files)
    assert parts_of(content_type, body) == files
    assert related(files) == (content_type, body)
    assert content_type.startswith('multipart/related; type="application/dicom"; boundary=')


def test_parts_of_other_senders_are_read():
    """A preamble, a quoted boundary, further headers, an epilogue (RFC 2046 section 5.1.1)."""
    head = b"ignored\r\n--b\r\nContent-Type: application/dicom\r\nContent-Length: 2\r\n\r\n"
    body = head + b"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\nend"
    assert parts_of('Multipart/Related; boundary="b"; type=application/dicom', body) == [b"\r\n", b"x"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("application/dicom", b"", "expected multipart/related with a boundary, got another media type"),
        ("multipart/related", b"", "got another media type or no boundary"),
        ("multipart/related; boundary=b", b"--b\r\n\r\nx\r\n", "parts up to the closing boundary, got 10 bytes"),
        ("multipart/related; boundary=b", b"", "got 0 bytes that break off"),
        ("multipart/related; boundary=b", b"--b\r\nno headers\r\n--b--", "parts with headers and an empty line"),
    ],
)
def test_parts_that_break_off_are_refused(content_type, body, message):
    """A PACS must not store half an object."""
    with pytest.raises(InvalidInput, match=message):
        parts_of(content_type, body)
