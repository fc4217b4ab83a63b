"""Methods of CDMAM models: their own defaults for explainers, and the parameters of disk ablation."""

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
from radlens.service.objects import WITHOUT_MAP, objects_parameter
from radlens.service.parameters import SEED, Choice, Integer, Parameter, read_parameters
from radlens.wire import ABLATION

__all__ = [
    "ABLATION",
    "WALK",
    "AblationMethod",
    "ablation_parameters",
    "ablation_settings",
    "defaults_of",
    "methods_of",
]

WALK: Defaults = MappingProxyType({"omig": MappingProxyType({"n_steps": 8, "path_length": 250.0, "zscore": 10.0})})
"""Default parameters of OMIG for registered phantoms: a walk that halves the predicted midpoint.

With c = 1 as in the paper the image hardly changes, and the map is close to the gradient: half of the paired t of the
large thick disks remains when the disks are removed. On the way to half the midpoint one disk after the other
saturates, so every disk is marked, and the share of t that remains in the disk-free twin falls to a quarter. The disks
are the strongest pixels of the gradient, so the outlier threshold t = 3 of the paper would drop them. ``python
benchmarks/walks.py`` prints the numbers.
"""

_EVALUATIONS = 411
"""Number of evaluations of the network for each sample: the image, and each of 205 cells with two noises."""


@dataclass(frozen=True)
class AblationMethod:
    """Disk ablation (`radlens.families.cdmam.ablation`); it has no parameters apart from its samples."""

    name: ClassVar[str] = ABLATION

    def cost(self, height: int, width: int) -> int:
        """Return the number of evaluations of the network for a sample."""
        return _EVALUATIONS


def methods_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the methods that a model allows: explainers, and disk ablation for registered phantoms."""
    known = tuple(name for name in explainers.names() if name in manifest.explainers)
    return (*known, ABLATION) if manifest.input.registered else known


def defaults_of(registered: bool) -> Defaults:
    """Return the defaults of parameters by which a model deviates from its methods."""
    return WALK if registered else NO_DEFAULTS


def ablation_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a disk ablation; ``sampler`` is the default sampler."""
    return {
        "method": Choice((ABLATION,), ABLATION),
        "n_samples": Integer(3, 128, DEFAULT_SAMPLES),
        "sampler": Choice(SAMPLERS, sampler),
        "seed": SEED,
        "objects": objects_parameter(WITHOUT_MAP),
    }


def ablation_settings(given: Mapping[str, str], hints: Mapping[str, str], *, sampler: str) -> Settings:
    """Read the parameters of a disk ablation.

    Args:
        given: texts of the parameters by name.
        hints: texts for parameters that are not given; other names are ignored.
        sampler: the default sampler, that of the model.

    Raises:
        InvalidParameter: A parameter is unknown, or its text is invalid.
    """
    values = read_parameters(f"explanations by {ABLATION}", ablation_parameters(sampler), given, hints)
    del values["method"]
    return Settings(explainer=AblationMethod(), **values)  # type: ignore[arg-type]
