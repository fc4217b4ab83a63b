"""Batches that mix predictions, methods and targets: what each row gets, and what the rows share."""

import io

import numpy as np
import pytest
import torch
from class_requests import QUICK, answer, asked, fields, picture
from sample_images import PATIENT, bad_images
from small_classifier import SHAPE, EagerMember

from radlens.datasets import ModelInput
from radlens.families.classifier.model import EnsembleClassifier
from radlens.wire import array_from_json

NOT_BAD_HERE = {"too small", "too large for the model"}
"""Images that a classifier takes, whatever their size and values."""

NPY = "application/x-npy"


def mixed_batch():
    """Return a batch of everything: predictions, methods, targets and formats, and bad rows."""
    images = [picture(shape, seed=seed) for seed, shape in enumerate([(32, 24), (50, 40), (20, 90)])]
    return [
        asked("predict", images[0]),
        asked("explain", images[1], NPY, method="integrated_gradients", n_steps=9, target="benign"),
        asked("predict", body=b""),
        asked("explain", images[2], NPY, method="integrated_gradients", n_steps=5, target="normal"),
        asked("explain", images[0], method="occlusion", target="2", **QUICK["occlusion"]),
        asked("explain", images[1], NPY, method="saliency"),
        asked("explain", images[1], NPY, method="omig"),
        asked("explain", images[2], NPY, method="grad_cam", trust="true"),
        asked("explain", images[0], NPY, method="shap", seed=3, **QUICK["shap"]),
        asked("predict", images[2], NPY),
        asked("explain", images[2], NPY, method="cam", target="9"),
        asked("explain", images[0], "text/html", method="cam"),
        asked("explain", images[0], method="guided_grad_cam"),
    ]


STATUS = [200, 200, 400, 200, 200, 200, 400, 200, 200, 200, 400, 406, 400]


def numbers(response):
    """Return what a response holds as one array, or its status."""
    if response.status != 200:
        return np.array([response.status])
    if response.content_type == NPY:
        return np.load(io.BytesIO(response.body))
    body = fields(response)
    if "explanation" in body:
        return array_from_json(body["explanation"]["map"])
    return np.array(body["prediction"]["probabilities"])


def test_a_batch_is_its_rows(service):
    """Each row gets what it gets alone, to within sums of float32 in another order."""
    together = service.respond(mixed_batch())
    assert [response.status for response in together] == STATUS
    for request, response in zip(mixed_batch(), together, strict=True):
        (alone,) = service.respond([request])
        assert (response.status, response.content_type) == (alone.status, alone.content_type)
        expected = numbers(alone)
        np.testing.assert_allclose(numbers(response), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_members_of_a_batch_are_its_rows(pair):
    """Also where one row asks for each member, and another for their mean."""
    parameters = {"method": "occlusion", "accept": NPY, **QUICK["occlusion"]}
    requests = [
        asked("explain", **parameters, members="each", output="disagreement"),
        asked("explain", **parameters, members="mean"),
        asked("predict", accept=NPY),
    ]
    for request, response in zip(requests, pair.respond(requests), strict=True):
        (alone,) = pair.respond([request])
        np.testing.assert_allclose(numbers(response), numbers(alone), rtol=1e-4, atol=1e-7)


class Counting(EagerMember):
    """Notes how many images each call of the network holds."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def _answer(self, name, targets, arrays):
        self.calls.append((name, len(arrays["images"])))
        return super()._answer(name, targets, arrays)


def test_rows_share_calls_of_the_network(eager_service):
    """Two integrated gradients of different targets, an occlusion and a prediction take 5 calls in place of 10."""
    member = Counting()
    service = eager_service(model=EnsembleClassifier([member]))
    member.calls.clear()
    requests = [
        asked("explain", n_steps=9, target=0),
        asked("explain", picture(seed=1), n_steps=9, target=2),
        asked("explain", method="occlusion", **QUICK["occlusion"]),
        asked("predict"),
    ]
    service.respond(requests)
    # Predictions of all; points of both lines; the whole image; 30 windows and the 4 ends of the lines, 32 at once.
    expected = [("prediction", 4), ("gradient", 18), ("prediction", 1), ("prediction", 32), ("prediction", 2)]
    assert sorted(member.calls) == sorted(expected)
    member.calls.clear()
    for request in requests:
        service.respond([request])
    assert len(member.calls) == 10
    n_images = {kind: sum(n for each, n in expected if each == kind) for kind in ("prediction", "gradient")}
    assert {kind: sum(n for each, n in member.calls if each == kind) for kind in n_images} == n_images


@pytest.mark.parametrize("name", sorted(bad_images().keys() - NOT_BAD_HERE))
def test_bad_images_get_their_own_status(service, name):
    """One clear 4xx for each; its neighbours are answered."""
    body, status = bad_images()[name]
    before, bad, after = service.respond([asked("predict"), asked("explain", body=body), asked("predict")])
    assert (before.status, bad.status, after.status) == (200, status, 200)
    assert len(fields(bad)["message"]) > 20


def test_images_that_overflow_are_refused_alone(eager_service):
    """A model with a fixed scaling meets pixels whose sums are infinite."""
    service = eager_service(input=ModelInput(SHAPE, scaling="fixed"))
    huge = np.full((40, 30), 3e38, dtype=np.float32)
    good, bad, map_of_good = service.respond([asked("predict"), asked("predict", huge), asked(method="cam")])
    assert (good.status, bad.status, map_of_good.status) == (200, 422, 200)
    assert "pixels must be small enough to predict from, got values that overflow" in fields(bad)["message"]


class Overflowing(EagerMember):
    """A network with an infinite gradient."""

    def _answer(self, name, targets, arrays):
        found = super()._answer(name, targets, arrays)
        return (torch.full_like(found[0], torch.inf),) if name == "gradient" else found


def test_maps_that_overflow_are_refused_alone(eager_service):
    """No answer holds an infinity."""
    service = eager_service(model=EnsembleClassifier([Overflowing()]))
    bad, good = service.respond([asked(method="saliency"), asked(method="cam")])
    assert (bad.status, good.status) == (422, 200)
    assert "pixels must be small enough for a finite map" in fields(bad)["message"]


class Failing(EagerMember):
    """A network that fails on several images, and on those of one class."""

    def _answer(self, name, targets, arrays):
        if name == "gradient" and (len(targets) > 1 or targets.any()):
            raise RuntimeError(f"failed on the image of {PATIENT}")
        return super()._answer(name, targets, arrays)


def test_unexpected_errors_stay_in_their_row(eager_service, caplog):
    """What nobody thought of is an opaque 500 for its own row."""
    service = eager_service(model=EnsembleClassifier([Failing()]))
    requests = [asked(method="saliency", target=target) for target in ("0", "1")]
    good, bad = service.respond(requests)
    assert (good.status, bad.status) == (200, 500)
    assert fields(bad)["message"] == "internal error, logged under request id"
    assert PATIENT not in caplog.text + bad.body.decode()


def test_answers_that_cannot_be_written_stay_in_their_row(service, monkeypatch):
    """Also when the computing went well."""
    monkeypatch.setattr("radlens.families.classifier.answers.to_png", lambda array: 1 / 0)
    requests = [asked(method="cam", accept=accept) for accept in ("image/png", NPY)]
    assert [response.status for response in service.respond(requests)] == [500, 200]


def test_the_same_request_gets_the_same_map(service):
    """Bit for bit, also of methods that draw; another seed gives another."""
    parameters = {"accept": NPY, "method": "lime", **QUICK["lime"]}
    first, again, other = (answer(service, seed=seed, **parameters).body for seed in (1, 1, 2))
    assert first == again
    assert first != other
