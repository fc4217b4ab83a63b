"""Counterfactual impact analysis as it is served: streams, pictures, organ masks, several requests at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_once import made
from small_classifier import CLASSES, make_network

from radlens.client import Client
from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, UnsupportedMethod
from radlens.families import open_service
from radlens.families.classifier.manifest import ClassifierBundle, ClassifierManifest, graph_file, save_classifier
from radlens.graphs import classifier_graphs
from radlens.images import to_npy, to_png
from radlens.local import LocalTransport
from radlens.networks import PartialConvInpainter
from radlens.service import request_from_http

pytestmark = pytest.mark.slow
"""The graphs of a whole step take half a minute to write."""

SHAPE = (48, 32)
ORIGIN = {"name": "inpainter", "version": "1.0", "bundle_hash": "0" * 64}


@pytest.fixture(scope="module")
def bundle():
    """A classifier with the graphs of the method, from a network and an inpainter with random weights."""

    def make(folder: Path) -> None:
        torch.manual_seed(1)
        inpainter = PartialConvInpainter(1, 2).eval()
        graphs = classifier_graphs(
            make_network(0), torch.zeros(2, 1, *SHAPE), n_outputs=3, companions={"inpainter": inpainter}
        )
        for name in ("prediction", "inpaint", "impact", "odds", "counterfactual"):
            graphs.to_onnx(name, folder / graph_file(0, name))
        fields = {
            "name": "lesions",
            "version": "1.0",
            "classes": CLASSES[3],
            "n_outputs": 3,
            "input": ModelInput(SHAPE, framing="breast"),
            "n_members": 1,
            "graphs": ("prediction", "inpaint", "impact", "odds", "counterfactual"),
            "explainers": ("counterfactual", "occlusion"),
            "refused": {},
            "form": "eager",
            "companions": {"inpainter": ORIGIN},
        }
        save_classifier(folder, ClassifierManifest(**fields))

    return ClassifierBundle.load(made("counterfactual-bundle", make))


@pytest.fixture(scope="module")
def client(bundle):
    """Asks a service in this process."""
    with Client("http://local", model="lesions", transport=LocalTransport(bundle)) as found:
        yield found


def pixels(seed=0):
    """Return a breast of noisy tissue at the left of a larger image."""
    image = np.zeros((100, 80), np.float32)
    image[20:90, :60] = 500 + np.random.default_rng(seed).normal(0, 30, (70, 60))
    return image


def test_the_bundle_says_which_inpainter_it_has(bundle):
    """Name, version and hash."""
    assert bundle.manifest.companions == {"inpainter": ORIGIN}


@pytest.mark.parametrize("setting", ["recommended", "gradient"])
def test_steps_stream_and_pictures_are_on_the_grid_of_the_image(client, setting):
    """Progress, then the answer: map, mask, inpainted image and change; what the mask leaves out stays to the bit."""
    told, image = [], pixels()
    answer = client.explain(
        to_npy(image), method="counterfactual", setting=setting, n_steps=8, target=1, on_progress=told.append
    )
    assert told
    assert told[0].total == (8 if setting == "gradient" else 300)
    found = answer["explanation"]
    mask = found["pictures"]["mask"]
    assert {*np.unique(mask)} <= {0.0, 1.0}
    assert all(picture.shape == image.shape for picture in (found["map"], *found["pictures"].values()))
    np.testing.assert_array_equal(found["pictures"]["inpainted"][mask == 0], image[mask == 0])
    np.testing.assert_allclose(found["pictures"]["inpainted"] - image, found["pictures"]["change"], atol=1e-2)
    numbers = found["numbers"]
    assert 0 <= numbers["probability_after"] <= 1
    assert numbers["area_of_organ"] == pytest.approx(mask.sum() / (70 * 60), abs=0.03)
    assert numbers["sentence"]
    assert answer["provenance"]["explainer"]["parameters"]["setting"] == setting


def test_a_mask_limits_the_method(client):
    """Nothing outside the organ changes; the provenance has the hash of the mask."""
    organ = np.zeros((100, 80), np.float32)
    organ[40:70, 10:50] = 1
    answer = client.explain(
        to_npy(pixels()), method="counterfactual", setting="gradient", n_steps=3, mask=to_npy(organ)
    )
    far = np.ones_like(organ, bool)
    far[36:74, 6:54] = False
    assert not answer["explanation"]["pictures"]["mask"][far].any()
    assert len(answer["provenance"]["mask_sha256"]) == 64
    with pytest.raises(InvalidInput, match="mask must have the size of the image, 100x80 pixels, got 50x80"):
        client.explain(to_npy(pixels()), method="counterfactual", mask=to_npy(organ[:50]))
    with pytest.raises(InvalidInput, match="at least one pixel of the organ, got none"):
        client.explain(to_npy(pixels()), method="counterfactual", mask=to_npy(np.zeros_like(organ)))
    with pytest.raises(InvalidInput, match="got a mask as well"):
        client.explain(to_npy(pixels()), method="occlusion", mask=to_npy(organ))
    with pytest.raises(InvalidInput, match="got a mask as well"):
        client.predict(to_npy(pixels()), mask=to_npy(organ))


@pytest.mark.parametrize("output", ["inpainted", "mask", "change", "overlay", "map"])
@pytest.mark.parametrize("media_type", ["image/png", "application/dicom"])
def test_every_picture_comes_as_png_and_dicom(client, output, media_type):
    """By ``output``."""
    how = {"method": "counterfactual", "setting": "gradient", "n_steps": 2, "output": output}
    content = client.fetch("explain", to_npy(pixels()), media_type, **how).content
    assert content[1:4] == b"PNG" if media_type == "image/png" else content[128:132] == b"DICM"


def test_requests_of_a_batch_get_what_they_get_alone(bundle):
    """Streams share calls of the network; a bad row has its error in its own stream."""
    service = open_service(bundle, engine="torch")
    headers = {"content-type": "application/octet-stream", "accept": "application/json"}
    asked = {"method": "counterfactual", "setting": "gradient", "n_steps": "3", "target": "0"}
    bodies = [to_npy(pixels(seed)) for seed in range(2)] + [to_png(np.zeros((9, 9), np.uint8))]

    def last(response):
        if response.stream is None:
            return json.loads(response.body)
        lines: list[bytes] = []
        response.stream(lines.append)
        return json.loads(lines[-1])

    together = [
        last(each) for each in service.respond([request_from_http("explain", b, headers, asked, "id") for b in bodies])
    ]
    for body, found in zip(bodies[:2], together, strict=False):
        (alone,) = service.respond([request_from_http("explain", body, headers, asked, "id")])
        assert last(alone)["explanation"]["map"] == found["explanation"]["map"]
    assert together[2].get("explanation") is None


def test_a_model_without_an_inpainter_says_so(bundle, tmp_path):
    """The reason names the companion."""
    from small_classifier import make_classifier

    reason = "it needs a companion network, inpainter, which the bundle does not have"
    alone = make_classifier(tmp_path / "alone", refused={"counterfactual": reason})
    with (
        Client("http://local", model="lesions", transport=LocalTransport(alone)) as client,
        pytest.raises(UnsupportedMethod, match="needs a companion network, inpainter"),
    ):
        client.explain(to_npy(pixels()), method="counterfactual")


def test_readers_who_leave_end_the_work_that_nobody_else_needs(bundle, monkeypatch):
    """Alone, the computation stops; in a batch the other rows get their answers."""
    monkeypatch.setattr("radlens.families.classifier.streaming.PROGRESS_S", 0.0)
    service = open_service(bundle, engine="torch")
    headers = {"content-type": "application/octet-stream", "accept": "application/json"}
    asked = {"method": "counterfactual", "setting": "gradient", "n_steps": "6"}
    requests = [request_from_http("explain", to_npy(pixels(seed)), headers, asked, "id") for seed in range(2)]

    class Left(Exception):
        """The reader has gone."""

    seen = []

    def leave(line):
        seen.append(line)
        raise Left

    (alone,) = service.respond(requests[:1])
    assert alone.stream is not None
    with pytest.raises(Left):
        alone.stream(leave)
    assert len(seen) == 1

    first, second = service.respond(requests)
    assert first.stream is not None
    assert second.stream is not None
    with pytest.raises(Left):
        first.stream(leave)
    lines: list[bytes] = []
    second.stream(lines.append)
    assert json.loads(lines[-1])["complete"]
    assert len(seen) == 2


def test_answers_of_other_methods_have_no_numbers(client):
    """Only a method that gives some."""
    answer = client.explain(to_npy(pixels()), method="occlusion", window=16, stride=16)
    assert "numbers" not in answer["explanation"]
    assert "pictures" not in answer["explanation"]
