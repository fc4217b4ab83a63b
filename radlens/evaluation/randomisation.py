"""Cascading model randomisation, a sanity check of explainers: Adebayo et al., NeurIPS 2018, section 3.

A method whose map stays the same when random weights replace those of the network does not explain what the network has
learned.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency, UnsupportedOperation
from radlens.extras import install

__all__ = ["Randomisation", "model_randomisation", "model_randomisations"]

_SSIM_WINDOW = 7

LEAST_SPREAD = 0.02
"""Standard deviation of new values for a parameter that is 0 everywhere, as vision transformers initialise tokens and
positions. For a parameter with another constant value it is that value."""


@dataclass(frozen=True, eq=False)
class Randomisation:
    """Similarity of the maps before and after the randomisation of layers.

    The similarities of a sound method end near 0. Pixels of all channels are compared.

    Attributes:
        layers: ``(n,)`` names, from the output to the input; in row ``k`` all layers from the output to layer ``k`` are
            randomised.
        spearman: ``(n, b)`` float64, rank correlation of the signed maps.
        spearman_absolute: ``(n, b)`` float64, rank correlation of the absolute maps.
        ssim: ``(n, b)`` float64, mean structural similarity over a 7 x 7 window and all channels, each map divided by
            its largest absolute value.

    All three are NaN if a map is constant, because its pixels have no order.
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
    """Randomise the layers one after another from the output to the input, and compare each map with the original one.

    A layer is any module with direct parameters. It is reset with its ``reset_parameters``, which also clears the
    running statistics of a batch norm. Parameters that this does not set, as those of attention, tokens, positions,
    scales of layers, and all of scripted and traced modules, are drawn from the normal distribution with the mean and
    the standard deviation of their values; see :data:`LEAST_SPREAD` for constant ones. Layers are taken in reverse
    order of definition. Neither ``network``, which is copied, nor the global random state is changed.

    Args:
        network: the network, in the mode (training or evaluation) in which it is explained.
        explain: function from a network and images ``(b, c, h, w)`` to maps ``(b, c', h', w')``, each side at least 7.
            It must fix the targets itself.
        images: ``(b, c, h, w)``.
        n_points: number of depths at which maps are compared, evenly spread from the first randomised layer to the
            last, at least 2; None for every layer. The weights at a depth do not depend on it.
        seed: seed of the new weights, and of samples that ``explain`` draws from torch's global generator.
        on_progress: called as ``on_progress(done, total)`` after each comparison.

    Raises:
        InvalidParameter: there are fewer than two points.
        InvalidInput: the network has no parameters, or the maps have another shape or values that are not finite.
        UnsupportedOperation: a layer has parameters of whole numbers, as quantised ones, which are not drawn.
        MissingDependency: scikit-image is not installed.
    """
    only = {"": explain}
    return model_randomisations(network, only, images, n_points=n_points, seed=seed, on_progress=on_progress)[""]


def model_randomisations(
    network: nn.Module,
    methods: Mapping[str, Callable[[Any, Tensor], Tensor]],
    images: Tensor,
    *,
    view: Callable[[nn.Module], Any] = lambda network: network,
    skip: tuple[type[Exception], ...] = (),
    n_points: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Randomisation]:
    """Do what :func:`model_randomisation` does for several methods, which share the randomised networks.

    Args:
        network: the network.
        methods: functions from what ``view`` returns and images to maps, by name.
        images: ``(b, c, h, w)``.
        view: prepares the network for all methods, once at each depth.
        skip: errors of a method that leave it out.
        n_points: number of depths.
        seed: seed of the new weights.
        on_progress: called as ``on_progress(done, total)`` after each comparison of a method.

    Returns:
        The result of each method by name; it does not depend on the other methods.

    Raises:
        InvalidParameter, InvalidInput, UnsupportedOperation, MissingDependency: as :func:`model_randomisation`.
    """
    changing = deepcopy(network)
    layers = _layers(changing)
    compared = _compared(len(layers), n_points)
    report = on_progress or (lambda done, total: None)
    rows: dict[str, list[Any]] = {name: [] for name in methods}
    original: dict[str, np.ndarray] = {}

    def explained(name: str, seen: Any) -> np.ndarray | None:
        try:
            return _maps(methods[name], seen, images, seed)
        except skip:
            rows.pop(name)
            return None

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        seen = view(changing)
        for name in methods:
            if (found := explained(name, seen)) is not None:
                original[name] = found
        done = 0
        for place, layer in enumerate(layers.values()):
            _reset(layer)
            if place not in compared:
                continue
            seen = view(changing)
            for name in tuple(rows):
                if (found := explained(name, seen)) is not None:
                    rows[name].append(_similarities(original[name], found))
                done += 1
                report(done, len(compared) * len(rows))
    names = tuple(name for place, name in enumerate(layers) if place in compared)
    return {name: Randomisation(names, *np.moveaxis(np.array(values), 2, 0)) for name, values in rows.items()}


def _compared(n_layers: int, n_points: int | None) -> frozenset[int]:
    """Return the indices of the layers after which maps are compared."""
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
        for key, value in module.named_parameters(recurse=False):
            if not value.is_floating_point():
                raise UnsupportedOperation(
                    f"parameters must be of a floating point type, got {value.dtype} in {key} of layer "
                    f"{name or 'network'}"
                )
    return layers


def _reset(layer: nn.Module) -> None:
    """Give every direct parameter of a layer a new random value."""
    parameters = list(layer.parameters(recurse=False))
    trained = [value.detach().clone() for value in parameters]
    reset = getattr(layer, "reset_parameters", None)
    with torch.no_grad():
        if callable(reset):
            # NaN marks the parameters that the layer does not set itself.
            for value in parameters:
                value.fill_(torch.nan)
            reset()
        for value, before in zip(parameters, trained, strict=True):
            if not callable(reset) or value.isnan().any():
                value.copy_(_drawn_like(before))


def _drawn_like(values: Tensor) -> Tensor:
    """Return values from the normal distribution with the mean and the spread of ``values``."""
    mean = float(values.double().mean())
    spread = float(values.double().std(correction=0)) or abs(mean) or LEAST_SPREAD
    return torch.randn(values.shape, device=values.device).to(values.dtype) * spread + mean


def _maps(explain: Callable[[Any, Tensor], Tensor], network: Any, images: Tensor, seed: int) -> np.ndarray:
    # The fork gives sampling methods the same samples every time, and keeps their draws from changing the new weights.
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
