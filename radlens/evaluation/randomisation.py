"""The model-randomisation sanity check: Adebayo et al., NeurIPS 2018, section 3, cascading.

A method whose map stays the same when the weights of the network are replaced by random ones does not explain what the
network has learned.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency, UnsupportedOperation
from radlens.extras import install

__all__ = ["Randomisation", "model_randomisation"]

_SSIM_WINDOW = 7


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How alike the maps are before and after the layers from the output down to each one were randomised.

    A sound method ends near 0 everywhere. Pixels of all channels are compared.

    Attributes:
        layers: ``(n,)`` names, from the output to the input; in row ``k`` all layers from the output to this one are
            randomised.
        spearman: ``(n, b)`` float64, rank correlation of the signed maps.
        spearman_absolute: ``(n, b)`` float64, of their absolute values.
        ssim: ``(n, b)`` float64, mean structural similarity over a 7 x 7 window and all channels, each map divided by
            its largest absolute value.

    All three are NaN where a map is constant, and so has no order.
    """

    layers: tuple[str, ...]
    spearman: np.ndarray
    spearman_absolute: np.ndarray
    ssim: np.ndarray


def model_randomisation(
    network: nn.Module,
    explain: Callable[[nn.Module, Tensor], Tensor],
    images: Tensor,
    *,
    n_points: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Randomisation:
    """Randomise the layers one after another from the output to the input, and compare each map with the first.

    A layer is any module with parameters of its own; it is set back with its ``reset_parameters``, which also clears
    the running statistics of a batch norm. Layers are taken in the reverse order of their definition. ``network`` is
    copied, not changed, nor is the global random state.

    Args:
        network: in the mode that it is explained in.
        explain: maps a network and images ``(b, c, h, w)`` to maps ``(b, c', h', w')``, each side at least 7. Targets
            must be held fixed inside it.
        images: ``(b, c, h, w)``.
        n_points: depths at which maps are compared, evenly spread from the first randomised layer to the last, at
            least 2; None for every layer. The weights at a depth do not depend on it.
        seed: of the new weights, and of samples that ``explain`` draws from torch's global generator.
        on_progress: called as ``on_progress(done, total)`` after each comparison.

    Raises:
        InvalidParameter: fewer than two points.
        InvalidInput: a network without parameters, or maps of another shape or with values that are not finite.
        UnsupportedOperation: a layer has parameters but no ``reset_parameters``; scripted and traced modules have none.
        MissingDependency: scikit-image is not installed.
    """
    changing = deepcopy(network)
    layers = _layers(changing)
    compared = _compared(len(layers), n_points)
    original = _maps(explain, changing, images, seed)
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for place, layer in enumerate(layers.values()):
            layer.reset_parameters()
            if place not in compared:
                continue
            rows.append(_similarities(original, _maps(explain, changing, images, seed)))
            if on_progress:
                on_progress(len(rows), len(compared))
    spearman, absolute, ssim = np.moveaxis(np.array(rows), 2, 0)
    names = tuple(name for place, name in enumerate(layers) if place in compared)
    return Randomisation(names, spearman, absolute, ssim)


def _compared(n_layers: int, n_points: int | None) -> frozenset[int]:
    """Return the places of the layers after which maps are compared."""
    if n_points is not None and n_points < 2:
        raise InvalidParameter(f"n_points must be at least 2, got {n_points}")
    if n_points is None or n_points >= n_layers:
        return frozenset(range(n_layers))
    return frozenset(np.rint(np.linspace(0, n_layers - 1, n_points)).astype(int).tolist())


def _layers(network: nn.Module) -> dict[str, Any]:
    layers: dict[str, Any] = {
        name: module
        for name, module in reversed(list(network.named_modules()))
        if next(module.parameters(recurse=False), None) is not None
    }
    if not layers:
        raise InvalidInput("network must have parameters, got none")
    for name, module in layers.items():
        if not callable(getattr(module, "reset_parameters", None)):
            kind = type(module).__name__
            raise UnsupportedOperation(f"layer {name or 'network'} ({kind}) has parameters but no reset_parameters")
    return layers


def _maps(explain: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, images: Tensor, seed: int) -> np.ndarray:
    # Methods that draw samples draw the same ones every time, and leave the new weights what they are.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        maps = explain(network, images).detach().cpu().double().numpy()
    if maps.ndim != 4 or maps.shape[0] != images.shape[0] or min(maps.shape[2:]) < _SSIM_WINDOW:
        raise InvalidInput(
            f"maps must have shape ({images.shape[0]}, c, h, w) with sides of at least {_SSIM_WINDOW}, got {maps.shape}"
        )
    if not np.isfinite(maps).all():
        raise InvalidInput("maps must be finite, got NaN or infinity")
    return maps


def _similarities(before: np.ndarray, after: np.ndarray) -> list[tuple[float, float, float]]:
    return [(_spearman(a, b), _spearman(np.abs(a), np.abs(b)), _ssim(a, b)) for a, b in zip(before, after, strict=True)]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy import stats

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b, axis=None).statistic)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingDependency(f"model_randomisation needs scikit-image: {install('explain')}") from error
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(structural_similarity(a, b, win_size=_SSIM_WINDOW, data_range=2.0, channel_axis=0))
