"""Parameters of requests as JSON Schema (2020-12, the dialect of OpenAPI 3.1)."""

import math
from collections.abc import Mapping
from typing import Any

from radlens.explainers.upsampling import AUTO
from radlens.service.parameters import Above, Choice, Count, Integer, Number, Parameter, YesOrNo

__all__ = ["parameter_schema", "parameter_schemas"]


def parameter_schemas(parameters: Mapping[str, Parameter]) -> dict[str, dict[str, Any]]:
    """Return the schema of each parameter by name."""
    return {name: parameter_schema(each) for name, each in parameters.items()}


def parameter_schema(parameter: Parameter) -> dict[str, Any]:
    """Return the schema of the values of a parameter, with what is expected as ``description``, and its default.

    A parameter of a kind that is not known here is a string.
    """
    schema = {**_type(parameter), "description": parameter.expected}
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _type(parameter: Parameter) -> dict[str, Any]:
    match parameter:
        case Count():
            return {"anyOf": [_whole(parameter), {"const": AUTO}]}
        case Integer():
            return _whole(parameter)
        case Number():
            limits = {"minimum": parameter.low, "maximum": parameter.high}
            return {"type": "number", **{name: limit for name, limit in limits.items() if math.isfinite(limit)}}
        case Above() if math.isfinite(parameter.below):
            return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": parameter.below}
        case Above():
            return {"type": "number", "exclusiveMinimum": 0}
        case Choice():
            return {"enum": list(parameter.options)}
        case YesOrNo():
            return {"type": "boolean"}
    return {"type": "string"}


def _whole(parameter: Integer) -> dict[str, Any]:
    return {"type": "integer", "minimum": parameter.low, "maximum": parameter.high}
