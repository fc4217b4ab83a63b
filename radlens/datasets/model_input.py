"""Preprocessing of an image for a classifier, and the way back from a map to the grid of the image.

Training, evaluation and serving share this code, so that a served network sees images as it did in training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from radlens.datasets.case import Sample
from radlens.datasets.preprocessing import Frame, breast_frame, in_frame, resize, resize_mask, resized
from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["Framing", "ModelInput", "Prepared", "Scaling"]

Framing = Literal["whole", "breast"]
"""The whole image, or the crop to the breast with the chest wall at the left (Sam Millan 2023, section 3.2.1)."""

Scaling = Literal["standardise", "fixed"]
"""Each image to mean 0 and standard deviation 1, or ``(pixels - mean) / std`` with the values of the model."""

_TOUCHED = 1e-3
"""Share of a pixel of the network's grid from which a mask covers it."""

_SMALLEST_STD = 1e-6
"""Standard deviation relative to the largest absolute value, below which an image counts as constant."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image that was prepared for a network.

    Attributes:
        pixels: ``(c, h, w)`` float32, scaled.
        frame: crop that was taken from the image, possibly mirrored.
        image_shape: rows and columns of the image.
        has_frame: whether the framing of the model was found; if not, ``frame`` is the whole image.
        mean: pixel value that became 0, for all channels or for each.
        std: difference of pixel values that became 1, for all channels or for each.
    """

    pixels: np.ndarray
    frame: Frame
    image_shape: tuple[int, int]
    has_frame: bool = True
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_even(self) -> bool:
        """Whether all pixels have one value, but for rounding."""
        # Such an image is 0 with the scaling "standardise", and any number with "fixed".
        return bool(np.ptp(self.pixels) <= _SMALLEST_STD * np.abs(self.pixels).max())

    def in_pixels(self, values: np.ndarray, *, difference: bool = False) -> np.ndarray:
        """Return scaled values ``(c, h, w)`` as pixel values of the image, ``(h, w)``: the mean over the channels.

        Args:
            values: scaled values on the network's grid.
            difference: whether they are differences of scaled values.
        """
        mean, std = (np.array(each, dtype=np.float32).reshape(-1, 1, 1) for each in (self.mean, self.std))
        found: np.ndarray = (values * std + (0 if difference else mean)).mean(axis=0, dtype=np.float32)
        return found

    def to_network(self, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Return a mask of the image on the network's grid: True where it touches the area of the pixel.

        Args:
            mask: ``(H, W)`` bool on the grid of the image.
            shape: rows and columns of the network's grid.
        """
        cut = self.frame.crop(mask).astype(np.float32)
        return resize(cut, shape) > _TOUCHED

    def on_image(self, values: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Resample a map from the network's grid to the grid of the image, with 0 outside the frame.

        Args:
            values: ``(h, w)``; resized bilinearly and not rescaled, so that values keep their unit.
            nearest: give each pixel of the image the value of the network's pixel it lies in, as for masks.

        Returns:
            ``(H, W)`` float32.
        """
        found = np.zeros(self.image_shape, dtype=np.float32)
        x0, y0, x1, y1 = self.frame.box
        enlarge = resize_mask if nearest else resize
        stretched = enlarge(np.asarray(values, dtype=np.float32), self.frame.shape)
        found[y0:y1, x0:x1] = stretched[:, ::-1] if self.frame.flipped else stretched
        return found


@dataclass(frozen=True)
class ModelInput:
    """Input specification of a classifier.

    Args:
        shape: rows and columns, at least 8 each.
        n_channels: 1, or 3 to repeat a grey image for a network with three input channels.
        framing: ``"whole"`` or ``"breast"``, see `Framing`.
        scaling: ``"standardise"`` or ``"fixed"``, see `Scaling`.
        mean: pixel value that becomes 0 with ``"fixed"``; one for all channels or one per channel.
        std: pixel value difference that becomes 1 with ``"fixed"``, above 0; one for all channels or one per channel.

    Raises:
        InvalidParameter: a value is out of range.
    """

    shape: tuple[int, int]
    n_channels: int = 1
    framing: Framing = "whole"
    scaling: Scaling = "standardise"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Raise unless every value is in range."""
        if len(self.shape) != 2 or min(self.shape) < 8:
            raise InvalidParameter(f"shape must be two numbers of at least 8, got {tuple(self.shape)}")
        if self.n_channels not in (1, 3):
            raise InvalidParameter(f"n_channels must be 1 or 3, got {self.n_channels}")
        for name, kind in (("framing", Framing), ("scaling", Scaling)):
            if getattr(self, name) not in get_args(kind):
                raise InvalidParameter(
                    f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}"
                )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.n_channels):
                raise InvalidParameter(
                    f"{name} must have one number or one for each channel, got {getattr(self, name)}"
                )
        if not np.isfinite(self.mean).all() or not (np.isfinite(self.std).all() and min(self.std) > 0):
            raise InvalidParameter(f"mean and std must be finite and std above 0, got {self.mean} and {self.std}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelInput":
        """Return the specification from the output of `to_json`."""
        lists = {name: tuple(values[name]) for name in ("shape", "mean", "std")}
        return cls(**{**values, **lists})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        return self.n_channels, *self.shape

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Crop, mirror, resize and scale an image.

        Where no breast region is found, because all pixels have one value, the whole image is used. A constant image
        becomes 0.

        Args:
            pixels: ``(H, W)``, any real dtype, attenuation bright (ultrasound: echo bright).

        Raises:
            InvalidInput: another number of axes, an empty image, or values that are not finite.
        """
        if pixels.ndim != 2 or not pixels.size:
            raise InvalidInput(f"pixels must be (h, w) with at least one pixel, got shape {tuple(pixels.shape)}")
        if not np.isfinite(pixels).all():
            raise InvalidInput("pixels must be finite, got NaN or infinity")
        frame, found = self._frame(pixels)
        grey = resize(frame.crop(pixels), self.shape)
        mean, std = self._scale(grey)
        scaled = self._apply(grey, mean, std)
        return Prepared(scaled, frame, (int(pixels.shape[0]), int(pixels.shape[1])), found, mean, std)

    def sample(self, sample: Sample) -> Sample:
        """Return a sample on the network's grid, with its boxes, masks and spacing; pixel values are not scaled."""
        frame, _ = self._frame(sample.pixels)
        return resized(in_frame(sample, frame), self.shape)

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels ``(h, w)`` that are already on the network's grid; return ``(c, h, w)`` float32."""
        if tuple(pixels.shape) != tuple(self.shape):
            raise InvalidInput(f"pixels must have shape {self.shape}, got {tuple(pixels.shape)}")
        grey = np.asarray(pixels, dtype=np.float32)
        return self._apply(grey, *self._scale(grey))

    def _frame(self, pixels: np.ndarray) -> tuple[Frame, bool]:
        height, width = pixels.shape
        whole = Frame((0, 0, int(width), int(height)))
        if self.framing == "whole":
            return whole, True
        try:
            return breast_frame(pixels), True
        except InvalidInput:
            return whole, False

    def _scale(self, grey: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the pixel value that becomes 0 and the difference that becomes 1; 0 for a constant image."""
        if self.scaling == "fixed":
            return self.mean, self.std
        exact = grey.astype(np.float64)  # float32 sums over a mammogram lose digits
        spread, largest = float(exact.std()), float(np.abs(exact).max())
        return (float(exact.mean()),), (spread if spread > _SMALLEST_STD * largest else 0.0,)

    def _apply(self, grey: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
        image = np.repeat(grey[None], self.n_channels, axis=0)
        if self.scaling == "fixed":
            centre, unit = (np.array(v, dtype=np.float32).reshape(-1, 1, 1) for v in (mean, std))
            return np.ascontiguousarray((image - centre) / unit, dtype=np.float32)
        if std == (0.0,):
            return np.zeros_like(image)
        return ((image.astype(np.float64) - mean[0]) / std[0]).astype(np.float32)
