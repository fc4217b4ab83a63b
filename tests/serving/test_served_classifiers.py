"""Classifiers beside the other model of a real TorchServe: versions, methods, batches that mix everything."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from archives import make_archive
from sample_images import dicom, noise
from small_classifier import make_classifier

from radlens import errors
from radlens.archives import archive
from radlens.client import Client
from radlens.families import family_of, open_service
from radlens.images import to_npy
from radlens.service.messages import Request
from radlens.versions.management import Version
from radlens.wire import CLASSIFICATION, array_from_json

pytestmark = pytest.mark.serving

SLOW_BATCHES = replace(family_of(CLASSIFICATION).worker, max_batch_delay_ms=500)

OCCLUSION = {"method": "occlusion", "window": 8, "stride": 5}


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Version 2.0 of the classifier: two members, which can be evaluated but not differentiated."""
    return make_classifier(tmp_path_factory.mktemp("v2"), version="2.0", n_members=2, graphs=("prediction",))


@pytest.fixture(scope="module")
def lesions(server, management, store, classifier, ensemble):
    """A client of the classifier, registered in two versions while the server runs."""
    make_archive(classifier, store / "lesions-slow.mar", worker=SLOW_BATCHES)
    archives = ["lesions-slow.mar", archive(ensemble, store).name]
    with Client.of_server(server.state.workdir, model="lesions") as client:
        # The first version becomes the default.
        assert management.register(archives[0]) == ("lesions", "1.0")
        assert management.register(archives[1]) == ("lesions", "2.0")
        yield client
        # Nobody asks any more.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("radlens.versions.management._QUIET_S", 0.0)
            management.unregister("lesions", "2.0")
            management.unregister("lesions", "1.0")


def test_classifiers_stand_beside_other_models(lesions, client, management):
    """Each answers under its own name, with its own configuration."""
    expected = [Version("lesions", "1.0", True, 1, 0), Version("lesions", "2.0", False, 1, 0)]
    assert [version for version in management.versions() if version.model == "lesions"] == expected
    described = management.describe("lesions", "2.0")
    assert (described["batchSize"], described["responseTimeout"]) == (8, 28800)
    assert "probabilities" in lesions.predict(dicom(noise()))["prediction"]
    assert "mean_um" in client.predict(dicom(noise()))["prediction"]


def test_versions_of_a_classifier(lesions, classifier, ensemble):
    """Another number of members, other methods; each says which it is."""
    first, second = (lesions.predict(to_npy(noise()), version=version) for version in ("1.0", "2.0"))
    hashes = [answer["provenance"]["bundle_hash"] for answer in (first, second)]
    assert hashes == [classifier.bundle_hash, ensemble.bundle_hash]
    assert "probability_std" in second["prediction"]
    assert "probability_std" not in first["prediction"]
    found = lesions.explain(to_npy(noise((40, 30))), version="2.0", members="each", **OCCLUSION)["explanation"]
    np.testing.assert_allclose(found["disagreement"], np.std(found["members"], axis=0), atol=1e-7)
    with pytest.raises(errors.UnsupportedMethod, match="methods that do are lime, occlusion, shap"):
        lesions.explain(to_npy(noise()), version="2.0", method="saliency")


def test_what_is_wrong_is_told(lesions):
    """The kind of error and the message are those of the service."""
    for parameters, kind, message in (
        ({"method": "deep_lift"}, errors.UnsupportedMethod, "method deep_lift does not work with this model"),
        ({"method": "lrb"}, errors.InvalidParameter, "method must be one of cam, "),
        ({"target": "healthy"}, errors.InvalidParameter, "target must be predicted, or one of normal, "),
        ({"members": "each"}, errors.InvalidParameter, "members must be mean"),
    ):
        with pytest.raises(kind, match=message):
            lesions.explain(to_npy(noise()), **parameters)


def mixed():
    """Return what eight clients ask of version 1.0, methods and targets mixed; None is a prediction."""
    return [
        {"method": "integrated_gradients", "n_steps": 20, "target": "benign"},
        {"method": "integrated_gradients", "n_steps": 9, "target": "malignant"},
        OCCLUSION | {"target": 0},
        None,
        {"method": "grad_cam", "trust": True},
        {"method": "cam", "target": 5},
        {"method": "lime", "n_segments": 9, "n_evaluations": 20},
        {"method": "saliency"},
    ]


def ask(client, number, parameters):
    """Return the numbers of an answer, or the error."""
    image = to_npy(noise((40 + number, 30), seed=number))
    if parameters is None:
        return np.array(client.predict(image)["prediction"]["probabilities"])
    try:
        return client.explain(image, **parameters)["explanation"]["map"]
    except errors.InvalidParameter as error:
        return error


def test_a_batch_is_its_rows(lesions):
    """Predictions, methods and targets that share a batch equal those that were asked for alone."""
    alone = [ask(lesions, number, parameters) for number, parameters in enumerate(mixed())]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: ask(lesions, *pair), enumerate(mixed())))
    for expected, found in zip(alone, together, strict=True):
        if isinstance(expected, Exception):
            assert str(found) == str(expected)
            continue
        # Another batch size adds in another order; a ReLU of one of the steps of a path can switch.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_served_map_is_the_librarys(lesions, classifier):
    """The same as that of the service in this process, whichever engine each chose."""
    image = dicom(noise((50, 40)))
    parameters = {"method": "integrated_gradients", "n_steps": "30", "target": "1", "trust": "true"}
    served = lesions.explain(image, **parameters)
    (response,) = open_service(classifier, engine="torch").respond([Request("explain", image, parameters=parameters)])
    local = json.loads(response.body)
    expected = array_from_json(local["explanation"]["map"])
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(served["explanation"]["map"], expected, rtol=0, atol=atol)
    for name in ("deletion", "insertion"):
        assert served["trust"][name] == pytest.approx(local["trust"][name], abs=1e-3)


@pytest.mark.parametrize(
    ("media_type", "start"),
    [("image/png", b"\x89PNG"), ("application/x-npy", b"\x93NUMPY"), ("application/dicom", b"\0" * 128 + b"DICM")],
)
def test_formats_come_over_http(lesions, media_type, start):
    """With the class that was explained in the provenance."""
    found = lesions.fetch("explain", dicom(noise((50, 40))), media_type, method="cam", target="malignant")
    assert found.media_type == media_type
    assert found.content.startswith(start)
    assert found.provenance["explainer"]["target_class"] == "malignant"
