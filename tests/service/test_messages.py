"""Requests as HTTP spreads them."""

from hypothesis import given
from hypothesis import strategies as st

from radlens.service import Response, request_from_http


def test_parameters_come_from_headers_and_query():
    """The query string wins over a proxy's, that over prefixed headers; plain headers are hints."""
    headers = {
        "Content-Type": "image/png",
        "ACCEPT": "application/json",
        "X-Radlens-N-Steps": "1",
        "x-radlens-path-length": "2",
        "X-Radlens-Query": "n_steps=3&zscore=4&seed=",
        "N-Samples": "5",
    }
    request = request_from_http("explain", b"body", headers, {"zscore": "6"}, "id")
    assert request.parameters == {"n_steps": "3", "path_length": "2", "zscore": "6", "seed": ""}
    assert request.hints["n_samples"] == "5"
    assert (request.content_type, request.accept, request.body) == ("image/png", "application/json", b"body")
    assert (request.kind, request.request_id) == ("explain", "id")


def test_a_response_has_a_reason_phrase():
    """That of its status."""
    assert Response(422, "application/json").phrase == "Unprocessable Entity"


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_any_headers_make_a_request(headers, query):
    """Nothing a client sends as header or query makes the decoding fail."""
    request = request_from_http("predict", b"", headers, query, "")
    assert dict(query).items() <= request.parameters.items()
