"""Images as they are, and in JSON."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radlens.errors import InvalidInput, RadlensError, UnsupportedMediaType
from radlens.service.bodies import open_body
from radlens.service.messages import Request


def opened(body, content_type="application/json"):
    """Open a body of that declared type."""
    return open_body(Request("explain", body, content_type))


@pytest.mark.parametrize("content_type", [None, "", "application/dicom", "application/octet-stream", "image/png; a=b"])
def test_a_body_is_the_image(content_type):
    """Whatever is declared, except JSON and forms."""
    found = opened(b"abc", content_type)
    assert found == (((b"abc", content_type),), {}, None)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_holds_an_image_and_parameters(content_type):
    """Numbers become the text they were written as."""
    image = base64.b64encode(b"\x00abc").decode()
    fields = {"image": image, "method": "omig", "n_steps": 5, "zscore": 2.5, "seed": 10**30, "trust": True}
    found = opened(json.dumps(fields).encode(), content_type)
    assert found.images == ((b"\x00abc", None),)
    text = {"method": "omig", "n_steps": "5", "zscore": "2.5", "seed": "1" + "0" * 30, "trust": "true"}
    assert found.parameters == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected a JSON object as the body, got 0 bytes that are not valid JSON"),
        (b"{", "got 1 bytes that are not valid JSON"),
        (b"[" * 200_000, "got 200000 bytes that are not valid JSON"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "that are not valid JSON"),
        (b'{"zscore": NaN}', "that are not valid JSON"),
        (b"\xff\xfe", "that are not valid JSON"),
        (b"[]", "got an array"),
        (b'"x"', "got a string"),
        (b"null", "got nothing"),
        (b"3", "got a number"),
        (b"true", "got a boolean"),
        (b"{}", "field image must be a base64 string, got nothing"),
        (b'{"image": {}}', "field image must be a base64 string, got an object"),
        (b'{"image": "a"}', "field image must be valid base64, got 1 characters that are not"),
        (b'{"image": "data:image/png;base64,AAAA"}', "field image must be valid base64"),
        ('{"image": "é"}'.encode(), "field image must be valid base64"),
        (b'{"image": "", "seed": [1]}', "field 'seed' must be a number, a boolean or a string, got an array"),
        (b'{"image": "", "seed": null}', "field 'seed' must be a number, a boolean or a string, got nothing"),
        (json.dumps({str(i): 1 for i in range(65)}).encode(), "expected at most 64 fields in the JSON body, got 65"),
    ],
)
def test_other_json_is_refused(body, message):
    """One clear message each."""
    with pytest.raises(InvalidInput, match=message):
        opened(body)


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_forms_are_refused(content_type):
    """TorchServe takes them apart, and nothing is left of an image that curl declares as one by default."""
    with pytest.raises(UnsupportedMediaType, match="expected the bytes of an image as the body, got a form"):
        opened(b"abc", content_type)


def test_json_holds_several_images():
    """In an array, beside parameters."""
    images = [base64.b64encode(data).decode() for data in (b"a", b"b")]
    found = opened(json.dumps({"images": images, "seed": 3}).encode())
    assert found == (((b"a", None), (b"b", None)), {"seed": "3"}, None)


def multipart(parts, boundary="frontier", media_type="application/dicom"):
    """Write images as a client does: one part an image."""
    head = f"--{boundary}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_parts_of_a_multipart_body_are_images(parts):
    """Every byte of every part comes back, whatever line ends it holds (RFC 2046, section 5.1)."""
    parts = [part for part in parts if b"--frontier" not in part] or [b""]
    found = opened(multipart(parts), 'multipart/related; type="application/dicom"; boundary=frontier')
    assert found == (tuple((part, "application/dicom") for part in parts), {}, None)


@pytest.mark.parametrize(
    "named", ["Content-ID: <mask>", 'Content-Disposition: attachment; name="mask"', "Content-Id: mask"]
)
def test_a_mask_is_the_part_of_that_name(named):
    """In multipart by either header, in JSON by its field; two masks are refused, and so is one that nobody uses."""
    head = "--frontier\r\nContent-Type: image/png\r\n"
    mask = f"{head}{named}\r\n\r\nxyz\r\n".encode()
    body = f"{head}\r\nabc\r\n".encode() + mask
    found = opened(body + b"--frontier--\r\n", "multipart/related; boundary=frontier")
    assert [part.data for part in found.images] == [b"abc"]
    assert found.mask == (b"xyz", "image/png")
    with pytest.raises(InvalidInput, match="expected at most one part named mask, got 2"):
        opened(body + mask + b"--frontier--\r\n", "multipart/related; boundary=frontier")
    in_json = opened(b'{"image": "YWJj", "mask": "eHl6"}')
    assert (in_json.images[0].data, in_json.mask.data) == (b"abc", b"xyz")
    with pytest.raises(InvalidInput, match="field mask must be a base64 string, got a number"):
        opened(b'{"image": "YWJj", "mask": 3}')
    with pytest.raises(InvalidInput, match="expected an image alone, got a mask as well"):
        in_json.without_mask()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"abc", "multipart/related; boundary=frontier"),
        (b"", "multipart/related; boundary=frontier"),
        (multipart([b"a"]), "multipart/related"),
        (multipart([b"a"]), "multipart/related; boundary=other"),
        (multipart([b"a"])[:-16], "multipart/related; boundary=frontier"),
        (
            multipart([multipart([b"a"], "inner")], media_type="multipart/related; boundary=inner"),
            "multipart/related; boundary=frontier",
        ),
        (multipart([b"a"]), "multipart/related; boundary=\xe9"),
    ],
)
def test_broken_multipart_is_refused(body, content_type):
    """No boundary, another one, no end, parts within parts, a header that is not ASCII."""
    with pytest.raises(InvalidInput, match="expected multipart/related with a boundary and one part per image"):
        opened(body, content_type)


def test_too_many_images_are_refused():
    """A request holds at most 64; an empty array holds none."""
    with pytest.raises(InvalidInput, match="expected 1 to 64 images in the body, got 65"):
        opened(multipart([b"a"] * 65), "multipart/related; boundary=frontier")
    with pytest.raises(InvalidInput, match="expected 1 to 64 images in the body, got 0"):
        opened(b'{"images": []}')
    with pytest.raises(InvalidInput, match="field images must be an array of base64 strings, got a string"):
        opened(b'{"images": "AAAA"}')
    with pytest.raises(InvalidInput, match="expected the field image or the field images, got both"):
        opened(b'{"images": ["AAAA"], "image": "AAAA"}')


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


def outcome(body):
    """Return the image of a body, or the message of the error that refused it."""
    try:
        return opened(body).images[0].data
    except RadlensError as error:
        return str(error)


@given(st.binary(max_size=300))
def test_any_json_body_is_opened_or_refused(body):
    """Nothing but an image or one of our errors comes out, and its message is ASCII."""
    assert outcome(body).isascii()


@given(JSON_VALUES)
def test_any_json_value_is_opened_or_refused(value):
    """Also where it is valid JSON."""
    assert outcome(json.dumps(value).encode()).isascii()
    assert isinstance(outcome(json.dumps({"image": value}).encode()), bytes | str)
    assert outcome(json.dumps({"image": "AAAA", "seed": value}).encode()).isascii()
