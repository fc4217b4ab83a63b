"""Roots, tables, cases and samples: what all data sets share."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_files import busi, cbis, cbis_row, lesion, oasbud, rsna

from radlens.datasets import DATASETS, Case, Dataset, Sample, mask_box, open_dataset, open_rsna_2022
from radlens.datasets.files import Root
from radlens.errors import DatasetError, InvalidInput, InvalidParameter, exit_code, http_status

ONES = np.ones((4, 6), dtype=np.float32)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_refuses_an_empty_or_absent_folder(name: str, tmp_path: Path) -> None:
    """An empty folder and a folder that is not there are two clear errors."""
    with pytest.raises(DatasetError, match="got an empty folder"):
        open_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match="must be a folder that exists"):
        open_dataset(name, tmp_path / "absent")


def test_data_sets_open_by_name(tmp_path: Path) -> None:
    """A data set carries the name by which it is opened."""
    cbis(tmp_path / "cbis", [cbis_row(1)])
    for part in ("mass_case_description_test_set", "calc_case_description_train_set", "calc_case_description_test_set"):
        table = tmp_path / "cbis" / f"{part}.csv"
        table.write_bytes((tmp_path / "cbis" / "mass_case_description_train_set.csv").read_bytes())
    roots = {
        "busi": busi(tmp_path / "busi"),
        "cbis-ddsm": tmp_path / "cbis",
        "cbis-ddsm-patches": tmp_path / "cbis",
        "oasbud": oasbud(tmp_path / "oasbud", [lesion("1", 0)]),
        "rsna-2022": rsna(tmp_path / "rsna"),
    }
    assert {name: open_dataset(name, root).name for name, root in roots.items()} == {name: name for name in roots}
    with pytest.raises(InvalidParameter, match=r"^data set must be one of busi, .*; got mnist$"):
        open_dataset("mnist", tmp_path)


def test_a_case_tells_nobody_who_the_patient_is(tmp_path: Path) -> None:
    """The text of a case and of a data set holds no identifier of a patient, and no path."""
    cases = open_rsna_2022(rsna(tmp_path))
    for text in (repr(cases), repr(cases[0]), str(cases[:2])):
        assert "10006" not in text
        assert str(tmp_path) not in text


def test_cases_travel_to_other_processes(tmp_path: Path) -> None:
    """A pickled case loads the same pixels."""
    case = open_rsna_2022(rsna(tmp_path))[1]
    copy = pickle.loads(pickle.dumps(case))
    assert copy == case
    np.testing.assert_array_equal(copy.load().pixels, case.load().pixels)


def test_a_data_set_is_a_sequence(tmp_path: Path) -> None:
    """Length, index, slice and iteration agree."""
    cases = open_rsna_2022(rsna(tmp_path))
    assert (len(cases), list(cases), cases[-1], cases[1:]) == (3, list(cases.cases), cases.cases[2], cases.cases[1:])
    assert isinstance(cases[0], Case)
    assert Dataset("none", ()).counts() == {}


def test_dataset_errors_have_a_status_and_an_exit_code() -> None:
    """A broken data set is no fault of a request."""
    assert (http_status(DatasetError("")), exit_code(DatasetError(""))) == (500, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^t\.csv: missing column 'a'$"),
        (b"<!DOCTYPE html>\n<p>sign in</p>\n", r"^t\.csv: missing column 'a'$"),
        (b"a,b\n", r"^t\.csv: expected at least one row below the header, got none$"),
        (b"a,b\n1,2\n3\n", r"^t\.csv line 3: expected 2 fields, got 1$"),
        (b"a,b\n1,\xff\n", r"^t\.csv: expected comma separated text \(UnicodeDecodeError\)$"),
        (b'a,b\n1,"2', r"^t\.csv: expected comma separated text \(Error\)$"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """A table that was not downloaded completely is an error that names it."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        Root(tmp_path).table("t.csv", ("a",))


def test_tables_with_signature_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    """A byte order mark, breaks inside fields and blank lines do not matter; lines are those of the file."""
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfa , b\r\n1,"2\n"\r\n\r\n3,4\r\n')
    rows = Root(tmp_path).table("t.csv", ("a", "b"))
    assert [(row.line, dict(row.values)) for row in rows] == [(2, {"a": "1", "b": "2"}), (5, {"a": "3", "b": "4"})]


def test_names_hide_the_patient_but_not_what_only_looks_alike(tmp_path: Path) -> None:
    """The identifier is replaced where it stands alone, not inside another number."""
    name = Root(tmp_path.parent).name
    assert name(tmp_path.parent / "train_images/10/1002910.dcm", "10") == "train_images/<patient>/1002910.dcm"
    assert name(tmp_path.parent / "Mass_P_00001_CC/1.dcm", "P_00001") == "Mass_<patient>_CC/1.dcm"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixels": ONES[0]}, r"^pixels must be \(h, w\) float32, got 1 axes of float32$"),
        ({"pixels": ONES.astype(float)}, r"^pixels must be \(h, w\) float32, got 2 axes of float64$"),
        ({"boxes": ((0, 0, 1, 1),)}, r"^expected one label per box, got 0 for 1$"),
        ({"masks": (ONES > 0,)}, r"^expected one mask per box, got 1 for 0$"),
        (
            {"boxes": ((0, 0, 1, 1),), "labels": ("benign",), "masks": (ONES.T > 0,)},
            r"^mask must be 4x6 bool, got shape \(6, 4\) of bool$",
        ),
        ({"boxes": ((3, 0, 3, 1),), "labels": ("benign",)}, r"^box 0 must have x0 < x1 and y0 < y1$"),
        ({"boxes": ((6, 0, 8, 1),), "labels": ("benign",)}, r"^box 0 must overlap the image of 4x6 pixels$"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(fields: dict[str, object], message: str) -> None:
    """Shapes and lengths are checked when a sample is made."""
    with pytest.raises(InvalidInput, match=message):
        Sample(**({"pixels": ONES} | fields))


def test_mask_box_is_half_open() -> None:
    """One pixel gives a box of one by one; an empty mask has none."""
    mask = np.zeros((4, 6), dtype=bool)
    with pytest.raises(InvalidInput, match="got an empty mask"):
        mask_box(mask)
    mask[3, 5] = True
    assert mask_box(mask) == (5, 3, 6, 4)
    mask[0, 2] = True
    assert mask_box(mask) == (2, 0, 6, 4)
