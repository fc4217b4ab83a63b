"""Pixel spacing at the object: every source of it, magnification, and contradictions."""

import io
import itertools
import re

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from pydicom import Dataset

from radlens.images import read
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.geometry import corner_centres

PIXELS = np.zeros((4, 4), np.uint16)
SAME, SMALLER = (0.07, 0.08), (0.05, 0.0571)
FACTOR = "EstimatedRadiographicMagnificationFactor"


def image(**attributes):
    """Read a file with these attributes only."""
    return read(dicom_bytes(PIXELS, **{"ImagerPixelSpacing": None} | attributes))


def expected(stated, at_detector, factor, kind):
    """Follow PS3.3 10.7.1.1 case by case: the spacing, or "contradiction"."""
    divided = at_detector and tuple(value / (factor or 1) for value in at_detector)
    if stated is None:
        return divided
    if at_detector is None:
        return stated
    agrees = factor is None or abs(stated[0] / divided[0] - 1) < 0.01
    if stated == at_detector:  # not corrected, unless it says so
        if kind == "GEOMETRY":
            return stated if agrees else "contradiction"
        return stated if kind == "FIDUCIAL" else divided
    return stated if agrees or kind == "FIDUCIAL" else "contradiction"


@pytest.mark.parametrize(
    ("stated", "at_detector", "factor", "kind"),
    list(
        itertools.product(
            (None, SAME, SMALLER), (None, SAME), (None, 1.0, 1.02, 1.4), (None, "GEOMETRY", "FIDUCIAL", "OTHER")
        )
    ),
)
def test_the_spacing_is_that_at_the_object(stated, at_detector, factor, kind):
    """Pixel Spacing where it was corrected, else the spacing at the detector over the magnification."""
    attributes = {
        "PixelSpacing": stated and list(stated),
        "ImagerPixelSpacing": at_detector and list(at_detector),
        FACTOR: factor,
        "PixelSpacingCalibrationType": kind,
    }
    found = image(**{keyword: value for keyword, value in attributes.items() if value is not None})
    wanted = expected(stated, at_detector, factor, kind)
    if wanted == "contradiction":
        assert found.spacing_mm is None
        (note,) = found.notes
        for word in ("PixelSpacing", "at the detector", f"{FACTOR} {factor:g}", "contradicts"):
            assert word in note
    else:
        assert found.spacing_mm == (wanted and pytest.approx(wanted, rel=1e-12))
        assert found.notes == ()


def test_a_corrected_spacing_may_be_rounded():
    """0.07 mm over 1.02 is 0.0686 mm, as a scanner writes it."""
    found = image(PixelSpacing=[0.0686, 0.0686], ImagerPixelSpacing=[0.07, 0.07], **{FACTOR: "1.02"})
    assert found.spacing_mm == (0.0686, 0.0686)
    assert found.notes == ()


def test_digitised_films_state_a_nominal_spacing():
    """PS3.3 10.7.1.1 names it beside Imager Pixel Spacing."""
    assert image(NominalScannedPixelSpacing=[0.1, 0.2]).spacing_mm == (0.1, 0.2)


@pytest.mark.parametrize(
    ("spacing", "got"),
    [
        (["0", "0.1"], "0 and 0.1"),
        (["-1", "1"], "-1 and 1"),
        (["0.1", "0.1", "0.1"], "3 values"),
        (["0.1"], "1 values"),
        (["nan", "1"], "nan and 1|text that is not a number and 1"),
    ],
)
def test_a_spacing_that_makes_no_sense_is_noted_and_not_used(spacing, got):
    """The image is still read, and the other attribute counts."""
    found = image(ImagerPixelSpacing=spacing)
    assert found.spacing_mm is None
    (note,) = found.notes
    assert re.fullmatch(f"ImagerPixelSpacing must be 2 positive numbers, got ({got}); it is not used", note)
    assert image(ImagerPixelSpacing=spacing, PixelSpacing=[0.2, 0.3]).spacing_mm == (0.2, 0.3)
    assert image(PixelSpacing=spacing, ImagerPixelSpacing=[0.2, 0.3], **{FACTOR: 2}).spacing_mm == (0.1, 0.15)


@pytest.mark.parametrize("factor", ["0", "0.9", "-1", ["1", "2"]])
def test_a_magnification_that_makes_no_sense_leaves_no_spacing(factor):
    """Whether the spacing at the detector is that at the object is then unknown."""
    found = image(PixelSpacing=[0.07, 0.07], ImagerPixelSpacing=[0.07, 0.07], **{FACTOR: factor})
    assert found.spacing_mm is None
    assert found.notes[0].startswith(f"{FACTOR} must be a finite number of at least 1, got")


def test_spacings_that_differ_between_frame_and_image_are_noted():
    """Neither is used."""
    macro, group = Dataset(), Dataset()
    macro.PixelSpacing = [0.1, 0.1]
    group.PixelMeasuresSequence = [macro]
    found = image(PixelSpacing=[0.2, 0.2], SharedFunctionalGroupsSequence=[group])
    assert found.spacing_mm is None
    assert found.notes[0].startswith("PixelSpacing must be stated alike wherever it is, got 2 values in the data set")


def test_a_magnified_phantom_is_found_at_the_spacing_of_its_header():
    """At magnification 1.02, the corners lie within 0.1 mm."""
    factor, at_detector = 1.02, 0.15
    layout = cdmam.Layout.with_margin(0, at_detector / factor)
    dataset = pydicom.dcmread(io.BytesIO(cdmam.to_dicom(cdmam.simulate(cdmam.SCENARIOS["1"], layout, seed=3))))
    dataset.ImagerPixelSpacing = [at_detector, at_detector]
    dataset.EstimatedRadiographicMagnificationFactor = str(factor)
    stream = io.BytesIO()
    dataset.save_as(stream)
    found = read(stream.getvalue())
    assert found.spacing_mm == pytest.approx(layout.spacing_mm, rel=1e-12)
    points = [coordinates[cdmam.CELL_EXISTS] for coordinates in corner_centres()]
    true = layout.to_pixels(*points)
    placed = cdmam.locate(found.pixels, found.spacing_mm).to_pixels(*points)
    assert np.hypot(*np.subtract(placed, true)).max() * at_detector < 0.1
