"""RSNA 2022."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import RSNA_COLUMNS, breast, dicom, rsna, rsna_rows

from radlens.datasets import open_rsna_2022, split_patients
from radlens.errors import DatasetError


def test_cases_carry_what_the_table_says(tmp_path: Path) -> None:
    """Each row is a case, in order, with its labels; a patient with two breasts is one patient."""
    cases = open_rsna_2022(rsna(tmp_path))
    assert [
        (case.patient_id, case.image_id, case.label, case.laterality, case.view, case.birads) for case in cases
    ] == [
        ("10006", "462822612", "non-malignant", "L", "CC", None),
        ("10006", "1459541791", "non-malignant", "R", "MLO", None),
        ("10011", "220375232", "malignant", "R", "CC", "0"),
    ]
    assert cases.counts() == {"non-malignant": 2, "malignant": 1}
    split = split_patients(cases, seed=1)
    assert {case.patient_id for case in split.training}.isdisjoint(case.patient_id for case in split.validation)


def test_a_case_loads_the_pixels_of_its_file(tmp_path: Path) -> None:
    """Pixels are those written, float32, with the spacing of the header and without boxes."""
    sample = open_rsna_2022(rsna(tmp_path))[2].load()
    np.testing.assert_array_equal(sample.pixels, breast(side="right", seed=220375232).astype(np.float32))
    assert (sample.spacing_mm, sample.boxes, sample.masks) == ((0.065, 0.065), (), ())


def test_monochrome1_is_attenuation_bright(tmp_path: Path) -> None:
    """An image stored with inverted grey values comes out like one that is not."""
    rsna(tmp_path)
    dicom(tmp_path / "train_images/10006/462822612.dcm", 65535 - breast(), monochrome=1)
    np.testing.assert_array_equal(open_rsna_2022(tmp_path)[0].load().pixels, breast().astype(np.float32))


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    """Word for word the same row is one image."""
    assert len(open_rsna_2022(rsna(tmp_path, [*rsna_rows(), rsna_rows()[0]]))) == 3


def test_columns_may_come_in_another_order(tmp_path: Path) -> None:
    """Columns are found by name, and further ones do not matter."""
    cases = open_rsna_2022(rsna(tmp_path, columns=list(reversed(RSNA_COLUMNS))))
    assert [case.view for case in cases] == ["CC", "MLO", "CC"]


def test_rows_that_contradict_are_refused(tmp_path: Path) -> None:
    """Two labels for one image are an error that names both lines."""
    rows = [*rsna_rows(), rsna_rows()[0] | {"cancer": 1}]
    with pytest.raises(
        DatasetError, match=r"^train\.csv line 5: the row differs from line 2, which has the same image$"
    ):
        open_rsna_2022(rsna(tmp_path, rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cancer": 2}, r"^train\.csv line 2: 'cancer' must be one of 0, 1$"),
        ({"laterality": "10006"}, r"^train\.csv line 2: 'laterality' must be one of L, R$"),
        ({"image_id": ""}, r"^train\.csv line 2: 'image_id' is empty$"),
        ({"image_id": 5}, r"^missing file train_images/<patient>/5\.dcm, listed in train\.csv line 2$"),
    ],
)
def test_wrong_values_are_named_without_the_patient(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """An error names the line and the column or file, and quotes nothing that could be a patient."""
    with pytest.raises(DatasetError, match=message):
        open_rsna_2022(rsna(tmp_path, [rsna_rows()[0] | change, *rsna_rows()[1:]]))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """The test table, which has no labels, is not taken for the training table."""
    columns = [column for column in RSNA_COLUMNS if column not in ("cancer", "view")]
    rows = [{key: value for key, value in row.items() if key in columns} for row in rsna_rows()]
    with pytest.raises(DatasetError, match=r"^train\.csv: missing column 'view', 'cancer'$"):
        open_rsna_2022(rsna(tmp_path, rows, columns))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    """An absent table or image folder is named."""
    (rsna(tmp_path) / "train_images").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"^missing folder train_images$"):
        open_rsna_2022(tmp_path)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DatasetError, match=r"^missing file train\.csv$"):
        open_rsna_2022(tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    """A partial download is found when the case loads."""
    path = rsna(tmp_path) / "train_images/10006/462822612.dcm"
    path.write_bytes(path.read_bytes()[:-500])
    case = open_rsna_2022(tmp_path)[0]
    with pytest.raises(DatasetError, match=r"^train_images/<patient>/462822612\.dcm: .*truncated"):
        case.load()
    path.unlink()
    with pytest.raises(DatasetError, match=r"^missing file train_images/<patient>/462822612\.dcm$"):
        case.load()
