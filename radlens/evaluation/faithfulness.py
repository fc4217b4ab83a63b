"""Faithfulness of a map to the model, measured without a ground truth for the image.

Deletion and insertion: Petsiuk et al., BMVC 2018. Infidelity and max-sensitivity: Yeh et al., NeurIPS 2019, from
Captum. Sensitivity-n: Ancona et al., ICLR 2018. Every image is measured separately: its result does not depend on the
other images, and depends on the batch size only through rounding in the model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency
from radlens.extras import install

__all__ = [
    "BLUR_SIGMA",
    "Baseline",
    "MapKind",
    "PerturbationCurve",
    "Score",
    "baseline_images",
    "deletion",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "sensitivity_n",
]

Score = Callable[[Tensor], Tensor]
"""Function from images ``(n, c, h, w)`` to one number each, ``(n,)``: a probability, a logit or another score."""

Baseline = Literal["zero", "mean", "blur"] | float
"""Replacement of a removed pixel: 0 (the training mean of a normalised image), the mean of its channel in this image,
the image blurred with `BLUR_SIGMA`, or a number."""

MapKind = Literal["contribution", "gradient"]
"""Kind of the values of a map. ``"contribution"``: parts of the score that sum to its change (integrated gradients,
DeepLIFT, occlusion, SHAP). ``"gradient"``: score per unit of input (saliency), multiplied here by image minus
baseline."""

BLUR_SIGMA = 5.0
"""Standard deviation in pixels of the blurred baseline (Petsiuk et al., the authors' code at 224 x 224)."""


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """The score as pixels are removed or inserted.

    Attributes:
        fractions: ``(n_steps + 1,)`` float64, fraction of changed pixels, from 0 to 1.
        scores: ``(b, n_steps + 1)`` float64, score of each image at each fraction.
    """

    fractions: Tensor
    scores: Tensor

    @property
    def auc(self) -> Tensor:
        """Area under the curve of each image, ``(b,)`` float64, in units of the score; trapezoidal rule."""
        return torch.trapezoid(self.scores, self.fractions)


def baseline_images(images: Tensor, baseline: Baseline) -> Tensor:
    """Return the images with every pixel removed, ``(b, c, h, w)``.

    ``"blur"`` repeats the border, which keeps its brightness; the authors' code pads with zeros.

    Raises:
        InvalidInput: the images are not floating point ``(b, c, h, w)``, or a value is not finite.
        InvalidParameter: the baseline is unknown or not finite.
    """
    _check_images(images)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if baseline == "blur":
        pixels = images.detach().cpu().double().numpy()
        blurred = ndimage.gaussian_filter(pixels, sigma=(0, 0, BLUR_SIGMA, BLUR_SIGMA), mode="nearest")
        return torch.from_numpy(blurred).to(images)
    if isinstance(baseline, str) or not np.isfinite(baseline):
        raise InvalidParameter(f"baseline must be zero, mean, blur or a finite number, got {baseline!r}")
    return torch.full_like(images, baseline)


def deletion(
    score: Score,
    images: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "zero",
    n_steps: int = 50,
    batch_size: int = 32,
) -> PerturbationCurve:
    """Return the score as pixels are removed in order of decreasing attribution; a low area is good.

    Pixels are ranked by the signed sum of the map over its channels, ties from the upper left to the lower right; that
    order dominates for a map with few distinct values. After step ``k`` of ``n_steps``, ``k * h * w // n_steps`` pixels
    are removed from all channels.

    Args:
        score: score that the maps explain.
        images: ``(b, c, h, w)``, floating point.
        maps: ``(b, c, h, w)`` or ``(b, 1, h, w)``.
        baseline: replacement of a removed pixel.
        n_steps: number of steps, from 1 to the number of pixels; each image is evaluated ``n_steps + 1`` times.
        batch_size: images per evaluation, at least 1; a batch may mix copies of different images.

    Raises:
        InvalidInput: the shapes do not match, a value is not finite, or the score does not have shape ``(n,)``.
        InvalidParameter: a parameter is out of range.
    """
    _check(images, maps)
    return _curve(score, images, baseline_images(images, baseline), maps, n_steps, batch_size)


def insertion(
    score: Score,
    images: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "blur",
    n_steps: int = 50,
    batch_size: int = 32,
) -> PerturbationCurve:
    """Return the score as pixels are inserted in order of decreasing attribution; a high area is good.

    The procedure is that of `deletion`, from the baseline to the image.

    Args:
        score: score that the maps explain.
        images: ``(b, c, h, w)``, floating point.
        maps: ``(b, c, h, w)`` or ``(b, 1, h, w)``.
        baseline: value of a pixel before its insertion.
        n_steps: number of steps, from 1 to the number of pixels.
        batch_size: images per evaluation, at least 1.

    Raises:
        InvalidInput: the shapes do not match, a value is not finite, or the score does not have shape ``(n,)``.
        InvalidParameter: a parameter is out of range.
    """
    _check(images, maps)
    return _curve(score, baseline_images(images, baseline), images, maps, n_steps, batch_size)


def infidelity(
    score: Score,
    images: Tensor,
    maps: Tensor,
    *,
    kind: MapKind = "contribution",
    baseline: Baseline = "zero",
    max_side: int | None = None,
    n_samples: int = 50,
    normalize: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Return the mean square error with which a map predicts the change of the score when squares are removed.

    Captum's ``infidelity`` with the square removal of Yeh et al., section 3: the mean over random squares of
    ``(sum of the map over the square - (score(image) - score(image without the square)))²``; 0 is perfect. The side of
    a square is uniform from 1 to ``max_side``, its position uniform among those inside the image.

    Args:
        score: score that the maps explain.
        images: ``(b, c, h, w)``, floating point.
        maps: ``(b, c, h, w)``; contributions also ``(b, 1, h, w)``, the sum over channels.
        kind: kind of the values of the maps.
        baseline: replacement of a removed pixel.
        max_side: largest side in pixels, from 1 to the shorter side of the image; a quarter of it unless given.
        n_samples: number of squares per image, at least 1.
        normalize: whether to scale each map by the factor that minimises the error, which makes maps with different
            units comparable (Captum's ``normalize``).
        batch_size: copies per evaluation, at least 1.
        seed: seed of the squares, which are the same for all images.

    Returns:
        ``(b,)``, dtype of the images, squared units of the score.

    Raises:
        InvalidInput: the shapes do not match, a value is not finite, or the score does not have shape ``(n,)``.
        InvalidParameter: a parameter is out of range.
        MissingDependency: Captum is not installed.
    """
    _check(images, maps)
    _at_least_one(n_samples=n_samples, batch_size=batch_size)
    short_side = min(images.shape[2:])
    max_side = max(1, short_side // 4) if max_side is None else max_side
    if not 1 <= max_side <= short_side:
        raise InvalidParameter(f"max_side must be from 1 to {short_side}, got {max_side}")
    weights = _weights(images, maps, kind)
    empty = baseline_images(images, baseline)
    measure = _captum("infidelity")
    found = [
        measure(
            lambda copies: _scores(score, copies),
            _SquareRemoval(empty[i], kind, max_side, seed),
            images[i : i + 1],
            weights[i : i + 1],
            n_perturb_samples=n_samples,
            max_examples_per_batch=min(batch_size, n_samples),
            normalize=normalize,
        )
        for i in range(images.shape[0])
    ]
    return torch.cat(found)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Return the largest relative change of a map when noise is added to the image; 0 is perfect.

    Captum's ``sensitivity_max`` (Yeh et al., definition 2, estimated by sampling): the largest
    ``||map(image + noise) - map(image)|| / ||map(image)||``, with noise uniform in ``[-radius, radius]`` at each pixel.
    A map that is zero everywhere is not divided by its norm.

    Args:
        explain: function from images ``(n, c, h, w)`` to maps with ``n`` rows. It receives copies of one image at a
            time, so it must fix the target itself; it may call autograd.
        images: ``(b, c, h, w)``, floating point.
        radius: amplitude of the noise, positive, in units of the preprocessed image.
        n_samples: number of noisy copies per image, at least 1.
        batch_size: copies per call of ``explain``, at least 1.
        seed: seed of the noise, which is the same for all images.

    Returns:
        ``(b,)``, dtype of the maps, dimensionless.

    Raises:
        InvalidInput: the images are not floating point ``(b, c, h, w)``, or a value is not finite.
        InvalidParameter: a parameter is out of range.
        MissingDependency: Captum is not installed.
    """
    _check_images(images)
    _at_least_one(n_samples=n_samples, batch_size=batch_size)
    if not (np.isfinite(radius) and radius > 0):
        raise InvalidParameter(f"radius must be finite and positive, got {radius}")
    measure = _captum("sensitivity_max")
    found = [
        measure(
            _MapsOf(explain),
            images[i : i + 1],
            perturb_func=_UniformNoise(radius, seed),
            n_perturb_samples=n_samples,
            max_examples_per_batch=min(batch_size, n_samples),
        )
        for i in range(images.shape[0])
    ]
    return torch.cat(found)


def sensitivity_n(
    score: Score,
    images: Tensor,
    maps: Tensor,
    *,
    n_pixels: Sequence[int],
    kind: MapKind = "contribution",
    baseline: Baseline = "zero",
    n_subsets: int = 100,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Return the correlation of the attribution of random subsets of pixels with the effect of their removal.

    Ancona et al., section 3.2: Pearson's correlation, over random subsets of ``n`` pixels, of the sum of the map over
    the subset and ``score(image) - score(image without the subset)``; 1 is best.

    Args:
        score: score that the maps explain.
        images: ``(b, c, h, w)``, floating point.
        maps: ``(b, c, h, w)``; contributions also ``(b, 1, h, w)``, the sum over channels.
        n_pixels: ``(s,)`` sizes of subsets, each from 1 to one less than the number of pixels.
        kind: kind of the values of the maps.
        baseline: replacement of a removed pixel.
        n_subsets: number of subsets per size, at least 2.
        batch_size: copies per evaluation, at least 1.
        seed: seed of the subsets, which are the same for all images.

    Returns:
        ``(b, s)`` float64 in [-1, 1]; NaN if the sums or the scores do not vary, as for a constant map.

    Raises:
        InvalidInput: the shapes do not match, a value is not finite, or the score does not have shape ``(n,)``.
        InvalidParameter: a parameter is out of range.
    """
    _check(images, maps)
    _at_least_one(batch_size=batch_size)
    if n_subsets < 2:
        raise InvalidParameter(f"n_subsets must be at least 2, got {n_subsets}")
    n_all = images.shape[2] * images.shape[3]
    if not n_pixels or not all(1 <= n < n_all for n in n_pixels):
        raise InvalidParameter(f"n_pixels must be sizes from 1 to {n_all - 1}, got {tuple(n_pixels)}")
    empty = baseline_images(images, baseline)
    shares = _weights(images, maps, kind)
    if kind == "gradient":
        shares = shares * (images - empty)
    shares = shares.sum(dim=1).flatten(1).double()
    columns = []
    for n in n_pixels:
        subsets = _subsets(n_all, n, n_subsets, seed).to(images.device)
        masks = subsets.reshape(n_subsets, 1, *images.shape[2:])
        pairs = ((i, masks[k]) for i in range(images.shape[0]) for k in range(n_subsets))
        left = _evaluate(score, images, empty, pairs, batch_size).reshape(-1, n_subsets)
        sums = torch.stack([shares[:, subset].sum(dim=1) for subset in subsets], dim=1)
        columns.append(_pearson(sums, -left))
    return torch.stack(columns, dim=1)


def _curve(score: Score, start: Tensor, end: Tensor, maps: Tensor, n_steps: int, batch_size: int) -> PerturbationCurve:
    b, _, h, w = start.shape
    _at_least_one(batch_size=batch_size)
    if not 1 <= n_steps <= h * w:
        raise InvalidParameter(f"n_steps must be from 1 to {h * w}, the number of pixels, got {n_steps}")
    order = maps.sum(dim=1).flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).reshape(b, 1, h, w)  # the inverse of the permutation: the rank of each pixel
    counts = [k * h * w // n_steps for k in range(n_steps + 1)]
    pairs = ((i, rank[i] < count) for i in range(b) for count in counts)
    scores = _evaluate(score, start, end, pairs, batch_size).reshape(b, n_steps + 1)
    return PerturbationCurve(torch.tensor(counts, dtype=torch.float64, device=scores.device) / (h * w), scores)


def _evaluate(score: Score, start: Tensor, end: Tensor, pairs: Iterator[tuple[int, Tensor]], batch_size: int) -> Tensor:
    """Return the scores, float64, of copies that show ``end`` inside each mask and ``start`` outside."""
    found, copies = [], []
    for i, changed in pairs:
        copies.append(torch.where(changed, end[i], start[i]))
        if len(copies) == batch_size:
            found.append(_scores(score, torch.stack(copies)))
            copies = []
    if copies:
        found.append(_scores(score, torch.stack(copies)))
    return torch.cat(found).double()


def _scores(score: Score, copies: Tensor) -> Tensor:
    with torch.no_grad():
        found = score(copies)
    if found.shape != copies.shape[:1]:
        raise InvalidInput(f"score must return shape {tuple(copies.shape[:1])}, got {tuple(found.shape)}")
    if not found.isfinite().all():
        raise InvalidInput("score must be finite, got NaN or infinity for a changed image")
    return found


def _weights(images: Tensor, maps: Tensor, kind: MapKind) -> Tensor:
    if kind not in get_args(MapKind):
        raise InvalidParameter(f"kind must be contribution or gradient, got {kind!r}")
    if maps.shape == images.shape:
        return maps.contiguous()
    if kind == "gradient":
        raise InvalidInput(f"maps of gradients must have the images' shape {_shape(images)}, got {_shape(maps)}")
    return (maps / images.shape[1]).expand_as(images).contiguous()


@dataclass
class _SquareRemoval:
    """Captum's ``perturb_func`` for squares, drawn one by one so that they do not depend on the batch size."""

    empty: Tensor
    kind: MapKind
    max_side: int
    seed: int

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, copies: Tensor) -> tuple[Tensor, Tensor]:
        removed = torch.zeros_like(copies)
        for copy in removed:
            side = int(self._rng.integers(1, self.max_side + 1))
            top, left = (int(self._rng.integers(0, length - side + 1)) for length in copy.shape[1:])
            copy[:, top : top + side, left : left + side] = 1
        changed = torch.where(removed.bool(), self.empty, copies)
        return (removed if self.kind == "contribution" else copies - changed), changed


@dataclass
class _UniformNoise:
    """Captum's ``perturb_func`` for uniform noise, drawn copy by copy so that it does not depend on the batch size."""

    radius: float
    seed: int

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, copies: Tensor) -> Tensor:
        noise = np.stack([self._rng.uniform(-self.radius, self.radius, copies.shape[1:]) for _ in copies])
        return copies + torch.from_numpy(noise).to(copies)


@dataclass
class _MapsOf:
    """Captum's ``explanation_func``: it must return a tuple for a tuple, and Captum disables gradients around it."""

    explain: Callable[[Tensor], Tensor]

    def __call__(self, copies: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(copies, tuple):
            return tuple(self._maps(images) for images in copies)
        return self._maps(copies)

    def _maps(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            maps = self.explain(images).detach()
        if maps.shape[:1] != images.shape[:1]:
            raise InvalidInput(f"explain must return one map per image, {images.shape[0]}, got {maps.shape[0]}")
        if not maps.isfinite().all():
            raise InvalidInput("maps must be finite, got NaN or infinity")
        return maps.contiguous()


def _captum(name: str) -> Callable[..., Tensor]:
    try:
        from captum import metrics
    except ImportError as error:
        raise MissingDependency(f"{name} needs the package captum: {install('explain')}") from error
    measure: Any = getattr(metrics, name)
    return measure


def _subsets(n_all: int, n: int, n_subsets: int, seed: int) -> Tensor:
    rng = np.random.default_rng([seed, n])  # subsets of one size do not depend on the other sizes
    chosen = np.zeros((n_subsets, n_all), dtype=bool)
    for row in chosen:
        row[rng.choice(n_all, n, replace=False)] = True
    return torch.from_numpy(chosen)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = (_centred(values) for values in (a, b))
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))


def _centred(values: Tensor) -> Tensor:
    """Subtract the mean of each row; a row that is constant up to rounding becomes exactly zero (and later NaN)."""
    centred = values - values.mean(dim=1, keepdim=True)
    is_constant = centred.abs().amax(dim=1) <= 1e-12 * values.abs().amax(dim=1)
    return torch.where(is_constant[:, None], 0.0, centred)


def _check(images: Tensor, maps: Tensor) -> None:
    _check_images(images)
    b, c, h, w = images.shape
    if maps.shape not in ((b, c, h, w), (b, 1, h, w)):
        raise InvalidInput(f"maps must have shape {(b, c, h, w)} or {(b, 1, h, w)}, got {_shape(maps)}")
    if not maps.isfinite().all():
        raise InvalidInput("maps must be finite, got NaN or infinity")


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.numel() == 0:
        raise InvalidInput(f"images must have shape (b, c, h, w) with at least one pixel, got {_shape(images)}")
    if not images.is_floating_point():
        raise InvalidInput(f"images must be of a floating point type, got {images.dtype}")
    if not images.isfinite().all():
        raise InvalidInput("images must be finite, got NaN or infinity")


def _at_least_one(**parameters: int) -> None:
    for name, value in parameters.items():
        if value < 1:
            raise InvalidParameter(f"{name} must be at least 1, got {value}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
