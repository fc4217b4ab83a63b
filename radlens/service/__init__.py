"""Responses to decoded requests: the model-independent functional core of every handler."""

from radlens.service.batching import BatchService
from radlens.service.messages import KINDS, Emit, Request, Response, request_from_http

__all__ = ["KINDS", "BatchService", "Emit", "Request", "Response", "request_from_http"]
