"""Disk ablation as something that can be asked for beside the explainers: `radlens.families.cdmam.ablation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from radlens import explainers
from radlens.families.cdmam.ablation import DEFAULT_SAMPLES
from radlens.families.cdmam.manifest import Manifest
from radlens.families.cdmam.settings import NO_DEFAULTS, Defaults, Settings
from radlens.images.sampling import SAMPLERS
from radlens.service.parameters import SEED, Choice, Integer, Parameter, read_parameters
from radlens.wire import ABLATION

__all__ = [
    "ABLATION",
    "WALK",
    "AskedAblation",
    "ablation_parameters",
    "ablation_settings",
    "defaults_of",
    "methods_of",
]

WALK: Defaults = MappingProxyType({"omig": MappingProxyType({"n_steps": 8, "path_length": 250.0, "zscore": 10.0})})
"""OMIG of a registered phantom, unless a request says otherwise: a walk that halves the predicted midpoint.

With the paper's c = 1 the image hardly moves, and the map is the gradient at it: half of the paired t of the large
thick disks then stays when they are removed. On the way to half the midpoint disks saturate one after the other, so
that all of them are marked, and their twin's share of t falls to a quarter. The strongest pixels are the disks
themselves, and a threshold t = 3 would drop them. ``python benchmarks/walks.py`` prints the numbers.
"""

_EVALUATIONS = 411
"""Evaluations of the network for each sample: the image, and each of 205 cells with two different noises."""


@dataclass(frozen=True)
class AskedAblation:
    """Disk ablation; it has no parameters beside its samples."""

    name: ClassVar[str] = ABLATION

    def cost(self, height: int, width: int) -> int:
        """Return how often the network is evaluated for a sample."""
        return _EVALUATIONS


def methods_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the methods that a model allows, those that are no explainers among them."""
    known = tuple(name for name in explainers.names() if name in manifest.explainers)
    return (*known, ABLATION) if manifest.input.registered else known


def defaults_of(registered: bool) -> Defaults:
    """Return the model's own defaults for parameters of methods."""
    return WALK if registered else NO_DEFAULTS


def ablation_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a disk ablation; ``sampler`` is the model's own."""
    return {
        "method": Choice((ABLATION,), ABLATION),
        "n_samples": Integer(3, 128, DEFAULT_SAMPLES),
        "sampler": Choice(SAMPLERS, sampler),
        "seed": SEED,
    }


def ablation_settings(given: Mapping[str, str], hints: Mapping[str, str], *, sampler: str) -> Settings:
    """Read the parameters of a disk ablation.

    Args:
        given: text by name; each must be a parameter of it.
        hints: used where they name a parameter that is not given.
        sampler: the default sampler, the model's own.

    Raises:
        InvalidParameter: an unknown name, or text that is not as expected.
    """
    values = read_parameters(f"explanations by {ABLATION}", ablation_parameters(sampler), given, hints)
    del values["method"]
    return Settings(explainer=AskedAblation(), **values)  # type: ignore[arg-type]
