"""BUSI, breast ultrasound images: Al-Dhabyani et al., Data in Brief 28:104863, 2020.

The archive ``Dataset_BUSI_with_GT`` holds one folder per class, with images numbered from 1 and a mask for each; an
image of several masses has one more mask per mass:

    benign/benign (1).png    benign/benign (1)_mask.png    benign/benign (1)_mask_1.png
    malignant/...            normal/...

Images are 8 bit, mostly with three equal colour channels. Neither patients nor pixel spacing are published: every image
counts as a different patient here, so a patient with several images may occur on both sides of a split.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from radlens.datasets.case import Case, Dataset, Label, Sample
from radlens.datasets.files import Root, mask_box
from radlens.errors import DatasetError, InvalidInput

__all__ = ["open_busi"]

_CLASSES: tuple[Label, ...] = ("benign", "malignant", "normal")
_PICTURE = re.compile(r"(?P<stem>(?P<label>benign|malignant|normal) \((?P<number>\d+)\))(?P<mask>_mask(_\d+)?)?\.png")
_FOREGROUND = 127
"""Grey value above which a mask pixel is set; masks hold 0 and 255."""


def open_busi(root: str | Path) -> Dataset:
    """Open BUSI; each box is the bounding box of a mask.

    Args:
        root: folder of the three classes, or the folder that holds ``Dataset_BUSI_with_GT``.

    Raises:
        DatasetError: a class, an image or the first mask of an image is missing.
    """
    files = Root(Path(root))
    inner = files.path / "Dataset_BUSI_with_GT"
    base = inner if inner.is_dir() else files.path
    return Dataset("busi", tuple(case for label in _CLASSES for case in _cases(files, base / label, label)))


def _cases(files: Root, folder: Path, label: Label) -> Iterator[Case]:
    stems: dict[str, int] = {}
    masks: dict[str, list[Path]] = {}
    for path in sorted(files.require_folder(folder).iterdir()):
        match = _PICTURE.fullmatch(path.name)
        if match is None or match["label"] != label:
            continue
        stems[match["stem"]] = int(match["number"])
        if match["mask"]:
            masks.setdefault(match["stem"], []).append(path)
    if not stems:
        raise DatasetError(f"{files.name(folder)}: expected pictures named '{label} (1).png', got none")
    for stem, number in sorted(stems.items(), key=lambda item: item[1]):
        picture = files.require_file(folder / f"{stem}.png")
        files.require_file(folder / f"{stem}_mask.png")
        yield Case(
            patient_id=f"busi-{label}-{number}",
            image_id=stem,
            label=label,
            name=files.name(picture),
            paths=(picture, *masks[stem]),
            loader=partial(_load, files, picture, tuple(masks[stem]), label),
        )


def _load(files: Root, picture: Path, masks: tuple[Path, ...], label: Label) -> Sample:
    pixels = files.picture(picture)
    if label == "normal":  # the masks of normal images are empty
        return Sample(pixels)
    found = [_mask(files, path, pixels.shape) for path in masks]
    return Sample(
        pixels,
        boxes=tuple(box for _, box in found),
        masks=tuple(mask for mask, _ in found),
        labels=(label,) * len(found),
    )


def _mask(files: Root, path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    mask = files.picture(path) > _FOREGROUND
    if mask.shape != shape:
        raise DatasetError(
            f"{files.name(path)}: expected a mask of {shape[0]}x{shape[1]} pixels like its image, "
            f"got {mask.shape[0]}x{mask.shape[1]}"
        )
    try:
        return mask, mask_box(mask)
    except InvalidInput as error:
        raise DatasetError(f"{files.name(path)}: {error}") from None
