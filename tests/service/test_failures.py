"""Errors as answers and in the log."""

import json
import logging

import pytest

from radlens import errors
from radlens.service.failures import failed

SECRET = "DOE^JANE"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidParameter("n_steps must be at least 1, got 0"), 400),
        (errors.InvalidInput("x"), 400),
        (errors.UnreadableImage("x"), 422),
        (errors.UnsupportedMediaType("x"), 415),
        (errors.NotAcceptable("x"), 406),
        (errors.ModelNotFound("x"), 404),
        (errors.BundleError("x"), 500),
    ],
)
def test_our_errors_are_told(error, status, caplog):
    """Status, kind, message and request id; the log has no message."""
    caplog.set_level(logging.INFO)
    response = failed(error, "id-1")
    fields = {"code": status, "type": type(error).__name__, "message": str(error), "request_id": "id-1"}
    assert (response.status, response.content_type) == (status, "application/json")
    assert json.loads(response.body) == fields
    assert caplog.messages == [f"request id-1: {status} {type(error).__name__}"]


@pytest.mark.parametrize("kind", [ValueError, KeyError, MemoryError, RuntimeError])
def test_other_errors_tell_nothing(kind, caplog):
    """They may quote a patient's name; the log has their type and place."""
    try:
        raise kind(SECRET)
    except kind as error:
        response = failed(error, "id-2")
    assert response.status == 500
    assert json.loads(response.body)["message"] == "internal error, logged under request id-2"
    assert SECRET not in response.body.decode() + caplog.text
    assert f"request id-2: {kind.__name__}, message withheld" in caplog.text
    assert "test_failures.py" in caplog.text
