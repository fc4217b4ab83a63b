"""CBIS-DDSM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import CBIS_COLUMNS, UID, breast, cbis, cbis_row, dicom, rectangle, table

from radlens.datasets import Dataset, open_cbis_ddsm, open_cbis_ddsm_patches
from radlens.errors import DatasetError, InvalidParameter

TABLE = "mass_case_description_train_set.csv"
ROI = f"{UID}33101/{UID}44101"


def whole(root: Path) -> Dataset:
    """Open the mass training part."""
    return open_cbis_ddsm(root, kinds=("mass",), parts=("train",))


@pytest.mark.parametrize("mask_first", [False, True])
@pytest.mark.parametrize("described", [False, True])
def test_an_image_has_a_box_and_a_mask_per_abnormality(tmp_path: Path, described: bool, mask_first: bool) -> None:
    """In either folder naming, and whichever file of a series is the mask."""
    rows = [
        cbis_row(1, pathology="BENIGN_WITHOUT_CALLBACK"),
        cbis_row(1, abnormality=2),
        cbis_row(2, pathology="BENIGN"),
    ]
    cases = whole(cbis(tmp_path, rows, described=described, mask_first=mask_first))
    assert [(case.patient_id, case.label, case.laterality, case.view, case.birads) for case in cases] == [
        ("P_00001", "malignant", "L", "CC", "4"),
        ("P_00002", "benign", "L", "CC", "4"),
    ]
    sample = cases[0].load()
    np.testing.assert_array_equal(sample.pixels, breast().astype(np.float32))
    assert sample.boxes == ((5, 20, 13, 30), (10, 20, 18, 30))
    assert sample.labels == ("benign", "malignant")
    for mask, box in zip(sample.masks, sample.boxes, strict=True):
        np.testing.assert_array_equal(mask, rectangle(tuple(map(int, box))) > 0)


@pytest.mark.parametrize("mask_first", [False, True])
def test_patches_are_the_cropped_images(tmp_path: Path, mask_first: bool) -> None:
    """One per abnormality with its own label, never the mask."""
    rows = [cbis_row(1, pathology="BENIGN"), cbis_row(1, abnormality=2)]
    root = cbis(tmp_path, rows, mask_first=mask_first)
    cases = open_cbis_ddsm_patches(root, kinds=("mass",), parts=("train",))
    assert [(case.image_id[-4:], case.label, case.patient_id) for case in cases] == [
        ("CC_1", "benign", "P_00001"),
        ("CC_2", "malignant", "P_00001"),
    ]
    np.testing.assert_array_equal(cases[1].load().pixels, breast((16, 12), seed=2).astype(np.float32))


def test_mask_and_crop_may_be_in_series_of_their_own(tmp_path: Path) -> None:
    """As in the test part of the data set."""
    row = cbis_row(1)
    root = cbis(tmp_path, [row])
    study = root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1" / f"{UID}33101"
    (study / f"{UID}55555").mkdir()
    (study / f"{UID}44101/000001.dcm").rename(study / f"{UID}55555/000000.dcm")
    row["ROI mask file path"] = row["ROI mask file path"].replace(f"{UID}44101", f"{UID}55555")
    table(root / TABLE, CBIS_COLUMNS, [row])
    assert whole(root)[0].load().boxes == ((5, 20, 13, 30),)


@pytest.mark.parametrize("shape", [(120, 80), (121, 80)])
def test_a_mask_of_another_size_is_resampled(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Where the aspect ratios agree within 1 %."""
    case = whole(cbis(tmp_path, [cbis_row(1)], masks={1: rectangle((10, 40, 26, 60), shape)}))[0]
    assert case.load().boxes == ((5, 20, 13, 30),)


def test_a_mask_of_another_aspect_ratio_is_refused(tmp_path: Path) -> None:
    """61x40 pixels against 60x40 are 1.7 % off."""
    case = whole(cbis(tmp_path, [cbis_row(1)], masks={1: rectangle((5, 20, 13, 30), (61, 40))}))[0]
    with pytest.raises(DatasetError, match=r"line 2 must have the aspect ratio of 60x40 pixels, got 61x40$"):
        case.load()


def test_a_mask_may_touch_the_border(tmp_path: Path) -> None:
    """The box ends where the image ends."""
    case = whole(cbis(tmp_path, [cbis_row(1)], masks={1: rectangle((30, 50, 40, 60))}))[0]
    assert case.load().boxes == ((30, 50, 40, 60),)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((60, 40), dtype=np.uint8), r"line 2 must have at least one pixel, got an empty mask$"),
        (breast(), r"expected one mask for mass_case_description_train_set\.csv line 2, got 0$"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    """An empty mask, and two pictures instead of one."""
    with pytest.raises(DatasetError, match=message):
        whole(cbis(tmp_path, [cbis_row(1)], masks={1: mask}))[0].load()


def test_two_masks_leave_no_patch(tmp_path: Path) -> None:
    """A series without a cropped image is refused."""
    root = cbis(tmp_path, [cbis_row(1)])
    dicom(root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1" / ROI / "000000.dcm", rectangle((1, 1, 5, 5)))
    case = open_cbis_ddsm_patches(root, kinds=("mass",), parts=("train",))[0]
    with pytest.raises(DatasetError, match=r"^CBIS-DDSM/.*.*: expected one cropped image for .* line 2, got 0$"):
        case.load()


def test_repeated_rows_count_once_and_others_contradict(tmp_path: Path) -> None:
    """One abnormality has one row."""
    assert len(whole(cbis(tmp_path / "a", [cbis_row(1), cbis_row(1)]))[0].load().boxes) == 1
    rows = [cbis_row(1), cbis_row(1, pathology="BENIGN")]
    with pytest.raises(DatasetError, match=r"the row differs from mass_case_description_train_set\.csv line 2"):
        whole(cbis(tmp_path / "b", rows))


def test_missing_files_are_named_without_the_patient(tmp_path: Path) -> None:
    """An image, and one of the two files of an abnormality."""
    root = cbis(tmp_path, [cbis_row(1)])
    (root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1" / ROI / "000001.dcm").unlink()
    with pytest.raises(DatasetError, match=r"^missing file beside CBIS-DDSM/Mass-Training_<patient>_LEFT_"):
        whole(root)
    (root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC" / f"{UID}11001" / f"{UID}22001" / "000000.dcm").unlink()
    missing = r"^missing file CBIS-DDSM/Mass-Training_<patient>_LEFT_CC/\*/\*/\*\.dcm, 'image file path' of .* line 2$"
    with pytest.raises(DatasetError, match=missing):
        whole(root)


def test_of_several_images_the_one_in_the_table_is_taken(tmp_path: Path) -> None:
    """By its series; without that there is no telling."""
    root = cbis(tmp_path, [cbis_row(1)])
    study = root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC" / f"{UID}11001"
    dicom(study / "1.2.3/000000.dcm", rectangle((1, 1, 5, 5)))
    np.testing.assert_array_equal(whole(root)[0].load().pixels, breast().astype(np.float32))
    (study / f"{UID}22001").rename(study / "1.2.4")
    with pytest.raises(
        DatasetError, match=r"^CBIS-DDSM/Mass-Training_<patient>_LEFT_CC: expected one image, .*, got 2$"
    ):
        whole(root)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """All four tables are expected unless fewer are asked for."""
    with pytest.raises(DatasetError, match=r"^missing file mass_case_description_test_set\.csv$"):
        open_cbis_ddsm(cbis(tmp_path, [cbis_row(1)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pathology": "UNKNOWN"}, "'pathology' must be one of MALIGNANT, BENIGN, BENIGN_WITHOUT_CALLBACK$"),
        ({"left or right breast": "L"}, "'left or right breast' must be one of LEFT, RIGHT$"),
        ({"image file path": "P_00001/000000.dcm"}, "'image file path' must be <subject>/<study>/<series>/<file>$"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """An error names the line and the column."""
    root = cbis(tmp_path, [cbis_row(1)])
    table(root / TABLE, CBIS_COLUMNS, [cbis_row(1) | change])
    with pytest.raises(DatasetError, match=rf"^mass_case_description_train_set\.csv line 2: {message}"):
        whole(root)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """The table of another version of the data set is not guessed at."""
    columns = [column for column in CBIS_COLUMNS if column != "pathology"]
    row = {key: value for key, value in cbis_row(1).items() if key in columns}
    table(tmp_path / TABLE, columns, [row])
    with pytest.raises(DatasetError, match=r"^mass_case_description_train_set\.csv: missing column 'pathology'$"):
        whole(tmp_path)


@pytest.mark.parametrize(("kinds", "got"), [((), "none"), (("mass", "cyst"), "mass, cyst")])
def test_unknown_kinds_are_refused(tmp_path: Path, kinds: tuple[str, ...], got: str) -> None:
    """A kind is mass or calc."""
    with pytest.raises(InvalidParameter, match=rf"^expected one or several of mass, calc, got {got}$"):
        open_cbis_ddsm(cbis(tmp_path, [cbis_row(1)]), kinds=kinds)
