"""Preprocessed images of the classifiers, simulated or read from a data set on the user's disk.

They are stored in memory-mapped files in half precision, 16 bits per pixel, so 7229 mammograms of 1024x512 pixels need
disk and little memory. Three digits of a standardised pixel are far more precise than its noise.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from radlens.datasets import Case, ModelInput, draw_patches, open_dataset, split_patients
from radlens.errors import InvalidInput, InvalidParameter, TrainingError
from radlens.families.classifier.recipes import ClassifierPreset, Task, lesion_options
from radlens.phantoms import mammogram, nodule, ultrasound
from radlens.phantoms.fields import pair
from radlens.pools import mapped

__all__ = [
    "MASS",
    "PARTS",
    "TASK_DATA",
    "ImageSet",
    "build_sets",
    "classes_of",
    "native_images",
    "open_set",
    "part_seed",
    "require_data",
    "simulate_image",
]

PARTS = ("training", "validation", "test")
"""Sets without common images, and for a data set without common patients."""

MASS = "mass"
"""Positive class of recipes for masses, benign or malignant."""

WARM_UP = "patches"
"""Set of patches for the warm-up of whole-image networks."""

TASK_DATA: dict[Task, tuple[str, ...]] = {
    "patches": ("cbis-ddsm", "cbis-ddsm-patches", "omi-db"),
    "mammograms": ("cbis-ddsm", "omi-db", "rsna-2022"),
    "ultrasound": ("busi", "oasbud"),
    "nodules": ("lidc-idri",),
}
"""Data sets that fit each task; patches need boxes around lesions."""

_NUMBERS = {part: number for number, part in enumerate((*PARTS, WARM_UP))}
_HELD_OUT = 0.2
_CHUNK = 8
_NEGATIVE: dict[Task, tuple[str, ...]] = {
    "patches": ("normal",),
    "mammograms": ("normal", "benign", "non-malignant"),
    "ultrasound": ("benign",),
    "nodules": ("benign",),
}
_DTYPE = np.dtype(np.float16)

Progress = Callable[[str, float, float], None]
Labelled = tuple[np.ndarray, int]
"""Image ``(c, h, w)`` float16 and the index of its class."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one part.

    Attributes:
        images: ``(n, c, h, w)`` float16, preprocessed, memory-mapped.
        labels: ``(n,)`` int64, indices of classes.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def part_seed(seed: int, part: str, number: int) -> tuple[int, int, int]:
    """Return the seed of the simulated image ``number`` of a part: no two parts share an image."""
    return seed, _NUMBERS[part], number


def classes_of(preset: ClassifierPreset, data: str | None) -> tuple[str, str]:
    """Return the negative and the positive class."""
    # Every cropped image of CBIS-DDSM shows a lesion, so none is normal.
    return ("benign", "malignant") if data == "cbis-ddsm-patches" else preset.classes


def require_data(preset: ClassifierPreset, data: str | None, root: str | Path | None) -> None:
    """Check that a data set fits the recipe, and that it is given along with its folder.

    Raises:
        InvalidParameter: The data set does not fit the recipe, or one of data and root is missing.
    """
    if data is not None and preset.classes[1] == MASS:
        raise InvalidParameter(
            f"classes healthy and mass need simulated images, got {data}: no data set that radlens reads has both "
            "healthy mammograms and masses apart from calcifications"
        )
    if data is not None and data not in TASK_DATA[preset.task]:
        raise InvalidParameter(f"data for {preset.task} must be one of {', '.join(TASK_DATA[preset.task])}, got {data}")
    if (data is None) != (root is None):
        got = "data without root" if root is None else "root without data"
        raise InvalidParameter(f"data must be given with root, the folder where it is, got {got}")


def build_sets(
    folder: Path,
    preset: ClassifierPreset,
    *,
    data: str | None = None,
    root: str | Path | None = None,
    n_workers: int = 2,
    on_progress: Progress | None = None,
) -> dict[str, ImageSet]:
    """Simulate or read the parts that are missing in ``folder``, and open every part.

    A fifth of a data set's patients is for the test, a fifth of the others for validation.

    Args:
        folder: folder of the files.
        preset: recipe.
        data: name of a data set; None to simulate images.
        root: folder of the data set.
        n_workers: number of processes that simulate or read.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        InvalidParameter: The data set does not fit the task, or one of data and root is missing.
        DatasetError: The data set cannot be read.
        TrainingError: A part has images of a single class.
    """
    require_data(preset, data, root)
    report = on_progress or (lambda stage, done, total: None)
    names = (*PARTS, WARM_UP) if preset.warm_up and preset.warm_up.n_patches else PARTS
    if not all(_is_complete(folder, name) for name in names):
        folder.mkdir(parents=True, exist_ok=True)
        jobs = _simulated(preset) if data is None or root is None else _recorded(preset, data, root)
        if WARM_UP in names:
            jobs[WARM_UP] = _warm_up_jobs(preset)
        with mapped(n_workers, _CHUNK) as run:
            for name in names:
                if not _is_complete(folder, name):
                    _write(folder, name, _reported(run(jobs[name]), f"{name} images", len(jobs[name]), report))
    shapes = dict.fromkeys(PARTS, preset.input.image_shape)
    if WARM_UP in names:
        shapes[WARM_UP] = _warm_up_input(preset).image_shape
    return {name: open_set(folder, name, shapes[name]) for name in names}


def open_set(folder: Path, name: str, image_shape: tuple[int, int, int]) -> ImageSet:
    """Open a part that `build_sets` wrote, with images of shape ``image_shape``, ``(c, h, w)``."""
    labels = np.load(_labels_file(folder, name))
    return ImageSet(np.memmap(_images_file(folder, name), _DTYPE, "r", shape=(len(labels), *image_shape)), labels)


Job = Callable[[], list[Labelled]]


def _reported(drawn: Iterable[list[Labelled]], stage: str, total: int, report: Progress) -> Iterator[Labelled]:
    for done, found in enumerate(drawn, 1):
        yield from found
        report(stage, done, total)


def _simulated(preset: ClassifierPreset) -> dict[str, list[Job]]:
    sizes = {"training": preset.n_training, "validation": preset.n_validation, "test": preset.n_test}
    return {
        part: [
            partial(_draw, preset, preset.task, preset.input, None, part_seed(preset.seed, part, i)) for i in range(n)
        ]
        for part, n in sizes.items()
    }


def _warm_up_input(preset: ClassifierPreset) -> ModelInput:
    assert preset.warm_up is not None
    return ModelInput(preset.warm_up.shape, n_channels=preset.input.n_channels)


def _warm_up_jobs(preset: ClassifierPreset) -> list[Job]:
    assert preset.warm_up is not None
    small = _warm_up_input(preset)
    spacing = preset.warm_up.spacing_mm or mammogram.FIELD_HEIGHT_MM / preset.input.shape[0]
    seeds = [part_seed(preset.seed, WARM_UP, i) for i in range(preset.warm_up.n_patches)]
    return [partial(_draw, preset, "patches", small, spacing, seed) for seed in seeds]


def _draw(
    preset: ClassifierPreset,
    task: Task,
    network: ModelInput,
    spacing_mm: float | tuple[float, float] | None,
    seed: tuple[int, ...],
) -> list[Labelled]:
    """Simulate one image; negative and positive ones alternate."""
    label = seed[-1] % 2
    pixels = simulate_image(
        task, network, preset.classes[label], seed, lesions=lesion_options(preset.to_json()), spacing_mm=spacing_mm
    )
    return [(network.prepare(pixels).pixels.astype(_DTYPE), label)]


def simulate_image(
    task: Task,
    network: ModelInput,
    category: str,
    seed: tuple[int, ...],
    *,
    lesions: Mapping[str, Any] | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Return the pixels ``(H, W)`` of a simulated image of a class.

    Args:
        task: kind of image.
        network: input of the network, which has the shape of the image.
        category: class.
        seed: seed of the image.
        lesions: arguments of the simulator for mammographic lesions, from `.recipes.lesion_options`; None for its
            defaults.
        spacing_mm: pixel spacing of a patch, before ``scale``; None for that of the simulator.
        scale: rows and columns over those of the network, for the same field of view.
    """
    shape = tuple(round(size * scale) for size in network.shape)
    if task == "ultrasound":
        return ultrasound.sample(category, image_shape=shape, seed=seed).pixels
    if task == "nodules":
        return nodule.sample(category, image_shape=shape, seed=seed).pixels
    options: dict[str, Any] = {"image_shape": shape, **(lesions or {}), "seed": seed}
    if task == "mammograms":
        return mammogram.sample(category, **options).pixels
    rows, columns = pair(spacing_mm or mammogram.PATCH_SPACING_MM)
    return mammogram.sample_patch(category, spacing_mm=(rows / scale, columns / scale), **options).pixels


NATIVE_SCALES = (1.0, 1.25, 1.5, 2.0)
"""Sizes of detectors' images over that of the network, with which `native_images` are drawn in turn."""


def native_images(
    task: Task,
    network: ModelInput,
    classes: Sequence[str],
    n: int,
    *,
    lesions: Mapping[str, Any] | None = None,
    seed: int,
    n_workers: int = 2,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """Return simulated images as the network gets them from detectors of several resolutions.

    The images of a training are drawn on the grid of the network. An image from a detector has finer pixels, and its
    preprocessing averages them, which makes its fine structures fainter.

    Args:
        task: kind of image.
        network: preprocessing.
        classes: names of the two classes, which alternate.
        n: number of images.
        lesions: arguments of the simulator for mammographic lesions, from `.recipes.lesion_options`; None for its
            defaults.
        seed: seed of the images.
        n_workers: number of processes.
        on_progress: callback ``on_progress(stage, done, total)``.

    Returns:
        ``(n, c, h, w)`` float16.
    """
    report = on_progress or (lambda stage, done, total: None)
    jobs: list[Job] = [partial(_draw_native, task, network, classes, lesions, (seed, k)) for k in range(n)]
    with mapped(n_workers, _CHUNK) as run:
        return np.stack([image for image, _ in _reported(run(jobs), "drawing images", n, report)])


def _draw_native(
    task: Task, network: ModelInput, classes: Sequence[str], lesions: Mapping[str, Any] | None, seed: tuple[int, int]
) -> list[Labelled]:
    label, scale = seed[1] % 2, NATIVE_SCALES[seed[1] // 2 % len(NATIVE_SCALES)]
    pixels = simulate_image(task, network, classes[label], seed, lesions=lesions, scale=scale)
    return [(network.prepare(pixels).pixels.astype(_DTYPE), label)]


def _recorded(preset: ClassifierPreset, data: str, root: str | Path) -> dict[str, list[Job]]:
    classes = classes_of(preset, data)
    cases = [case for case in open_dataset(data, root) if _is_used(case, preset.task, data)]
    others, test = split_patients(cases, validation=_HELD_OUT)
    training, validation = split_patients(others, validation=_HELD_OUT)
    parts = {"training": training, "validation": validation, "test": test}
    return {
        part: [
            partial(_read, case, preset, data, classes, part_seed(preset.seed, part, i))
            for i, case in enumerate(chosen)
        ]
        for part, chosen in parts.items()
    }


def _is_used(case: Case, task: Task, data: str) -> bool:
    return task == "patches" or case.label == "malignant" or case.label in _NEGATIVE[task]


def _read(
    case: Case, preset: ClassifierPreset, data: str, classes: tuple[str, str], seed: tuple[int, ...]
) -> list[Labelled]:
    """Read one image of a data set, or cut patches from it; an image too small for patches yields an empty list."""
    sample = case.load()
    if preset.task != "patches" or data == "cbis-ddsm-patches":
        return [(_prepared(preset.input, sample.pixels), int(case.label == "malignant"))]
    try:
        patches = draw_patches(sample, size=preset.input.shape[0], seed=seed[-1])
    except InvalidInput:
        return []
    return [
        (_prepared(preset.input, patch.pixels), classes.index(patch.label))
        for patch in patches
        if patch.label in classes
    ]


def _prepared(network: ModelInput, pixels: np.ndarray) -> np.ndarray:
    return network.prepare(pixels).pixels.astype(_DTYPE)


def _is_complete(folder: Path, name: str) -> bool:
    return _labels_file(folder, name).exists()


def _labels_file(folder: Path, name: str) -> Path:
    return folder / f"{name}-labels.npy"


def _images_file(folder: Path, name: str) -> Path:
    return folder / f"{name}-images.float16"


def _write(folder: Path, name: str, drawn: Iterable[Labelled]) -> None:
    """Write images one by one, then the labels, whose file marks a complete part."""
    labels = []
    with _images_file(folder, name).open("wb") as file:
        for image, label in drawn:
            file.write(image.tobytes())
            labels.append(label)
    if len(set(labels)) < 2:
        raise TrainingError(f"{name} images must be of both classes, got {len(labels)} images of {len(set(labels))}")
    np.save(_labels_file(folder, name), np.array(labels, dtype=np.int64))
