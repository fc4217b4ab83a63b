"""DICOM objects of each family's answers: what is in them is what JSON says."""

import io
import json
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from class_requests import picture
from dicom_tools import complaints, needs_dicom3tools
from pydicom import uid
from sample_images import PATIENT, dicom, noise
from small_classifier import make_classifier
from small_generators import SHAPE, cycle_bundle
from small_inpainter import inpainter_files
from tiny_bundle import make_bundle

from radlens.client import Client
from radlens.errors import InvalidParameter, NotAcceptable, NotAssessable
from radlens.families import load
from radlens.images import to_npy, to_png
from radlens.local import LocalTransport
from radlens.wire import OBJECTS

pytestmark = pytest.mark.slow
"""Each family is opened."""

CLASSES_IMAGE = dicom(np.clip(picture((64, 48)), 0, 4095).astype(np.uint16))
PHANTOM = dicom(noise())
NAMES = dict(
    zip(
        (
            uid.SecondaryCaptureImageStorage,
            uid.Comprehensive3DSRStorage,
            uid.ParametricMapStorage,
            uid.SegmentationStorage,
            uid.GrayscaleSoftcopyPresentationStateStorage,
        ),
        OBJECTS,
        strict=True,
    )
)
"""Names of the objects by their SOP class."""

CYCLE_IMAGE = dicom(noise(SHAPE))


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """Clients of a small model of each kind, in this process, by name."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    bundles: dict[str, Any] = {
        "lesions": make_classifier(folder / "lesions", n_outputs=2),
        "pair": make_classifier(folder / "pair", name="pair", n_members=2),
        "cdmam": make_bundle(folder / "cdmam"),
        "nodules": load(cycle_bundle()),
        "inpainter": load(inpainter_files()),
    }
    made = {
        name: Client("http://local", model=bundle.manifest.name, transport=LocalTransport(bundle))
        for name, bundle in bundles.items()
    }
    yield made
    for client in made.values():
        client.close()


def asked(client, image, **how):
    """Return the objects of an answer, parsed, by name."""
    how.setdefault("objects", ["all"])
    found = [pydicom.dcmread(io.BytesIO(each)) for each in client.dicom(image, **how)]
    return {NAMES[each.SOPClassUID]: each for each in found}


def numbers(report):
    """Return the numbers of a report by title of the group and code."""
    stream = io.BytesIO()
    report.save_as(stream)
    stream.seek(0)
    found = {}
    content: Any = highdicom.sr.srread(stream).content
    for group in content.get_image_measurement_groups():
        for each in group.get_measurements():
            value = each[0].MeasuredValueSequence[0]
            found[group.tracking_identifier, each.name.value] = value.get("FloatingPointValue", value.NumericValue)
    return found


EXPLAINED = {
    "saliency": ("lesions", CLASSES_IMAGE, {"method": "saliency"}),
    "trust": ("lesions", CLASSES_IMAGE, {"method": "cam", "target": "benign", "trust": "true"}),
    "occlusion": ("lesions", CLASSES_IMAGE, {"method": "occlusion", "window": 16, "stride": 16}),
    "members": ("pair", CLASSES_IMAGE, {"method": "saliency", "members": "each"}),
    "omig": ("cdmam", PHANTOM, {"method": "omig", "n_steps": 2}),
    "sensitivity": ("cdmam", PHANTOM, {"method": "sensitivity", "n_samples": 3}),
    "cycle": ("nodules", CYCLE_IMAGE, {"method": "cycle_activation"}),
}
"""Model, image and parameters of explanations."""


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_map_is_that_of_json(clients, name):
    """Float32 bit for bit, for every method; the report states its extremes and their places."""
    model, image, how = EXPLAINED[name]
    answer = clients[model].explain(image, **how)
    shown = answer["explanation"]["map"].astype(np.float32)
    made = asked(clients[model], image, **how)
    assert tuple(made) == OBJECTS
    np.testing.assert_array_equal(made["map"].pixel_array.reshape(shown.shape), shown)
    found = numbers(made["report"])
    assert found["Map", "MAP-MAXIMUM"] == float(shown.max())
    row, column = (int(found["Map", f"MAP-MAX-{axis}"]) - 1 for axis in ("ROW", "COLUMN"))
    assert shown[row, column] == shown.max()
    assert {str(each.PatientName) for each in made.values()} == {PATIENT}
    if "trust" in how:
        assert found["Trust card", "DELETION"] == pytest.approx(answer["trust"]["deletion"], rel=1e-6)


@needs_dicom3tools
@pytest.mark.parametrize("name", EXPLAINED)
def test_dciodvfy_accepts_every_answer(clients, tmp_path, name):
    """The source states too little, and no object copies an error from it."""
    model, image, how = EXPLAINED[name]
    for content in clients[model].dicom(image, objects=["all"], **how):
        assert complaints(content, tmp_path) == set()


def test_a_repeat_has_the_same_uids_and_another_question_others(clients):
    """So that a repeat does not pile up in the PACS."""
    model, image, how = EXPLAINED["saliency"]

    def uids(**changes):
        return [each.SOPInstanceUID for each in asked(clients[model], image, **how | changes).values()]

    first = uids()
    assert uids() == first
    for changes in ({"target": "benign"}, {"absolute": "false"}, {"method": "cam", "absolute": None}):
        given = {key: value for key, value in (how | changes).items() if value is not None}
        other = [each.SOPInstanceUID for each in asked(clients[model], image, **given).values()]
        assert not set(first) & set(other), changes


@pytest.mark.parametrize("output", ["plus", "minus_change", "overlay", "strip", "map"])
def test_every_picture_has_its_objects(clients, output):
    """The map holds the values of the chosen picture; drawings of the map hold the map."""
    answer = clients["nodules"].explain(CYCLE_IMAGE, method="cycle_activation")["explanation"]
    made = asked(clients["nodules"], CYCLE_IMAGE, method="cycle_activation", output=output)
    expected = answer["pictures"].get(output, answer["map"]).astype(np.float32)
    if output != "strip":
        np.testing.assert_array_equal(made["map"].pixel_array.reshape(expected.shape), expected)
    assert json.loads(made["capture"].ImageComments)["output"] == output


def test_disagreement_of_members_is_a_map(clients):
    """The standard deviation, float32 exactly."""
    how = {"method": "saliency"}
    expected = clients["pair"].explain(CLASSES_IMAGE, members="each", **how)["explanation"]["disagreement"]
    made = asked(clients["pair"], CLASSES_IMAGE, output="disagreement", **how)
    np.testing.assert_array_equal(made["map"].pixel_array.reshape(expected.shape), expected.astype(np.float32))


def test_a_class_prediction_is_a_capture_and_a_report(clients):
    """Probabilities exactly as JSON says."""
    answer = clients["lesions"].predict(CLASSES_IMAGE)["prediction"]
    made = asked(clients["lesions"], CLASSES_IMAGE, kind="predictions")
    assert tuple(made) == ("capture", "report")
    found = numbers(made["report"])
    for name, value in zip(answer["classes"], answer["probabilities"], strict=True):
        assert found[f"Class {name}", "PROBABILITY"] == value


def test_a_curve_that_cannot_be_judged_has_no_threshold(clients):
    """The image is not a phantom: it is said, and no number looks like a verdict."""
    made = asked(clients["cdmam"], PHANTOM, kind="predictions")
    assert tuple(made) == ("capture", "report")
    assert numbers(made["report"]) == {}
    assert "NOT-MET" not in str(made["report"])
    assert "Reason against a judgement" in str(made["report"])


def test_a_uniform_image_has_no_map(clients):
    """Neither a class nor a map; the objects that need one are refused with the reason."""
    even = dicom(np.full((64, 48), 7, np.uint16))
    made = asked(clients["lesions"], even, method="saliency", objects=["all"])
    assert tuple(made) == ("capture", "report")
    assert numbers(made["report"]) == {}
    with pytest.raises(NotAssessable, match="there is nothing to see; there is capture, report, got map"):
        clients["lesions"].dicom(even, method="saliency", objects=["map"])


@pytest.mark.parametrize("output", ["filled", "change", "mask"])
def test_a_filled_image_has_all_objects(clients, output):
    """The map holds the chosen picture; the marks are of the change."""
    image, mask = dicom(noise((48, 40))), np.zeros((48, 40), np.uint8)
    mask[10:20, 10:20] = 255
    expected = clients["inpainter"].predict(image, mask=to_png(mask))["prediction"][output]
    made = asked(clients["inpainter"], image, kind="predictions", mask=to_png(mask), output=output)
    assert tuple(made) == OBJECTS
    np.testing.assert_array_equal(made["map"].pixel_array.reshape(48, 40), expected.astype(np.float32))
    assert made["segmentation"].pixel_array[:, 25:, 25:].max() == 0


def test_wrong_objects_are_refused(clients):
    """400, with what there is; and objects without DICOM have no effect, so they are refused as well."""
    with pytest.raises(InvalidParameter, match=r"objects must be .* list of capture, report, or all, got"):
        clients["lesions"].dicom(CLASSES_IMAGE, kind="predictions", objects=["map"])
    with pytest.raises(InvalidParameter, match="capture, report, map, segmentation, presentation, or all, got 'x'"):
        clients["lesions"].dicom(CLASSES_IMAGE, objects=["x"])
    with pytest.raises(InvalidParameter, match="got ''"):
        clients["lesions"].dicom(CLASSES_IMAGE, objects=[])
    with pytest.raises(InvalidParameter, match="objects must be given with Accept: application/dicom or multipart"):
        clients["lesions"].explain(CLASSES_IMAGE, method="saliency", objects="map")
    with pytest.raises(NotAcceptable):
        clients["lesions"].fetch("explain", CLASSES_IMAGE, 'multipart/related; type="image/jpeg"', method="saliency")


def test_one_object_can_be_a_part(clients):
    """A client that accepts only multipart gets it."""
    accept = 'multipart/related; type="application/dicom"'
    found = clients["lesions"].fetch("explain", CLASSES_IMAGE, accept, method="saliency", objects="report")
    assert found.media_type.startswith("multipart/related; type=")
    found = clients["lesions"].fetch("explain", CLASSES_IMAGE, "application/dicom", method="saliency")
    assert found.media_type == "application/dicom"


def test_a_png_gives_what_needs_no_reference(clients):
    """Capture, report and map of an anonymous patient."""
    made = asked(clients["lesions"], to_npy(picture((64, 48))), method="saliency")
    assert tuple(made) == ("capture", "report", "map")
    assert {each.PatientID for each in made.values()} == {"ANONYMOUS"}
