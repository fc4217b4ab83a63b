"""Recipes of the inpainter: Major et al. 2020, section 3, and Liu et al. 2018, section 3.3."""

from dataclasses import asdict, dataclass
from typing import Any

from radlens.datasets.model_input import ModelInput
from radlens.errors import InvalidParameter

__all__ = ["INPAINTER_PRESETS", "Holes", "InpainterPreset", "Phase"]


@dataclass(frozen=True)
class Holes:
    """Random holes of the training images.

    Args:
        most: Largest number of square holes in an image, at least 1.
        sides: Smallest and largest side of a hole, pixels.
        p_clustered: Share of holes that lie around a common centre; the others are single.
        p_grid: Share of images whose holes form a regular grid, as the first mask of an optimisation does.

    Raises:
        InvalidParameter: A value is out of range.
    """

    most: int = 400
    sides: tuple[int, int] = (8, 8)
    p_clustered: float = 0.5
    p_grid: float = 0.2

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        if self.most < 1:
            raise InvalidParameter(f"most holes must be at least 1, got {self.most}")
        if not 1 <= self.sides[0] <= self.sides[1]:
            raise InvalidParameter(f"sides of holes must be rising and at least 1, got {self.sides}")
        for name in ("p_clustered", "p_grid"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidParameter(f"{name} must be from 0 to 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Phase:
    """One of the two phases of the training.

    Args:
        epochs: Passes over the training images, at least 1.
        learning_rate: Of Adam; the highest one if ``one_cycle``.
        has_norm: Whether the batch normalisation of the encoder measures its batches; if not, its statistics and
            weights stay as they are (Liu et al. 2018, section 3.3: holes would disturb them).
        one_cycle: Raise and lower the learning rate once.
    """

    epochs: int
    learning_rate: float
    has_norm: bool
    one_cycle: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        if self.epochs < 1 or not self.learning_rate > 0:
            raise InvalidParameter(
                f"a phase must have at least 1 epoch and a learning rate above 0, got {self.epochs} and "
                f"{self.learning_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class InpainterPreset:
    """A recipe.

    Args:
        input: Preprocessing of the images; that of the classifiers which the inpainter serves.
        width: See `radlens.networks.PartialConvInpainter`.
        n_training: Number of simulated healthy images to train with; data sets are used whole.
        n_validation: Number of images that measure the error in holes.
        batch_size: Images of a step.
        phases: Phases of the training.
        holes: Random holes.
        perceptual_steps: Steps of the training of the perceptual network.
        remark: Differences from the paper, for the record.
    """

    input: ModelInput
    width: int = 64
    n_training: int = 2000
    n_validation: int = 778
    batch_size: int = 1
    phases: tuple[Phase, ...] = (Phase(100, 1e-5, has_norm=True), Phase(50, 1e-6, has_norm=False))
    holes: Holes = Holes()
    perceptual_steps: int = 3000
    remark: str = ""

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("width", "n_training", "n_validation", "batch_size", "perceptual_steps"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.phases:
            raise InvalidParameter("phases must be at least one, got none")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)


INPAINTER_PRESETS: dict[str, dict[str, InpainterPreset]] = {
    "mammogram-inpainter": {
        "demo": InpainterPreset(
            input=ModelInput((288, 224), framing="breast"),
            width=16,
            n_training=480,
            n_validation=60,
            batch_size=4,
            phases=(
                Phase(6, 2e-3, has_norm=True, one_cycle=True),
                Phase(2, 3e-4, has_norm=False, one_cycle=True),
            ),
            holes=Holes(most=60, sides=(6, 24)),
            perceptual_steps=400,
            remark="288x224 pixels cropped to the breast, a quarter of the maps, batches of 4 images, 8 epochs with "
            "higher learning rates; the preset paper has the paper's 576x448 pixels and recipe",
        ),
        "paper": InpainterPreset(input=ModelInput((576, 448))),
    }
}
"""Recipes by model and variant, ``demo`` or ``paper``."""
