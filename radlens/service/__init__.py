"""Decoded requests to responses: the functional core of every handler."""

from radlens.service.batching import BatchService
from radlens.service.classifier import ClassifierService
from radlens.service.core import Service
from radlens.service.messages import KINDS, Emit, Request, Response, request_from_http
from radlens.service.opening import open_service
from radlens.service.rows import MAX_PLAIN_EVALUATIONS, MAX_STREAMED_EVALUATIONS
from radlens.service.streaming import Pace

__all__ = [
    "KINDS",
    "MAX_PLAIN_EVALUATIONS",
    "MAX_STREAMED_EVALUATIONS",
    "BatchService",
    "ClassifierService",
    "Emit",
    "Pace",
    "Request",
    "Response",
    "Service",
    "open_service",
    "request_from_http",
]
