"""Decoded requests to responses: the functional core of every handler; knows no model."""

from radlens.service.batching import BatchService
from radlens.service.messages import KINDS, Emit, Request, Response, request_from_http

__all__ = ["KINDS", "BatchService", "Emit", "Request", "Response", "request_from_http"]
