"""radlens in a notebook: read an image, load a model, predict and explain; results have rich displays.

`radlens.read`, `radlens.load` and `radlens.explain` are defined here; `import radlens` alone does not import this
module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from radlens.client import Client
from radlens.errors import InvalidInput
from radlens.extras import named
from radlens.families import Table, family_of
from radlens.images import Image, to_npy, to_png
from radlens.images import read as read_image

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Explanation", "Model", "Picture", "Prediction", "explain", "load", "read"]

_LARGEST_SIDE = 900


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and the contents of its file.

    Attributes:
        image: image with pixels, spacing and header, attenuation bright.
        content: contents of the file.
    """

    image: Image
    content: bytes = field(repr=False)

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Pixels, (H, W) float32, attenuation bright."""
        return self.image.pixels

    def _repr_png_(self) -> bytes:
        from radlens.figures import display_grey

        step = max(1, -(-max(self.pixels.shape) // _LARGEST_SIDE))
        return to_png(display_grey(self.pixels[::step, ::step]))


Readable = Picture | Path | str | bytes | NDArray[Any]
"""Input of a model: a picture, the path or the contents of an image file, or (H, W) pixels, attenuation bright."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of an image, displayed as a table with a figure.

    Attributes:
        answer: answer of the endpoint.
    """

    answer: Mapping[str, Any]

    @property
    def assessable(self) -> bool:
        """Whether the model can judge the image; ``answer["reasons"]`` holds the reasons if it cannot."""
        return bool(self.answer["assessable"])

    def _repr_html_(self) -> str:
        if not self.assessable:
            return f"<b>Not assessable</b>: {escape('; '.join(self.answer['reasons']))}"
        shown = family_of(self.answer["task"]).tables(self.answer)
        return "".join(_html(each) for each in shown)

    def _repr_png_(self) -> bytes | None:
        """Return the picture of the family, such as a curve; None if the family does not draw predictions."""
        return family_of(self.answer["task"]).picture(self.answer) if self.assessable else None


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of the parts of an image that drove a prediction, displayed over the image.

    Attributes:
        answer: answer of the endpoint with decoded arrays.
        picture: explained image.
    """

    answer: Mapping[str, Any]
    picture: Picture

    @property
    def map(self) -> NDArray[np.float32]:
        """Map on the grid of the image, (H, W) float32, signed.

        Raises:
            InvalidInput: The model cannot judge the image, or the method does not compute a map.
        """
        found = self.answer["explanation"] or {}
        if "map" not in found:
            raise InvalidInput(f"the answer must hold a map, got none: {'; '.join(self.answer['reasons'])}")
        return np.asarray(found["map"], np.float32)

    def _repr_html_(self) -> str | None:
        reasons = self.answer["reasons"]
        return None if self.answer["explanation"] else f"<b>Not assessable</b>: {escape('; '.join(reasons))}"

    def _repr_png_(self) -> bytes | None:
        if "map" not in (self.answer["explanation"] or {}):
            return None
        from radlens.figures import overlay

        return to_png(overlay(self.picture.pixels, self.map, max_side=_LARGEST_SIDE))


class Model:
    """A bundle or an archive, opened in this process; it gives the same answers as the endpoint.

    Args:
        path: folder of a bundle, or a ``.mar`` file.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        MissingDependency: The extra ``explain`` is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        with named():
            from radlens.local import LocalTransport, open_bundle_at

        with ExitStack() as stack:
            bundle = stack.enter_context(open_bundle_at(Path(path)))
            self.manifest = bundle.manifest
            transport = LocalTransport(bundle)
            self._client = stack.enter_context(Client("http://local", model=bundle.manifest.name, transport=transport))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the model."""
        self.close()

    def close(self) -> None:
        """Remove the unpacked files of an archive."""
        self._stack.close()

    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods that explain the model."""
        return tuple(family_of(self.manifest.task).methods(self.manifest))

    def predict(
        self, image: Readable | Sequence[Readable], *, mask: Readable | None = None, **parameters: Any
    ) -> Prediction:
        """Predict an image, or a sequence of images of one exposure, such as a list of files.

        Args:
            image: picture, path or contents of a file, or pixels; or a sequence of them.
            mask: mask of the size of the image, not 0 in the holes that an inpainter fills; None for other models.
            parameters: parameters of the endpoint.

        Raises:
            InvalidInput: An image or the mask cannot be read, or a parameter is unknown.
        """
        several = image if isinstance(image, Sequence) and not isinstance(image, str | bytes) else None
        sent = read(image).content if several is None else [read(each).content for each in several]  # type: ignore[arg-type]
        return Prediction(self._client.predict(sent, mask=None if mask is None else _content(mask), **parameters))

    def explain(
        self, image: Readable, *, method: str | None = None, mask: Readable | None = None, **parameters: Any
    ) -> Explanation:
        """Explain an image.

        Args:
            image: picture, path or contents of a file, or pixels.
            method: one of `methods`; the model's default if None.
            mask: mask of the size of the image, for methods that take one.
            parameters: parameters of the method and of its samples, those of the endpoint.

        Raises:
            InvalidInput: The image or the mask cannot be read, or the method or a parameter is unknown.
        """
        picture = read(image)
        asked = parameters if method is None else {"method": method, **parameters}
        sent = None if mask is None else _content(mask)
        return Explanation(self._client.explain(picture.content, mask=sent, **asked), picture)

    def __repr__(self) -> str:
        """Return name, version, task and methods."""
        manifest = self.manifest
        return f"<{manifest.name} {manifest.version}, {manifest.task}; methods: {', '.join(self.methods()) or 'none'}>"


def read(image: Readable) -> Picture:
    """Read an image.

    Raises:
        InvalidInput: The file is missing.
        UnreadableImage: The file is not a grey image.
    """
    if isinstance(image, Picture):
        return image
    content = _content(image)
    return Picture(read_image(content), content)


def _content(image: Readable) -> bytes:
    """Return the contents of the file of an image or a mask."""
    if isinstance(image, Picture):
        return image.content
    if isinstance(image, np.ndarray):
        return to_npy(image)
    if isinstance(image, bytes):
        return image
    path = Path(image)
    if not path.is_file():
        raise InvalidInput(f"image must be a file, got {str(path)!r}, which does not exist")
    return path.read_bytes()


def load(path: Path | str) -> Model:
    """Open a bundle or an archive as a `Model`; errors are those of `Model`."""
    return Model(path)


def explain(
    module: nn.Module,
    images: Tensor | NDArray[Any],
    method: str,
    *,
    targets: int | Sequence[int] | None = None,
    **parameters: Any,
) -> Tensor:
    """Explain a bare torch module that maps images to logits.

    The maps are those of a copy in evaluation mode; the module keeps its mode, hooks and gradients. The function also
    works under ``torch.inference_mode()``.

    Args:
        module: module that maps images ``(b, c, h, w)`` to logits ``(b, n)``.
        images: images ``(b, c, h, w)``, floating point, finite.
        method: one of :func:`radlens.explainers.names`.
        targets: class to explain, one for each image or one for all images; the predicted classes by default.
        parameters: parameters of the method.

    Returns:
        A signed map for each image, in the shape of ``images``.

    Raises:
        InvalidParameter: The method or a parameter is unknown, or a value is out of range.
        InvalidInput: The images or the targets do not fit the module.
        MissingDependency: The extra ``explain`` is not installed.
    """
    from copy import deepcopy

    with named():
        import torch

        from radlens import explainers

    explainer = explainers.create(method, **parameters)
    with torch.inference_mode(False):
        given = torch.as_tensor(images)
        given = given.clone() if given.is_inference() else given.detach()
        return explainer.attribute(deepcopy(module).eval(), given, targets)


def _html(shown: Table | str) -> str:
    """Return a table or a text of the command line as HTML."""
    if isinstance(shown, str):
        return f"<p>{_plain(shown)}</p>"
    head = "".join(f"<th>{_plain(column)}</th>" for column in shown.columns)
    body = "".join(f"<tr>{''.join(f'<td>{_plain(value)}</td>' for value in row)}</tr>" for row in shown.rows)
    below = f"<p>{_plain(shown.below)}</p>" if shown.below else ""
    table = (
        f"<table><caption>{_plain(shown.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    return table + below


def _plain(markup: str) -> str:
    return escape(Text.from_markup(markup).plain)
