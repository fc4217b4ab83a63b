"""What every explainer is, and the registry they are found in."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["Differentiable", "Explainer", "create", "get", "names", "register"]


class Differentiable(Protocol):
    """A model reduced to one number per image, with its gradient."""

    def score(self, images: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b,)``."""

    def gradient(self, images: Tensor) -> Tensor:
        """Return the gradient of each image's score with respect to that image, ``(b, c, h, w)``."""


class Explainer(ABC):
    """One method with its parameters; a frozen dataclass whose fields are the parameters."""

    name: ClassVar[str]

    def attribute(self, model: Differentiable, images: Tensor) -> Tensor:
        """Return one signed map per image, ``(b, c, h, w)`` like ``images``.

        Raises:
            InvalidInput: ``images`` has not four dimensions.
        """
        if images.ndim != 4:
            raise InvalidInput(f"images must have 4 dimensions (b, c, h, w), got {images.ndim}")
        with torch.no_grad():
            return self._attribute(model, images)

    @abstractmethod
    def _attribute(self, model: Differentiable, images: Tensor) -> Tensor:
        """Do what :meth:`attribute` promises, on checked input."""


_REGISTRY: dict[str, type[Explainer]] = {}

Kind = TypeVar("Kind", bound=type[Explainer])


def register(name: str) -> Callable[[Kind], Kind]:
    """Make a class known under ``name``.

    Raises:
        ValueError: the name is taken.
    """
    if name in _REGISTRY:
        raise ValueError(f"explainer {name!r} is already registered")

    def decorate(kind: Kind) -> Kind:
        kind.name = name
        _REGISTRY[name] = kind
        return kind

    return decorate


def names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(_REGISTRY))


def get(name: str) -> type[Explainer]:
    """Return the class registered under ``name``.

    Raises:
        InvalidParameter: there is none.
    """
    if name not in _REGISTRY:
        raise InvalidParameter(f"method must be one of {', '.join(names())}, got {name!r}")
    return _REGISTRY[name]


def create(name: str, **parameters: Any) -> Explainer:
    """Build the method ``name``; parameters that are not given keep their defaults.

    Raises:
        InvalidParameter: unknown method, a parameter it does not have, or a value out of range.
    """
    kind = get(name)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        expected = ", ".join(known) or "none"
        raise InvalidParameter(f"parameters of {name} must be among: {expected}; got {', '.join(unknown)}")
    return kind(**parameters)
