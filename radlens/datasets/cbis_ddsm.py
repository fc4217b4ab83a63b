"""CBIS-DDSM, film mammograms with outlined masses and calcifications: Lee et al., Scientific Data 4:170177, 2017.

The Cancer Imaging Archive (doi 10.7937/K9/TCIA.2016.7O02S9CY) distributes four tables with one row per abnormality, and
a folder of DICOM files. Columns are ``patient_id``, ``left or right breast``, ``image view``, ``abnormality id``,
``assessment``, ``pathology``, ``image file path``, ``cropped image file path``, ``ROI mask file path`` and others.
Paths have the form ``<subject>/<study UID>/<series UID>/000000.dcm``, with line breaks inside some fields.

The files on disk differ from the tables, and are handled as follows:

- The downloader names folders either by UID, as in the tables, or by description, with the last five digits of the UID
  (``07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm``). Both forms are found.
- Mask and cropped image are swapped in many rows, and mostly belong to one series, in either order (the file list of
  huggingface.co/datasets/theshoaibme/PanOrganNet shows both). All files of an abnormality's folder are read, and the
  pixels tell masks from images: a mask has at most two values.
- Some masks have another size than their image (github.com/fjeg/ddsm_tools, issue 5). A mask whose aspect ratio agrees
  within 1 % is resampled to the image; other masks raise an error.
- The identifier in the DICOM header denotes one view; ``patient_id`` of the tables denotes the woman, across both kinds
  of abnormality and both parts. A woman may be in the training part of one kind and in the test part of the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from radlens import images
from radlens.datasets.case import Case, Dataset, Label, Laterality, Sample
from radlens.datasets.files import Root, Row, mask_box
from radlens.datasets.preprocessing import resize_mask
from radlens.errors import DatasetError, InvalidInput, InvalidParameter

__all__ = ["KINDS", "PARTS", "open_cbis_ddsm", "open_cbis_ddsm_patches"]

KINDS = ("mass", "calc")
"""Kinds of abnormality, each with its own tables."""

PARTS = ("train", "test")
"""Parts of the published split."""

_IMAGE, _CROP, _MASK = "image file path", "cropped image file path", "ROI mask file path"
_COLUMNS = ("patient_id", "left or right breast", "image view", "abnormality id", "pathology", _IMAGE, _CROP, _MASK)
_SIDES: dict[str, Laterality] = {"LEFT": "L", "RIGHT": "R"}
_LABELS: dict[str, Label] = {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}
_ASPECT_TOLERANCE = 0.01
"""Largest relative difference between the aspect ratios of a mask and its image."""


@dataclass(frozen=True)
class _Abnormality:
    """One row of a table, with its label and the files that include its mask and its cropped image."""

    row: Row
    label: Label
    paths: tuple[Path, ...]


def open_cbis_ddsm(root: str | Path, *, kinds: Sequence[str] = KINDS, parts: Sequence[str] = PARTS) -> Dataset:
    """Open whole mammograms; each abnormality is a box with its mask.

    An image is malignant if at least one of its abnormalities is; ``BENIGN_WITHOUT_CALLBACK`` counts as benign.
    Identical rows count once.

    Args:
        root: folder of the tables; the images are in ``CBIS-DDSM``, in ``manifest-*/CBIS-DDSM`` or beside the tables.
        kinds: one or several of `KINDS`.
        parts: one or several of `PARTS`, the split of the data set's authors.

    Raises:
        InvalidParameter: an unknown kind or part.
        DatasetError: a table, a column or a file is missing, a value is unknown, or two rows contradict each other.
    """
    files = Root(Path(root))
    by_image: dict[str, list[Row]] = {}
    for row in _abnormality_rows(files, kinds, parts):
        by_image.setdefault(_subject(row, _IMAGE), []).append(row)
    base = _base(files)
    return Dataset("cbis-ddsm", tuple(_image_case(files, base, subject, rows) for subject, rows in by_image.items()))


def open_cbis_ddsm_patches(root: str | Path, *, kinds: Sequence[str] = KINDS, parts: Sequence[str] = PARTS) -> Dataset:
    """Open the published cropped images, one per abnormality, without boxes and masks.

    Args:
        root: folder of the tables; the images are in ``CBIS-DDSM``, in ``manifest-*/CBIS-DDSM`` or beside the tables.
        kinds: one or several of `KINDS`.
        parts: one or several of `PARTS`.

    Raises:
        InvalidParameter: an unknown kind or part.
        DatasetError: a table, a column or a file is missing, a value is unknown, or two rows contradict each other.
    """
    files = Root(Path(root))
    rows = _abnormality_rows(files, kinds, parts)
    base = _base(files)
    return Dataset("cbis-ddsm-patches", tuple(_patch_case(files, base, row) for row in rows))


def _abnormality_rows(files: Root, kinds: Iterable[str], parts: Iterable[str]) -> list[Row]:
    tables = [
        f"{kind}_case_description_{part}_set.csv" for kind in _known(kinds, KINDS) for part in _known(parts, PARTS)
    ]
    first: dict[tuple[str, str], Row] = {}
    for row in (row for table in tables for row in files.table(table, _COLUMNS)):
        key = _subject(row, _IMAGE), row.text("abnormality id")
        known = first.setdefault(key, row)
        if known.values != row.values:
            raise DatasetError(f"{row.where}: the row differs from {known.where}, which has the same abnormality")
    return list(first.values())


def _known(given: Iterable[str], known: Sequence[str]) -> list[str]:
    found = [each for each in known if each in given]
    if not found or set(given) - set(known):
        raise InvalidParameter(f"expected one or several of {', '.join(known)}, got {', '.join(given) or 'none'}")
    return found


def _base(files: Root) -> Path:
    inner = [path for path in sorted(files.path.glob("manifest-*/CBIS-DDSM")) if path.is_dir()]
    return next((path for path in (files.path / "CBIS-DDSM", *inner) if path.is_dir()), files.path)


def _image_case(files: Root, base: Path, subject: str, rows: list[Row]) -> Case:
    row, patient = rows[0], rows[0].text("patient_id")
    image = _image_file(files, base, row)
    found = tuple(_Abnormality(each, _label(each), _roi_files(files, base, each)) for each in rows)
    return Case(
        patient_id=patient,
        image_id=subject,
        label="malignant" if any(each.label == "malignant" for each in found) else "benign",
        name=files.name(image, patient),
        paths=(image, *dict.fromkeys(path for each in found for path in each.paths)),
        loader=partial(_load_image, files, image, patient, found),
        view=row.text("image view"),
        laterality=row.choice("left or right breast", _SIDES),
        birads=row.values.get("assessment") or None,
    )


def _patch_case(files: Root, base: Path, row: Row) -> Case:
    patient = row.text("patient_id")
    found = _Abnormality(row, _label(row), _roi_files(files, base, row))
    return Case(
        patient_id=patient,
        image_id=f"{_subject(row, _IMAGE)}_{row.text('abnormality id')}",
        label=found.label,
        name=files.name(found.paths[0].parent, patient),
        paths=found.paths,
        loader=partial(_load_patch, files, patient, found),
        view=row.text("image view"),
        laterality=row.choice("left or right breast", _SIDES),
        birads=row.values.get("assessment") or None,
    )


def _label(row: Row) -> Label:
    return row.choice("pathology", _LABELS)


def _subject(row: Row, column: str) -> str:
    return _parts(row, column)[0]


def _parts(row: Row, column: str) -> list[str]:
    parts = row.text(column).split("/")
    if len(parts) != 4:
        raise DatasetError(f"{row.where}: {column!r} must be <subject>/<study>/<series>/<file>")
    return parts


def _subject_files(files: Root, base: Path, row: Row, column: str) -> list[Path]:
    folder = base / _subject(row, column)
    found = sorted(folder.glob("*/*/*.dcm"))
    if not found:
        missing = files.name(folder, row.text("patient_id"))
        raise DatasetError(f"missing file {missing}/*/*/*.dcm, {column!r} of {row.where}")
    return found


def _image_file(files: Root, base: Path, row: Row) -> Path:
    found = _subject_files(files, base, row, _IMAGE)
    series = _parts(row, _IMAGE)[2]
    # The folder is the UID, or a description that ends in its last five digits.
    named = [path for path in found if path.parent.name == series or path.parent.name.endswith(f"-{series[-5:]}")]
    if len(named or found) != 1:
        where = files.name(found[0].parent.parent.parent, row.text("patient_id"))
        raise DatasetError(f"{where}: expected one image, {_IMAGE!r} of {row.where}, got {len(named or found)}")
    return (named or found)[0]


def _roi_files(files: Root, base: Path, row: Row) -> tuple[Path, ...]:
    # The two columns are swapped in many rows, so the files of both are candidates.
    found = [path for column in (_MASK, _CROP) for path in _subject_files(files, base, row, column)]
    unique = tuple(dict.fromkeys(found))
    if len(unique) < 2:
        only = files.name(unique[0], row.text("patient_id"))
        raise DatasetError(f"missing file beside {only}: expected a mask and a cropped image for {row.where}")
    return unique


def _load_image(files: Root, path: Path, patient: str, abnormalities: tuple[_Abnormality, ...]) -> Sample:
    image = files.image(path, patient)
    masks = tuple(_mask(files, patient, each, image.pixels.shape) for each in abnormalities)
    return Sample(
        image.pixels,
        boxes=tuple(mask_box(mask) for mask in masks),
        masks=masks,
        labels=tuple(each.label for each in abnormalities),
        spacing_mm=image.spacing_mm,
    )


def _load_patch(files: Root, patient: str, abnormality: _Abnormality) -> Sample:
    found = [image for image in _images(files, patient, abnormality) if not _is_mask(image)]
    if len(found) != 1:
        raise InvalidInput(f"expected one cropped image for {abnormality.row.where}, got {len(found)}")
    return Sample(found[0].pixels, spacing_mm=found[0].spacing_mm)


def _mask(files: Root, patient: str, abnormality: _Abnormality, shape: tuple[int, ...]) -> np.ndarray:
    found = [image.pixels for image in _images(files, patient, abnormality) if _is_mask(image)]
    where = abnormality.row.where
    if len(found) != 1:
        raise InvalidInput(f"expected one mask for {where}, got {len(found)}")
    mask = found[0] > 0
    if not mask.any():
        raise InvalidInput(f"mask of {where} must have at least one pixel, got an empty mask")
    rows, columns = shape[0] / mask.shape[0], shape[1] / mask.shape[1]
    if abs(rows / columns - 1) > _ASPECT_TOLERANCE:
        got = f"{mask.shape[0]}x{mask.shape[1]}"
        raise InvalidInput(f"mask of {where} must have the aspect ratio of {shape[0]}x{shape[1]} pixels, got {got}")
    return mask if mask.shape == shape else resize_mask(mask, (shape[0], shape[1]))


def _images(files: Root, patient: str, abnormality: _Abnormality) -> list[images.Image]:
    return [files.image(path, patient) for path in abnormality.paths]


def _is_mask(image: images.Image) -> bool:
    # At most two values; comparing with the extremes is faster than np.unique on a whole mammogram.
    low, high = image.pixels.min(), image.pixels.max()
    return bool(np.all((image.pixels == low) | (image.pixels == high)))
