"""The Secondary Capture: the picture, what is burnt in, and the study that it belongs to."""

import io
import json

import numpy as np
import pydicom
import pytest
from dicom_files import SECRET, dicom_bytes
from map_findings import PROVENANCE, map_findings

from radlens.dicom import Picture, write
from radlens.errors import InvalidInput, UnreadableImage
from radlens.figures.burnt_in import Legend, burnt_in, enlarged
from radlens.images import read, to_png

GREY = np.random.default_rng(1).integers(0, 65536, (30, 20)).astype(np.uint16)
RGB = np.random.default_rng(2).integers(0, 256, (30, 20, 3)).astype(np.uint8)


def captured(source, **changes):
    """Return the capture of an answer to an image file, parsed."""
    found = map_findings(read(source), **({"picture": lambda: Picture(RGB)} | changes))
    (content,) = write(found, ["capture"])
    return pydicom.dcmread(io.BytesIO(content))


def test_it_belongs_to_the_study_of_its_source():
    """Patient and study are inherited, series and instance are new, the source is referenced."""
    data = dicom_bytes(GREY, PatientSex="F", AccessionNumber="A1", LossyImageCompression="01")
    source, result = pydicom.dcmread(io.BytesIO(data)), captured(data)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "AccessionNumber"):
        assert result[keyword].value == source[keyword].value
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.SOPInstanceUID != source.SOPInstanceUID
    assert result.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert result.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert result.LossyImageCompression == "01"


def test_it_holds_the_picture_above_a_band():
    """Pixels of the picture are repeated, never changed; at 32 times the resolution the spacing is a 32nd."""
    result = captured(dicom_bytes(GREY, PatientOrientation=["P", "L"]))
    shown = enlarged(RGB)
    np.testing.assert_array_equal(shown[::32, ::32], RGB)
    np.testing.assert_array_equal(result.pixel_array[: shown.shape[0]], shown)
    assert result.Rows > shown.shape[0]
    assert (result.PhotometricInterpretation, result.BurnedInAnnotation) == ("RGB", "YES")
    assert [float(value) for value in result.PixelSpacing] == pytest.approx([0.07 / 32, 0.08 / 32])
    assert list(result.PatientOrientation) == ["P", "L"]


def test_a_figure_has_no_place_in_the_image():
    """The spacing of the image is not that of a curve drawn from it."""
    result = captured(dicom_bytes(GREY), picture=lambda: Picture(RGB, is_of_image=False))
    assert "PixelSpacing" not in result
    assert result.PatientOrientation == ""


def test_words_of_the_band_are_visible(monkeypatch):
    """Model, version, judgement, reasons and warnings; each of them changes the picture."""
    said = []

    def noted(picture, headline, lines, legend):
        said.extend([headline, *lines])
        return burnt_in(picture, headline, lines, legend)

    monkeypatch.setattr("radlens.dicom.capture.burnt_in", noted)
    captured(dicom_bytes(GREY), assessable=False, reasons=("it is a cat",), lines=("probability 0.3",))
    text = "\n".join(said)
    assert said[0] == "Not for diagnosis. NOT ASSESSABLE: no verdict"
    for expected in (
        "model cdmam 1.0",
        "bundle ab12",
        "assessable: no",
        "it is a cat",
        "probability 0.3",
        "warning: the",
    ):
        assert expected in text
    alone = burnt_in(RGB, "Not for diagnosis", ["one"])
    for headline, lines in (("Not for diagnosis", ["two"]), ("Something else", ["one"])):
        assert (burnt_in(RGB, headline, lines) != alone).any()


def test_the_scale_shows_the_colours_of_the_map():
    """From blue at the left to red at the right, black in the middle."""
    page = burnt_in(RGB, "", [], Legend(0.5, "um of gold", "positive pixels must become brighter"))
    band = page[enlarged(RGB).shape[0] :].astype(int)
    redness = (band[..., 0] - band[..., 2]).max(axis=0)
    blueness = (band[..., 2] - band[..., 0]).max(axis=0)
    assert blueness[:200].max() > 150 > redness[:150].max()
    assert redness[250:400].max() > 150 > blueness[250:400].max()


def test_long_words_stay_inside():
    """A line of 1000 characters is broken; a hundred lines are cut."""
    page = burnt_in(RGB, "headline", ["x" * 1000], Legend(1.0, "a unit " * 40, "meaning " * 40))
    assert page.shape[1] == enlarged(RGB).shape[1]
    assert burnt_in(RGB, "headline", ["line"] * 100).shape[0] < 3 * page.shape[0]


def test_it_says_what_made_it():
    """Contributing equipment and the whole provenance."""
    result = captured(dicom_bytes(GREY))
    (equipment,) = result.ContributingEquipmentSequence
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("radlens", "cdmam")
    assert equipment.SoftwareVersions == "1.0"
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert result.SeriesDescription == "radlens Saliency (picture)"
    assert json.loads(result.ImageComments) == PROVENANCE


def test_a_source_without_a_header_gives_an_anonymous_study():
    """PNG knows no patient; all results of one file lie in one study, those of another in another."""
    first, again, other = (captured(to_png(each)) for each in (GREY, GREY, GREY + 1))
    assert (first.PatientID, str(first.PatientName)) == ("ANONYMOUS", "Anonymous^")
    assert first.StudyInstanceUID.is_valid
    assert first.StudyInstanceUID == again.StudyInstanceUID != other.StudyInstanceUID
    assert "SourceImageSequence" not in first
    assert "PixelSpacing" not in first


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "message"),
    [
        ("PatientID", "SQ", [], "PatientID must be text, got a sequence or bytes"),
        ("OtherPatientIDsSequence", "LO", "7", "OtherPatientIDsSequence must be a sequence, got another value"),
    ],
)
def test_an_identity_of_another_kind_is_refused(keyword, vr, value, message):
    """It cannot be copied unchanged."""
    source = read(dicom_bytes(GREY))
    source.dataset.pop(keyword, None)
    source.dataset.add_new(keyword, vr, value)
    with pytest.raises(UnreadableImage, match=message):
        write(map_findings(source), ["capture"])


def test_a_header_that_cannot_be_copied_is_refused_without_quoting_it():
    """A sequence that is not a sequence."""
    source = read(dicom_bytes(GREY))
    source.dataset._dict[pydicom.tag.Tag("StudyDate")] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("StudyDate"), "XX", 8, SECRET.encode(), 0, False, True
    )
    with pytest.raises(UnreadableImage, match="expected StudyDate to be readable, got bytes") as caught:
        write(map_findings(source), ["capture"])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"model": "cdmam"}}, "must have model, version, bundle_hash; missing version, bundle_hash"),
        ({"provenance": PROVENANCE | {"more": "x" * 10_240}}, "fit 10240 characters of JSON, got 10"),
        ({"images": ()}, "findings must be of at least one image, got none"),
        (
            {"picture": lambda: Picture(np.zeros((1250, 12, 3), np.uint8))},
            r"at most 100 times as high as wide, got \(1250, 12",
        ),
        ({"picture": lambda: Picture(GREY)}, r"picture must be \(h, w, 3\) uint8, got \(30, 20\) uint16"),
    ],
)
def test_captures_that_cannot_be_written_are_refused(changes, message):
    """With what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        captured(dicom_bytes(GREY), **changes)


def test_many_images_fit_the_comment():
    """As many as one request may hold, in place of an error: their hashes say which they are."""
    each = {
        "sop_instance_uid": "1." * 30 + "1",
        "shape": [3000, 2400],
        "station_name": "MG" * 8,
        "acquired": "2026-01-01",
    }
    inputs = [{"sha256": f"{number:064x}", **each} for number in range(64)]
    made = captured(dicom_bytes(GREY), provenance=PROVENANCE | {"inputs": inputs})
    assert json.loads(made.ImageComments)["inputs"] == [each["sha256"] for each in inputs]
