"""Warnings about images that differ from the training images."""

from radlens.families.cdmam.manifest import InputSpec
from radlens.images import SAMPLED_SHAPE, Image

__all__ = ["cautions"]

_SPACING_TOLERANCE = 0.1
"""Largest relative difference from the pixel spacing of the training images that causes no warning."""


def cautions(image: Image, trained: InputSpec) -> list[str]:
    """Return one sentence for each way in which ``image`` differs from the training images.

    The spacing of an image of the network's own size is not compared: the sender chose its pixels.
    """
    mean, std = float(image.pixels.mean(dtype="float64")), float(image.pixels.std(dtype="float64"))
    found = [
        None if image.pixels.shape == SAMPLED_SHAPE else _spacing(image.spacing_mm, trained.spacing_mm),
        _range("mean", mean, trained.pixel_mean_range),
        _range("standard deviation", std, trained.pixel_std_range),
    ]
    return [warning for warning in found if warning]


def _spacing(spacing_mm: tuple[float, float] | None, trained_mm: float) -> str | None:
    if spacing_mm is None:
        return f"the image states no pixel spacing; the model was trained at {trained_mm:g} mm"
    if all(abs(value / trained_mm - 1) <= _SPACING_TOLERANCE for value in spacing_mm):
        return None
    rows, columns = spacing_mm
    return f"pixel spacing {rows:g} x {columns:g} mm differs from the {trained_mm:g} mm the model was trained at"


def _range(what: str, value: float, trained: tuple[float, float]) -> str | None:
    low, high = trained
    if low <= value <= high:
        return None
    return f"{what} of the pixels {value:.4g} is outside the range seen in training, {low:.4g} to {high:.4g}"
