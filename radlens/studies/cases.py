"""The images of a study with their truth, on the grid of the network: simulated, or from a data set on disk.

Training has not seen these images: they are the test part of the training data, with the same seeds or patients.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from radlens.datasets import LABELS, Box, Case, ModelInput, Patch, Sample, draw_patches, open_dataset, split_patients
from radlens.errors import InvalidInput, InvalidParameter
from radlens.families.classifier.recipes import Task
from radlens.families.classifier.training_data import MASS, TASK_DATA
from radlens.phantoms import mammogram, nodule, ultrasound
from radlens.phantoms.fields import tight_box
from radlens.phantoms.mammogram import USUAL_MASSES, Masses
from radlens.pools import process_pool
from radlens.studies.store import Arrays, Key, Store

__all__ = [
    "CASES",
    "CaseSet",
    "CaseSource",
    "Cases",
    "Part",
    "StudyCase",
    "open_cases",
    "patch_with_boxes",
    "simulated_sample",
]

CASES = "cases"
"""Stage of the store with the images."""

Part = Literal["test", "all"]
"""Part of a data set: the fifth of the patients that training holds out for its test, or all patients, for models that
were not trained with the data set."""

_TEST_SEED = (1, 2)
_HELD_OUT = 0.2

_FEW = 16
"""Number of images below which starting processes takes longer than drawing the images."""

_USED: dict[Task, tuple[str, ...]] = {
    "patches": LABELS,
    "mammograms": LABELS,
    "ultrasound": ("benign", "malignant"),
    "nodules": ("benign", "malignant"),
}

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class StudyCase:
    """One image.

    Attributes:
        name: number in the set, from 1; it does not identify a patient.
        label: 1 for the positive class, malignant or mass, otherwise 0.
        sample: image on the grid of the network, unscaled, with boxes, masks and spacing.
        image: ``(c, h, w)`` float32, input of the network.
        key: key of the image in the store.
    """

    name: str
    label: int
    sample: Sample
    image: Tensor
    key: Key

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes of the malignant lesions, or of all lesions if no lesion is malignant."""
        malignant = tuple(
            box for box, label in zip(self.sample.boxes, self.sample.labels, strict=True) if label == "malignant"
        )
        return malignant or self.sample.boxes

    @property
    def mask(self) -> np.ndarray:
        """``(h, w)`` bool: union of the masks of all lesions; all false without masks."""
        found = np.zeros(self.sample.pixels.shape, dtype=bool)
        for mask in self.sample.masks:
            found |= mask
        return found


@dataclass(frozen=True)
class CaseSource:
    """Source of images.

    Args:
        task: classification task.
        input: input specification of the network.
        classes: names of the negative and the positive class.
        data: name of a data set; None for simulated images.
        root: folder of the data set.
        part: part of the data set.
        n_simulated: number of images to draw, at least 2; negative and positive images alternate.
        p_calcifications: probability that a simulated mammographic lesion is a cluster of calcifications.
        masses: size and contrast of simulated mammographic masses.

    Raises:
        InvalidParameter: there are fewer than two images, the data set is not suitable for the task or the classes, or
            only one of ``data`` and ``root`` is given.
    """

    task: Task
    input: ModelInput
    classes: tuple[str, ...]
    data: str | None = None
    root: Path | None = None
    part: Part = "test"
    n_simulated: int = 0
    p_calcifications: float = 0.3
    masses: Masses = USUAL_MASSES

    def __post_init__(self) -> None:
        """Raise for invalid combinations."""
        if (self.data is None) != (self.root is None):
            raise InvalidParameter("data and root must be given together, got one of them")
        if self.data is not None and self.data not in TASK_DATA[self.task]:
            known = ", ".join(TASK_DATA[self.task])
            raise InvalidParameter(f"data for {self.task} must be one of {known}, got {self.data}")
        if self.data is not None and self.classes[1] == MASS:
            raise InvalidParameter(f"classes healthy and mass need simulated images, got {self.data}")
        if self.data is None and self.n_simulated < 2:
            raise InvalidParameter(f"simulated images must be at least 2, got {self.n_simulated}")

    @property
    def title(self) -> str:
        """Description of the source for readers."""
        what = {
            "patches": "mammographic patches",
            "mammograms": "mammograms",
            "ultrasound": "breast ultrasound images",
            "nodules": "CT patches of lung nodules",
        }
        if self.data is None:
            return f"simulated {what[self.task]}"
        return f"{what[self.task]} of {self.data}" + (", test patients" if self.part == "test" else "")


class Cases(Protocol):
    """Images to score and to explain; `CaseSet` is one kind.

    Attributes:
        labels: ``(n,)``, 1 for the positive class.
    """

    labels: np.ndarray

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> StudyCase:
        """Read one image."""

    def key(self, index: int) -> Key:
        """Return the key of an image, without reading the image."""


class CaseSet(Sequence[StudyCase]):
    """Images in a store, read on access.

    Args:
        source: source of the images.
        store: store of the images.
        places: key of the entry in the store, and number in the entry, of each image.
        labels: ``(n,)`` labels.
    """

    def __init__(self, source: CaseSource, store: Store, places: Sequence[tuple[Key, int]], labels: np.ndarray) -> None:
        self.source, self.labels = source, labels
        self._store, self._places = store, places

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> StudyCase: ...

    @overload
    def __getitem__(self, index: slice) -> list[StudyCase]: ...

    def __getitem__(self, index: int | slice) -> StudyCase | list[StudyCase]:
        """Read one image, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        key, number = self._places[index]
        sample = _unpacked(self._store.load(CASES, key), number)
        image = torch.from_numpy(self.source.input.scaled(sample.pixels))
        return StudyCase(str(index + 1), int(self.labels[index]), sample, image, self.key(index))

    def key(self, index: int) -> Key:
        """Return the key of an image, without reading the image."""
        key, number = self._places[index]
        return {**key, "number": number}

    def __iter__(self) -> Iterator[StudyCase]:
        """Read one image after the other."""
        return (self[i] for i in range(len(self)))


def open_cases(
    source: CaseSource, store: Store, *, n_workers: int | None = None, on_progress: Progress | None = None
) -> CaseSet:
    """Draw or read the images that are not in the store, and open the whole set.

    Args:
        source: source of the images.
        store: store of the images.
        n_workers: number of processes that draw or read; by default one for each core.
        on_progress: called as ``on_progress(stage, done, total)``.

    Raises:
        DatasetError: the data set cannot be read.
        InvalidInput: a class has no image.
    """
    jobs = _jobs(source)
    # The affinity, unlike os.cpu_count, respects the limits of a container.
    _fill(store, jobs, n_workers or len(os.sched_getaffinity(0)), on_progress or (lambda *_: None), source.title)
    places, labels = [], []
    for job in jobs:
        for number, label in enumerate(store.load(CASES, job.key)["classes"].tolist()):
            places.append((job.key, number))
            labels.append(label)
    if set(labels) != {0, 1}:
        raise InvalidInput(f"cases must be of both classes, got {len(labels)} of {len(set(labels))}")
    return CaseSet(source, store, places, np.array(labels))


@dataclass(frozen=True)
class _Job:
    """A job that makes images: a picklable function, and the key of its result."""

    key: Key
    make: Callable[[], list[tuple[int, Sample]]] = field(repr=False)


def _jobs(source: CaseSource) -> list[_Job]:
    known: dict[str, Any] = {"task": source.task, "input": source.input.to_json(), "classes": list(source.classes)}
    if source.data is None or source.root is None:
        known |= {"data": "simulated", "p_calcifications": source.p_calcifications, "masses": asdict(source.masses)}
        return [_Job({**known, "seed": [*_TEST_SEED, i]}, partial(_draw, source, i)) for i in range(source.n_simulated)]
    known |= {"data": source.data, "part": source.part}
    cases = enumerate(_chosen(source.task, source.data, source.root, source.part))
    return [_Job({**known, "image": case.image_id, "place": i}, partial(_read, source, case, i)) for i, case in cases]


def _chosen(task: Task, data: str, root: Path, part: Part) -> tuple[Case, ...]:
    cases = [case for case in open_dataset(data, root) if case.label in _USED[task]]
    return split_patients(cases, validation=_HELD_OUT).validation if part == "test" else tuple(cases)


def _draw(source: CaseSource, i: int) -> list[tuple[int, Sample]]:
    label = i % 2
    return [(label, source.input.sample(simulated_sample(source, source.classes[label], (*_TEST_SEED, i))))]


def simulated_sample(source: CaseSource, category: str, seed: tuple[int, ...]) -> Sample:
    """Return a simulated image of a class with the boxes and masks of its lesions."""
    if source.task == "ultrasound":
        image = ultrasound.sample(category, image_shape=source.input.shape, seed=seed)
        masses = [] if image.box is None else [(image.box, image.mask, image.malignant)]
        return _sample(image.pixels, masses, image.spacing_mm)
    if source.task == "nodules":
        axial = nodule.sample(category, image_shape=source.input.shape, seed=seed)
        found = [(tight_box(axial.mask), axial.mask, axial.malignant)] if axial.mask.any() else []
        return _sample(axial.pixels, found, axial.spacing_mm)
    options: dict[str, Any] = {"image_shape": source.input.shape, "seed": seed}
    options |= {"p_calcifications": source.p_calcifications, "masses": source.masses}
    if source.task == "mammograms":
        whole = mammogram.sample(category, **options)
        return _sample(whole.pixels, [_lesion(finding) for finding in whole.findings], whole.spacing_mm)
    patch = mammogram.sample_patch(category, spacing_mm=mammogram.PATCH_SPACING_MM, **options)
    return _sample(patch.pixels, [_lesion(patch.finding)] if patch.finding else [], patch.spacing_mm)


_Lesion = tuple[tuple[int, int, int, int], np.ndarray, bool]
"""Box, mask and whether the lesion is malignant."""


def _lesion(finding: mammogram.Finding) -> _Lesion:
    return finding.box, finding.mask, finding.malignant


def _sample(pixels: np.ndarray, lesions: Sequence[_Lesion], spacing_mm: tuple[float, float]) -> Sample:
    return Sample(
        pixels,
        tuple(box for box, _, _ in lesions),
        tuple(mask for _, mask, _ in lesions),
        tuple("malignant" if malignant else "benign" for _, _, malignant in lesions),
        spacing_mm,
    )


def _read(source: CaseSource, case: Case, place: int) -> list[tuple[int, Sample]]:
    sample = case.load()
    if source.task != "patches" or source.data == "cbis-ddsm-patches":
        return [(int(case.label == "malignant"), source.input.sample(sample))]
    try:
        patches = draw_patches(sample, size=source.input.shape[0], seed=place)
    except InvalidInput:  # the image is smaller than a patch
        return []
    return [
        (source.classes.index(patch.label), source.input.sample(patch_with_boxes(patch, sample)))
        for patch in patches
        if patch.label in source.classes
    ]


def patch_with_boxes(patch: Patch, sample: Sample) -> Sample:
    """Return a patch with the boxes of the lesions in it."""
    left, top, right, bottom = patch.window
    height, width = patch.pixels.shape
    boxes, labels = [], []
    for (x0, y0, x1, y1), label in zip(sample.boxes, sample.labels, strict=True):
        if x0 < right and x1 > left and y0 < bottom and y1 > top:
            scale_x, scale_y = width / (right - left), height / (bottom - top)
            corners = (x0 - left) * scale_x, (y0 - top) * scale_y, (x1 - left) * scale_x, (y1 - top) * scale_y
            boxes.append(corners)
            labels.append(label)
    return Sample(patch.pixels, tuple(boxes), (), tuple(labels))


def _fill(store: Store, jobs: Sequence[_Job], n_workers: int, report: Progress, title: str) -> None:
    missing = [job for job in jobs if not store.has(CASES, job.key)]
    if not missing:
        return
    done = len(jobs) - len(missing)
    report(title, done, len(jobs))
    for job, (found, seconds) in zip(missing, _made(missing, n_workers), strict=True):
        store.keep(CASES, job.key, _packed(found), seconds)
        done += 1
        report(title, done, len(jobs))


def _made(jobs: Sequence[_Job], n_workers: int) -> Iterator[tuple[list[tuple[int, Sample]], float]]:
    """Yield the images of each job and its share of the elapsed time."""
    if n_workers == 1 or len(jobs) < _FEW:
        yield from map(_timed, jobs)
        return
    with process_pool(n_workers) as pool:
        for found, seconds in pool.map(_timed, jobs, chunksize=4):
            yield found, seconds / n_workers


def _timed(job: _Job) -> tuple[list[tuple[int, Sample]], float]:
    begin = time.monotonic()
    found = job.make()
    return found, time.monotonic() - begin


def _packed(found: Sequence[tuple[int, Sample]]) -> Arrays:
    arrays: Arrays = {"classes": np.array([label for label, _ in found], dtype=np.int64)}
    for number, (_, sample) in enumerate(found):
        arrays[f"pixels-{number}"] = sample.pixels
        arrays[f"boxes-{number}"] = np.array(sample.boxes, dtype=np.float64).reshape(-1, 4)
        arrays[f"labels-{number}"] = np.array(sample.labels, dtype="U13")  # "non-malignant" is the longest
        arrays[f"masks-{number}"] = np.array(sample.masks, dtype=bool).reshape(-1, *sample.pixels.shape)
        arrays[f"spacing-{number}"] = np.array(sample.spacing_mm or (), dtype=np.float64)
    return arrays


def _unpacked(arrays: Arrays, number: int) -> Sample:
    spacing = arrays[f"spacing-{number}"].tolist()
    return Sample(
        arrays[f"pixels-{number}"],
        tuple(tuple(box) for box in arrays[f"boxes-{number}"].tolist()),
        tuple(arrays[f"masks-{number}"]),
        tuple(arrays[f"labels-{number}"].tolist()),
        (spacing[0], spacing[1]) if spacing else None,
    )
