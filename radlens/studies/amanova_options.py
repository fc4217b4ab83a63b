"""Options of the study of Amanova et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radlens.errors import InvalidParameter
from radlens.evaluation.published import AMANOVA_PARAMETERS
from radlens.families.cdmam.training import PRESETS, Preset
from radlens.studies.amanova_maps import CLEAR_PATH_LENGTH, PATH_LENGTHS, MapParameters

__all__ = ["PAPER", "RECIPES", "REGISTERED", "AmanovaOptions"]

REGISTERED, PAPER = RECIPES = ("registered", "paper")
"""Names of the two recipes, which are the keys of ``runs``."""


@dataclass(frozen=True)
class AmanovaOptions:
    """Options of the study; the defaults are those of the paper where it states them.

    Args:
        n_samples: number of samples of an upsampled map (N).
        n_steps: number of gradients on the path of OMIG (L).
        path_length: length of the path (c).
        zscore: threshold of the Z-score (t).
        n_test: number of test images of each scenario; the paper has 1200, and 200 out of distribution.
        stride: distance between the squares of occlusion, in pixels of a sample.
        path_lengths: values of c that Fig. 14 compares.
        clear_path_length: value of c of the second part of Fig. 13.
        part_of_lengths: divisor of ``n_samples`` for the maps of Fig. 14.
        spacing_mm: pixel spacing of simulated images, mm.
        recordings: folder of real recordings, in the format of `radlens.studies.amanova_images.recordings`.
        runs: folders of runs or bundles, by recipe; the registered one is required.
        with_paper: whether the paper's recipe is compared; it is trained if no run is given.
        preset: preset of that training.
        engine: engine of the graphs, as in `radlens.families.cdmam.model.open_bundle`; ``"eager"`` for torch without
            graphs.
        seed: seed of the samples.

    Raises:
        InvalidParameter: a number is out of range, or a run is given for an unknown recipe.
    """

    n_samples: int = int(AMANOVA_PARAMETERS["N"].value)
    n_steps: int = int(AMANOVA_PARAMETERS["L"].value)
    path_length: float = AMANOVA_PARAMETERS["c"].value
    zscore: float = AMANOVA_PARAMETERS["t"].value
    n_test: int = 40
    stride: int = 5
    path_lengths: tuple[float, ...] = PATH_LENGTHS
    clear_path_length: float = CLEAR_PATH_LENGTH
    part_of_lengths: int = 10
    spacing_mm: float = 0.07
    recordings: Path | None = None
    runs: Mapping[str, Path] = field(default_factory=lambda: {REGISTERED: Path("export/cdmam_demo")})
    with_paper: bool = True
    preset: Preset = PRESETS["paper-small"]
    engine: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        for name in ("n_samples", "n_steps", "n_test", "stride", "part_of_lengths"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if unknown := [name for name in self.runs if name not in RECIPES]:
            raise InvalidParameter(f"runs must be of {', '.join(RECIPES)}, got {', '.join(unknown)}")
        if not self.path_lengths:
            raise InvalidParameter("path_lengths must hold at least one value, got none")
        self.parameters.omig()  # raises for invalid parameters of OMIG

    @property
    def parameters(self) -> MapParameters:
        """Parameters of the maps."""
        return MapParameters(self.n_samples, self.n_steps, self.path_length, self.zscore, self.stride, self.seed)

    @property
    def n_samples_of_lengths(self) -> int:
        """Number of samples of the maps of Fig. 14."""
        return max(1, self.n_samples // self.part_of_lengths)
