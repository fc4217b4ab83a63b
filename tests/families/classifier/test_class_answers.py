"""What a prediction and an explanation of a class say, in every format."""

import io
import json

import captum.attr
import numpy as np
import PIL.Image
import pydicom
import pytest
import torch
from class_requests import QUICK, answer, array, asked, explained, fields, picture, refused
from sample_images import PATIENT, dicom, noise
from small_classifier import EagerMember, class_methods, make_network

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.wire import PROVENANCE, array_from_json

TOLERANCE = {"rtol": 0, "atol": 1e-4}
"""Of maps divided by their largest value: sums of float32 in another order, also where a ReLU switches."""


def assert_same_map(found, expected):
    """Compare two maps."""
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(found / largest, expected / largest, **TOLERANCE)


def prepared(pixels):
    """Return an image as the network takes it, ``(1, 1, h, w)``."""
    return torch.from_numpy(ModelInput((32, 24)).prepare(pixels).pixels)[None]


def test_notes_of_a_header_are_warnings(service):
    """A contradiction that does not stop reading is said in every answer."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(noise())))
    dataset.PixelSpacing = [0, 0]
    stream = io.BytesIO()
    dataset.save_as(stream)
    note = "PixelSpacing must be 2 positive numbers, got 0 and 0; it is not used"
    for kind in ("predict", "explain"):
        assert fields(answer(service, kind, body=stream.getvalue()))["warnings"] == [note]


def test_a_prediction_is_the_networks_own(service):
    """Softmax of the logits of the preprocessed image; the class is the most probable one."""
    found = fields(answer(service, "predict", picture((50, 70))))["prediction"]
    logits = make_network()(prepared(picture((50, 70))))[0].double()
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"], logits.softmax(0), rtol=1e-5)
    assert found["classes"] == ["normal", "benign", "malignant"]
    assert found["predicted"] == found["classes"][int(logits.argmax())]
    assert "probability_std" not in found


def test_a_single_output_has_two_classes(eager_service):
    """The sigmoid of the logit is the probability of the second, and the two scores have opposite signs."""
    service = eager_service(n_outputs=1)
    found = fields(answer(service, "predict"))["prediction"]
    (logit,) = found["logits"]
    np.testing.assert_allclose(found["probabilities"], [1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))])
    assert found["classes"] == ["benign", "malignant"]
    assert found["predicted"] == found["classes"][logit > 0]
    maps = [explained(service, method="saliency", absolute="false", target=t)[0] for t in found["classes"]]
    np.testing.assert_array_equal(maps[0], -maps[1])


def test_members_predict_by_their_mean_logits(pair):
    """The probabilities of each are stated, with their standard deviation."""
    found = fields(answer(pair, "predict"))["prediction"]
    logits = torch.stack([make_network(seed)(prepared(picture()))[0] for seed in (0, 1)]).double()
    np.testing.assert_allclose(found["logits"], logits.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"], logits.mean(0).softmax(0), rtol=1e-5)
    members = logits.softmax(1).numpy()
    np.testing.assert_allclose(found["member_probabilities"], members, rtol=1e-5)
    np.testing.assert_allclose(found["probability_std"], members.std(axis=0), rtol=1e-4)


def test_a_prediction_can_be_an_array(service):
    """The probabilities."""
    expected = fields(answer(service, "predict"))["prediction"]["probabilities"]
    np.testing.assert_array_equal(array(answer(service, "predict", accept="application/x-npy")), expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", class_methods())
def test_every_method_can_be_asked_for(service, eager_service, method):
    """By its name; the graphs give the map that the library gives for the network itself, on the network's grid."""
    served = service if method in service._bundle.manifest.explainers else eager_service()
    parameters = QUICK.get(method, {})
    found, said = explained(served, method=method, target="1", **parameters)
    explainer = explainers.create(method, **{name: int(value) for name, value in parameters.items()})
    expected = explainer.attribute(EagerMember(), prepared(picture()), 1)[0, 0].numpy()
    assert_same_map(found, expected)
    assert said["explanation"]["method"] == method
    assert said["explanation"]["unit"]
    assert said["explanation"]["meaning"]


def test_a_served_map_is_captums(service):
    """From bytes to bytes: integrated gradients of the most probable class, with Captum's convergence delta."""
    found, said = explained(service, method="integrated_gradients", n_steps="25")
    images, network = prepared(picture()), make_network()
    target = int(network(images).argmax())
    maps, delta = captum.attr.IntegratedGradients(network).attribute(
        images, target=target, n_steps=25, return_convergence_delta=True
    )
    assert_same_map(found, maps[0, 0].numpy())
    assert said["explanation"]["target"] == target
    assert said["explanation"]["convergence_delta"] == pytest.approx(float(delta[0]), abs=1e-5)


def test_a_target_is_a_name_a_number_or_what_is_predicted(service):
    """The answer says which class was explained."""
    predicted = fields(answer(service, "predict"))["prediction"]["predicted"]
    maps = {}
    for target in ("normal", "0", "predicted", predicted):
        maps[target], said = explained(service, method="cam", target=target)
        expected = {"0": "normal", "predicted": predicted}.get(target, target)
        assert said["explanation"]["target_class"] == expected
        assert said["provenance"]["explainer"]["target_class"] == expected
    np.testing.assert_array_equal(maps["normal"], maps["0"])
    np.testing.assert_array_equal(maps["predicted"], maps[predicted])
    assert not np.array_equal(maps["normal"], maps["predicted"])


def test_an_explanation_comes_with_its_prediction(service):
    """The same as the prediction alone."""
    _, said = explained(service, method="saliency")
    assert said["prediction"] == fields(answer(service, "predict"))["prediction"]


def test_every_answer_says_where_it_comes_from(service, classifier):
    """All that is needed to repeat it; the header says the same as the body."""
    response = answer(service, body=dicom(noise()), method="occlusion", window="9", stride="7", target="benign")
    stated = fields(response)["provenance"]
    assert json.loads(response.headers[PROVENANCE]) == stated
    assert response.headers[PROVENANCE].isascii()
    assert (stated["model"], stated["version"], stated["bundle_hash"]) == ("lesions", "1.0", classifier.bundle_hash)
    assert (stated["engine"], stated["precision"], stated["request_id"]) == ("onnxruntime", "f32", "id")
    parameters = {"window": 9, "stride": 7, "baseline": 0.0, "effect": "drop", "internal_batch_size": None}
    said = {"method": "occlusion", "parameters": parameters, "target": 1, "target_class": "benign"}
    assert stated["explainer"] == said | {"convergence_delta": None}
    assert (stated["members"], stated["output"]) == ("mean", "map")
    assert stated["input"]["sop_instance_uid"] == "1.2.3.1"
    assert set(stated["libraries"]) >= {"radlens", "python", "torch", "onnxruntime", "numpy"}
    assert PATIENT not in response.body.decode() + str(response.headers)


OCCLUSION = {"method": "occlusion", "window": "8", "stride": "5"}

FORMATS = {
    ("map", None): "application/json",
    ("map", "image/png"): "image/png",
    ("map", "application/x-npy"): "application/x-npy",
    ("map", "application/dicom"): "application/dicom",
    ("overlay", None): "image/png",
    ("overlay", "application/dicom"): "application/dicom",
    ("disagreement", None): "image/png",
    ("disagreement", "application/x-npy"): "application/x-npy",
    ("overlay", "application/json"): 406,
    ("overlay", "application/x-npy"): 406,
    ("disagreement", "application/json"): 406,
    ("disagreement", "application/dicom"): "application/dicom",
}


@pytest.mark.parametrize(("output", "accept"), FORMATS)
def test_each_output_has_its_formats(pair, output, accept):
    """Those that do not exist are refused; each carries its provenance."""
    body = dicom(noise((40, 50)))
    response = answer(pair, body=body, accept=accept, output=output, target="malignant", **OCCLUSION)
    if FORMATS[output, accept] == 406:
        assert response.status == 406
        return
    assert (response.status, response.content_type) == (200, FORMATS[output, accept])
    stated = json.loads(response.headers[PROVENANCE])
    assert (stated["output"], stated["explainer"]["target_class"]) == (output, "malignant")
    if response.content_type == "image/png":
        drawn = PIL.Image.open(io.BytesIO(response.body))
        assert (drawn.mode, drawn.size) == ("RGB", (50, 40))


def test_formats_hold_the_same_map(pair):
    """JSON and ``.npy``, of the map and of the disagreement."""
    each = fields(answer(pair, members="each", **OCCLUSION))["explanation"]
    for output in ("map", "disagreement"):
        found = array(answer(pair, accept="application/x-npy", members="each", output=output, **OCCLUSION))
        np.testing.assert_array_equal(found, array_from_json(each[output]))


def test_dicom_answers_belong_to_the_patient(service):
    """An RGB Secondary Capture in the study of the image that was sent, with the provenance in it."""
    response = answer(service, body=dicom(noise()), accept="application/dicom", method="cam", target="malignant")
    result = pydicom.dcmread(io.BytesIO(response.body))
    assert (result.PatientName, result.StudyInstanceUID) == (PATIENT, "1.2.3.2")
    assert result.PhotometricInterpretation == "RGB"
    assert result.SeriesDescription == "radlens CAM of malignant (picture)"
    assert json.loads(result.ImageComments)["explainer"]["target_class"] == "malignant"


LINEAR = {
    "saliency": {"absolute": False},
    "integrated_gradients": {"n_steps": 9},
    "occlusion": {"window": 8, "stride": 5},
}
"""Methods whose maps of a mean score are the means of the maps, with parameters."""


@pytest.mark.parametrize("method", LINEAR)
def test_members_can_be_explained_one_by_one(pair, eager_service, method):
    """Each map is that member's own; their mean is the map of the mean score, their spread the disagreement."""
    served = pair if method == "occlusion" else eager_service(n_members=2)
    parameters = {"method": method, "target": 2, **LINEAR[method]}
    mean, alone = explained(served, **parameters)
    found, said = explained(served, members="each", **parameters)
    maps = [array_from_json(values) for values in said["explanation"]["members"]]
    explainer = explainers.create(method, **LINEAR[method])
    for seed, own in enumerate(maps):
        assert_same_map(own, explainer.attribute(EagerMember(seed), prepared(picture()), 2)[0, 0].numpy())
    np.testing.assert_allclose(found, np.mean(maps, axis=0), rtol=1e-6, atol=1e-9)
    assert_same_map(found, mean)
    np.testing.assert_allclose(array_from_json(said["explanation"]["disagreement"]), np.std(maps, axis=0), atol=1e-7)
    assert "members" not in alone["explanation"]
    if method == "integrated_gradients":
        delta = alone["explanation"]["convergence_delta"]
        assert said["explanation"]["convergence_delta"] == pytest.approx(delta, abs=1e-5)


def test_one_member_cannot_disagree(service):
    """Neither by parameter nor by output."""
    for parameters in ({"members": "each"}, {"output": "disagreement"}):
        status, message = refused(service, **parameters)
        assert status == 400
        expected = "members must be mean and output must not be disagreement for a model with one member, got each"
        assert message == expected


def test_even_images_come_with_a_warning(service):
    """There is nothing to see in them."""
    said = fields(answer(service, pixels=np.full((40, 30), 7, dtype=np.uint16), method="cam"))
    assert said["warnings"] == ["all pixels have one value; there is nothing to see"]
    assert fields(answer(service, "predict"))["warnings"] == []


def test_a_batch_of_nothing_is_nothing(service):
    """No request, no answer."""
    assert service.respond([]) == []
    assert service.respond([asked("predict", body=b"")])[0].status == 400
