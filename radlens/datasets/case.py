"""Common form of all data sets: a sequence of immutable cases that load pixels, boxes and masks on demand."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import numpy as np

from radlens.errors import DatasetError, InvalidInput

__all__ = ["LABELS", "Box", "Case", "Dataset", "Label", "Laterality", "Sample"]

Label = Literal["normal", "benign", "non-malignant", "malignant"]
Laterality = Literal["L", "R"]
Box = tuple[float, float, float, float]

LABELS: tuple[Label, ...] = ("normal", "benign", "non-malignant", "malignant")
"""Labels of images and lesions; ``non-malignant`` where a data set does not distinguish benign from normal."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The content of one image.

    Attributes:
        pixels: ``(h, w)`` float32. A mammogram is attenuation bright, in the units of its file; ultrasound is a B-mode
            image, 0 to 255, brighter where the echo is stronger; CT is in Hounsfield units.
        boxes: one ``(x0, y0, x1, y1)`` per lesion, half open, in pixels of the image; may extend beyond its edge.
        masks: one ``(h, w)`` bool per lesion, in the order of ``boxes``; empty where the data set has no outlines.
        labels: label of each lesion, in the order of ``boxes``.
        spacing_mm: millimetres between neighbouring rows and between neighbouring columns; None where unknown.

    Raises:
        InvalidInput: shapes or lengths are inconsistent, or a box has no pixel inside the image.
    """

    pixels: np.ndarray
    boxes: tuple[Box, ...] = ()
    masks: tuple[np.ndarray, ...] = ()
    labels: tuple[Label, ...] = ()
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise InvalidInput(f"pixels must be (h, w) float32, got {self.pixels.ndim} axes of {self.pixels.dtype}")
        if len(self.labels) != len(self.boxes):
            raise InvalidInput(f"expected one label per box, got {len(self.labels)} for {len(self.boxes)}")
        if self.masks and len(self.masks) != len(self.boxes):
            raise InvalidInput(f"expected one mask per box, got {len(self.masks)} for {len(self.boxes)}")
        for mask in self.masks:
            _require_mask(mask, self.pixels.shape)
        for number, box in enumerate(self.boxes):
            _require_box(number, box, self.pixels.shape)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of a data set, which is read on demand.

    ``repr`` leaves out the fields that could identify a patient, so that a case can be logged.

    Attributes:
        patient_id: the data set's identifier of the patient; the same for both breasts and for every visit.
        image_id: the data set's identifier of the image; unique in the data set.
        label: one of `LABELS`.
        name: path of the image file relative to the root, with the patient replaced by ``<patient>``.
        paths: files that are read, the image first.
        view: view position, for example ``CC`` or ``MLO``; None where unknown.
        laterality: side of the breast; None where unknown.
        spacing_mm: millimetres between rows and between columns; None where unknown before the image is read.
        birads: BI-RADS assessment as the data set writes it; None where unknown.
        loader: function that reads the image.
    """

    patient_id: str = field(repr=False)
    image_id: str = field(repr=False)
    label: Label
    name: str
    paths: tuple[Path, ...] = field(repr=False)
    loader: Callable[[], Sample] = field(repr=False, compare=False)
    view: str | None = None
    laterality: Laterality | None = None
    spacing_mm: tuple[float, float] | None = None
    birads: str | None = None

    def load(self) -> Sample:
        """Read the image with its boxes and masks.

        Raises:
            DatasetError: a file is missing, unreadable or inconsistent with the others; the message names it.
        """
        try:
            return self.loader()
        except InvalidInput as error:
            raise DatasetError(f"{self.name}: {error}") from None


@dataclass(frozen=True)
class Dataset(Sequence[Case]):
    """Cases in the order of the data set's tables.

    Attributes:
        name: name of the data set.
        cases: images of the data set.
        n_left_out: number of images on disk that are excluded; the opening function documents the criteria.
    """

    name: str
    cases: tuple[Case, ...] = field(repr=False)
    n_left_out: int = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> Case: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...

    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        """Return one case, or the cases of a slice."""
        return self.cases[index]

    def counts(self) -> dict[Label, int]:
        """Return the number of images of each label that occurs."""
        found = Counter(case.label for case in self.cases)
        return {label: found[label] for label in LABELS if found[label]}


def _require_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    if mask.shape != shape or mask.dtype != np.bool_:
        raise InvalidInput(f"mask must be {shape[0]}x{shape[1]} bool, got shape {mask.shape} of {mask.dtype}")


def _require_box(number: int, box: Box, shape: tuple[int, ...]) -> None:
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise InvalidInput(f"box {number} must have x0 < x1 and y0 < y1")
    if x1 <= 0 or y1 <= 0 or x0 >= shape[1] or y0 >= shape[0]:
        raise InvalidInput(f"box {number} must overlap the image of {shape[0]}x{shape[1]} pixels")
