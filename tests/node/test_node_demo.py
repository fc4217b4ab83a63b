"""``radlens node demo``: what it lacks is named, and what Orthanc does not preview is drawn."""

import io

import numpy as np
import pytest
from node_parts import image
from PIL import Image
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from radlens.cli import app, node_demo
from radlens.cli.node_pictures import picture
from radlens.images import read


def pixels(png):
    """Return the pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("lacks", ["Orthanc", "plugin"])
def test_missing_packages_are_named(monkeypatch, tmp_path, lacks):
    """With the command that installs them, and exit code 4."""
    monkeypatch.setattr(node_demo, "PLUGIN", tmp_path if lacks == "Orthanc" else tmp_path / "none")
    found = {"Orthanc"} if lacks == "Orthanc" else set()
    monkeypatch.setattr(node_demo.shutil, "which", lambda name, path: None if name in found else name)
    done = CliRunner().invoke(app, ["node", "demo"])
    package = "orthanc" if lacks == "Orthanc" else "orthanc-dicomweb"
    assert done.exit_code == 4
    assert f"the demo needs Debian packages: apt-get install {package}" in done.stderr


def test_the_demos_settings_are_valid(tmp_path):
    """And its rules want what it sends."""
    from radlens.node.header import Header
    from radlens.node.reading import read_settings

    text = node_demo.SETTINGS.format(
        folder="queue",
        node=1,
        pacs=2,
        url="http://s",
        token_file="t",
        phantom="cdmam",
        ultrasound="ultrasound-resnet",
        samples=20,
    )
    (tmp_path / "node.yaml").write_text(text)
    phantoms, ultrasound = read_settings(tmp_path / "node.yaml").rules
    assert phantoms.conditions.match(Header("1", "2", "MG", "BREAST", "Quality control"), "MODALITY")
    assert ultrasound.conditions.match(Header("1", "2", "US", "BREAST", "Breast ultrasound"), "MODALITY")


def test_the_demos_ultrasound_image_is_read():
    """As the pixels that were simulated."""
    from radlens.phantoms import ultrasound

    simulated = ultrasound.sample("malignant", seed=1)
    found = read(node_demo._ultrasound(simulated))
    np.testing.assert_array_equal(found.pixels, simulated.pixels)
    np.testing.assert_allclose(found.spacing_mm, simulated.spacing_mm, atol=1e-6)


def test_maps_are_drawn_red_and_blue():
    """On a symmetric scale: the strongest values have the full colour, zero is black."""
    values = np.zeros((8, 8), np.float32)
    values[0], values[1, 2], values[5, 6] = 4, 9, -1
    dataset = image(1)
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = values.tobytes()
    drawn = pixels(picture(dataset, {}, None))
    assert drawn[1, 2].tolist() == [255, 0, 0]
    assert drawn[0, 0, 0] > drawn[5, 6, 2] > 0
    assert drawn[5, 6, :2].tolist() == [0, 0]
    assert not drawn[[2, 3, 4, 6, 7]].any()


def test_presentation_states_are_drawn_over_their_image():
    """Lines lie at their columns and rows."""
    source = image(1)
    state, reference, series, annotation, graphic = (Dataset() for _ in range(5))
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    series.ReferencedImageSequence = [reference]
    state.ReferencedSeriesSequence = [series]
    graphic.GraphicAnnotationUnits, graphic.GraphicType = "PIXEL", "POLYLINE"
    graphic.GraphicData = [1.0, 3.0, 7.0, 3.0]
    annotation.GraphicObjectSequence = [graphic]
    state.GraphicAnnotationSequence = [annotation]
    drawn = pixels(picture(state, {str(source.SOPInstanceUID): source}, None))
    assert (drawn[3, 1:8] == [255, 255, 0]).all()
    assert not (drawn[5] == [255, 255, 0]).all(axis=-1).any()


def test_a_preview_is_taken_as_it_is():
    """Where the PACS made one; otherwise grey values are drawn."""
    assert picture(image(1), {}, b"PNG of the PACS") == b"PNG of the PACS"
    assert pixels(picture(image(1), {}, None)).shape == (8, 8)
