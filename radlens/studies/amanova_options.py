"""How the study of Amanova et al. 2022 is run."""

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
"""The two recipes, by the names that runs are given for."""


@dataclass(frozen=True)
class AmanovaOptions:
    """How the study is run; the defaults are the paper's where it states them.

    Args:
        n_samples: samples behind an upsampled map (N).
        n_steps: gradients on the path of OMIG (L).
        path_length: length of the path (c).
        zscore: threshold of the Z-score (t).
        n_test: test images of each scenario; the paper has 1200, and 200 out of distribution.
        stride: distance of the squares of occlusion, pixels of a sample.
        path_lengths: values of c that Fig. 14 compares.
        clear_path_length: value of c of the second part of Fig. 13.
        part_of_lengths: the maps of Fig. 14 have as many samples as those of the others, divided by this.
        spacing_mm: of simulated images.
        recordings: folder of real recordings, see `radlens.studies.amanova_images.recordings`.
        runs: folders of runs or bundles, by recipe; the registered one is needed.
        with_paper: whether the paper's own recipe is compared; it is trained where no run is given.
        preset: of that training.
        engine: of the graphs, see `radlens.families.cdmam.model.open_bundle`; ``"eager"`` for torch without graphs.
        seed: of the samples.

    Raises:
        InvalidParameter: a number out of range, or a run for another recipe.
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
        """Refuse values out of range."""
        for name in ("n_samples", "n_steps", "n_test", "stride", "part_of_lengths"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if unknown := [name for name in self.runs if name not in RECIPES]:
            raise InvalidParameter(f"runs must be of {', '.join(RECIPES)}, got {', '.join(unknown)}")
        if not self.path_lengths:
            raise InvalidParameter("path_lengths must hold at least one value, got none")
        self.parameters.omig()

    @property
    def parameters(self) -> MapParameters:
        """What maps are made with."""
        return MapParameters(self.n_samples, self.n_steps, self.path_length, self.zscore, self.stride, self.seed)

    @property
    def n_samples_of_lengths(self) -> int:
        """Samples behind the maps of Fig. 14."""
        return max(1, self.n_samples // self.part_of_lengths)
