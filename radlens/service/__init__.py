"""Decoded requests to responses: the functional core of every handler; knows no contrast-detail model."""

from radlens.service.batching import BatchService
from radlens.service.classifier import ClassifierService
from radlens.service.messages import KINDS, Emit, Request, Response, request_from_http

__all__ = [
    "KINDS",
    "BatchService",
    "ClassifierService",
    "Emit",
    "Request",
    "Response",
    "request_from_http",
]
