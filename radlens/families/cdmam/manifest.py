"""The bundle of a CDMAM ensemble."""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.bundles import BundleManifest, StoredBundle, write_manifest
from radlens.errors import BundleError, InvalidInput
from radlens.images.sampling import SAMPLED_SHAPE
from radlens.networks import FoldedCdmamEnsemble

__all__ = ["Bundle", "InputSpec", "Manifest", "save"]

WEIGHTS = "weights.pt"
TRACED = "ensemble.traced.pt"
PREDICTION_ONNX = "prediction.onnx"
GRADIENT_ONNX = "gradient.onnx"
MEMBERS_ONNX = "members.onnx"

_LATER = ("rank", "logarithmic", "domain")
"""Fields that are missing in manifests of the first releases."""

_GRAPHS = (PREDICTION_ONNX, GRADIENT_ONNX, MEMBERS_ONNX)


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing that the network expects.

    Attributes:
        mean: pixel value that becomes 0.
        std: pixel values per unit of the normalised image, above 0.
        spacing_mm: pixel spacing of the training images, mm.
        sampler: name of the sampler that downsampled the training images.
        pixel_mean_range: smallest and largest mean pixel value of a training image.
        pixel_std_range: smallest and largest standard deviation of the pixel values of a training image.
        registered: whether the network sees registered phantoms in units of their own noise, or else whole images.
        n_samples: number of samples of an image that a prediction averages.
    """

    mean: float
    std: float
    spacing_mm: float
    sampler: str
    pixel_mean_range: tuple[float, float]
    pixel_std_range: tuple[float, float]
    registered: bool = False
    n_samples: int = 1


@dataclass(frozen=True, kw_only=True)
class Manifest(BundleManifest):
    """The contents of ``bundle.json``.

    Attributes:
        diameters_mm: disk diameters of the predicted points, largest first.
        input: preprocessing that the network expects.
        n_members: number of networks in the ensemble.
        rank: number of features between the factors of the members' affine maps; None if they are not factored.
        logarithmic: whether the members predict natural logarithms of um of gold, or else um of gold.
        domain: limits of the images that the model may judge, those of `radlens.phantoms.cdmam.domain.Limits`.
    """

    diameters_mm: tuple[float, ...]
    input: InputSpec
    n_members: int
    rank: int | None = None
    logarithmic: bool = False
    domain: Mapping[str, Any] | None = None


class Bundle(StoredBundle[Manifest]):
    """The bundle of an ensemble; it loads with damaged graphs, and opening it refuses the engines that need them."""

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> "Bundle":
        """Read a bundle; arguments and errors are those of `StoredBundle.read`."""
        return cls.read(path, _parse, lambda _, file: file in _GRAPHS, verify=verify)

    def model(self) -> FoldedCdmamEnsemble:
        """Return the ensemble with its dense layers multiplied out, float32, in evaluation mode.

        Raises:
            BundleError: The weights do not fit the network.
        """
        manifest = self.manifest
        try:
            model = FoldedCdmamEnsemble(manifest.n_members, manifest.rank, manifest.logarithmic)
            model.load_state_dict(torch.load(self.path / WEIGHTS, map_location="cpu", weights_only=True))
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, InvalidInput) as error:
            raise BundleError(f"{WEIGHTS} must hold {manifest.n_members} CDMAM members") from error
        return model

    def preprocess(self, pixels: np.ndarray) -> Tensor:
        """Normalise downsampled images.

        Args:
            pixels: ``(250, 250)`` or ``(b, 250, 250)``, any real dtype, attenuation bright.

        Returns:
            ``(b, 1, 250, 250)`` float32, ``(pixels - mean) / std``.

        Raises:
            InvalidInput: The shape is wrong.
        """
        if pixels.ndim not in (2, 3) or tuple(pixels.shape[-2:]) != SAMPLED_SHAPE:
            raise InvalidInput(f"pixels must have shape (b, 250, 250), got {tuple(pixels.shape)}")
        return torch.from_numpy(self.normalize(pixels)).reshape(-1, 1, *SAMPLED_SHAPE)

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Return ``(pixels - mean) / std`` of an array of any shape as float32, so that an image is normalised once."""
        spec = self.manifest.input
        return ((pixels - np.float32(spec.mean)) / np.float32(spec.std)).astype(np.float32, copy=False)

    @cached_property
    def traced(self) -> Path:
        """The ensemble as one TorchScript module: ``(b, 1, 250, 250)`` to mean, aleatoric, epistemic."""
        return self.path / TRACED

    @cached_property
    def prediction_onnx(self) -> Path:
        """The ensemble as an ONNX graph with input ``images`` and outputs ``mean``, ``aleatoric``, ``epistemic``."""
        return self.path / PREDICTION_ONNX

    @cached_property
    def gradient_onnx(self) -> Path:
        """The midpoint and its gradient as an ONNX graph: ``images`` to ``score`` and ``gradient``."""
        return self.path / GRADIENT_ONNX


def save(path: Path | str, manifest: Manifest) -> Bundle:
    """Write ``bundle.json`` for the files in ``path``, and load the bundle.

    Args:
        path: directory with weights and graphs.
        manifest: manifest whose ``files`` are filled in.
    """
    path = Path(path)
    write_manifest(path, asdict(manifest))
    return Bundle.load(path)


def _parse(document: dict[str, Any]) -> Manifest:
    spec = document["input"]
    ranges = {name: tuple(spec[name]) for name in ("pixel_mean_range", "pixel_std_range")}
    tuples = {name: tuple(document[name]) for name in ("diameters_mm", "explainers")}
    known = {f.name: document[f.name] for f in fields(Manifest) if f.name in document or f.name not in _LATER}
    return Manifest(**(known | tuples | {"input": InputSpec(**(spec | ranges))}))
