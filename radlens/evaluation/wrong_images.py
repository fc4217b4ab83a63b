"""Images that a classifier must not judge: noise, other objects, other scales, other positions, spoilt images.

Each kind is a function of a random generator and of an image of the right kind, so that a classifier of any kind of
image can be tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from radlens.errors import InvalidParameter
from radlens.evaluation.domain import DomainRecord, Judgement, counted
from radlens.phantoms import cdmam, mammogram, nodule, ultrasound

__all__ = ["OTHER_OBJECTS", "WRONG_IMAGES", "Draw", "image_domain_record"]

Pixels = NDArray[Any]
Draw = Callable[[np.random.Generator, Pixels], Pixels]
"""``draw(rng, right)``: an image (H, W), given an image of the right kind (H, W)."""

_SHAPE = (256, 224)


def _noise(rng: np.random.Generator, right: Pixels) -> Pixels:
    return rng.normal(right.mean(), max(float(right.std()), 1.0), right.shape)


def _smooth_noise(rng: np.random.Generator, right: Pixels) -> Pixels:
    return gaussian_filter(rng.normal(size=right.shape), 3.0)


def _blank(rng: np.random.Generator, right: Pixels) -> Pixels:
    """A blank exposure: hardly any noise on one value."""
    return rng.normal(1000.0, 1.0, right.shape)


def _ramp(rng: np.random.Generator, right: Pixels) -> Pixels:
    return np.add.outer(np.arange(right.shape[0]), rng.uniform(0.2, 2.0) * np.arange(right.shape[1]))


def _text(rng: np.random.Generator, right: Pixels) -> Pixels:
    page = Image.new("L", (right.shape[1], right.shape[0]), 255)
    font = ImageFont.load_default(max(8, right.shape[0] // 16))
    for line in range(14):
        words = " ".join("".join(rng.choice(list("abcdefgh"), 5)) for _ in range(5))
        ImageDraw.Draw(page).text((4, line * right.shape[0] // 14), words, fill=0, font=font)
    return np.asarray(page, np.float32)


def _chest_film(rng: np.random.Generator, right: Pixels) -> Pixels:
    """A drawing of a chest radiograph: two dark lungs with vessels and ribs, a bright heart and spine."""
    down, across = np.mgrid[-1 : 1 : _SHAPE[0] * 1j, -1 : 1 : _SHAPE[1] * 1j]
    film = np.full(_SHAPE, 0.7)
    for side in (-1, 1):
        lung = ((across - 0.45 * side) / 0.33) ** 2 + ((down - rng.uniform(-0.1, 0.0)) / 0.75) ** 2
        film -= 0.45 / (1 + np.exp(12 * (lung - 1)))
    film += 0.25 * np.exp(-((across / 0.09) ** 2))
    film += 0.3 / (1 + np.exp(12 * (((across - 0.15) / 0.3) ** 2 + ((down - 0.3) / 0.35) ** 2 - 1)))
    ribs = np.sin(22 * (down + 0.25 * across**2) + rng.uniform(0, 6)) > 0.6
    film += 0.08 * gaussian_filter(ribs.astype(float), 1.0) * (np.abs(across) < 0.85)
    vessels = gaussian_filter(rng.normal(size=_SHAPE), 2.0)
    film += 0.15 * np.maximum(vessels, 0)
    return 4095 * gaussian_filter(film + rng.normal(0, 0.01, _SHAPE), 0.7)


def _twice(rng: np.random.Generator, right: Pixels) -> Pixels:
    """The middle of the image, enlarged by the preprocessing: everything is twice as large."""
    height, width = right.shape
    return right[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _inverted(rng: np.random.Generator, right: Pixels) -> Pixels:
    return right.max() - right


def _blurred(rng: np.random.Generator, right: Pixels) -> Pixels:
    return gaussian_filter(right.astype(np.float64), right.shape[0] / 64)


def _mixed(rng: np.random.Generator, right: Pixels) -> Pixels:
    """The pixels of an image in another order: the same brightness, nothing to see."""
    return rng.permutation(right.reshape(-1)).reshape(right.shape)


WRONG_IMAGES: dict[str, Draw] = {
    "noise": _noise,
    "smooth noise": _smooth_noise,
    "a blank exposure": _blank,
    "a ramp": _ramp,
    "a page of text": _text,
    "a chest film": _chest_film,
    "twice too large": _twice,
    "inverted": _inverted,
    "out of focus": _blurred,
    "pixels in random order": _mixed,
}
"""Kinds that no classifier must judge."""


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 2**31))


OTHER_OBJECTS: dict[str, Draw] = {
    "an ultrasound image": lambda rng, right: ultrasound.sample("malignant", seed=_seed(rng)).pixels,
    "a mammogram": lambda rng, right: mammogram.sample("malignant", image_shape=(512, 256), seed=_seed(rng)).pixels,
    "a CT patch of lung": lambda rng, right: nodule.sample("malignant", seed=_seed(rng)).pixels,
    "a contrast-detail phantom": lambda rng, right: (
        cdmam.simulate(cdmam.SCENARIOS["1"], cdmam.Layout.with_margin(2, 0.3), _seed(rng)).pixels
    ),
}
"""Objects of which a classifier judges one at most."""


def image_domain_record(
    assess: Callable[[Pixels], Judgement],
    draw: Callable[[int], Pixels],
    *,
    own: str | None,
    n: int,
    n_each: int,
    seed: int = 0,
    on_progress: Callable[[str, float, float], None] | None = None,
) -> DomainRecord:
    """Measure which images of the training kind a classifier refuses, and which wrong images it judges.

    Args:
        assess: the model's decision about pixels ``(H, W)``.
        draw: an unseen image of the training kind ``(H, W)``, by number.
        own: the object in `OTHER_OBJECTS` that the model is made for; None if there is none.
        n: number of images of the training kind, at least 1.
        n_each: number of images of each wrong kind, at least 1.
        seed: seed of the wrong images.
        on_progress: called as ``on_progress(stage, done, total)``, in images.

    Raises:
        InvalidParameter: there are too few images.
    """
    for name, value in (("n", n), ("n_each", n_each)):
        if value < 1:
            raise InvalidParameter(f"{name} must be at least 1, got {value}")
    report = on_progress or (lambda stage, done, total: None)
    kinds = WRONG_IMAGES | {name: make for name, make in OTHER_OBJECTS.items() if name != own}
    total, done = n + n_each * len(kinds), 0

    def judged(pixels: Pixels) -> Judgement:
        nonlocal done
        done += 1
        report("judging images", done, total)
        return assess(np.ascontiguousarray(pixels))

    trained = counted([judged(draw(k)) for k in range(n)])
    wrong = {
        name: counted([judged(make(np.random.default_rng([seed, k]), draw(n + k))) for k in range(n_each)])
        for name, make in kinds.items()
    }
    return DomainRecord(trained=trained, right={}, wrong=wrong, seed=seed)
