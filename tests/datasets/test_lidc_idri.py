"""LIDC-IDRI: patches of nodules from DICOM series and the readers' XML files."""

import itertools
import statistics
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    LIDC_SERIES,
    LIDC_SIDE,
    LIDC_SPACING_MM,
    lidc_nodule,
    lidc_series,
    lidc_slice,
    lidc_square,
    lidc_xml,
)

from radlens.datasets import open_dataset, open_lidc_idri, split_patients
from radlens.datasets.lidc_idri import FIELD_MM, cut_axial, malignancy_label
from radlens.errors import DatasetError
from radlens.phantoms import nodule

ROW, COLUMN = 62, 57


def _nodule(rating, half=5, row=ROW, column=COLUMN, slices=(1, 2, 3), **options):
    return lidc_nodule(rating, {k: lidc_square(row, column, half) for k in slices}, **options)


def _data(tmp_path: Path, sessions, **options) -> Path:
    folder = lidc_series(tmp_path, **options)
    lidc_xml(folder / "069.xml", sessions)
    return tmp_path


def _only(root: Path):
    (case,) = open_lidc_idri(root)
    return case


def _bilinear(pixels, row, column):
    """Interpolate one point as a textbook does; outside the slice is air."""
    if not (0 <= row <= pixels.shape[0] - 1 and 0 <= column <= pixels.shape[1] - 1):
        return -1000.0
    top, left = min(int(row), pixels.shape[0] - 2), min(int(column), pixels.shape[1] - 2)
    down, right = row - top, column - left
    upper = pixels[top, left] * (1 - right) + pixels[top, left + 1] * right
    lower = pixels[top + 1, left] * (1 - right) + pixels[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def test_a_patch_is_45_mm_around_the_midpoint_in_hounsfield_units(tmp_path):
    """Each pixel equals a bilinear interpolation, written out, of the slice at the middle of the nodule."""
    case = _only(_data(tmp_path, [[_nodule(5)], [_nodule(4)], [_nodule(4)], [_nodule(2)]]))
    sample = case.load()
    assert sample.pixels.shape == (64, 64)
    assert sample.spacing_mm == case.spacing_mm == (FIELD_MM / 64, FIELD_MM / 64)
    hounsfield = lidc_slice(2).astype(float) - 1024
    for i, j in itertools.product(range(0, 64, 7), repeat=2):
        at = [c + ((k + 0.5) / 64 - 0.5) * 45 / LIDC_SPACING_MM for c, k in ((ROW, i), (COLUMN, j))]
        assert sample.pixels[i, j] == pytest.approx(_bilinear(hounsfield, *at), abs=0.01)


def test_slope_and_intercept_are_applied(tmp_path):
    """With a slope of 2 and another intercept, values are those of PS3.3 C.11.1."""
    sample = _only(_data(tmp_path, [[_nodule(5)]] * 3, slope=2.0, intercept=-1200.0)).load()
    values = 2 * lidc_slice(2).astype(float) - 1200
    expected = cut_axial(values, (ROW, COLUMN), (LIDC_SPACING_MM, LIDC_SPACING_MM))
    np.testing.assert_allclose(sample.pixels, expected, atol=0.01)


def test_a_series_without_hounsfield_units_is_refused(tmp_path):
    """Stored values without slope and intercept are not taken for Hounsfield units."""
    case = _only(_data(tmp_path, [[_nodule(5)]] * 3, slope=None, intercept=None))
    with pytest.raises(DatasetError, match=r"<patient>.*: expected RescaleSlope, without which"):
        case.load()


@pytest.mark.parametrize("ratings", [*itertools.product((1, 3, 5), repeat=3), (1, 2, 4, 5), (2, 3, 3, 4), (3, 3, 4, 4)])
def test_labels_follow_the_median_of_the_readers(ratings):
    """Above 3 is malignant, below benign, 3 neither; the simulator's rule is the same."""
    median = statistics.median(ratings)
    expected = None if median == 3 else "malignant" if median > 3 else "benign"
    assert malignancy_label(ratings) == nodule.category_of(ratings) == expected


def test_two_ratings_are_too_few(tmp_path):
    """A nodule that two readers rated, or with a median of 3, is left out and counted."""
    far = {"row": 20, "column": 20}
    root = _data(tmp_path, [[_nodule(5), _nodule(3, **far)], [_nodule(5), _nodule(3, **far)], [_nodule(3, **far)]])
    cases = open_lidc_idri(root)
    assert (len(cases), cases.n_left_out) == (0, 2)
    assert malignancy_label((5, 5)) is nodule.category_of((5, 5)) is None


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.nih.gov"', ' xmlns="urn:other"'])
def test_namespaces_do_not_matter(tmp_path, namespace):
    """Files of the archive have a namespace, and copies of it often none."""
    folder = lidc_series(tmp_path)
    lidc_xml(folder / "069.xml", [[_nodule(1)]] * 3, namespace=namespace)
    assert _only(tmp_path).label == "benign"


def test_readers_outlines_are_matched_by_place(tmp_path):
    """Two nodules 13 mm apart, in another order for each reader, are two cases with their own ratings."""
    near, far = {"row": 50, "column": 50}, {"row": 50, "column": 72}
    sessions = [
        [_nodule(5, **near), _nodule(1, **far)],
        [_nodule(2, half=6, **far), _nodule(4, half=4, row=51, column=49)],
        [_nodule(4, **near), _nodule(2, row=49, column=71)],
    ]
    cases = open_lidc_idri(_data(tmp_path, sessions))
    assert [case.label for case in cases] == ["malignant", "benign"]
    assert len({case.image_id for case in cases}) == 2


def test_one_reader_rates_a_nodule_once(tmp_path):
    """Two outlines of one reader at one place are not two readers."""
    cases = open_lidc_idri(_data(tmp_path, [[_nodule(5), _nodule(5, row=ROW + 1)], [_nodule(5)]]))
    assert (len(cases), cases.n_left_out) == (0, 2)


def test_points_without_contour_are_not_readings(tmp_path):
    """Nodules below 3 mm are single points without characteristics, and count neither as nodule nor as left out."""
    point = lidc_nodule(None, {2: [(COLUMN, ROW)]})
    cases = open_lidc_idri(_data(tmp_path, [[_nodule(5), point], [_nodule(5)], [point], [_nodule(4)]]))
    assert (len(cases), cases.n_left_out) == (1, 0)
    bare = lidc_nodule(None, {2: lidc_square(ROW, COLUMN, 5)})
    assert len(open_lidc_idri(_data(tmp_path / "b", [[_nodule(5)], [_nodule(5)], [bare]]))) == 0


def test_the_mask_is_what_half_of_the_readers_outlined(tmp_path):
    """Outlines are outside: of squares of 9, 9 and 15 pixels, the mask is that of 9, at 0.6 / 0.703 times the size."""
    sample = _only(_data(tmp_path, [[_nodule(5)], [_nodule(5)], [_nodule(5, half=8)]])).load()
    (mask,), (box,) = sample.masks, sample.boxes
    side = 9 * LIDC_SPACING_MM / (FIELD_MM / 64)
    assert mask.sum() == pytest.approx(side**2, rel=0.2)
    assert box == (28, 28, 36, 36)
    assert sample.labels == ("malignant",)
    assert mask[28:36, 28:36].all()


def test_a_hole_is_not_part_of_the_mask(tmp_path):
    """An roi with inclusion FALSE is taken out of the nodule."""
    hole = {2: lidc_square(ROW, COLUMN, 3)}
    mask = _only(_data(tmp_path, [[_nodule(5, half=9, holes=hole)]] * 3)).load().masks[0]
    assert not mask[32, 32]
    assert mask[25, 32]


def test_a_nodule_at_the_edge_has_air_beyond_the_slice(tmp_path):
    """Points outside the slice are -1000 HU, not a mirror image of the patient."""
    sample = _only(_data(tmp_path, [[_nodule(5, row=8, column=60)]] * 3)).load()
    assert (sample.pixels[:10] == -1000).all()
    assert (sample.pixels[40:] > -1000).all()


def test_a_missing_slice_is_named(tmp_path):
    """The error tells the position of the slice and not the patient."""
    case = _only(_data(tmp_path, [[_nodule(5)]] * 3, slices=(0, 1, 3, 4)))
    with pytest.raises(DatasetError, match=r"<patient>/.*069\.xml: missing file of the slice at -95 mm") as info:
        case.load()
    assert "LIDC-IDRI-0001" not in str(info.value)
    assert "LIDC-IDRI-0001" not in repr(case)


def test_xml_may_lie_apart_and_series_may_be_missing(tmp_path):
    """The XML archive has all series; those that were not downloaded are skipped, radiographs too."""
    lidc_series(tmp_path)
    lidc_xml(tmp_path / "tcia-lidc-xml/157/158.xml", [[_nodule(5)]] * 4)
    lidc_xml(tmp_path / "tcia-lidc-xml/157/159.xml", [[_nodule(5)]] * 4, series=f"{LIDC_SERIES}.9")
    lidc_xml(tmp_path / "tcia-lidc-xml/185/001.xml", [], root="IdriReadMessage")
    assert [case.patient_id for case in open_lidc_idri(tmp_path)] == ["LIDC-IDRI-0001"]


def test_patients_are_split_apart(tmp_path):
    """Two series of one patient are on one side of a split; the data set is known by its name."""
    for k in range(6):
        series = f"{LIDC_SERIES}.{k}"
        folder = lidc_series(tmp_path, patient=f"LIDC-IDRI-000{k // 2}", series=series)
        lidc_xml(folder / "069.xml", [[_nodule(1 + 4 * (k % 2), series=series)]] * 3, series=series)
    cases = open_dataset("lidc-idri", tmp_path)
    assert cases.counts() == {"benign": 3, "malignant": 3}
    split = split_patients(cases, validation=0.4)
    assert {case.patient_id for case in split.training}.isdisjoint(case.patient_id for case in split.validation)


def test_the_simulators_field_of_view_is_that_of_the_patches():
    """A network of simulated nodules sees patches of the data set at the same scale."""
    assert FIELD_MM == nodule.FIELD_MM
    assert nodule.sample("benign").pixels.shape == cut_axial(np.zeros((LIDC_SIDE, LIDC_SIDE)), (9, 9), (1, 1)).shape


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</LidcReadMessage>", "", r"069\.xml: expected an XML document, got one that is damaged at line 2"),
        ("<malignancy>5<", "<malignancy>7<", r"malignancy must be 1, 2, 3, 4 or 5"),
        ("<xCoord>52<", "<xCoord>left<", r"coordinates of an roi must be numbers"),
        ("<xCoord>52<", "<xCoord>inf<", r"coordinates of an roi must be finite"),
        ("<inclusion>TRUE<", "<inclusion>perhaps<", r"inclusion must be TRUE or FALSE"),
        ("SeriesInstanceUid", "SeriesUid", r"expected an element ResponseHeader/SeriesInstanceUid in LidcReadMessage"),
        ("imageSOP_UID", "image", r"expected an element imageSOP_UID in roi, got none"),
    ],
)
def test_a_damaged_xml_file_is_named(tmp_path, old, new, message):
    """Errors name the file and what was expected, and not the patient."""
    root = _data(tmp_path, [[_nodule(5)]] * 3)
    (path,) = root.rglob("069.xml")
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(DatasetError, match=message) as info:
        open_lidc_idri(root)
    assert "LIDC-IDRI-0001" not in str(info.value)


def test_a_folder_without_annotations_or_series_is_refused(tmp_path):
    """Both errors say what was expected below the root."""
    lidc_series(tmp_path)
    with pytest.raises(DatasetError, match="expected XML files with a LidcReadMessage below the root, got none"):
        open_lidc_idri(tmp_path)
    lidc_xml(tmp_path / "158.xml", [[_nodule(5)]] * 3, series="1.2.3")
    with pytest.raises(
        DatasetError, match="expected DICOM files of one of 1 annotated series below the root, got none"
    ):
        open_lidc_idri(tmp_path)


def test_contradicting_files_of_a_series_are_refused(tmp_path):
    """The same XML file twice is one; two that differ are an error."""
    root = _data(tmp_path, [[_nodule(5)]] * 3)
    lidc_xml(root / "xml/158.xml", [[_nodule(5)]] * 3)
    assert len(open_lidc_idri(root)) == 1
    lidc_xml(root / "xml/158.xml", [[_nodule(4)]] * 3)
    with pytest.raises(DatasetError, match=r"expected one XML file for each series, got another than 069\.xml"):
        open_lidc_idri(root)
