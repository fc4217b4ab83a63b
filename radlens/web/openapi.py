"""OpenAPI 3.1 of a server, made from the documents that workers publish of their models; no family is known here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

import radlens
from radlens.web.access import Access
from radlens.web.fleet import Fleet
from radlens.web.identity import Scope, Send, headers_of, respond
from radlens.web.refusals import Refused
from radlens.web.uploads import Receive
from radlens.wire import JSON, NDJSON

__all__ = ["OpenApi", "document", "published"]

_OCTETS = "application/octet-stream"

_IMAGES = (_OCTETS, "application/dicom", "image/png", "image/tiff", "application/x-npy")

_ERRORS = {
    400: "a parameter, the body or the request is not valid",
    401: "the key is missing or unknown",
    403: "the key lacks the role",
    404: "no such path, model or version",
    405: "the path does not have this method",
    406: "the answer exists in no accepted format",
    408: "the request arrived too slowly",
    411: "the body has neither a length nor chunks",
    413: "the body is too large",
    415: "the body is of no format that is read",
    422: "the image cannot be read or judged",
    431: "the head is too large",
    500: "the server failed",
    501: "the request needs what this server does not have",
    502: "TorchServe does not answer",
    503: "come back later",
    504: "the deadline has passed",
}

_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["code", "type", "message", "request_id"],
    "properties": {
        "code": {"type": "integer"},
        "type": {"type": "string"},
        "message": {"type": "string", "description": "what was expected and what came"},
        "request_id": {"type": "string"},
    },
    "examples": [
        {
            "code": 400,
            "type": "InvalidParameter",
            "message": "n_steps must be an integer from 1 to 1000, got '0'",
            "request_id": "5f2d7c0e9a4b4d0f8f0f3b1f5a6c7d8e",
        }
    ],
}

_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["task", "assessable", "provenance"],
    "properties": {
        "task": {"type": "string"},
        "assessable": {"type": "boolean", "description": "whether the model may judge this image"},
        "reasons": {"type": "array", "description": "why it may not"},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "provenance": {"type": "object", "description": "model, version, engine, parameters, input, time, request id"},
    },
}

_EVENT: dict[str, Any] = {"type": "string", "description": "a JSON object a line; the last states complete"}


def published(folder: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the documents that workers have published, by model and version; files that are none are skipped."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            each = json.loads(file.read_text())
            found[each["model"], each["version"]] = each
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found


def document(models: Mapping[str, Sequence[Mapping[str, Any]]], max_body: int) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        models: Documents of the versions of each model, that of the default first; a version whose worker has published
            nothing has only ``model`` and ``version``.
        max_body: Largest body in bytes.
    """
    paths: dict[str, Any] = {**_OPERATION}
    for model, versions in models.items():
        paths |= _paths(model, versions, max_body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "radlens",
            "version": radlens.__version__,
            "description": "Predictions of medical-image models, with their explanations.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR_SCHEMA, "Answer": _ANSWER},
            "responses": {
                _name(status): {
                    "description": text,
                    "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
                    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, text in _ERRORS.items()
            },
            "parameters": _HEADERS,
        },
    }


_HEADERS: dict[str, dict[str, Any]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "an identifier of your own, which the answer repeats",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "example": "study-17",
    },
    "Deadline": {
        "name": "X-Radlens-Deadline-S",
        "in": "header",
        "description": "seconds after which the work ends with 504",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 604800},
        "example": 60,
    },
}


def _name(status: int) -> str:
    return f"E{status}"


def _responses(*statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _json_response(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": dict(schema)}}}


_READINESS = {
    "type": "object",
    "required": ["status", "models"],
    "properties": {
        "status": {"enum": ["ready", "not ready"]},
        "reason": {"type": "string"},
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["model", "version", "ready", "reason"],
                "properties": {
                    "model": {"type": "string"},
                    "version": {"type": ["string", "null"]},
                    "ready": {"type": "boolean"},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}

_ANY = {"type": "object"}

_OPERATION: dict[str, Any] = {
    "/health/live": {
        "get": {
            "operationId": "live",
            "summary": "Whether the front door runs",
            "security": [],
            "responses": {"200": _json_response("it does", {**_ANY, "required": ["status"]})},
        }
    },
    "/health/ready": {
        "get": {
            "operationId": "ready",
            "summary": "Whether every model answers",
            "security": [],
            "responses": {
                "200": _json_response("all do", _READINESS),
                "503": _json_response("some do not", _READINESS),
            },
        }
    },
    "/ping": {
        "get": {
            "operationId": "ping",
            "summary": "What TorchServe says of itself",
            "security": [],
            "responses": {"200": _json_response("it runs", _ANY), **_responses(502)},
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Metrics for Prometheus",
            "responses": {
                "200": {"description": "metrics", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **_responses(401, 403),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document",
            "responses": {"200": _json_response("the document", _ANY), **_responses(401, 502)},
        }
    },
    "/docs": {
        "get": {
            "operationId": "docs",
            "summary": "This document as a page",
            "security": [],
            "responses": {
                "200": {"description": "the page", "content": {"text/html": {"schema": {"type": "string"}}}},
            },
        }
    },
}


def _paths(model: str, versions: Sequence[Mapping[str, Any]], max_body: int) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for number, each in enumerate(versions):
        # The default answers without a version as well.
        for suffix in ["", f"/{each['version']}"] if number == 0 else [f"/{each['version']}"]:
            paths[f"/predictions/{model}{suffix}"] = {"post": _prediction(model, suffix, each, max_body)}
            if each.get("explain", True):
                paths[f"/explanations/{model}{suffix}"] = {"post": _explanation(model, suffix, each, max_body)}
    return paths


def _prediction(model: str, suffix: str, each: Mapping[str, Any], max_body: int) -> dict[str, Any]:
    return {
        "operationId": _operation("predict", model, suffix),
        "summary": f"Prediction by {model} {each['version']}",
        "tags": [model],
        "parameters": [*_query(each.get("predict", {})), *_references()],
        "requestBody": _body(max_body),
        "responses": _answers("the prediction", (JSON, "image/png", "application/x-npy")),
    }


def _explanation(model: str, suffix: str, each: Mapping[str, Any], max_body: int) -> dict[str, Any]:
    media_types = (JSON, NDJSON, "image/png", "image/apng", "application/x-npy", "application/dicom")
    return {
        "operationId": _operation("explain", model, suffix),
        "summary": f"Explanation by {model} {each['version']}",
        "tags": [model],
        "parameters": [*_query(_joined(each.get("explain", {}), each.get("default_method"))), *_references()],
        "requestBody": _body(max_body),
        "responses": _answers("the explanation", media_types),
        "x-radlens-methods": each.get("explain", {}),
    }


def _operation(kind: str, model: str, suffix: str) -> str:
    return "_".join([kind, model, *([suffix.strip("/")] if suffix else [])]).replace(".", "_").replace("-", "_")


def _joined(methods: Mapping[str, Mapping[str, Any]], default: str | None) -> dict[str, Any]:
    """Return one schema for each parameter of some method; a query has one list of parameters."""
    found: dict[str, list[dict[str, Any]]] = {}
    used: dict[str, list[str]] = {}
    for method, parameters in methods.items():
        for name, schema in parameters.items():
            used.setdefault(name, []).append(method)
            plain = {key: value for key, value in schema.items() if key != "default"}
            if plain not in (kinds := found.setdefault(name, [])):
                kinds.append(plain)
    joined: dict[str, Any] = {}
    for name, kinds in found.items():
        schema = dict(kinds[0]) if len(kinds) == 1 else {"anyOf": kinds}
        own = methods.get(default or "", {}).get(name, {})
        if "default" in own:
            schema["default"] = own["default"]
        if len(used[name]) < len(methods):
            of = f"for {', '.join(used[name])}"
            schema["description"] = f"{schema['description']}; {of}" if "description" in schema else of
        joined[name] = schema
    return joined


def _query(parameters: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for name, schema in parameters.items():
        rest = {key: value for key, value in schema.items() if key != "description"}
        each = {"name": name, "in": "query", "description": schema.get("description", ""), "schema": rest}
        if "default" in schema:
            each["example"] = schema["default"]
        yield each


def _references() -> list[dict[str, Any]]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in _HEADERS]


def _body(max_body: int) -> dict[str, Any]:
    octets: dict[str, Any] = {media_type: {"schema": {}} for media_type in _IMAGES}
    image = {"type": "string", "contentEncoding": "base64", "description": "the bytes of an image file"}
    fields = {
        "image": image,
        "images": {"type": "array", "items": image, "minItems": 1, "maxItems": 64},
        "mask": image,
    }
    return {
        "required": True,
        "description": f"An image, at most {max_body} bytes; several, or one with a mask, as multipart/related or "
        "JSON, which may hold parameters as well.",
        "content": {
            **octets,
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": fields,
                    "oneOf": [{"required": ["image"]}, {"required": ["images"]}],
                },
                "example": {"image": "iVBORw0KGgo="},
            },
            "multipart/related": {"schema": {}},
        },
    }


def _answers(text: str, media_types: Iterable[str]) -> dict[str, Any]:
    content: dict[str, Any] = {each: {"schema": {}} for each in media_types}
    content[JSON] = {"schema": {"$ref": "#/components/schemas/Answer"}}
    if NDJSON in content:
        content[NDJSON] = {"schema": _EVENT}
    headers = {
        "X-Request-Id": {"schema": {"type": "string"}},
        "X-Radlens-Provenance": {"schema": {"type": "string"}, "description": "provenance as compact JSON"},
    }
    return {"200": {"description": text, "headers": headers, "content": content}, **_responses(*_ERRORS)}


class OpenApi:
    """ASGI app of ``/openapi.json``; needs a key with any role.

    Args:
        access: Keys of clients.
        fleet: Models of TorchServe.
        folder: Folder of the documents that workers publish.
        max_body: Largest body in bytes.
    """

    def __init__(self, access: Access, fleet: Fleet, folder: Path, max_body: int) -> None:
        self._access, self._fleet, self._folder, self._max_body = access, fleet, folder, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._access.check(headers_of(scope), None)
        body = json.dumps(document(await self.models(), self._max_body)).encode()
        await respond(send, HTTPStatus.OK, {"content-type": JSON, "content-length": str(len(body))}, body)

    async def models(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the documents of the versions that TorchServe has, by model, that of the default first."""
        known = published(self._folder)
        found: dict[str, list[Mapping[str, Any]]] = {}
        try:
            names = await self._fleet.names()
        except (httpx.HTTPError, ValueError, LookupError):
            message = "TorchServe must run behind the front door, got no answer"
            raise Refused(HTTPStatus.BAD_GATEWAY, "ServerError", message) from None
        for name in names:
            versions = sorted(await self._fleet.versions(name), key=lambda each: not each.is_default)
            found[name] = [
                known.get((name, each.version), {"model": name, "version": each.version}) for each in versions
            ]
        return found
