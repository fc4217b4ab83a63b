"""Recipes of the classifiers: Sam Millan 2023, Byra et al. 2022 and Katzmann et al. 2021.

They are in sections 3.1 and 3.2.2-3.2.3, in "Deep learning methods", and in section 3.2. Batch sizes of the mammography
networks, epochs and the period of the warm restarts were chosen for radlens, since the papers do not state them.
``demo`` recipes take minutes on two cores with simulated images; their remarks state how they differ from the paper.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.networks import CLASSIFIERS, FIXED_SHAPES
from radlens.phantoms.mammogram import Masses

__all__ = ["CLASSIFIER_PRESETS", "ClassifierPreset", "Loss", "Schedule", "Task", "WarmUp", "lesion_options"]

Task = Literal["patches", "mammograms", "ultrasound", "nodules"]
"""Kind of the classified images, which decides what is simulated or read."""

Loss = Literal["cross-entropy", "focal"]
"""Loss function; ``focal`` is that of Lin et al., ICCV 2017, with gamma 2, as implemented in MONAI."""

Schedule = Literal["plateau", "warm-restarts", "one-cycle"]
"""Schedule of the learning rate: divided by ten after ``patience`` epochs without improvement; cosine annealing with
warm restarts every ``period`` epochs; or raised and lowered once over the run."""


@dataclass(frozen=True)
class WarmUp:
    """First phase of a training, with small images, Adam, and a learning rate that rises and falls once.

    Args:
        epochs: number of epochs, at least 1.
        shape: rows and columns of the images.
        learning_rate: highest learning rate.
        n_patches: number of patches of simulated mammograms, with a lesion in the centre or without a lesion, at the
            pixel spacing of the whole images (Shen et al., Scientific Reports 9:12495, 2019); 0 for downsized images of
            the task.
        spacing_mm: row and column spacing of the patches, where that of the whole images differs from that of the
            simulator, because the crop to the breast is stretched; None for that of the simulator.

    Raises:
        InvalidParameter: A value is out of range.
    """

    epochs: int
    shape: tuple[int, int]
    learning_rate: float = 1e-3
    n_patches: int = 0
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        if self.epochs < 1:
            raise InvalidParameter(f"epochs of the warm-up must be at least 1, got {self.epochs}")
        if len(self.shape) != 2 or min(self.shape) < 32:
            raise InvalidParameter(f"shape of the warm-up must be two numbers of at least 32, got {self.shape}")


@dataclass(frozen=True, kw_only=True)
class ClassifierPreset:
    """A recipe.

    Args:
        task: kind of the classified images.
        network: one of `radlens.networks.CLASSIFIERS`.
        input: preprocessing that the network expects.
        classes: names of the negative and the positive class.
        n_outputs: 2 for a softmax over the classes, 1 for the sigmoid of the positive class.
        n_training: number of simulated training images; data sets are used whole.
        n_validation: number of simulated validation images, which decide on learning rate, end of training and best
            weights.
        n_test: number of simulated images for the evaluation.
        epochs: largest number of epochs; the weights of the epoch with the lowest validation loss are kept.
        batch_size: number of images per step.
        learning_rate: highest learning rate.
        optimizer: ``adam``, or ``sgd`` with momentum 0.9.
        schedule: schedule of the learning rate.
        patience: epochs without improvement before the schedule ``plateau`` lowers the learning rate.
        period: epochs between restarts of the schedule ``warm-restarts``.
        stop_after: epochs without a lower validation loss after which training stops; None for never.
        loss: loss function, in its binary form for one output.
        class_weight: weight of positive images in the loss, relative to negative images; None for the number of
            negative training images over that of positive ones, so that both classes weigh the same.
        flips: axes along which images are flipped at random, 0 for up and down, 1 for left and right.
        rotation: largest angle of random rotations in degrees; pixels beyond the edges are mirrored.
        zoom: largest random change of the size, as a share: 0.1 for 0.9 to 1.1 times the size.
        p_calcifications: share of simulated mammographic lesions that are clusters of calcifications and not masses.
        masses: size and contrast of simulated mammographic masses.
        seed: seed of the simulated images and of the initial weights.
        warm_up: first phase of the training; None to start with full-size images.
        n_members: number of networks, each with its own seed; a prediction is the mean of their probabilities.
        remark: differences from the paper, for the record.

    Raises:
        InvalidParameter: A value is out of range.
    """

    task: Task
    network: str
    input: ModelInput
    classes: tuple[str, str]
    n_outputs: int
    n_training: int
    n_validation: int
    n_test: int
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Schedule = "plateau"
    patience: int = 5
    period: int = 10
    stop_after: int | None = None
    loss: Loss = "cross-entropy"
    class_weight: float | None = 1.0
    flips: tuple[int, ...] = ()
    rotation: float = 0.0
    zoom: float = 0.0
    p_calcifications: float = 0.3
    masses: Masses = field(default_factory=Masses)
    seed: int = 1
    warm_up: WarmUp | None = None
    n_members: int = 1
    remark: str = ""

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        choices = {"task": get_args(Task), "network": CLASSIFIERS, "loss": get_args(Loss)}
        choices |= {"schedule": get_args(Schedule), "optimizer": ("adam", "sgd")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InvalidParameter(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.n_outputs not in (1, 2):
            raise InvalidParameter(f"n_outputs must be 1 or 2, got {self.n_outputs}")
        for name in ("n_training", "n_validation", "n_test", "epochs", "batch_size", "n_members"):
            least = 2 if name.startswith("n_") and name != "n_members" else 1
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "class_weight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidParameter(f"{name} must be above 0, got {value}")
        if self.input.shape != FIXED_SHAPES.get(self.network, self.input.shape):
            raise InvalidParameter(
                f"input of {self.network} must have shape {FIXED_SHAPES[self.network]}, got {self.input.shape}"
            )
        if not 0 <= self.zoom < 1:
            raise InvalidParameter(f"zoom must be at least 0 and below 1, got {self.zoom}")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)


def lesion_options(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what simulated lesions of a recipe look like, as arguments of the simulator of mammograms.

    Args:
        preset: JSON values of a recipe, such as those of a training record; empty for the lesions of the simulator.
    """
    masses = preset.get("masses")
    return {
        "p_calcifications": preset.get("p_calcifications", 0.3),
        "masses": Masses(**masses) if masses else Masses(),
    }


_PATCHES = ClassifierPreset(
    task="patches",
    network="resnet50",
    input=ModelInput((224, 224)),
    classes=("normal", "malignant"),
    n_outputs=2,
    n_training=4872,
    n_validation=1218,
    n_test=1526,
    epochs=50,
    batch_size=32,
    learning_rate=1e-3,
    flips=(0, 1),
    rotation=30.0,
)
_MAMMOGRAMS = ClassifierPreset(
    task="mammograms",
    network="efficientnet_b0",
    input=ModelInput((1024, 512), framing="breast"),
    classes=("normal", "malignant"),
    n_outputs=2,
    n_training=4630,
    n_validation=1158,
    n_test=1441,
    epochs=50,
    batch_size=8,
    learning_rate=1e-2,
    optimizer="sgd",
    schedule="warm-restarts",
)
_ULTRASOUND = ClassifierPreset(
    task="ultrasound",
    network="resnet18",
    input=ModelInput((224, 224)),
    classes=("benign", "malignant"),
    n_outputs=1,
    n_training=328,
    n_validation=80,
    n_test=136,
    epochs=100,
    batch_size=12,
    learning_rate=1e-3,
    stop_after=8,
    flips=(1,),
    rotation=10.0,
)
_MASSES = ClassifierPreset(
    task="mammograms",
    network="mobilenet",
    input=ModelInput((576, 448)),
    classes=("healthy", "mass"),
    n_outputs=2,
    n_training=2585,
    n_validation=646,
    n_test=1112,
    epochs=250,
    batch_size=4,
    learning_rate=1e-5,
    patience=250,
    stop_after=20,
    flips=(0, 1),
    rotation=15.0,
    zoom=0.1,
    p_calcifications=0.0,
    masses=Masses(diameter_mm=(10.0, 28.0)),
    warm_up=WarmUp(epochs=10, shape=(224, 224), n_patches=50_000),
    remark="the numbers of images are those of the paper, 1231 scans with masses and 2000 healthy ones for training, "
    "of which a fifth validates, and 334 and 778 for the test; simulated images have both classes equally often, "
    "and masses of 10 to 28 mm, so that the task is about as hard as the paper's; angle of rotations, zoom, patience "
    "and the training on patches are ours, since the paper does not state them",
)
_NODULES = ClassifierPreset(
    task="nodules",
    network="convnet",
    # -1000 to 400 HU become 0 to 1.
    input=ModelInput((64, 64), scaling="fixed", mean=(-1000.0,), std=(1400.0,)),
    classes=("benign", "malignant"),
    n_outputs=2,
    n_training=430,
    n_validation=107,
    n_test=235,
    epochs=40,
    batch_size=32,
    learning_rate=2e-4,
    class_weight=None,
    patience=4,
    stop_after=10,
    flips=(0, 1),
    rotation=180.0,
    remark="the numbers of images are those of the paper: 537 for training, of which a fifth validates, and 235 for "
    "the test; simulated images have both classes equally often; learning rate, batch size, flips, rotations and the "
    "early stop are ours, since the paper trains until convergence and does not state them, and without them a ConvNet "
    "learns so few images by heart",
)
_MORE_NODULES: dict[str, Any] = {
    "n_training": 2400,
    "n_validation": 300,
    "n_test": 400,
    "epochs": 6,
    "schedule": "one-cycle",
    "stop_after": None,
    "learning_rate": 2e-4,
    "batch_size": 32,
    "remark": "more simulated images than the paper's 537, and six epochs with a learning rate that is raised and "
    "lowered once; the weights of the epoch with the lowest validation loss are kept. The preset paper has the paper's "
    "numbers",
}

_SHORT: dict[str, Any] = {
    "schedule": "one-cycle",
    "stop_after": None,
    "remark": "fewer epochs than in the paper: most of them with images of 96x96 pixels, the learning rate raised and "
    "lowered once; the preset paper has the paper's recipe",
}

_FRAMED_SPACING_MM = (0.75, 0.47)
"""Median row and column spacing of simulated mammograms of 288x224 pixels, cropped to the breast and stretched to
288x224, mm."""

_SMALL_MASSES: dict[str, Any] = {
    "input": ModelInput((288, 224), framing="breast"),
    "n_training": 2800,
    "n_validation": 200,
    "n_test": 400,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "schedule": "one-cycle",
    "stop_after": None,
    "flips": (0,),
    "rotation": 0.0,
    "zoom": 0.0,
    "remark": "288x224 pixels of the breast, mirrored up and down at random, the learning rate raised and lowered "
    "once, after patches at the same pixel spacing; masses of 10 to 28 mm, so that the task is about as hard as the "
    "paper's; the preset paper has the paper's 576x448 pixels and recipe",
}

_SECOND: dict[str, Any] = {"network": "resnet18", "seed": 2}
"""The second classifier of masses or of nodules, which tells whether a changed image looks healthy, or benign, to a
network that had no part in the change: another network, with other images and other initial weights. The papers have
none."""

CLASSIFIER_PRESETS: dict[str, dict[str, ClassifierPreset]] = {
    "patch-resnet50": {
        "demo": replace(
            _PATCHES,
            **_SHORT,
            n_training=400,
            n_validation=160,
            n_test=400,
            epochs=2,
            batch_size=16,
            warm_up=WarmUp(epochs=8, shape=(96, 96)),
        ),
        "paper": _PATCHES,
    },
    "patch-mobilenet-v2": {
        "demo": replace(
            _PATCHES,
            **_SHORT,
            network="mobilenet_v2",
            n_training=960,
            n_validation=160,
            n_test=400,
            epochs=4,
            batch_size=16,
            warm_up=WarmUp(epochs=12, shape=(96, 96)),
        ),
        "paper": replace(_PATCHES, network="mobilenet_v2"),
    },
    "mammogram-efficientnet-b0": {
        "demo": replace(
            _MAMMOGRAMS,
            input=ModelInput((512, 256), framing="breast"),
            n_training=480,
            n_validation=120,
            n_test=300,
            epochs=4,
            period=4,
            flips=(0,),
            p_calcifications=0.0,
            warm_up=WarmUp(epochs=8, shape=(112, 112), n_patches=1200),
            remark="512x256 pixels, masses only, mirrored up and down at random, after patches at the same pixel "
            "spacing; the preset paper has the paper's 1024x512 pixels and recipe",
        ),
        "paper": _MAMMOGRAMS,
    },
    "mammogram-mobilenet": {
        "demo": replace(
            _MASSES,
            **_SMALL_MASSES,
            warm_up=WarmUp(epochs=3, shape=(64, 96), n_patches=8000, spacing_mm=_FRAMED_SPACING_MM),
        ),
        "paper": _MASSES,
    },
    "mammogram-resnet18": {
        "demo": replace(
            _MASSES,
            **(_SMALL_MASSES | _SECOND),
            warm_up=WarmUp(epochs=2, shape=(64, 96), n_patches=8000, spacing_mm=_FRAMED_SPACING_MM),
        ),
        "paper": replace(_MASSES, **_SECOND),
    },
    "ultrasound-resnet": {
        "demo": replace(
            _ULTRASOUND,
            **_SHORT,
            n_training=800,
            n_validation=160,
            n_test=400,
            epochs=3,
            warm_up=WarmUp(epochs=10, shape=(96, 96)),
        ),
        "paper": _ULTRASOUND,
    },
    "nodule-convnet": {"demo": replace(_NODULES, **_MORE_NODULES), "paper": _NODULES},
    "nodule-resnet18": {
        "demo": replace(_NODULES, **(_MORE_NODULES | _SECOND | {"learning_rate": 1e-3})),
        "paper": replace(_NODULES, **_SECOND),
    },
}
"""Recipes by model and variant, ``demo`` or ``paper``."""
