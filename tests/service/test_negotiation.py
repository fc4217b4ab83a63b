"""What clients accept, against RFC 9110."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radlens.errors import NotAcceptable
from radlens.service.negotiation import negotiate

OFFERED = ("application/json", "image/png", "application/dicom", "multipart/related")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        (" ", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("application/*", "application/json"),
        ("image/png;q=0.5, application/json;q=0.4", "image/png"),
        ("image/png;q=0.5, */*;q=0.6", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("application/*;q=0.2, application/dicom, image/png;q=0.9", "application/dicom"),
        ("text/html, application/xhtml+xml, image/avif, */*;q=0.8", "application/json"),
        ("image/png; q=1.000", "image/png"),
        ("image/png;level=1;q=0.3, application/json;q=0.2", "image/png"),
        ("nonsense, image/png;q=2, application/dicom;q=0.1", "application/dicom"),
        ('multipart/related; type="application/dicom"', "multipart/related"),
        ("multipart/related;type=application/dicom;q=0.9, application/dicom;q=0.8", "multipart/related"),
        ("multipart/related", "multipart/related"),
        ('multipart/related; type="image/jpeg", image/png;q=0.1', "image/png"),
    ],
)
def test_the_preferred_format_is_chosen(accept, expected):
    """The most specific range gives a format its weight; ties go to the first on offer."""
    assert negotiate(accept, OFFERED) == expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*;q=0.0", "x"])
def test_formats_that_do_not_exist_are_refused(accept):
    """The error names what there is."""
    with pytest.raises(NotAcceptable, match=r"the answer can be application/json, image/png, application/dicom"):
        negotiate(accept, OFFERED)


@given(st.text(max_size=200))
def test_any_header_chooses_or_is_refused(accept):
    """No header makes it fail in another way, or choose something that is not on offer."""
    with suppress(NotAcceptable):
        assert negotiate(accept, OFFERED) in OFFERED
