"""The presentation state: outlines and extremes at their places, on the grey scale of the source."""

import io
import subprocess

import numpy as np
import PIL.Image
import pydicom
import pytest
from dicom_files import dicom_bytes
from dicom_tools import needs_dcmtk
from map_findings import map_findings, some_map
from matplotlib.path import Path as Polygon

from radlens.dicom import write
from radlens.dicom.presentation import MOST_OUTLINES, outlines
from radlens.images import read

GREY = np.random.default_rng(1).integers(100, 3000, (300, 200)).astype(np.uint16)


def blob(row, column, size=12.0, height=1.0, shape=(300, 200)):
    """Return a hill of a map."""
    rows, columns = np.indices(shape)
    return (height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))).astype(np.float32)


def presented(values, **attributes):
    """Return the presentation state of a map, parsed."""
    (content,) = write(map_findings(read(dicom_bytes(GREY, **attributes)), values), ["presentation"])
    return pydicom.dcmread(io.BytesIO(content))


def graphics(dataset, layer, kind):
    """Return the points ``(n, 2)`` of the graphics of a kind in a layer, columns and rows."""
    return [
        np.array(each.GraphicData).reshape(-1, 2)
        for annotation in dataset.GraphicAnnotationSequence
        if annotation.GraphicLayer == layer
        for each in annotation.get("GraphicObjectSequence", [])
        if each.GraphicType == kind
    ]


@pytest.mark.parametrize("scale", [1, 8], ids=["small", "reduced"])
def test_outlines_lie_at_half_of_the_hill(scale):
    """Closed, around the hill and nothing else, in pixels of the image whatever its size."""
    values = blob(60 * scale, 150 * scale, 20 * scale, shape=(300 * scale, 200 * scale))
    (polygon,), negative = outlines(values)
    assert negative == []
    np.testing.assert_array_equal(polygon[0], polygon[-1])
    inside = Polygon(polygon)
    assert inside.contains_point((150.5 * scale, 60.5 * scale))
    radii = np.hypot(*(polygon - (150.5 * scale, 60.5 * scale)).T) / scale
    # Half of a Gaussian hill is at 1.18 sigma; the smoothing widens it a little.
    assert np.all(np.abs(radii - 1.18 * 20) < 3)


def test_signs_and_extremes_are_marked():
    """A positive and a negative hill, each in its layer; a point at the pixel of the largest value."""
    values = blob(60, 150) - 0.8 * blob(220, 50)
    dataset = presented(values)
    (positive,), (negative,) = (graphics(dataset, layer, "POLYLINE") for layer in ("POSITIVE", "NEGATIVE"))
    assert Polygon(positive).contains_point((150.5, 60.5))
    assert not Polygon(positive).contains_point((50.5, 220.5))
    assert Polygon(negative).contains_point((50.5, 220.5))
    for layer, place in (("POSITIVE", (150.5, 60.5)), ("NEGATIVE", (50.5, 220.5))):
        (point,) = graphics(dataset, layer, "POINT")
        np.testing.assert_array_equal(point, [place])
    texts = [
        each.UnformattedTextValue
        for annotation in dataset.GraphicAnnotationSequence
        for each in annotation.TextObjectSequence
    ]
    assert texts == [
        "Not for diagnosis. Saliency, radlens cdmam 1.0",
        "largest +1 um of gold",
        "smallest -0.8 um of gold",
    ]


def test_a_map_of_zeros_has_no_marks():
    """It says so."""
    dataset = presented(np.zeros((300, 200), np.float32))
    (annotation,) = dataset.GraphicAnnotationSequence
    assert "GraphicObjectSequence" not in annotation
    assert annotation.TextObjectSequence[-1].UnformattedTextValue == "the map has no positive value"


def test_noise_has_few_outlines():
    """Not one for each pixel, and each is small enough to be drawn."""
    dataset = presented(some_map((300, 200)))
    for layer in ("POSITIVE", "NEGATIVE"):
        found = graphics(dataset, layer, "POLYLINE")
        assert len(found) <= MOST_OUTLINES
        for points in found:
            assert len(points) <= 402
            assert (points >= 0).all()
            assert (points <= (200, 300)).all()


def test_it_refers_to_the_whole_source():
    """Series, instance, displayed area and spacing."""
    dataset = presented(blob(60, 150))
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.3"
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.1"
    (area,) = dataset.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [200, 300]
    assert [float(each) for each in area.PresentationPixelSpacing] == [0.07, 0.08]


@pytest.mark.parametrize(
    ("attributes", "shape", "window"),
    [
        ({"WindowCenter": 1500, "WindowWidth": 700}, "IDENTITY", (1500, 700)),
        ({"WindowCenter": ["1500", "9"], "WindowWidth": ["700", "9"]}, "IDENTITY", (1500, 700)),
        ({"WindowCenter": 1500, "WindowWidth": 0}, "IDENTITY", None),
        ({}, "IDENTITY", None),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "INVERSE", None),
        ({"RescaleSlope": "2", "RescaleIntercept": "-100"}, "IDENTITY", None),
    ],
)
def test_the_grey_scale_is_that_of_the_source(attributes, shape, window):
    """Its window, or one that shows nearly all of its values; its polarity and rescaling."""
    dataset = presented(blob(60, 150), **attributes)
    assert dataset.PresentationLUTShape == shape
    (found,) = dataset.SoftcopyVOILUTSequence
    centre, width = float(found.WindowCenter), float(found.WindowWidth)
    if window is not None:
        assert (centre, width) == window
    else:
        slope, intercept = float(attributes.get("RescaleSlope", 1)), float(attributes.get("RescaleIntercept", 0))
        low, high = (slope * each + intercept for each in (100, 3000))
        assert low < centre - width / 2 < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < centre + width / 2 < high
    assert (dataset.get("RescaleSlope") == 2) == ("RescaleSlope" in attributes)


@needs_dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dcmtk_renders_the_image_with_it(tmp_path, photometric):
    """With the same grey values as the image has alone, apart from the window."""
    data = dicom_bytes(GREY, PhotometricInterpretation=photometric)
    (state,) = write(map_findings(read(data), blob(60, 150)), ["presentation"])
    for name, content in (("image.dcm", data), ("state.dcm", state)):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("state.dcm", "image.dcm", "out.pgm")]
    subprocess.run(["dcmp2pgm", "-p", *files], check=True, capture_output=True)
    drawn = np.asarray(PIL.Image.open(files[2])).astype(float)
    assert drawn.shape == GREY.shape
    sign = -1 if photometric == "MONOCHROME1" else 1
    assert np.corrcoef(drawn.ravel(), sign * GREY.ravel().astype(float))[0, 1] > 0.99
