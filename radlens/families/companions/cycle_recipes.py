"""Recipes for pairs of generators: Katzmann et al. 2021, sections 2.5 and 3.2, and what a trial found to work."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from radlens.errors import InvalidParameter
from radlens.networks.generators import Form

__all__ = ["CYCLE_PRESETS", "CycleRecipe"]


@dataclass(frozen=True, kw_only=True)
class CycleRecipe:
    """A recipe.

    Args:
        width: Kernels of the first stage, see `radlens.networks.Generator`.
        form: See `radlens.networks.generators.Form`.
        n_convolutions: Convolutions of a stage of the discriminators.
        steps: Steps of the training; the discriminators and then the generators learn from one batch in each.
        batch_size: Images that the generators change in a step; the discriminators see as many others.
        learning_rate: Highest learning rate of the generators.
        discriminator_rate: Highest learning rate of the discriminators.
        betas: Decay rates of Adam (Kingma and Ba 2015).
        warm_up: Steps in which the learning rates rise; in the second half of the steps they fall to a twentieth.
        clip: Largest norm of the gradient of both generators; None for no limit.
        c1: Constant of DSSIM.
        c2: Constant of DSSIM.
        weight_cycle: Weight of the cycle consistency.
        weight_similarity: Weight of the similarity.
        weight_adversarial: Weight of the discriminators.
        weight_activation: Weight of the classifier.
        similarity_l1: Weight of the mean absolute difference in the similarity.
        turns: Whether images are turned by quarters and mirrored at random.
        roll: Largest shift of the generators' input, pixels; it is taken back before the classifier, so a mark at a
            fixed place gains nothing.
        jitter: Largest shift of the classifier's input, pixels.
        jitter_turns: Whether the classifier's input is turned by quarters.
        noise: Standard deviation of the noise that the classifier's input gets, as a share of the range of values.
        half: Whether convolutions compute in bfloat16 on a machine on which that is faster; the record tells.
        grace: Steps after which alarms may stop the training.
        seed: Seed of the initial weights and of the order of the images.

    Raises:
        InvalidParameter: A value is out of range.
    """

    width: int = 48
    form: Form = "paper"
    n_convolutions: int = 3
    steps: int = 20_000
    batch_size: int = 8
    learning_rate: float = 2e-4
    discriminator_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    warm_up: int = 20
    clip: float | None = None
    c1: float = 0.01
    c2: float = 0.03
    weight_cycle: float = 1.0
    weight_similarity: float = 1.0
    weight_adversarial: float = 1.0
    weight_activation: float = 1.0
    similarity_l1: float = 0.0
    turns: bool = False
    roll: int = 0
    jitter: int = 0
    jitter_turns: bool = False
    noise: float = 0.0
    half: bool = False
    grace: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("width", "n_convolutions", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.form not in get_args(Form):
            raise InvalidParameter(f"form must be one of {', '.join(get_args(Form))}, got {self.form!r}")
        for name in ("learning_rate", "discriminator_rate", "c1", "c2"):
            if not getattr(self, name) > 0:
                raise InvalidParameter(f"{name} must be above 0, got {getattr(self, name)}")
        weights = [f"weight_{each}" for each in ("cycle", "similarity", "adversarial", "activation")]
        for name in (*weights, "similarity_l1", "roll", "jitter", "noise", "grace", "warm_up"):
            if not getattr(self, name) >= 0:
                raise InvalidParameter(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.clip is not None and not self.clip > 0:
            raise InvalidParameter(f"clip must be above 0, got {self.clip}")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {**asdict(self), "betas": list(self.betas)}


_RECOMMENDED = CycleRecipe(
    width=12,
    form="recommended",
    n_convolutions=2,
    steps=4000,
    learning_rate=7e-4,
    discriminator_rate=4e-4,
    betas=(0.5, 0.99),
    clip=2.0,
    c1=1e-4,
    c2=9e-4,
    similarity_l1=8.0,
    turns=True,
    roll=12,
    jitter=2,
    jitter_turns=True,
    noise=0.02,
    half=True,
    grace=200,
)

CYCLE_PRESETS: Mapping[str, CycleRecipe] = {
    "paper": CycleRecipe(),
    "recommended": _RECOMMENDED,
    "demo": replace(_RECOMMENDED, width=8, steps=1500),
}
"""Recipes by name.

``paper`` has the printed losses with all weights 1, DSSIM as printed, and the paper's kernels. Optimiser, learning
rates and batch are those of CycleGAN (Zhu et al. 2017) and ours, since the paper states none. **It gave no usable pair
in a trial**: DSSIM alone hardly sees a change of brightness, so generators may drift to G+ = x + 1 and G- = x - 1, or
to a mark in a corner. ``recommended`` differs in the form and the width of the networks, in squared constants of DSSIM,
in an absolute difference in the similarity, and in that the classifier sees the images shifted, turned and with noise.
``demo`` has narrower kernels and fewer steps: about 15 minutes of one core for images of 64x64 where
bfloat16 is fast, three times that elsewhere.
"""
