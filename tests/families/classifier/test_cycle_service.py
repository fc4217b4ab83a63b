"""CycleGAN activation maximisation from a run of generators to the service: bundle, pictures, strip, bad input."""

import io
import json
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from PIL import Image
from small_classifier import make_network
from small_generators import CLASSES, INPUT, SHAPE, bundled, cycle_bundle, generators, pixels, write_run
from torch import nn

from radlens.client import Client
from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter, TrainingError, UnsupportedMethod
from radlens.families import family_of, load, open_service
from radlens.families.classifier.cycling import of_bundle
from radlens.families.classifier.fingerprint import network_hash
from radlens.images import read, to_npy
from radlens.local import LocalTransport
from radlens.service import request_from_http


@pytest.fixture(scope="module")
def bundle():
    """A classifier with generators."""
    return load(cycle_bundle())


@pytest.fixture(scope="module")
def service(bundle):
    """Its service."""
    return open_service(bundle, engine="torch")


@pytest.fixture(scope="module")
def client(bundle):
    """Asks a service in this process."""
    with Client("http://local", model="nodules", transport=LocalTransport(bundle)) as found:
        yield found


def ask(service, query, accept, body=None):
    """Return the answer of the service to a request."""
    content = to_npy(pixels()) if body is None else body
    return service.respond([request_from_http("explain", content, {"accept": accept}, dict(parse_qsl(query)), "id")])[0]


@pytest.mark.slow
def test_the_answer_is_what_the_generators_draw(client, bundle):
    """Map, pictures in Hounsfield units, probabilities; the same map for both classes."""
    assert "cycle_activation" in bundle.manifest.explainers
    assert bundle.manifest.companions["generators"]["name"] == "generators of nodules"
    assert {"member-0.generated.onnx", "member-0.cycled.onnx", "member-0.generated.golden.npz"} <= set(
        bundle.manifest.files
    )
    answer = client.explain(to_npy(pixels()), method="cycle_activation")
    found = answer["explanation"]
    x = torch.from_numpy(INPUT.prepare(pixels()).pixels)[None]
    plus, minus = generators()(x)
    np.testing.assert_allclose(found["map"], (plus - minus)[0, 0], rtol=1e-3, atol=1e-4)
    for name, drawn in (("plus", plus), ("minus", minus)):
        np.testing.assert_allclose(found["pictures"][name], 1400 * drawn[0, 0] - 1000, rtol=1e-3, atol=0.2)
    np.testing.assert_allclose(found["pictures"]["plus_change"], 1400 * (plus - x)[0, 0], rtol=1e-3, atol=0.2)
    network = make_network(0, 2)
    for name, each in (("image", x), ("plus", plus), ("minus", minus)):
        expected = network(each).softmax(1)[0, 1].item()
        assert found["numbers"][f"score_{name}"] == pytest.approx(expected, abs=1e-4)
    for target in CLASSES:
        other = client.explain(to_npy(pixels()), method="cycle_activation", target=target)
        np.testing.assert_allclose(other["explanation"]["map"], found["map"], atol=1e-5)
    files = family_of(answer["task"]).files(answer, read(to_npy(pixels())))
    assert {"map.png", "overlay.png", "plus.png", "minus.npy", "strip.png", "strip.apng"} <= set(files)


@pytest.mark.slow
def test_pictures_and_strip_are_served(service):
    """PNG of a picture; a strip as PNG with nine frames, and moving on request."""
    picture = ask(service, "method=cycle_activation&output=plus", "image/png")
    assert (picture.status, picture.content_type) == (200, "image/png")
    still = ask(service, "method=cycle_activation&output=strip", "image/png")
    assert (still.status, still.content_type) == (200, "image/png")
    with Image.open(io.BytesIO(still.body)) as page:
        side = 16 * (192 // 24)
        assert page.width == 6 + 9 * (side + 6)
    moving = ask(service, "method=cycle_activation&output=strip&n_between=1", "image/apng")
    assert (moving.status, moving.content_type) == (200, "image/apng")
    with Image.open(io.BytesIO(moving.body)) as page:
        assert getattr(page, "n_frames", 1) == 8
    usual = ask(service, "method=cycle_activation&output=strip", "*/*")
    assert usual.content_type == "image/png"


@pytest.mark.slow
def test_requests_that_cannot_be_served_are_named(service):
    """A strip of a method without one, JSON of a strip, a wrong number."""
    for query, accept, status, words in (
        ("method=saliency&output=strip", "image/png", 400, "output must be one of map, overlay, disagreement, got"),
        ("method=cycle_activation&output=strip", "application/json", 406, "image/png, image/apng"),
        ("method=cycle_activation&n_between=21", "application/json", 400, "n_between must be"),
    ):
        answer = ask(service, query, accept)
        assert answer.status == status
        assert words in answer.body.decode()


@pytest.mark.slow
def test_a_constant_patch_has_no_map(service):
    """A constant or saturated one: a page with the reason, animated or not, and JSON without a map."""
    for value in (-1000, 3071):
        body = to_npy(np.full(SHAPE, value, np.float32))
        answer = ask(service, "method=cycle_activation", "application/json", body)
        found = json.loads(answer.body)
        assert found["explanation"] is None
        assert not found["assessable"]
        for accept in ("image/png", "image/apng"):
            page = ask(service, "method=cycle_activation&output=strip", accept, body)
            assert page.status == 200
            assert page.body.startswith(b"\x89PNG")


@pytest.mark.slow
def test_generators_of_another_classifier_are_refused(tmp_path):
    """By the hash of the weights; so are those for other images, and folders without a run."""
    run = write_run(tmp_path / "run", [make_network(1, 2)])
    with pytest.raises(
        InvalidParameter, match=r"the generators must have been trained for this classifier, whose .* hash"
    ):
        bundled(tmp_path / "other", [make_network(0, 2)], run)
    narrow = write_run(tmp_path / "narrow", [make_network(0, 2)], model_input=ModelInput((32, 32)).to_json())
    with pytest.raises(InvalidParameter, match="the generators must take the images that the classifier takes: shape"):
        bundled(tmp_path / "third", [make_network(0, 2)], narrow)
    with pytest.raises(TrainingError, match="a finished run of radlens companion generators"):
        bundled(tmp_path / "fourth", [make_network(0, 2)], tmp_path)


@pytest.mark.slow
def test_without_generators_the_method_is_refused(tmp_path):
    """The reason names the companion, and the bundle still says which weights it has."""
    alone = bundled(tmp_path / "alone", [make_network(0, 2)], None)
    assert "generators" in alone.manifest.refused["cycle_activation"]
    assert alone.manifest.network_hash == network_hash([make_network(0, 2)])
    answer = ask(open_service(alone, engine="torch"), "method=cycle_activation", "application/json")
    assert answer.status == 422 or answer.status == 400
    assert "it needs a companion network, generators" in answer.body.decode()


@pytest.mark.slow
def test_a_bundle_gives_logits_with_a_gradient(bundle):
    """The graphs compute what autograd does, for any weights of the logits."""
    opened = of_bundle(bundle, "torch")
    assert opened.network_hash == network_hash([make_network(0, 2)])
    x = torch.rand(3, 1, *SHAPE, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    for images, logits in ((x, opened.classify(x)), (twin, make_network(0, 2)(twin))):
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
        assert images.grad is not None
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_bundle_without_gradient_or_hash_is_refused(bundle):
    """Older bundles do not state the hash of their weights."""
    old = type(bundle)(bundle.path, replace(bundle.manifest, network_hash=""), bundle.bundle_hash, {})
    with pytest.raises(UnsupportedMethod, match="does not state the hash of its weights; make the bundle again"):
        of_bundle(old)
    flat = type(bundle)(bundle.path, replace(bundle.manifest, graphs=("prediction",)), bundle.bundle_hash, {})
    with pytest.raises(UnsupportedMethod, match="learn from the gradient of a classifier, nodules has none"):
        of_bundle(flat)
