"""Healthy mammograms for the inpainter, simulated or read from a data set on the user's disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from radlens.datasets import Case, Label, ModelInput, open_dataset, split_patients
from radlens.errors import InvalidInput, InvalidParameter, TrainingError
from radlens.families.inpainter.recipes import InpainterPreset
from radlens.images.breast import breast_region
from radlens.phantoms import mammogram
from radlens.pools import mapped

__all__ = ["DATA", "PARTS", "HealthyImages", "build_parts", "require_data"]

PARTS = ("training", "validation")
"""Parts without common images, and for a data set without common patients."""

HEALTHY: dict[str, Label] = {"omi-db": "normal", "rsna-2022": "non-malignant"}
"""Label of the images to learn from, by data set with whole mammograms. RSNA 2022 does not tell benign breasts from
normal ones; every image of CBIS-DDSM shows a lesion."""

DATA = tuple(HEALTHY)
"""Names of the data sets."""

_SEED = 3
"""Seed of the simulated images; classifiers use others."""

_HELD_OUT = 0.2
_CHUNK = 8
_DTYPE = np.dtype(np.float16)

Progress = Callable[[str, float, float], None]
Job = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class HealthyImages:
    """Images of one part.

    Attributes:
        images: ``(n, c, h, w)`` float16, preprocessed, memory-mapped.
        regions: ``(n, h, w)`` bool, the breast.
    """

    images: np.ndarray
    regions: np.ndarray

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def require_data(data: str | None, root: Path | None) -> None:
    """Raise InvalidParameter for an unknown data set, or if one of data and root is missing."""
    if data is not None and data not in DATA:
        raise InvalidParameter(f"data for an inpainter must be one of {', '.join(DATA)}, got {data}")
    if (data is None) != (root is None):
        got = "data without root" if root is None else "root without data"
        raise InvalidParameter(f"data must be given with root, the folder where it is, got {got}")


def build_parts(
    folder: Path,
    preset: InpainterPreset,
    *,
    data: str | None = None,
    root: Path | None = None,
    n_workers: int = 2,
    on_progress: Progress,
) -> dict[str, HealthyImages]:
    """Simulate or read the parts that are missing in ``folder``, and open them.

    Args:
        folder: Folder of the files.
        preset: Recipe.
        data: Name of a data set; None to simulate images.
        root: Folder of the data set.
        n_workers: Number of processes.
        on_progress: Callback ``on_progress(stage, done, total)``.

    Raises:
        DatasetError: The data set cannot be read.
        TrainingError: There is no healthy image.
        InvalidInput: The healthy images are of fewer than two patients.
    """
    if not all(_file(folder, part).exists() for part in PARTS):
        folder.mkdir(parents=True, exist_ok=True)
        jobs = _simulated(preset) if data is None or root is None else _recorded(preset, data, root)
        with mapped(n_workers, _CHUNK) as run:
            for part in PARTS:
                if not _file(folder, part).exists():
                    _write(folder, part, run(jobs[part]), len(jobs[part]), on_progress)
    return {part: _opened(folder, part) for part in PARTS}


def _simulated(preset: InpainterPreset) -> dict[str, list[Job]]:
    sizes = {"training": preset.n_training, "validation": preset.n_validation}
    return {
        part: [partial(_draw, preset.input, (_SEED, number, k)) for k in range(sizes[part])]
        for number, part in enumerate(PARTS)
    }


def _draw(network: ModelInput, seed: tuple[int, ...]) -> np.ndarray:
    pixels = mammogram.sample("normal", image_shape=network.shape, seed=seed).pixels
    return network.prepare(pixels).pixels.astype(_DTYPE)


def _recorded(preset: InpainterPreset, data: str, root: Path) -> dict[str, list[Job]]:
    healthy = [case for case in open_dataset(data, root) if case.label == HEALTHY[data]]
    if not healthy:
        raise TrainingError(
            f"{data} must have images that are {HEALTHY[data]}, got none; the inpainter learns from them"
        )
    training, validation = split_patients(healthy, validation=_HELD_OUT)
    read = {"training": training, "validation": validation}
    return {part: [partial(_read, case, preset.input) for case in cases] for part, cases in read.items()}


def _read(case: Case, network: ModelInput) -> np.ndarray:
    return network.prepare(case.load().pixels).pixels.astype(_DTYPE)


def _file(folder: Path, part: str) -> Path:
    return folder / f"{part}-images.npy"


def _write(folder: Path, part: str, drawn: Iterable[np.ndarray], total: int, report: Progress) -> None:
    """Write images one by one; the last step gives the file its name, which marks a complete part."""
    draft = folder / f"{part}-images.tmp"
    stored: np.ndarray | None = None
    for done, image in enumerate(drawn, 1):
        if stored is None:
            stored = np.lib.format.open_memmap(draft, "w+", _DTYPE, (total, *image.shape))
        stored[done - 1] = image
        report(f"{part} images", done, total)
    assert isinstance(stored, np.memmap), "a part has images"
    stored.flush()
    draft.replace(_file(folder, part))


def _opened(folder: Path, part: str) -> HealthyImages:
    images = np.load(_file(folder, part), mmap_mode="r")
    return HealthyImages(images, np.stack([_region(image) for image in images]))


def _region(image: np.ndarray) -> np.ndarray:
    """Return the breast in a preprocessed image; the whole image if all pixels have one value."""
    try:
        return breast_region(image.mean(axis=0, dtype=np.float32))
    except InvalidInput:
        return np.ones(image.shape[1:], dtype=bool)
