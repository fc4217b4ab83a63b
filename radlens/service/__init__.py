"""Decoded requests to responses: the functional core of every handler."""

from radlens.service.core import Service
from radlens.service.encoding import ENCODING, array_from_json, array_to_json
from radlens.service.messages import JSON, KINDS, NDJSON, Emit, Request, Response, request_from_http
from radlens.service.provenance import HEADER
from radlens.service.rows import MAX_PLAIN_EVALUATIONS, MAX_STREAMED_EVALUATIONS
from radlens.service.streaming import Pace

__all__ = [
    "ENCODING",
    "HEADER",
    "JSON",
    "KINDS",
    "MAX_PLAIN_EVALUATIONS",
    "MAX_STREAMED_EVALUATIONS",
    "NDJSON",
    "Emit",
    "Pace",
    "Request",
    "Response",
    "Service",
    "array_from_json",
    "array_to_json",
    "request_from_http",
]
