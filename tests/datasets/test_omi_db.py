"""OMI-DB."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import OmiDb, breast, mark, surgery

from radlens.datasets import open_omi_db
from radlens.errors import DatasetError

MARKED = {"1.2.826.7.1": {"marks": {"m1": mark()}}}
PLAIN: dict[str, Any] = {"1.2.826.7.1": {}}


def labels(root: Path) -> list[str]:
    """Open a database and return the labels of its cases."""
    return [case.label for case in open_omi_db(root)]


def test_a_marked_cancer_is_malignant(tmp_path: Path) -> None:
    """Pixels, box, view, side and spacing are those of the files."""
    OmiDb(tmp_path).client("optm12", MARKED, surgery("H5", "OM"))
    (case,) = open_omi_db(tmp_path)
    assert (case.patient_id, case.image_id, case.label) == ("optm12", "1.2.826.7.1", "malignant")
    assert (case.laterality, case.view, case.spacing_mm) == ("L", "CC", (0.07, 0.07))
    sample = case.load()
    np.testing.assert_array_equal(sample.pixels, breast().astype(np.float32))
    assert (sample.boxes, sample.labels, sample.spacing_mm) == (((5, 20, 15, 30),), ("malignant",), (0.07, 0.07))


@pytest.mark.parametrize(
    ("images", "episode", "expected"),
    [
        (PLAIN, {}, ["normal"]),
        (MARKED, {}, ["non-malignant"]),
        (MARKED, surgery("Histol benign", "Benign"), ["benign"]),
        (PLAIN, surgery("H2", "OB"), ["benign"]),
        (MARKED, surgery("Hist malignant", "Malignant"), ["malignant"]),
        (PLAIN, surgery("H5", "OM"), []),  # the breast has cancer, but it is not marked here
        (MARKED, surgery("H5", "OM", lesion="2"), []),  # what is marked is not the cancer
        (PLAIN, surgery("H5", "OM", side="R"), []),  # the other breast of a woman with cancer
        (PLAIN, {"EpisodeType": "CI"}, []),  # an interval cancer
        ({"1.2.826.7.1": {"marks": {"m1": mark(lesion="")}}}, surgery("H5", "OM"), ["malignant"]),
        ({"1.2.826.7.1": {"marks": {"m1": mark(lesion="02,01")}}}, surgery("H5", "OM"), ["malignant"]),
        ({"1.2.826.7.1": {"intent": "FOR PROCESSING"}}, {}, []),
        ({"1.2.826.7.1": {"side": None}}, {}, []),
    ],
)
def test_labels_follow_surgery_and_biopsy(
    tmp_path: Path, images: dict[str, Any], episode: dict[str, Any], expected: list[str]
) -> None:
    """What is not certain is left out and counted."""
    OmiDb(tmp_path).client("optm1", images, episode)
    assert labels(tmp_path) == expected
    assert open_omi_db(tmp_path).n_left_out == 1 - len(expected)


def test_a_woman_with_cancer_in_another_episode_gives_no_normal_image(tmp_path: Path) -> None:
    """Her earlier images may show what was found later."""
    OmiDb(tmp_path).client(
        "optm1", PLAIN, {}, E2=surgery("B5", "OM") | {"SURGERY": {}, "BIOPSYWIDE": {"left_opinion": "OM"}}
    )
    OmiDb.client(database := OmiDb(tmp_path / "b"), "optm2", PLAIN, {}, Classification="CI")
    assert labels(tmp_path) == labels(database.root) == []


def test_clients_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Ten comes after two; both spellings of file names are read; other folders do not matter."""
    database = OmiDb(tmp_path)
    for patient in ("optm10", "optm2", "demd3"):
        database.client(patient, PLAIN, upper=patient == "optm2")
    (tmp_path / "data/lost+found").mkdir()
    assert [case.patient_id for case in open_omi_db(tmp_path)] == ["demd3", "optm2", "optm10"]


def test_images_of_one_manufacturer(tmp_path: Path) -> None:
    """The thesis takes whole mammograms of Hologic alone."""
    images = {"1.2.826.7.1": {"manufacturer": "SIEMENS"}, "1.2.826.7.2": {"manufacturer": "HOLOGIC, Inc."}}
    OmiDb(tmp_path).client("optm1", images)
    found = open_omi_db(tmp_path, manufacturer="Hologic")
    assert ([case.image_id for case in found], found.n_left_out) == (["1.2.826.7.2"], 1)


def test_marks_with_corners_in_any_order(tmp_path: Path) -> None:
    """A box runs from the smaller to the larger coordinate; two marks are two boxes with their own labels."""
    marks = {"m1": mark((15, 30, 5, 20)), "m2": mark((0, 0, 3, 4), lesion="2")}
    OmiDb(tmp_path).client("optm1", {"1.2.826.7.1": {"marks": marks}}, surgery("H5", "OM"))
    sample = open_omi_db(tmp_path)[0].load()
    assert sample.boxes == ((5, 20, 15, 30), (0, 0, 3, 4))
    assert sample.labels == ("malignant", "non-malignant")


def test_studies_that_were_not_delivered_are_left_out(tmp_path: Path) -> None:
    """Clients are shared with part of their studies."""
    OmiDb(tmp_path).client("optm1", PLAIN)
    (tmp_path / "data/optm1/1.2.826.1").rename(tmp_path / "elsewhere")
    assert (labels(tmp_path), open_omi_db(tmp_path).n_left_out) == ([], 1)


def test_headers_may_have_the_longer_name_and_no_spacing(tmp_path: Path) -> None:
    """``<image>.dcm.json`` is read too; spacing then comes with the image."""
    OmiDb(tmp_path).client("optm1", {"1.2.826.7.1": {"spacing": []}})
    header = tmp_path / "data/optm1/1.2.826.1/1.2.826.7.1.json"
    header.rename(header.with_name("1.2.826.7.1.dcm.json"))
    (case,) = open_omi_db(tmp_path)
    assert (case.spacing_mm, case.load().spacing_mm) == (None, (0.07, 0.07))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("data/optm1/imagedb_optm1.json", "data/<patient>/imagedb_<patient>.json"),
        ("data/optm1/nbss_optm1.json", "data/<patient>/nbss_<patient>.json"),
        ("data/optm1/1.2.826.1/1.2.826.7.1.json", "data/<patient>/1.2.826.1/1.2.826.7.1.json"),
        ("images/optm1/1.2.826.1/1.2.826.7.1.dcm", "images/<patient>/1.2.826.1/1.2.826.7.1.dcm, listed in imagedb"),
    ],
)
def test_a_missing_file_is_named_without_the_patient(tmp_path: Path, name: str, shown: str) -> None:
    """Each of the four kinds of file."""
    OmiDb(tmp_path).client("optm1", PLAIN)
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError) as caught:
        open_omi_db(tmp_path)
    assert str(caught.value) == f"missing file {shown}"


@pytest.mark.parametrize(
    ("content", "message"), [('{"Site": ', "expected complete JSON"), ("[]", "expected a JSON object")]
)
def test_damaged_json_is_named(tmp_path: Path, content: str, message: str) -> None:
    """A partial download of a JSON file."""
    OmiDb(tmp_path).client("optm1", PLAIN)
    (tmp_path / "data/optm1/nbss_optm1.json").write_text(content)
    with pytest.raises(DatasetError, match=rf"^data/<patient>/nbss_<patient>\.json: {message}$"):
        open_omi_db(tmp_path)


def test_damaged_marks_are_named(tmp_path: Path) -> None:
    """A mark without coordinates is refused at once, one without area when its image loads."""
    broken = {"1.2.826.7.1": {"marks": {"m1": mark() | {"X2": ""}}}}
    OmiDb(tmp_path / "a").client("optm1", broken)
    with pytest.raises(DatasetError, match=r"^data/<patient>/imagedb_<patient>\.json: a mark must have whole numbers"):
        open_omi_db(tmp_path / "a")
    OmiDb(tmp_path / "b").client("optm1", {"1.2.826.7.1": {"marks": {"m1": mark((5, 5, 5, 9))}}})
    with pytest.raises(DatasetError, match=r"^images/<patient>/1\.2\.826\.1/1\.2\.826\.7\.1\.dcm: box 0 must have"):
        open_omi_db(tmp_path / "b")[0].load()


def test_missing_folders_are_named(tmp_path: Path) -> None:
    """Neither half of the database is optional, and it must hold clients."""
    OmiDb(tmp_path)
    with pytest.raises(DatasetError, match=r"^data: expected a folder per client, .* got none$"):
        open_omi_db(tmp_path)
    (tmp_path / "images").rmdir()
    with pytest.raises(DatasetError, match=r"^missing folder images$"):
        open_omi_db(tmp_path)
