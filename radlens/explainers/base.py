"""Base class of the explainers, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers.model import Model
from radlens.explainers.ranges import check
from radlens.explainers.scores import n_classes, predicted
from radlens.explainers.work import Work, complete

__all__ = ["Attribution", "Explainer", "create", "get", "names", "register", "variants"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Result of a method for one image.

    Attributes:
        map: ``(c, h, w)`` float32, signed; ``(1, h, w)`` for a method that treats the channels as one.
        delta: Convergence delta: the sum of the map minus ``score(image) - score(baseline)``, in units of the score;
            None for methods whose maps need not sum to that difference.
        pictures: Further results by name, such as the inpainted image, ``(c, h, w)`` float32 each.
        numbers: Further results as JSON values by name, such as the score before and after a change.
    """

    map: Tensor
    delta: float | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Explainer(ABC):
    """A method and its parameters: a frozen dataclass whose fields are the parameters.

    A method explains one image at a time and puts its questions to the model. Images, methods and targets that are
    explained together share calls of the model (:func:`radlens.explainers.complete`).

    ``unit`` and ``meaning`` are texts for readers. They may contain ``{score}`` and ``{unit}``, the name and the unit
    of the explained score, ``{image}``, the unit of the image, and the name of a parameter; `described` fills them in.

    Attributes:
        name: Name in requests; set by `register`.
        title: Name as papers write it; the name in requests by default.
        unit: Unit of the values of a map.
        meaning: Interpretation of a value.
        quick: Upper limits of parameters for tests that compute many maps, such as those of stability.
        needs: Names of the questions that the method asks with its default parameters.
        alternatives: Parameters with which the method asks other questions, see `questions`.
        per_channel: Whether each channel has a map of its own; if not, every channel gets the same map.
        for_classes: Whether the method can explain the score of a class; if not, it is for models of one score.
        pictures: Further pictures of the result by name, and what they show: an ``"image"`` as the network gets it, the
            ``"difference"`` of two, or a ``"mask"`` of 0 and 1.
        strip: Names of two pictures, images, at the ends of a strip with the image of the request in its middle, which
            ``output=strip`` asks for; ``positions`` and ``scores`` in the numbers of the result say where on it images
            were scored. None for a method without a strip.
        streams: Whether the method works in steps that readers may want to watch.
        takes_mask: Whether the method can be limited to a part of the image with `within`.
        must_be_tried: Whether a model that answers all questions may still not suit the method, so that an export must
            try it.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    unit: ClassVar[str] = "{unit}"
    meaning: ClassVar[str] = ""
    quick: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    alternatives: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    per_channel: ClassVar[bool] = True
    for_classes: ClassVar[bool] = True
    pictures: ClassVar[Mapping[str, Literal["image", "difference", "mask"]]] = {}
    strip: ClassVar[tuple[str, str] | None] = None
    streams: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = False
    must_be_tried: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the parameters against the ranges in their annotations."""
        check(self)

    @abstractmethod
    def work(self, image: Tensor, target: int | None) -> Work:
        """Explain one image ``(c, h, w)``: yield questions, receive answers, return an :class:`Attribution`."""

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the questions that the method asks with its parameters."""
        return self.needs

    @property
    def variant(self) -> str:
        """Name of the method, with the parameters of the alternative that it is, as in ``lrp rule=deep_taylor``."""
        for parameters in self.alternatives:
            if all(getattr(self, name) == value for name, value in parameters.items()):
                return " ".join([self.name, *(f"{name}={value}" for name, value in parameters.items())])
        return self.name

    def cost(self, height: int, width: int) -> int:
        """Return the approximate number of evaluations of the network for an image of this size."""
        return 1

    def described(self, *, score: str, unit: str, image: str) -> dict[str, str]:
        """Return ``unit`` and ``meaning`` with their placeholders filled in.

        Args:
            score: Name of the explained score, such as "score".
            unit: Unit of the score.
            image: Unit of the image.
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        known = {"score": score, "unit": unit, "image": image, **own}
        return {"unit": self.unit.format(**known), "meaning": self.meaning.format(**known)}

    def drawn_as(self, output: str) -> Self:
        """Return the method with what the output of a request, such as ``"strip"``, needs beyond the map."""
        return self

    def within(self, organ: Tensor) -> Self:
        """Return the method limited to a part of the image.

        Args:
            organ: ``(h, w)`` bool on the grid of the image.

        Raises:
            InvalidParameter: The method cannot be limited.
        """
        raise InvalidParameter(f"{self.name} must be given without a mask")

    def quicker(self) -> Self:
        """Return the method with its parameters limited to the values of ``quick``."""
        less = {name: min(value, getattr(self, name)) for name, value in self.quick.items()}
        return replace(self, **less)  # type: ignore[type-var]

    def attribute(
        self, model: Model | nn.Module, images: Tensor, targets: Tensor | Sequence[int] | int | None = None
    ) -> Tensor:
        """Return one signed map per image, ``(b, c, h, w)`` like ``images``; an empty batch gives an empty tensor.

        Args:
            model: A :class:`Model`, or a torch module that maps images to logits ``(b, n)``; it is not changed.
            images: ``(b, c, h, w)``, floating point, finite; converted to the dtype of the model.
            targets: Class to explain, one for each image or one for all images; the predicted classes by default.
                Must be None for a model of one score.

        Raises:
            InvalidInput: ``model`` is not a model, ``images`` have the wrong type, shape or number of channels, or
                ``targets`` are not classes of the model.
            UnsupportedOperation: The model cannot answer a question of this method.
        """
        found = self.explain(model, images, targets)
        return torch.stack([each.map for each in found]) if found else torch.zeros_like(images)

    def explain(
        self, model: Model | nn.Module, images: Tensor, targets: Tensor | Sequence[int] | int | None = None
    ) -> list[Attribution]:
        """Return one attribution per image; arguments and errors are those of :meth:`attribute`."""
        # Under inference_mode autograd records nothing, even inside enable_grad.
        # Under autocast it would compute in half precision.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            asked, images = _checked(model, images)
            classes = _classes(asked, images, targets)
            numbers = [None] * len(images) if classes is None else classes.tolist()
            works = [self.work(image, target) for image, target in zip(images, numbers, strict=True)]
            return complete(asked, works)


def _checked(model: Any, images: Any) -> tuple[Model, Tensor]:
    """Wrap a torch module as a model, and convert the images to the dtype of the model."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InvalidInput(f"images must be a floating point tensor, got {got}")
    if images.ndim != 4:
        raise InvalidInput(f"images must have 4 dimensions (b, c, h, w), got {images.ndim}")
    if not images.shape[1:].numel():
        raise InvalidInput(f"images must have at least one pixel, got shape {tuple(images.shape)}")
    if not images.isfinite().all():
        raise InvalidInput("images must be finite, got NaN or infinity")
    if images.is_inference():
        # Autograd refuses to save a tensor that was made under inference_mode; a clone made outside is a normal one.
        images = images.clone()
    model = _as_model(model, images)
    if model.image_shape is not None and images.shape[1] != model.image_shape[0]:
        raise InvalidInput(f"images must have the {model.image_shape[0]} channels of the model, got {images.shape[1]}")
    return model, images if model.dtype is None else images.to(model.dtype)


def _as_model(model: Any, images: Tensor) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model must be a torch module or a radlens Model, got {type(model).__name__}")
    from radlens.explainers.eager import EagerClassifier

    c, h, w = images.shape[1:]
    return EagerClassifier(model, (c, h, w))


def _classes(model: Model, images: Tensor, targets: Tensor | Sequence[int] | int | None) -> Tensor | None:
    """Return the class to explain for each image, ``(b,)``; None for a model of one score."""
    if model.n_outputs is None:
        if targets is not None:
            raise InvalidInput("targets must not be given for a model of one score")
        return None
    if targets is None:
        return predicted(model.outputs(images)) if len(images) else torch.zeros(0, dtype=torch.int64)
    chosen, n = _whole(targets), n_classes(model.n_outputs)
    chosen = chosen.expand(len(images)) if chosen.ndim == 0 else chosen
    if chosen.shape != (len(images),):
        got = chosen.numel() if chosen.ndim < 2 else f"shape {tuple(chosen.shape)}"
        raise InvalidInput(f"targets must be one class, or one for each of {len(images)} images, got {got}")
    if not set(chosen.tolist()) <= set(range(n)):
        raise InvalidInput(f"targets must be from 0 to {n - 1}, got {chosen.tolist()}")
    return chosen


def _whole(targets: Any) -> Tensor:
    try:
        found = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"targets must be integers, got {type(targets).__name__}") from error
    if found.numel() and (found.is_floating_point() or found.is_complex()):
        raise InvalidInput(f"targets must be integers, got {found.dtype}")
    return found.long()


_REGISTRY: dict[str, type[Explainer]] = {}

Kind = TypeVar("Kind", bound=type[Explainer])


def register(name: str) -> Callable[[Kind], Kind]:
    """Register a class under ``name``.

    Raises:
        ValueError: The name is already registered.
    """
    if name in _REGISTRY:
        raise ValueError(f"explainer {name!r} is already registered")

    def decorate(kind: Kind) -> Kind:
        kind.name, kind.title = name, kind.title or name
        _REGISTRY[name] = kind
        return kind

    return decorate


def names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(_REGISTRY))


def get(name: str) -> type[Explainer]:
    """Return the class registered under ``name``.

    Raises:
        InvalidParameter: No method has this name.
    """
    if name not in _REGISTRY:
        raise InvalidParameter(f"method must be one of {', '.join(names())}, got {name!r}")
    return _REGISTRY[name]


def create(name: str, **parameters: Any) -> Explainer:
    """Build the method ``name``; parameters that are not given keep their defaults.

    Raises:
        InvalidParameter: The method or a parameter is unknown, or a value is out of range.
    """
    kind = get(name)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        expected = ", ".join(known) or "none"
        raise InvalidParameter(f"parameters of {name} must be among: {expected}; got {', '.join(unknown)}")
    return kind(**parameters)


def variants(name: str) -> dict[str, tuple[str, ...]]:
    """Return the questions of the method ``name`` and of its alternatives, by `Explainer.variant`, the method first.

    Raises:
        InvalidParameter: No method has this name.
    """
    own = create(name)
    others = [create(name, **parameters) for parameters in own.alternatives]
    return {each.variant: each.questions for each in (own, *others)}
