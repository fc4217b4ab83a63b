"""A method that needs another network than the classifier, from the export to the files of its answer."""

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from small_classifier import SHAPE, make_network
from torch import nn

from radlens import explainers
from radlens.client import Client
from radlens.datasets import ModelInput
from radlens.explainers import Ask, Attribution, EagerClassifier, Explainer
from radlens.explainers.base import _REGISTRY
from radlens.families import family_of, load
from radlens.families.classifier.making import bundle_classifier
from radlens.graphs import asks, forward_graph
from radlens.images import read, to_npy
from radlens.local import LocalTransport

CLASSES = ("normal", "benign", "malignant")


class Twin(nn.Module):
    """The companion: a brighter and blurred copy of the image."""

    def __init__(self):
        super().__init__()
        self.blur = nn.AvgPool2d(3, 1, 1)

    def forward(self, images):
        """Keep the shape."""
        return 1.5 * self.blur(images)


@dataclass(frozen=True)
class TwinDifference(Explainer):
    """Difference of an image and its twin."""

    title: ClassVar[str] = "Twin difference"
    meaning: ClassVar[str] = "what the twin lacks"
    needs: ClassVar[tuple[str, ...]] = ("twin",)

    def work(self, image, target):
        """Show the twin beside the map."""
        (twins,) = yield Ask("twin", {"images": image[None]}, target)
        return Attribution(image - twins[0], pictures={"twin": twins[0]})


@pytest.fixture
def method(monkeypatch):
    """The question and the method, known during one test."""
    monkeypatch.setattr(asks, "_REGISTRY", dict(asks._REGISTRY))
    monkeypatch.setattr("radlens.explainers.base._REGISTRY", dict(_REGISTRY))
    asks.register(
        asks.AskSpec(
            "twin",
            ("images",),
            ("twin",),
            compile=lambda graphs: forward_graph(graphs.companions["twin"], (graphs.examples("twin")[0],)).named(
                ["images"], ["twin"]
            ),
            eager=lambda graphs, images: (graphs.companions["twin"](images),),
            answers=("twin",),
            companions=("twin",),
        )
    )
    return explainers.register("twin_difference")(TwinDifference)


@pytest.mark.slow
def test_a_companion_travels_with_its_classifier(method, tmp_path):
    """Graph, golden values, allowed method, map and picture; without the companion the method is refused."""
    given = {"name": "lesions", "version": "1.0", "classes": CLASSES, "model_input": ModelInput(SHAPE)}
    bundle_classifier([make_network(0)], tmp_path / "whole", companions={"twin": Twin()}, randomise=False, **given)
    bundle = load(tmp_path / "whole")
    assert "twin_difference" in bundle.manifest.explainers
    assert {"member-0.twin.onnx", "member-0.twin.golden.npz"} <= set(bundle.manifest.files)
    pixels = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    with Client("http://local", model="lesions", transport=LocalTransport(bundle)) as client:
        answer = client.explain(to_npy(pixels), method="twin_difference")
    found = answer["explanation"]
    seen = torch.from_numpy(ModelInput(SHAPE).prepare(pixels).pixels)
    expected = Twin()(seen)
    np.testing.assert_allclose(found["pictures"]["twin"], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["map"], (seen - expected)[0], rtol=1e-5, atol=1e-6)
    files = family_of(answer["task"]).files(answer, read(to_npy(pixels)))
    np.testing.assert_array_equal(np.load(io.BytesIO(files["twin.npy"])), found["pictures"]["twin"])
    assert files["twin.png"].startswith(b"\x89PNG")
    assert b'"pictures"' not in files["explanation.json"]

    bundle_classifier([make_network(0)], tmp_path / "alone", randomise=False, **given)
    alone = load(tmp_path / "alone").manifest
    assert alone.refused["twin_difference"] == "it needs a companion network, twin, which the bundle does not have"
    eager = EagerClassifier(make_network(0), (1, *SHAPE), companions={"twin": Twin()})
    torch.testing.assert_close(method().attribute(eager, seen[None], 0), (seen - expected)[None])
