"""What every explainer is, and the registry they are found in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers.work import Work, complete

__all__ = [
    "Attribution",
    "Classifier",
    "Differentiable",
    "Explainer",
    "StepwiseExplainer",
    "create",
    "get",
    "n_classes",
    "names",
    "predicted",
    "probabilities",
    "register",
]


class Differentiable(Protocol):
    """A model reduced to one number per image, with its gradient."""

    def score(self, images: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b,)``."""

    def gradient(self, images: Tensor) -> Tensor:
        """Return the gradient of each image's score with respect to that image, ``(b, c, h, w)``."""


class Classifier(Protocol):
    """A classifier as methods see it; targets ``(b,)`` int64 are classes.

    The score of a class is its logit. A network with a single output has two classes: the score of class 1 is the
    logit, that of class 0 is the logit with the other sign.

    A classifier that computes images of one type only says so by an attribute ``dtype``; others are converted.

    Attributes:
        n_outputs: logits of an image.
        image_shape: ``(c, h, w)``.
    """

    n_outputs: int
    image_shape: tuple[int, int, int]

    def outputs(self, images: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to logits ``(b, n_outputs)``."""

    def score(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the score of each image's target, ``(b,)``."""

    def gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return d score / d image, ``(b, c, h, w)``."""

    def guided(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return guided backpropagation (Springenberg et al. 2015), ``(b, c, h, w)``."""

    def features(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last feature maps and d score / d feature maps, ``(b, k, h', w')`` each."""

    def deep_lift(self, images: Tensor, baselines: Tensor, targets: Tensor) -> Tensor:
        """Return DeepLIFT attributions by the rescale rule (Shrikumar et al. 2017), ``(b, c, h, w)``."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method found for one image.

    Attributes:
        map: ``(c, h, w)`` float32, signed; ``(1, h, w)`` where a method does not tell channels apart.
        delta: what the map's sum misses of ``score(image) - score(baseline)``, in units of the score; None for methods
            whose maps need not sum to it.
    """

    map: Tensor
    delta: float | None = None


class Explainer(ABC):
    """One method with its parameters; a frozen dataclass whose fields are the parameters.

    What readers are told of a method stands with it. Texts may name ``{unit}`` and ``{score}``, those of the score that
    is explained, and ``{image}``, the unit of the image; see `described`.

    Attributes:
        name: in requests; set by `register`.
        title: as papers write it; its name where it has none.
        unit: of the values of a map.
        meaning: what a value says.
        quick: largest parameters where a map is computed many times, to see whether it changes.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    unit: ClassVar[str] = "{unit}"
    meaning: ClassVar[str] = ""
    quick: ClassVar[Mapping[str, Any]] = {}

    def described(self, *, score: str, unit: str, image: str) -> dict[str, str]:
        """Return ``unit`` and ``meaning`` of a map of a score.

        Args:
            score: what is explained, such as "score".
            unit: of the score.
            image: unit of the image.
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        known = {"score": score, "unit": unit, "image": image, **own}
        return {"unit": self.unit.format(**known), "meaning": self.meaning.format(**known)}

    def quicker(self) -> Self:
        """Return the method with the parameters of ``quick`` where its own are larger."""
        less = {name: min(value, getattr(self, name)) for name, value in self.quick.items()}
        return replace(self, **less)  # type: ignore[type-var]

    def attribute(self, model: Any, images: Tensor, targets: Tensor | Sequence[int] | int | None = None) -> Tensor:
        """Return one signed map per image, ``(b, c, h, w)`` like ``images``; of no image, none.

        Args:
            model: a :class:`Classifier`, a torch module that maps images to logits ``(b, n)``, or a
                :class:`Differentiable`.
            images: ``(b, c, h, w)``, floating point, finite; converted to the type that the model computes with.
            targets: class to explain for each image, or one for all; by default the class that is predicted for each.
                A model of one score has none.

        Raises:
            InvalidInput: ``model`` is none, ``images`` are not as stated or not of the model's channels, or ``targets``
                are no classes of the model.
        """
        model, images = _checked(model, images)
        with torch.no_grad():
            classes = _classes(model, images, targets)
            return self._attribute(model, images, classes) if len(images) else torch.zeros_like(images)

    @abstractmethod
    def _attribute(self, model: Any, images: Tensor, targets: Tensor | None) -> Tensor:
        """Do what :meth:`attribute` promises, on checked input."""


class StepwiseExplainer(Explainer):
    """A method that computes each image by itself and asks for what it needs of the model.

    Images, methods and targets that are computed together share calls of the model, see
    :func:`radlens.explainers.complete`.

    Attributes:
        per_channel: whether the maps of an image's channels are parts of a whole; if not, channels are treated as one
            and their maps are the same.
        needs: what is asked of the model.
    """

    per_channel: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def cost(self, height: int, width: int) -> int:
        """Return about how often the network is evaluated for an image of this size."""
        return 1

    @abstractmethod
    def work(self, image: Tensor, target: int | None) -> Work:
        """Return the work on one image ``(c, h, w)``, which ends with its :class:`Attribution`."""

    def explain(
        self, model: Any, images: Tensor, targets: Tensor | Sequence[int] | int | None = None
    ) -> list[Attribution]:
        """Return an attribution per image; arguments and errors as in :meth:`attribute`."""
        model, images = _checked(model, images)
        with torch.no_grad():
            return self._explain(model, images, _classes(model, images, targets))

    def _attribute(self, model: Any, images: Tensor, targets: Tensor | None) -> Tensor:
        return torch.stack([found.map for found in self._explain(model, images, targets)])

    def _explain(self, model: Any, images: Tensor, targets: Tensor | None) -> list[Attribution]:
        classes = [None] * len(images) if targets is None else targets.tolist()
        return complete(model, [self.work(image, target) for image, target in zip(images, classes, strict=True)])


def predicted(outputs: Tensor) -> Tensor:
    """Return the class that logits ``(b, n)`` predict, ``(b,)`` int64: the largest; of a single one, its sign."""
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class, ``(b, k)`` float64: softmax, or sigmoid of a single output and the rest."""
    logits = logits.double()
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    positive = logits.sigmoid()
    return torch.cat([1 - positive, positive], dim=1)


def n_classes(n_outputs: int) -> int:
    """Return how many classes a network with so many outputs tells apart: two if there is one output."""
    return 2 if n_outputs == 1 else n_outputs


def _checked(model: Any, images: Any) -> tuple[Any, Tensor]:
    """Return what answers for the model, and images that it can compute."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InvalidInput(f"images must be a floating point tensor, got {got}")
    if images.ndim != 4:
        raise InvalidInput(f"images must have 4 dimensions (b, c, h, w), got {images.ndim}")
    if not images.shape[1:].numel():
        raise InvalidInput(f"images must have at least one pixel, got shape {tuple(images.shape)}")
    if not images.isfinite().all():
        raise InvalidInput("images must be finite, got NaN or infinity")
    model = _as_model(model, images)
    n_channels = getattr(model, "image_shape", images.shape[1:])[0]
    if images.shape[1] != n_channels:
        raise InvalidInput(f"images must have the {n_channels} channels of the model, got {images.shape[1]}")
    return model, images.to(getattr(model, "dtype", images.dtype))


def _as_model(model: Any, images: Tensor) -> Any:
    if isinstance(model, nn.Module):
        from radlens.explainers.eager import EagerClassifier

        c, h, w = images.shape[1:]
        return EagerClassifier(model, (c, h, w))
    if not (hasattr(model, "score") or hasattr(model, "gradient")):
        expected = "a torch module, a Classifier or a Differentiable"
        raise InvalidInput(f"model must be {expected}, got {type(model).__name__}")
    return model


def _classes(model: Any, images: Tensor, targets: Tensor | Sequence[int] | int | None) -> Tensor | None:
    """Return the class to explain for each image, ``(b,)``; None for a model of one score."""
    n_outputs = getattr(model, "n_outputs", None)
    if n_outputs is None:
        if targets is not None:
            raise InvalidInput("targets must not be given for a model of one score")
        return None
    if targets is None:
        return predicted(model.outputs(images)) if len(images) else torch.zeros(0, dtype=torch.int64)
    chosen = _whole(targets)
    chosen = chosen.expand(len(images)) if chosen.ndim == 0 else chosen
    if chosen.shape != (len(images),):
        got = chosen.numel() if chosen.ndim < 2 else f"shape {tuple(chosen.shape)}"
        raise InvalidInput(f"targets must be one class, or one for each of {len(images)} images, got {got}")
    if not set(chosen.tolist()) <= set(range(n_classes(n_outputs))):
        raise InvalidInput(f"targets must be from 0 to {n_classes(n_outputs) - 1}, got {chosen.tolist()}")
    return chosen


def _whole(targets: Any) -> Tensor:
    try:
        found = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"targets must be whole numbers, got {type(targets).__name__}") from error
    if found.numel() and (found.is_floating_point() or found.is_complex()):
        raise InvalidInput(f"targets must be whole numbers, got {found.dtype}")
    return found.long()


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
