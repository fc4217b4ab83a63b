"""RSNA 2022 screening mammography (breast cancer detection): Carr et al. 2022, as downloaded from Kaggle.

Files and columns follow the competition's data page and its copy in the wiki of github.com/RSNA/AI-Challenge-Data, page
"RSNA Screening Mammography Breast Cancer Detection":

    train.csv    site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant,
                 density, machine_id, difficult_negative_case
    train_images/<patient_id>/<image_id>.dcm

The table states whether a breast has cancer, but not where. Test images have no labels and are not read.
"""

from functools import partial
from pathlib import Path

from radlens.datasets.case import Case, Dataset, Label, Laterality, Sample
from radlens.datasets.files import Root, Row
from radlens.errors import DatasetError

__all__ = ["open_rsna_2022"]

_TABLE = "train.csv"
_COLUMNS = ("patient_id", "image_id", "laterality", "view", "cancer")
_SIDES: dict[str, Laterality] = {"L": "L", "R": "R"}
_LABELS: dict[str, Label] = {"0": "non-malignant", "1": "malignant"}


def open_rsna_2022(root: str | Path) -> Dataset:
    """Open the training images of RSNA 2022.

    Identical rows count once.

    Args:
        root: folder that holds ``train.csv`` and ``train_images``.

    Raises:
        DatasetError: the table, a column or an image is missing, a value is unknown, or two different rows have the
            same image.
    """
    files = Root(Path(root))
    rows = files.table(_TABLE, _COLUMNS)
    files.require_folder(files.path / "train_images")
    first: dict[str, Row] = {}
    for row in rows:
        known = first.setdefault(row.text("image_id"), row)
        if known.values != row.values:
            raise DatasetError(f"{row.where}: the row differs from line {known.line}, which has the same image")
    return Dataset("rsna-2022", tuple(_case(files, row) for row in first.values()))


def _case(files: Root, row: Row) -> Case:
    patient, image = row.text("patient_id"), row.text("image_id")
    path = files.require_file(files.path / "train_images" / patient / f"{image}.dcm", patient, row.where)
    return Case(
        patient_id=patient,
        image_id=image,
        label=row.choice("cancer", _LABELS),
        name=files.name(path, patient),
        paths=(path,),
        loader=partial(_load, files, path, patient),
        view=row.text("view"),
        laterality=row.choice("laterality", _SIDES),
        birads=row.values.get("BIRADS") or None,
    )


def _load(files: Root, path: Path, patient: str) -> Sample:
    image = files.image(path, patient)
    return Sample(image.pixels, spacing_mm=image.spacing_mm)
